//! What the fuzz targets, and the replay of their corpora, do with one input.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use crate::front::http3::guard::Guard;
use crate::host::Host;

const LIMIT: usize = 1024;

/// The first byte says how the rest is cut. However it is cut, the same must come out, and never more than came in.
pub fn http3(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    for make in [Guard::request, Guard::one_way] {
        let whole = through(make(LIMIT), stream, stream.len().max(1));
        let pieces = through(make(LIMIT), stream, usize::from(*cut).max(1));
        assert_eq!(whole, pieces);
        let (out, websocket, refused) = whole;
        // Empty frames are left out. A line is taken out too, and the length in front of it may be written longer.
        assert!(out.len() <= stream.len() || websocket && refused);
    }
}

fn through(mut guard: Guard, stream: &[u8], size: usize) -> (Vec<u8>, bool, bool) {
    let mut out = Vec::new();
    for piece in stream.chunks(size) {
        let refused = guard.feed(Bytes::copy_from_slice(piece)).is_err();
        while let Some(ready) = guard.next() {
            out.extend_from_slice(&ready);
        }
        if refused {
            return (out, guard.is_websocket(), true);
        }
    }
    (out, guard.is_websocket(), false)
}

/// A host that is accepted has one form, and is the same when it is read again.
pub fn host(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let uri = http::Uri::from_static("/");
    let of = |value| Host::of(&uri, &HeaderMap::from_iter([(header::HOST, value)]));
    let Ok(host) = of(value) else { return };
    assert!(!host.name().bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace() || byte == b'/'));
    let again = HeaderValue::from_str(host.authority().as_str()).expect("made of what a header value had");
    assert_eq!(of(again), Ok(host));
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// Changes of each input, beside the input itself.
    const CHANGES: u32 = 1000;

    fn replay(name: &str, body: fn(&[u8])) {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut random = StdRng::seed_from_u64(7);
        let mut replayed = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let input = std::fs::read(entry.unwrap().path()).unwrap();
            body(&input);
            for _ in 0..CHANGES {
                body(&changed(input.clone(), &mut random));
            }
            replayed += 1;
        }
        assert!(replayed >= 8, "the corpus holds {replayed} inputs");
    }

    fn changed(mut input: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..=input.len());
            match random.random_range(0..3) {
                0 => input.insert(at, random.random()),
                1 if at < input.len() => input[at] = random.random(),
                _ => input.truncate(at),
            }
        }
        input
    }

    #[test]
    fn the_corpora_are_survived() {
        replay("http3", http3);
        replay("host", host);
    }
}
