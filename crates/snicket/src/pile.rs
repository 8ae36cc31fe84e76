//! Lines on their way out of the process, which never hold up who has them.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long lines wait for others, so that a busy edge does not pay a system call for each. Nobody reads faster.
const PAUSE: Duration = Duration::from_millis(20);

/// So often in vain the thread looks for lines before it has to be woken for them: waking it takes time from the request that
/// has something to say.
const LOOKS: usize = 10;

/// Bytes that wait for whoever reads too slowly; what comes beyond is lost, and counted, so that it holds up no request.
const ROOM: usize = 1 << 20;

/// How long a process that ends waits for whoever reads too slowly.
const LAST: Duration = Duration::from_secs(1);

/// Lines on their way out, written by a thread of their own.
#[derive(Clone)]
pub(crate) struct Pile(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is something to do for the thread, if it waits for that.
    filled: Condvar,
    /// Told when there is nothing left to write.
    empty: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    lost: u64,
    /// The thread has to be woken.
    sleeps: bool,
    /// The thread has lines that are not out yet.
    writes: bool,
    /// Somebody waits for all of it to be out.
    hurry: bool,
}

impl Pile {
    /// Writes lines to `out` by a thread of this name. `tell` is told how many were lost, and may put a line about it.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(crate) fn start(
        name: &str,
        out: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let pile = Self(Arc::default());
        let shared = Arc::clone(&pile.0);
        thread::Builder::new().name(name.to_owned()).spawn(move || shared.run(out, tell))?;
        Ok(pile)
    }

    /// Takes a line, or loses all of it.
    pub(crate) fn put(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.lines.len() + line.len() > ROOM {
            state.lost += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        if state.sleeps {
            self.0.filled.notify_one();
        }
    }

    /// Waits until everything is out, but not for a reader that has stopped reading.
    pub(crate) fn flush(&self) {
        let mut state = self.0.lock();
        state.hurry = true;
        self.0.filled.notify_one();
        let unwritten = |state: &mut State| state.writes || !state.lines.is_empty();
        drop(self.0.empty.wait_timeout_while(state, LAST, unwritten).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn run(&self, mut out: impl Write, tell: impl Fn(u64)) {
        let mut looks = LOOKS;
        loop {
            let lines = self.gather(&mut looks);
            // There is nowhere else to say that it failed.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            let lost = self.wrote();
            if lost > 0 {
                tell(lost);
            }
        }
    }

    /// The next lines, together with those that follow soon.
    fn gather(&self, looks: &mut usize) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            let waiting = self.filled.wait_timeout_while(state, PAUSE, |state| !state.hurry);
            state = waiting.unwrap_or_else(PoisonError::into_inner).0;
            if !state.lines.is_empty() {
                *looks = LOOKS;
                state.writes = true;
                return mem::take(&mut state.lines);
            }
            state.hurry = false;
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                state.sleeps = true;
                let nothing = |state: &mut State| state.lines.is_empty();
                state = self.filled.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
                state.sleeps = false;
                *looks = LOOKS;
            }
        }
    }

    /// Answers how many lines were lost since the last time.
    fn wrote(&self) -> u64 {
        let mut state = self.lock();
        state.writes = false;
        if state.lines.is_empty() {
            self.empty.notify_all();
        }
        mem::take(&mut state.lost)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is in there is whole after each line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    use super::*;

    /// A reader who takes what is written when the test lets it.
    struct Reader {
        taken: Sender<Vec<u8>>,
        turns: Receiver<()>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.taken.send(bytes.to_vec());
            // The end of the test is as good as a turn.
            let _ = self.turns.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Rig {
        pile: Pile,
        taken: Receiver<Vec<u8>>,
        turns: Sender<()>,
        lost: Receiver<u64>,
    }

    fn rig() -> Rig {
        let (taken_by, taken) = channel();
        let (turns, turns_of) = channel();
        let (tell, lost) = channel();
        let told = move |count| {
            let _ = tell.send(count);
        };
        let pile = Pile::start("test", Reader { taken: taken_by, turns: turns_of }, told).unwrap();
        Rig { pile, taken, turns, lost }
    }

    #[test]
    fn lines_leave_together_and_in_order() {
        let Rig { pile, taken, turns, lost: _lost } = rig();
        for line in ["one\n", "two\n", "three\n"] {
            pile.clone().put(line.as_bytes());
        }
        turns.send(()).unwrap();
        pile.flush();
        let first = taken.try_recv().expect("it is out when the flush has come back");
        assert_eq!(first, b"one\ntwo\nthree\n");
    }

    #[test]
    fn what_nobody_reads_is_lost_and_counted() {
        let Rig { pile, taken, turns, lost } = rig();
        pile.put(b"first\n");
        assert_eq!(taken.recv().unwrap(), b"first\n");
        // The reader has stopped now.
        let line = vec![b'x'; ROOM / 4];
        for _ in 0..6 {
            pile.put(&line);
        }
        turns.send(()).unwrap();
        assert_eq!(lost.recv().unwrap(), 2);
        assert_eq!(taken.recv().unwrap().len(), ROOM);
    }

    #[test]
    fn who_ends_does_not_wait_for_a_reader_that_has_stopped() {
        let Rig { pile, taken, turns: _turns, lost: _lost } = rig();
        pile.put(b"first\n");
        taken.recv().unwrap();
        let began = Instant::now();
        pile.flush();
        assert!(began.elapsed() >= LAST, "it may still read");
        assert!(began.elapsed() < 10 * LAST);
    }

    #[test]
    fn a_thread_that_sleeps_is_woken() {
        let Rig { pile, taken, turns, lost: _lost } = rig();
        while !pile.0.lock().sleeps {
            thread::yield_now();
        }
        pile.put(b"late\n");
        turns.send(()).unwrap();
        assert_eq!(taken.recv().unwrap(), b"late\n");
        pile.flush();
    }
}
