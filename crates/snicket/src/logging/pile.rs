use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long lines wait for others, so that a busy edge does not pay a system call for each. Nobody reads faster.
const PAUSE: Duration = Duration::from_millis(20);

/// So often in vain the thread looks for lines before it has to be woken for them: waking it takes time from the request that
/// has something to say.
const LOOKS: usize = 10;

/// Bytes that wait for whoever reads too slowly; what comes beyond is lost, and counted, so that it holds up no request.
const ROOM: usize = 1 << 20;

/// Lines on their way out, written by a thread of their own.
#[derive(Clone)]
pub(super) struct Pile(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    /// Locked before `state` where both are.
    out: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    lost: u64,
    /// The thread has to be woken.
    sleeps: bool,
}

static PILE: OnceLock<Pile> = OnceLock::new();

/// Writes what still waits, before the process ends.
pub(crate) fn flush() {
    if let Some(pile) = PILE.get() {
        pile.0.write_out();
    }
}

impl Pile {
    /// The process's; it has one, and a second keeps the first's way out.
    pub(super) fn start(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let pile = Self::new(out);
        let shared = Arc::clone(&pile.0);
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.run())?;
        Ok(PILE.get_or_init(|| pile).clone())
    }

    fn new(out: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), filled: Condvar::new(), out: Mutex::new(out) }))
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut left = LOOKS;
            while left > 0 {
                thread::sleep(PAUSE);
                left = if lock(&self.state).lines.is_empty() { left - 1 } else { LOOKS };
                let lost = self.write_out();
                if lost > 0 {
                    tracing::warn!(lines = lost, "diagnostics were lost: they are read too slowly");
                }
            }
            let empty = |state: &mut State| {
                state.sleeps = state.lines.is_empty();
                state.sleeps
            };
            drop(self.filled.wait_while(lock(&self.state), empty).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Answers how many lines were lost since the last time.
    fn write_out(&self) -> u64 {
        let mut out = lock(&self.out);
        let mut state = lock(&self.state);
        let (lines, lost) = (mem::take(&mut state.lines), mem::take(&mut state.lost));
        drop(state);
        // There is nowhere else to say that it failed.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
        lost
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Write for Pile {
    /// Takes a line, or loses all of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.0.state);
        if state.lines.len() + line.len() > ROOM {
            state.lost += 1;
        } else {
            if state.sleeps {
                self.0.filled.notify_one();
            }
            state.lines.extend_from_slice(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Pile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_leave_together_and_in_order() {
        let sink = Sink::default();
        let mut pile = Pile::new(Box::new(sink.clone()));
        pile.write_all(b"one\n").unwrap();
        pile.clone().write_all(b"two\n").unwrap();
        assert!(lock(&sink.0).is_empty());
        assert_eq!(pile.0.write_out(), 0);
        assert_eq!(*lock(&sink.0), b"one\ntwo\n");
    }

    #[test]
    fn what_nobody_reads_is_lost_and_counted() {
        let sink = Sink::default();
        let mut pile = Pile::new(Box::new(sink.clone()));
        let line = vec![b'x'; ROOM / 4];
        for _ in 0..6 {
            pile.write_all(&line).unwrap();
        }
        assert_eq!(pile.0.write_out(), 2);
        assert_eq!(lock(&sink.0).len(), ROOM);
        assert_eq!(pile.0.write_out(), 0);
    }
}
