//! What is kept as checked documents.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{decode, decode_with, set_ordered};
use crate::engine::Revision;
use crate::item::{Item, ItemTurn};
use crate::resource::{Account, Resource as _, Versioned};
use crate::{ItemId, ItemKind, Snapshot, ZoneId};

/// Where an item is found. Ids begin with the time, so the order is that in which things were made.
type Place = (Option<ZoneId>, ItemKind, ItemId);

/// Those of deleted zones are here, too, as long as they are in the registry.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Items {
    turns: OrdMap<Box<str>, Arc<Versioned<ItemTurn>>>,
    all: OrdMap<Place, Arc<Versioned<Item>>>,
    names: OrdSet<(ItemKind, Box<str>, Option<ZoneId>, ItemId)>,
    /// What there is when nobody has written it.
    first: Option<Arc<Versioned<Item>>>,
}

impl Snapshot {
    /// An item of a zone, or of the account.
    pub fn item(&self, kind: ItemKind, zone: Option<ZoneId>, id: ItemId) -> Option<&Arc<Versioned<Item>>> {
        self.items.all.get(&(zone, kind, id)).filter(|_| self.is_there(zone))
    }

    /// The items of a zone, or of the account, the oldest first.
    pub fn items(&self, kind: ItemKind, zone: Option<ZoneId>) -> impl Iterator<Item = &Arc<Versioned<Item>>> {
        let first = (zone, kind, ItemId::from_bytes([0; 16]));
        let is_there = self.is_there(zone);
        let items = self.items.all.range(first..);
        let items = items.take_while(move |((of, is, _), _)| is_there && (*of, *is) == (zone, kind));
        items.map(|(_, item)| item)
    }

    /// The items of the account and of all zones. Looks through all of all kinds.
    pub(crate) fn items_of_all(&self, kind: ItemKind) -> impl Iterator<Item = &Arc<Versioned<Item>>> {
        self.items.all.values().filter(move |item| item.kind == kind && self.is_there(item.zone))
    }

    /// The items, whoever has them, that others find by this name.
    pub fn items_named(&self, kind: ItemKind, name: &str) -> impl Iterator<Item = &Arc<Versioned<Item>>> {
        let first = (kind, Box::from(name), None, ItemId::from_bytes([0; 16]));
        let names = self.items.names.range(first..);
        let names = names.take_while(move |(is, named, ..)| *is == kind && **named == *name);
        names.filter_map(|(kind, _, zone, id)| self.item(*kind, *zone, *id))
    }

    pub(crate) fn item_count(&self, kind: ItemKind, zone: Option<ZoneId>) -> usize {
        self.items(kind, zone).count()
    }

    /// What a zone has, or what is left of it.
    pub(crate) fn item_entries(&self, zone: ZoneId) -> impl Iterator<Item = &Arc<Versioned<Item>>> {
        let first = (Some(zone), ItemKind::ALL[0], ItemId::from_bytes([0; 16]));
        let items = self.items.all.range(first..).take_while(move |((of, ..), _)| *of == Some(zone));
        items.map(|(_, item)| item)
    }

    pub(crate) fn item_turn(&self, of: &str) -> Option<&Arc<Versioned<ItemTurn>>> {
        self.items.turns.get(of)
    }

    fn is_there(&self, zone: Option<ZoneId>) -> bool {
        zone.is_none_or(|zone| self.zone(zone).is_some())
    }
}

impl Items {
    /// Takes in an entry, and answers whether it is one of these.
    pub(super) fn write(
        &mut self,
        kind: &str,
        id: &str,
        value: Option<&[u8]>,
        revision: Revision,
    ) -> Result<bool, String> {
        match kind {
            ItemTurn::KIND => set_ordered(&mut self.turns, id.into(), decode(value, revision)?),
            // A later version of this program may have more kinds.
            Item::KIND => match ItemKind::parse_key(id) {
                Some((kind, zone, id)) => {
                    let item = decode_with(value, revision, |item: Item| item.checked(kind, zone, id))?;
                    self.set((zone, kind, id), item);
                }
                None => return Ok(true),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Every account has a first network, whether or not somebody has written it.
    pub(super) fn set_account(&mut self, account: &Account) {
        let first = Arc::new(Versioned { revision: 0, value: Item::first_network(account) });
        let place = (None, first.kind, first.id);
        self.first = Some(first);
        if !self.all.contains_key(&place) {
            self.set(place, None);
        }
    }

    fn set(&mut self, place: Place, item: Option<Arc<Versioned<Item>>>) {
        let (zone, kind, id) = place;
        if let Some(name) = self.all.get(&place).and_then(|old| old.index()) {
            self.names.remove(&(kind, name.into(), zone, id));
        }
        let is_first = |first: &&Arc<Versioned<Item>>| (first.zone, first.kind, first.id) == place;
        let item = item.or_else(|| self.first.as_ref().filter(is_first).cloned());
        if let Some(name) = item.as_ref().and_then(|new| new.index()) {
            self.names.insert((kind, name.into(), zone, id));
        }
        set_ordered(&mut self.all, place, item);
    }
}
