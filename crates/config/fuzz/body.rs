//! What the fuzz target and the replay of its corpus do with one input.

use std::net::SocketAddr;
use std::time::Duration;

/// Reads the input by every kind of reading method; any answer is fine, a panic is not.
pub(crate) fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let result = config::read("input", text, |file| {
        let _: Option<String> = file.optional("name");
        let _: Option<SocketAddr> = file.required("listen");
        let _: Option<Vec<Duration>> = file.list("durations");
        let _ = file.mapping("limits", |limits| {
            let _: bool = limits.or("on", false);
            limits.choice("kind", &[("a", 1), ("b", 2)])
        });
        let _ =
            file.mappings("rules", |rule| rule.parsed("port", |text| text.parse::<u16>().map_err(|e| e.to_string())));
        if file.optional::<String>("refused").is_some() {
            file.refuse("refused", "by the target");
        }
    });
    if let Err(mistakes) = result {
        assert!(!mistakes.list().is_empty(), "an error says at least one thing");
        assert!(!mistakes.to_string().is_empty());
    }
}
