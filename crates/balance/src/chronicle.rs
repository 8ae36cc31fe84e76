//! When members turned well or not: the latest changes of each, as this node saw them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use registry::{HealthChange, MemberHealth, MemberId, Registry, Snapshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::board::Board;

/// What happens meanwhile is looked at together: whoever turns and turns back within it has not turned.
const GATHERING: Duration = Duration::from_secs(1);

/// Keeps the board's history of members' health as the registry tells it, until `stop`.
pub async fn keep_history(registry: Registry, board: Arc<Board>, stop: CancellationToken) {
    let mut live = registry.live_changes();
    let mut events = registry.watch(registry.snapshot().revision());
    let work = async {
        loop {
            live.borrow_and_update();
            board.note_health(&registry.snapshot(), Timestamp::now());
            tokio::select! {
                changed = live.changed() => if changed.is_err() { return },
                event = events.next() => if event.is_none() { return },
            }
            sleep(GATHERING).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// The latest changes of each member. Pure.
#[derive(Debug, Default)]
pub(crate) struct Chronicle {
    /// The latest change of each last.
    members: HashMap<MemberId, VecDeque<HealthChange>>,
}

impl Chronicle {
    /// Of one member; older ones go.
    const KEPT: usize = 16;
    /// Members with a history; those of later pools have none.
    const MOST: usize = 10_000;

    /// Takes in what is known of all members, and forgets those that are gone.
    pub(crate) fn note(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let known = snapshot.pools().filter_map(|pool| snapshot.health(pool.id));
        let members: Vec<MemberHealth> = known.flat_map(|health| health.members).take(Self::MOST).collect();
        let there: HashSet<MemberId> = members.iter().map(|member| member.id).collect();
        self.members.retain(|id, _| there.contains(id));
        for member in members.iter().filter(|member| member.link.is_some() || member.probe.is_some()) {
            self.note_member(member, now);
        }
    }

    fn note_member(&mut self, member: &MemberHealth, now: Timestamp) {
        let changes = self.members.entry(member.id).or_default();
        let before = changes.back();
        if before.is_some_and(|before| before.is_well == member.is_well()) {
            return;
        }
        // A clock of another node may say that it was before the last change.
        let at = member.since().unwrap_or(now).max(before.map_or(Timestamp::MIN, |before| before.at));
        if changes.len() == Self::KEPT {
            changes.pop_front();
        }
        changes.push_back(HealthChange { at, is_well: member.is_well(), reason: member.reason().map(Into::into) });
    }

    /// Those of a member, the latest first.
    pub(crate) fn changes(&self, id: MemberId) -> Vec<HealthChange> {
        self.members.get(&id).into_iter().flat_map(|changes| changes.iter().rev()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use registry::{Link, Probe};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn member(is_up: bool, since: i64) -> MemberHealth {
        let reason = (!is_up).then(|| "HTTP 500".into());
        let probe = Probe { is_up, since: at(since), reason, code: None, time: None, voices: (1, 1) };
        MemberHealth { id: "0123456789abcdef".parse().unwrap(), link: None, probe: Some(probe), unasked: None }
    }

    #[test]
    fn only_changes_are_kept_and_only_the_latest() {
        let mut chronicle = Chronicle::default();
        for second in 0..100 {
            // Ten seconds well, ten seconds not; looked at each second.
            chronicle.note_member(&member(second / 10 % 2 == 0, second / 10 * 10), at(second));
        }
        let changes = chronicle.changes(member(true, 0).id);
        let told: Vec<_> = changes.iter().map(|change| (change.at.as_second(), change.is_well)).collect();
        assert_eq!(told[..3], [(90, false), (80, true), (70, false)]);
        assert_eq!(
            (told.len(), changes[0].reason.as_deref(), changes[1].reason.as_deref()),
            (10, Some("HTTP 500"), None)
        );
        for second in 100..1000 {
            chronicle.note_member(&member(second % 2 == 0, second), at(second));
        }
        assert_eq!(chronicle.changes(changes_of()).len(), Chronicle::KEPT);
    }

    fn changes_of() -> MemberId {
        member(true, 0).id
    }

    #[test]
    fn time_does_not_run_backwards_and_a_tunnel_without_connection_is_a_reason() {
        let mut chronicle = Chronicle::default();
        chronicle.note_member(&member(true, 50), at(50));
        chronicle.note_member(&member(false, 40), at(51));
        let down = Some(Link { is_up: false, since: None });
        chronicle.note_member(&MemberHealth { link: down, ..member(true, 60) }, at(61));
        chronicle.note_member(
            &MemberHealth { link: Some(Link { is_up: true, since: Some(at(70)) }), ..member(true, 60) },
            at(71),
        );
        chronicle.note_member(&MemberHealth { link: down, ..member(true, 60) }, at(80));
        let told = chronicle.changes(changes_of());
        let told: Vec<_> = told.iter().map(|change| (change.at.as_second(), change.reason.as_deref())).collect();
        assert_eq!(told, [(80, Some("the tunnel has no connection")), (70, None), (50, Some("HTTP 500")), (50, None)]);
    }
}
