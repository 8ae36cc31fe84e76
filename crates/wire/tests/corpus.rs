//! Feeds the fuzz targets with their corpora, `fuzz/corpus/<target>/*`, and with mutations of them, so that a stable
//! compiler checks what the fuzzer found. `SNICKET_FUZZ_ROUNDS=100000 cargo test -p snicket-wire --test corpus` looks longer.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets' crate exports them")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Mutations of every file of a corpus: as many as do not slow the tests down.
const ROUNDS: u64 = 300;

#[test]
fn corpora_and_their_mutations() {
    let rounds = std::env::var("SNICKET_FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("is a number"));
    for (name, target) in targets::ALL {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("no corpus in {}: {error}", directory.display()))
            .map(|entry| entry.expect("is readable").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus {} is empty", directory.display());
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("is readable")).collect();
        for (file, seed) in files.iter().zip(&seeds) {
            run(name, target, seed, &file.display().to_string());
            for round in 0..rounds {
                let mut random = StdRng::seed_from_u64(round);
                let mut input = seed.clone();
                for _ in 0..random.random_range(1..=4) {
                    mutate(&mut input, &seeds, &mut random);
                }
                run(name, target, &input, &format!("{} in round {round}", file.display()));
            }
        }
    }
}

fn run(name: &str, target: targets::Target, input: &[u8], origin: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "{name} fails with {origin}: {}", hex(input));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One change of the kinds that fuzzers make.
fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    const INTERESTING: [u32; 8] = [0, 1, 7, 0x7fff_ffff, 0x8000_0000, 0xffff_fffc, 0xffff_ffff, 0x0100];
    if input.is_empty() {
        input.push(random.random());
        return;
    }
    let at = random.random_range(0..input.len());
    let end = random.random_range(at..=input.len().min(at + 64));
    match random.random_range(0..8) {
        0 => input[at] ^= 1 << random.random_range(0..8),
        1 => input[at] = random.random(),
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let copy = input[at..end].to_vec();
            let to = random.random_range(0..=input.len());
            drop(input.splice(to..to, copy));
        }
        5 => {
            let word = at / 4 * 4;
            let value = INTERESTING.choose(random).expect("is not empty").to_le_bytes();
            for (to, byte) in input[word..].iter_mut().zip(value) {
                *to = byte;
            }
        }
        6 => {
            let other = seeds.choose(random).expect("a corpus is not empty");
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let word = at / 4 * 4;
            if let Some(bytes) = input.get_mut(word..word + 4) {
                let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let changed = value.wrapping_add_signed(random.random_range(-8..=8));
                bytes.copy_from_slice(&changed.to_le_bytes());
            }
        }
    }
}
