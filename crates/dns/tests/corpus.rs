//! Replays the fuzz corpus, and mutations of it, with the body of the fuzz target.

#[path = "../fuzz/body.rs"]
mod body;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Mutations of each input: as many as do not slow the tests down.
const ROUNDS: u64 = 1_000;

#[test]
fn every_question_of_the_corpus_and_mutations_of_it_are_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/question");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("there is a corpus") {
        let input = std::fs::read(entry.expect("is readable").path()).expect("is readable");
        body::question(&input);
        inputs += 1;
        for round in 0..ROUNDS {
            let mut random = StdRng::seed_from_u64(round);
            let mut changed = input.clone();
            for _ in 0..random.random_range(1..=4) {
                let at = random.random_range(0..changed.len());
                match random.random_range(0..4) {
                    0 => changed[at] = random.random(),
                    1 => changed[at] ^= 1 << random.random_range(0..8),
                    2 => changed.insert(at, random.random()),
                    _ => changed.extend_from_within(at..),
                }
            }
            body::question(&changed);
        }
    }
    assert!(inputs >= 15, "the corpus holds {inputs} inputs");
}
