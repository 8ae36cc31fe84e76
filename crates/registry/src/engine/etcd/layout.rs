/// Which keys of etcd are the registry's.
///
/// | key | is |
/// | --- | --- |
/// | `PREFIX/registry/entries/KIND/ID` | an entry |
/// | `PREFIX/registry/head` | written last by each transaction; its revision is the registry's |
/// | `PREFIX/registry/schema` | the version of all that, as decimal digits |
///
/// The rest of the prefix is left for live state.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: String,
}

impl Layout {
    /// For a prefix without a slash at its end.
    pub(super) fn new(prefix: &str) -> Self {
        Self { root: format!("{prefix}/registry/") }
    }

    pub(super) fn entry(&self, key: &str) -> Vec<u8> {
        format!("{}entries/{key}", self.root).into_bytes()
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
        let rest = key.strip_prefix(self.root.as_bytes())?.strip_prefix(b"entries/")?;
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
}
