use crate::engine::{Guard, Revision, Write};
use crate::resource::{Key, Resource, Versioned};

/// Several changes that happen all together or not at all, and only if what they were decided on still holds.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub(crate) guards: Vec<Guard>,
    pub(crate) writes: Vec<Write>,
}

impl Transaction {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if this entry is still as it was read.
    pub fn expect<R: Resource>(&mut self, seen: &Versioned<R>) -> &mut Self {
        self.expect_at(&seen.value.key(), seen.revision)
    }

    /// Only if this entry was last written at this revision.
    pub(crate) fn expect_at(&mut self, key: &Key, revision: Revision) -> &mut Self {
        let guard = Guard { key: key.0.clone(), revision };
        if !self.guards.contains(&guard) {
            self.guards.push(guard);
        }
        self
    }

    /// Only if there is no entry of this key.
    pub fn expect_absent(&mut self, key: &Key) -> &mut Self {
        self.expect_at(key, 0)
    }

    /// Writes a resource.
    pub fn put<R: Resource>(&mut self, resource: &R) -> &mut Self {
        let value = serde_json::to_vec(resource).expect("resources are plain data with text keys");
        self.writes.push(Write { key: resource.key().0, value: Some(value) });
        self
    }

    /// Removes an entry, if there is one.
    pub fn delete(&mut self, key: &Key) -> &mut Self {
        self.writes.push(Write { key: key.0.clone(), value: None });
        self
    }
}
