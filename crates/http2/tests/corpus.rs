//! Replays the fuzz corpora, and mutations of them, with the bodies of the fuzz targets.

#[path = "../fuzz/body.rs"]
mod body;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Mutations of each input: as many as do not slow the tests down.
const ROUNDS: u64 = 300;

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).expect("there is a corpus") {
        let input = std::fs::read(entry.expect("is readable").path()).expect("is readable");
        target(&input);
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
            target(&changed);
        }
    }
    assert!(inputs >= 5, "the corpus {name} holds {inputs} inputs");
}

#[test]
fn a_server_survives_its_corpus() {
    replay("server", body::server);
}

#[test]
fn a_client_survives_its_corpus() {
    replay("client", body::client);
}
