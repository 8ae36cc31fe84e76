/// Which keys of etcd are the registry's.
///
/// | key | is |
/// | --- | --- |
/// | `PREFIX/registry/entries/KIND/ID` | an entry |
/// | `PREFIX/registry/head` | written last by each transaction; its revision is the registry's |
/// | `PREFIX/registry/schema` | the version of all that, as decimal digits |
/// | `PREFIX/live/KIND/NODE…` | a live entry; has no head, since nobody waits for what it wrote itself |
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: String,
    /// What entries' keys begin with; the root, or below it.
    entries: String,
}

impl Layout {
    /// What is configured, for a prefix without a slash at its end.
    pub(super) fn new(prefix: &str) -> Self {
        let root = format!("{prefix}/registry/");
        Self { entries: format!("{root}entries/"), root }
    }

    /// Live entries, for the same prefix.
    pub(super) fn live(prefix: &str) -> Self {
        let root = format!("{prefix}/live/");
        Self { entries: root.clone(), root }
    }

    pub(super) fn entry(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.entries).into_bytes()
    }

    pub(super) fn head(&self) -> Vec<u8> {
        format!("{}head", self.root).into_bytes()
    }

    pub(super) fn schema(&self) -> Vec<u8> {
        format!("{}schema", self.root).into_bytes()
    }

    /// The range of all entries: first, and behind the last.
    pub(super) fn entries(&self) -> (Vec<u8>, Vec<u8>) {
        range(self.entry(""))
    }

    /// The range of everything.
    pub(super) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        range(self.root.clone().into_bytes())
    }

    /// The entry's key; `None` for a key that is no entry.
    pub(super) fn key_of(&self, key: &[u8]) -> Option<String> {
        let rest = key.strip_prefix(self.entries.as_bytes())?;
        String::from_utf8(rest.to_vec()).ok()
    }
}

/// Everything that begins like this; it ends with a slash, behind which comes the digit 0.
fn range(start: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut end = start.clone();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_again_and_others_are_nobodys() {
        let layout = Layout::new("/p");
        assert_eq!(layout.key_of(&layout.entry("tunnels/ä")).as_deref(), Some("tunnels/ä"));
        for other in [layout.head(), layout.schema(), b"/p/registry/entries/\xff".to_vec(), b"/q".to_vec()] {
            assert_eq!(layout.key_of(&other), None);
        }
        let (start, end) = layout.entries();
        assert!((start.clone()..end).contains(&layout.entry("\u{10ffff}")));
        assert!(start > layout.all().0 && layout.schema() < layout.all().1);
    }

    #[test]
    fn live_entries_are_apart() {
        let (layout, live) = (Layout::new("/p"), Layout::live("/p"));
        assert_eq!(live.key_of(&live.entry("nodes/a")).as_deref(), Some("nodes/a"));
        assert_eq!((live.key_of(&layout.entry("a")), layout.key_of(&live.entry("a"))), (None, None));
        assert!(live.all().1 <= layout.all().0, "who follows one does not hear of the other");
    }
}
