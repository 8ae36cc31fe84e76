//! What the fuzz target and the replay of its corpus do with one input.

use std::collections::BTreeMap;

use agent::file::FileConfig;
use agent::ingress::Document;

/// Reads the input as a pushed document and as a file. What is accepted must report itself in a form that reads the
/// same, and find a rule for any request.
pub(crate) fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(document) = Document::from_json(data) {
        check(&document, &text);
    }
    match FileConfig::parse("input", &text) {
        Ok(file) => {
            if let Some(document) = &file.document {
                check(document, &text);
            }
            // Either answer is fine.
            let _ = file.single.rules(&file.origin_request);
        }
        Err(mistakes) => assert!(!mistakes.list().is_empty()),
    }
}

fn check(document: &Document, text: &str) {
    let last = document.rules.iter().len() - 1;
    for (host, path) in [("app.test:1", "/%61/%zz%"), (text, text), ("", "")] {
        let (index, _) = document.rules.find(host, path);
        assert!(index <= last);
    }
    let report = document.report(&BTreeMap::new());
    // A file writes durations finer than the report's whole seconds, so only what was reported once must stay.
    if let Ok(again) = Document::from_json(&report) {
        assert_eq!(again.report(&BTreeMap::new()), report);
    } else {
        panic!("the report of an accepted configuration is not accepted: {}", String::from_utf8_lossy(&report));
    }
}
