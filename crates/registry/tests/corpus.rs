//! Replays the fuzz corpora with the bodies of the fuzz targets.

#[path = "../fuzz/body.rs"]
mod body;
#[path = "../fuzz/record.rs"]
mod record;

#[test]
fn every_name_of_the_corpus_is_survived() {
    assert!(replay("name", body::name) >= 10);
}

#[test]
fn every_record_of_the_corpus_and_mutations_of_it_are_survived() {
    // What tells records' words, strings, lines and numbers apart.
    const TELLING: &[u8] = b"\"\\ \t\n;()@.$*-=,0:\0\xff";
    let replayed = replay("record", |input| {
        record::record(input);
        for at in 0..input.len() {
            let mut mutated = input.to_vec();
            mutated.remove(at);
            record::record(&mutated);
            for byte in TELLING {
                mutated = input.to_vec();
                mutated[at] = *byte;
                record::record(&mutated);
            }
        }
    });
    assert!(replayed >= 30, "the corpus holds {replayed} inputs");
}

fn replay(name: &str, mut read: impl FnMut(&[u8])) -> usize {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
        let path = entry.expect("is readable").path();
        read(&std::fs::read(path).expect("is readable"));
        replayed += 1;
    }
    replayed
}
