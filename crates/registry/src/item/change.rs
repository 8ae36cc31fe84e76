//! Making, changing and removing items.

use jiff::Timestamp;
use serde_json::Value;

use super::{Check, Item, ItemError, ItemKind, ItemTurn, MOST_BYTES, Members, form, network, transfer};
use crate::resource::Resource as _;
use crate::{ItemId, Registry, Snapshot, Transaction, ZoneId};

/// Which item is to be written.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// A new one.
    New,
    /// This one.
    One(ItemId),
    /// The one that others find by this name, or else a new one.
    Named(&'a str),
}

impl Registry {
    /// Makes or changes an item of a zone, or of the account. What is as it is to be already is not written; what it is
    /// to be is asked for again when somebody else was faster.
    ///
    /// # Errors
    /// There is no such zone or item, it would not be valid or is too large, another one has what it wants, there are too
    /// many, or the engine fails.
    pub async fn write_item(
        &self,
        now: Timestamp,
        kind: ItemKind,
        zone: Option<ZoneId>,
        which: Which<'_>,
        read: &mut (dyn FnMut(Option<&Item>) -> Result<Members, ItemError> + Send),
    ) -> Result<Item, ItemError> {
        let fresh = ItemId::at(now);
        let decide = |snapshot: &Snapshot, transaction: &mut Transaction| {
            let old = match which {
                Which::New => None,
                Which::One(id) => Some(snapshot.item(kind, zone, id).ok_or_else(|| no_item(kind, id))?),
                Which::Named(name) => snapshot.items_named(kind, name).find(|item| item.zone == zone),
            };
            let present = old.map(|old| &old.value);
            let terms = form::read(kind.rules().members, &read(present)?)?;
            let (id, created_at) = present.map_or((fresh, now), |old| (old.id, old.created_at));
            let mut new = Item { kind, zone, id, terms, created_at, modified_at: now };
            (kind.rules().check)(&mut Check { snapshot, transaction, old: present, new: &mut new })?;
            let most = kind.rules().most;
            match old {
                Some(old) if old.terms == new.terms => {
                    *transaction = Transaction::new();
                    return Ok(old.value.clone());
                }
                Some(old) => transaction.expect(old),
                None if snapshot.item_count(kind, zone) >= most => return Err(ItemError::TooMany(most)),
                None => transaction.expect_absent(&new.key()),
            };
            let bytes = Value::from(new.terms.clone()).to_string().len();
            if bytes > MOST_BYTES {
                return Err(ItemError::TooLarge(bytes));
            }
            if let Some(zone) = zone.filter(|_| old.is_none()) {
                let no_zone = || ItemError::NotFound(format!("zone {zone}"));
                transaction.expect(snapshot.zone(zone).ok_or_else(no_zone)?);
            }
            take_turn(snapshot, transaction, kind);
            transaction.put(&new);
            Ok(new)
        };
        match zone {
            Some(zone) => self.in_zone(zone, decide).await,
            None => self.change(decide).await,
        }
    }

    /// Removes an item, and answers what it was. With `force`, what needs it goes with it.
    ///
    /// # Errors
    /// There is no such item, others need it, or the engine fails.
    pub async fn delete_item(
        &self,
        kind: ItemKind,
        zone: Option<ZoneId>,
        id: ItemId,
        force: bool,
    ) -> Result<Item, ItemError> {
        loop {
            let removed = self.change(|snapshot, transaction| {
                let old = snapshot.item(kind, zone, id).ok_or_else(|| no_item(kind, id))?;
                take_turn(snapshot, transaction, kind);
                if kind == ItemKind::VirtualNetwork {
                    // Nobody begins to use it meanwhile.
                    take_turn(snapshot, transaction, ItemKind::Application);
                }
                transfer::check_unused(snapshot, old)?;
                if network::remove_routes(snapshot, transaction, old, force)? {
                    transaction.expect(old).delete(&old.key());
                    return Ok(Some(old.value.clone()));
                }
                Ok::<_, ItemError>(None)
            });
            if let Some(removed) = removed.await? {
                return Ok(removed);
            }
        }
    }
}

impl Registry {
    /// Writes an outgoing transfer as it is, so that its zone counts as changed.
    ///
    /// # Errors
    /// There is none, or the engine fails.
    pub async fn touch_transfer(&self, now: Timestamp, zone: ZoneId, id: ItemId) -> Result<(), ItemError> {
        let kind = ItemKind::TransferOut;
        self.change(|snapshot, transaction| {
            let old = snapshot.item(kind, Some(zone), id).ok_or_else(|| no_item(kind, id))?;
            transaction.expect(old).put(&Item { modified_at: now, ..old.value.clone() });
            Ok(())
        })
        .await
    }
}

fn no_item(kind: ItemKind, id: ItemId) -> ItemError {
    ItemError::NotFound(format!("{} {}", kind.title(), kind.id_text(id)))
}

/// Only if nobody has changed anything of this kind since.
fn take_turn(snapshot: &Snapshot, transaction: &mut Transaction, kind: ItemKind) {
    let turn = ItemTurn::of(kind);
    match snapshot.item_turn(&turn.of) {
        Some(seen) => transaction.expect(seen),
        None => transaction.expect_absent(&turn.key()),
    };
    transaction.put(&turn);
}
