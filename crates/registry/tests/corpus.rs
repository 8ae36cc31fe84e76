//! Replays the fuzz corpus with the body of the fuzz target.

#[path = "../fuzz/body.rs"]
mod body;

#[test]
fn every_input_of_the_corpus_is_survived() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/name");
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
        let path = entry.expect("is readable").path();
        body::name(&std::fs::read(path).expect("is readable"));
        replayed += 1;
    }
    assert!(replayed >= 10, "the corpus holds {replayed} inputs");
}
