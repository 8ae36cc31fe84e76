//! Changing the key of a zone without a moment in which somebody cannot check its answers: the next key is told to everybody
//! before anything is signed with it alone, and the one before stays known as long as its signatures may be kept. Pure but for
//! what writes it.
//!
//! ```text
//!  Steady ──▶ Published ──10 min──▶ Announced ──25 h──▶ Changed ──25 h──▶ Steady
//!             both keys are         delegations are     the new key       the old one
//!             in the zone           to name the new     signs             is gone
//! ```
//!
//! Whoever gives a change up that delegations may know of goes back by `Recalled`: both keys stay in the zone until no delegation that
//! names the next one is kept any more.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::ZoneKey;
use crate::resource::Resource as _;
use crate::{Registry, ZoneError, ZoneId};

/// Until everybody has heard of a key: longer than the set of keys is kept, 300 s.
const HEARD: SignedDuration = SignedDuration::from_mins(10);
/// Until nobody has an old delegation, or answers with old signatures, any more: both are kept for up to a day.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(25);

/// How far a change of a zone's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStep {
    /// There is one key.
    #[default]
    Steady,
    /// The next one is in the zone, beside it.
    Published,
    /// The delegation is to name the next one now.
    Announced,
    /// The delegation is to name the present one again, and the next one is still in the zone.
    Recalled,
    /// The next one has taken its place, and the one before is still in the zone.
    Changed,
}

/// A second key of a zone, and how far its change is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// How far it is.
    pub step: KeyStep,
    /// Since when.
    pub since: Timestamp,
    /// The next key, or the one before.
    other: Box<ZoneKey>,
}

impl KeyChange {
    /// When the next step may be done.
    pub fn due(&self) -> Timestamp {
        match self.step {
            KeyStep::Published => self.after(HEARD),
            // Everybody has heard of the next key long ago.
            KeyStep::Recalled => self.since,
            KeyStep::Steady | KeyStep::Announced | KeyStep::Changed => self.after(FORGOTTEN),
        }
    }

    fn after(&self, wait: SignedDuration) -> Timestamp {
        self.since.saturating_add(wait).unwrap_or(Timestamp::MAX)
    }
}

impl ZoneKey {
    /// How far its change is.
    pub fn step(&self) -> KeyStep {
        self.change.as_ref().map_or(KeyStep::Steady, |change| change.step)
    }

    /// All keys that are in the zone, the one that signs first.
    pub fn published(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.change.as_ref().map(|change| &*change.other))
    }

    /// The one that delegations are to name.
    pub fn announced(&self) -> &Self {
        match &self.change {
            Some(change) if change.step == KeyStep::Announced => &change.other,
            Some(_) | None => self,
        }
    }

    /// The same one step further.
    fn advanced(&self, now: Timestamp) -> Self {
        let change = |step, other| Some(KeyChange { step, since: now, other: Box::new(other) });
        match &self.change {
            None => Self { change: change(KeyStep::Published, Self::generate(self.zone, now)), ..self.clone() },
            Some(KeyChange { step: KeyStep::Published | KeyStep::Recalled, other, .. }) => {
                Self { change: change(KeyStep::Announced, (**other).clone()), ..self.clone() }
            }
            Some(KeyChange { step: KeyStep::Announced, other, .. }) => {
                let former = Self { change: None, ..self.clone() };
                Self { change: change(KeyStep::Changed, former), ..(**other).clone() }
            }
            Some(_) => Self { change: None, ..self.clone() },
        }
    }
}

impl Registry {
    /// Does the next step of changing a zone's key; with `force` before its time, for those who would rather have some answers
    /// fail for a while than use a key any longer.
    ///
    /// # Errors
    /// No such zone, it is not signed, it is too early, or the engine fails.
    pub async fn advance_zone_key(&self, now: Timestamp, id: ZoneId, force: bool) -> Result<(), ZoneError> {
        self.write_key(now, id, |key| {
            match key.change.as_ref().map(KeyChange::due).filter(|due| now < *due && !force) {
                Some(until) => Err(ZoneError::TooEarly(until)),
                None => Ok(key.advanced(now)),
            }
        })
        .await
    }

    /// Gives a change of a zone's key up, as long as the next one has not taken its place. One that delegations may name already stays in
    /// the zone until this is done once more, a day later.
    ///
    /// # Errors
    /// No such zone, it is not signed, there is nothing to give up, it is too early, or the engine fails.
    pub async fn keep_zone_key(&self, now: Timestamp, id: ZoneId) -> Result<(), ZoneError> {
        self.write_key(now, id, |key| {
            let Some(change) = &key.change else { return Err(ZoneError::NothingToKeep) };
            match change.step {
                KeyStep::Published => Ok(ZoneKey { change: None, ..key.clone() }),
                KeyStep::Announced => {
                    let recalled = KeyChange { step: KeyStep::Recalled, since: now, other: change.other.clone() };
                    Ok(ZoneKey { change: Some(recalled), ..key.clone() })
                }
                KeyStep::Recalled if now < change.after(FORGOTTEN) => Err(ZoneError::TooEarly(change.after(FORGOTTEN))),
                KeyStep::Recalled => Ok(ZoneKey { change: None, ..key.clone() }),
                KeyStep::Steady | KeyStep::Changed => Err(ZoneError::NothingToKeep),
            }
        })
        .await
    }

    async fn write_key(
        &self,
        now: Timestamp,
        id: ZoneId,
        change: impl Fn(&ZoneKey) -> Result<ZoneKey, ZoneError> + Send + Sync,
    ) -> Result<(), ZoneError> {
        self.in_zone(id, |snapshot, transaction| {
            let zone = snapshot.zone(id).ok_or(ZoneError::NotFound(id))?;
            let key = snapshot.zone_key(id).filter(|_| zone.traits.signed);
            let key = key.ok_or_else(|| ZoneError::Unsigned(zone.name.clone()))?;
            let new = change(key)?;
            let mut changed = zone.value.clone();
            changed.modified_at = Some(now);
            // Who follows zones hears of it.
            transaction.expect(zone).put(&changed).expect(key).put(&new);
            debug_assert_eq!(new.key(), key.key(), "it is the same zone's");
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_goes_step_by_step() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let first = ZoneKey::generate(ZoneId::from_bytes([0; 16]), at(0));
        let tags = |key: &ZoneKey| key.published().map(ZoneKey::tag).collect::<Vec<_>>();
        let published = first.advanced(at(1));
        let (old, new) = (first.tag(), tags(&published)[1]);
        assert_eq!(
            (published.step(), tags(&published), published.announced().tag()),
            (KeyStep::Published, vec![old, new], old)
        );
        assert_eq!(published.change.as_ref().map(KeyChange::due), Some(at(11)));
        let announced = published.advanced(at(11));
        assert_eq!(
            (announced.step(), tags(&announced), announced.announced().tag()),
            (KeyStep::Announced, vec![old, new], new)
        );
        assert_eq!(announced.change.as_ref().map(KeyChange::due), Some(at(11 + 25 * 60)));
        let changed = announced.advanced(at(2_000));
        assert_eq!(
            (changed.step(), tags(&changed), changed.announced().tag()),
            (KeyStep::Changed, vec![new, old], new)
        );
        let steady = changed.advanced(at(4_000));
        assert_eq!((steady.step(), tags(&steady)), (KeyStep::Steady, vec![new]));
        assert!(steady.pair().is_ok());
    }
}
