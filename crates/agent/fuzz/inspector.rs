//! What the fuzz target and the replay of its corpus do with one input.

use agent::inspector::mask;
use agent::inspector::messages::{GrpcCounter, WebSocketCounter};

/// Counts the input's messages whole and in pieces, whose sizes the first byte gives, and masks it as each kind of
/// text. Pieces must not matter, the counts must be possible, and masking must leave nothing of a secret and grow no
/// text beyond its stand-ins.
pub(crate) fn inspector(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let size = usize::from(*first) + 1;
    let (mut whole, mut pieces) = (WebSocketCounter::default(), WebSocketCounter::default());
    whole.take(data);
    data.chunks(size).for_each(|piece| pieces.take(piece));
    assert_eq!(whole, pieces);
    let tally = whole.tally();
    assert!(tally.bytes + 2 * (tally.messages + tally.controls) <= data.len() as u64);
    let (mut whole, mut pieces) = (GrpcCounter::default(), GrpcCounter::default());
    whole.take(data);
    data.chunks(size).for_each(|piece| pieces.take(piece));
    assert_eq!(whole, pieces);
    let tally = whole.tally();
    assert!(tally.bytes + 5 * tally.messages <= data.len() as u64);

    let text = String::from_utf8_lossy(data);
    for masked in [
        mask::text(&text),
        mask::form(&text),
        mask::url(&text),
        mask::header("cookie", &text),
        mask::header("set-cookie", &text),
        mask::header("authorization", &text),
        mask::header("location", &text),
    ] {
        assert!(masked.len() <= (text.len() + 1) * (mask::MASK.len() + 2));
    }
    let quoted = serde_json::to_string(&*text).expect("a text is JSON");
    if text.len() > 8 && !text.contains(mask::MASK) {
        let body = format!(r#"{{"before":{quoted},"password":{quoted},"after":1}}"#);
        assert_eq!(mask::text(&body).matches(&quoted).count(), usize::from(mask::text(&quoted) == quoted), "{body}");
    }
}
