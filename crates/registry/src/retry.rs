use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(4);

/// Pauses between attempts, which grow, and differ from node to node, so that nodes that lost the same thing do not come
/// back in step.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
}

impl Retry {
    /// Whether nothing has failed since something succeeded.
    pub(crate) fn is_first(&self) -> bool {
        self.failures == 0
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now.
    pub(crate) fn failed(&mut self) -> Duration {
        let pause = (FIRST * 2_u32.pow(self.failures.min(10))).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        jitter(pause)
    }
}

/// Half of it to half more.
pub(crate) fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}
