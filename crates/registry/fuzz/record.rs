//! What the fuzz target of records and the replay of its corpus do with one input.

use registry::{Hostname, RecordContent, RecordType, parse_zone_file};

/// Reads the input as the data of a record of every type, and as a zone file. What is accepted is in its one form: reading
/// that again, as text, as members or out of a zone file, leads to the same.
pub(crate) fn record(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let zone = Hostname::parse("example.test").expect("is a host name");
    for kind in RecordType::ALL {
        for priority in [None, Some(7)] {
            if let Ok(content) = RecordContent::parse(kind, text, priority, None) {
                check(&content, &zone);
            }
        }
    }
    if let Ok(records) = parse_zone_file(text, &zone) {
        for parsed in records {
            assert!(parsed.record.name().is_within(&zone) && parsed.line > 0);
        }
    }
    if let Ok(data) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        for kind in RecordType::ALL {
            if let Ok(content) = RecordContent::from_data(kind, &data, None) {
                check(&content, &zone);
            }
        }
    }
}

fn check(content: &RecordContent, zone: &Hostname) {
    let kind = content.kind();
    let again = RecordContent::parse(kind, content.text(), content.priority(), None).expect("its own form is valid");
    assert_eq!(&again, content);
    if let Some(data) = content.data() {
        assert_eq!(&RecordContent::from_data(kind, &data, None).expect("its own members are valid"), content);
    }
    assert!(content.is_same(content));
    assert!(content.to_wire().is_none_or(|wire| wire.len() <= 2 * RecordContent::MAX_BYTES));
    if let Some(priority) = content.priority() {
        assert_eq!(&content.with_priority(priority).expect("has one"), content);
    }
    let line = format!("a {kind} {}", content.to_rdata());
    let parsed = parse_zone_file(&line, zone).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(parsed.len() == 1 && parsed[0].record.content().is_same(content), "{line}");
}
