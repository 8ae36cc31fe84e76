//! Replays the fuzz corpora with the bodies of the fuzz targets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../fuzz/access.rs"]
mod access;
#[path = "../fuzz/body.rs"]
mod body;
#[path = "../fuzz/inspector.rs"]
mod inspector;

#[test]
fn every_input_of_the_corpus_is_survived() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/configuration");
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        body::configuration(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "the corpus holds {replayed} inputs");
}

#[test]
fn the_inspector_survives_its_corpus_and_mutations_of_it() {
    with_mutations("inspector", b"\"\\{}[]:=&?;%\x7E\x00\xFFe", inspector::inspector);
}

#[test]
fn assertions_survive_their_corpus_and_mutations_of_it() {
    with_mutations("access", b"\".{}[]:,=-_AQe0/@\xFF", access::access);
}

/// Replays a corpus as it is and changed a little; `telling` are bytes that mean something to the reader.
fn with_mutations(name: &str, telling: &[u8], read: fn(&[u8])) {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let inputs: Vec<Vec<u8>> =
        std::fs::read_dir(corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() >= 10, "the corpus holds {} inputs", inputs.len());
    let mut state: u64 = 7;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit.max(1)
    };
    for input in &inputs {
        read(input);
        for _ in 0..300 {
            let mut mutated = input.clone();
            for _ in 0..=below(4) {
                let at = below(mutated.len());
                match below(4) {
                    0 => mutated.truncate(at),
                    1 => mutated.insert(at, telling[below(telling.len())]),
                    2 => mutated.extend_from_slice(&inputs[below(inputs.len())]),
                    _ => mutated.iter_mut().skip(at).take(1).for_each(|byte| *byte = below(256) as u8),
                }
            }
            read(&mutated);
        }
    }
}
