//! What the fuzz target and the replay of its corpus do with one input.

use registry::{AccountId, Hostname, Secret, Snapshot, TunnelName};

/// Reads the input as everything that people and programs name things with. What is accepted is in its one form.
pub(crate) fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = Hostname::parse(text) {
        assert_eq!(Hostname::parse(name.as_str()).as_ref(), Ok(&name));
        assert!(name.as_str().len() <= Hostname::MAX_BYTES && name.is_within(&name));
        assert!(!name.as_str().bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()));
    }
    let domain = Hostname::parse("example.test").expect("is a host name");
    if let Ok(child) = domain.child(text) {
        let label = child.as_str().strip_suffix(".example.test");
        assert!(
            child.is_within(&domain) && label.is_some_and(|label| !label.contains(['.', '*']) && !label.is_empty())
        );
    }
    if let Ok(name) = TunnelName::parse(text) {
        assert!(name.as_str() == text && text.chars().count() <= TunnelName::MAX_CHARS);
    }
    if let Ok(id) = text.parse::<AccountId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(secret) = Secret::from_base64(text) {
        assert_eq!(secret.to_base64(), text);
    }
    // A visitor's host is looked up as it came.
    let nothing = Snapshot::default();
    assert!(nothing.route(text).is_none() && nothing.zone_of(text).is_none());
}
