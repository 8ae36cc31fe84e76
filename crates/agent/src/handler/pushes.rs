//! Configurations that the edge pushes, in what order they are applied. Pure: no task, no clock.

use bytes::Bytes;
use tokio::sync::watch;

/// One configuration is applied at a time; the newest waits, and those between are superseded. So at most two are held,
/// however many are pushed at once.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    applying: Option<Turn>,
    waiting: Option<(Turn, Bytes)>,
}

#[derive(Debug)]
struct Turn {
    version: i32,
    outcome: watch::Sender<Option<Outcome>>,
}

/// What became of a pushed configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The version now in force; on refusal with the reason as well.
    Applied(Result<i32, (i32, String)>),
    /// This version came meanwhile.
    Superseded(i32),
}

/// What whoever brings a configuration does next.
#[derive(Debug)]
pub(super) enum Entered {
    /// Applies it and tells [`Pushes::ended`].
    Begins(Bytes, watch::Receiver<Option<Outcome>>),
    /// Waits: somebody else applies it, or has brought the same version before.
    Waits(watch::Receiver<Option<Outcome>>),
    /// Gives up, since this version is newer.
    Superseded(i32),
}

impl Pushes {
    pub(super) fn enter(&mut self, version: i32, config: Bytes) -> Entered {
        let newest = self.waiting.as_ref().map(|(turn, _)| turn).or(self.applying.as_ref());
        match newest {
            Some(newest) if newest.version > version => return Entered::Superseded(newest.version),
            Some(newest) if newest.version == version => return Entered::Waits(newest.outcome.subscribe()),
            Some(_) | None => {}
        }
        let (outcome, told) = watch::channel(None);
        let turn = Turn { version, outcome };
        if self.applying.is_none() {
            self.applying = Some(turn);
            return Entered::Begins(config, told);
        }
        if let Some((older, _)) = self.waiting.replace((turn, config)) {
            older.outcome.send_replace(Some(Outcome::Superseded(version)));
        }
        Entered::Waits(told)
    }

    /// The one that was applied is done; answers which comes next.
    pub(super) fn ended(&mut self, applied: Result<i32, (i32, String)>) -> Option<(i32, Bytes)> {
        if let Some(turn) = self.applying.take() {
            turn.outcome.send_replace(Some(Outcome::Applied(applied)));
        }
        let (turn, config) = self.waiting.take()?;
        let version = turn.version;
        self.applying = Some(turn);
        Some((version, config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(entered: Entered) -> watch::Receiver<Option<Outcome>> {
        match entered {
            Entered::Waits(told) => told,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_waits_and_those_between_are_superseded() {
        let mut pushes = Pushes::default();
        let config = |version: i32| Bytes::from(version.to_string());
        let Entered::Begins(first, applied) = pushes.enter(3, config(3)) else { panic!("nothing is under way") };
        assert_eq!(first, "3");
        let same = waits(pushes.enter(3, config(3)));
        assert!(matches!(pushes.enter(2, config(2)), Entered::Superseded(3)));
        let fourth = waits(pushes.enter(4, config(4)));
        let fourth_again = waits(pushes.enter(4, config(4)));
        let sixth = waits(pushes.enter(6, config(6)));
        assert!(matches!(pushes.enter(5, config(5)), Entered::Superseded(6)));
        for told in [fourth, fourth_again] {
            assert_eq!(*told.borrow(), Some(Outcome::Superseded(6)));
        }
        assert_eq!((applied.borrow().clone(), sixth.borrow().clone()), (None, None));

        assert_eq!(pushes.ended(Ok(3)), Some((6, config(6))));
        for told in [applied, same] {
            assert_eq!(*told.borrow(), Some(Outcome::Applied(Ok(3))));
        }
        let refused = Err((3, "no".to_owned()));
        assert_eq!(pushes.ended(refused.clone()), None);
        assert_eq!(*sixth.borrow(), Some(Outcome::Applied(refused)));
        assert!(matches!(pushes.enter(1, config(1)), Entered::Begins(..)), "nothing is left of those before");
    }
}
