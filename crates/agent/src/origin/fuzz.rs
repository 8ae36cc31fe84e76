//! What the fuzz targets, and the replay of their corpora, do with one input.

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method};

use super::http1::{self, Part, Rest, Then};
use super::socket::{Decoder, Event};
use super::socks;

/// A visitor's frames (RFC 6455). The first byte says how the rest is cut, which must not matter.
pub fn frames(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let whole = taken_apart(data, data.len().max(1));
    assert_eq!(taken_apart(data, usize::from(*size).max(1)), whole);
    assert!(whole.payload.len() + whole.pings.concat().len() <= data.len(), "there is more in it than came");
    assert!(whole.pings.iter().all(|ping| ping.len() <= 125), "{:?}", whole.pings);
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Apart {
    payload: Vec<u8>,
    pings: Vec<Vec<u8>>,
    closed: bool,
    broken: bool,
}

fn taken_apart(data: &[u8], size: usize) -> Apart {
    let (mut decoder, mut apart) = (Decoder::default(), Apart::default());
    for piece in data.chunks(size) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(None) => break,
                Ok(Some(Event::Payload(bytes))) => {
                    assert!(!bytes.is_empty(), "a reader takes nothing for the end");
                    apart.payload.extend_from_slice(&bytes);
                }
                Ok(Some(Event::Ping(bytes))) => apart.pings.push(bytes.to_vec()),
                Ok(Some(Event::Close)) => return Apart { closed: true, ..apart },
                Err(_) => return Apart { broken: true, ..apart },
            }
        }
    }
    apart
}

/// What a visitor says in SOCKS5 (RFC 1928): nothing but a host and a port comes of it, and at most two answers.
pub fn socks(data: &[u8]) {
    let mut stream = tokio::io::join(data, Vec::new());
    let wanted = socks::wanted(&mut stream).now_or_never().expect("what is in memory waits for nobody");
    let (rest, answer) = stream.into_inner();
    let greeted = answer.starts_with(&[5, 0]);
    match wanted {
        Ok(wanted) => {
            assert_eq!(answer, [5, 0]);
            let mut letters = wanted.host.bytes();
            assert!(
                !wanted.host.is_empty() && letters.all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
            );
            assert!(data.ends_with(rest), "what follows is the origin's");
        }
        Err(_) if answer.len() > 2 => {
            assert!(greeted && answer.len() == 12 && answer[2] == 5 && answer[3] != 0, "{answer:?}");
        }
        Err(_) => assert!(answer.is_empty() || answer == [5, 0] || answer == [5, 0xff], "{answer:?}"),
    }
}

/// An origin's answer over HTTP/1.1. The first byte says to which method, and how the rest is cut, which must not matter.
pub fn answer(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let method = if first % 2 == 0 { Method::GET } else { Method::HEAD };
    let Some(end) = http1::end(data, 0) else { return };
    for searched in [end / 2, end - 1] {
        assert_eq!(http1::end(data, searched), Some(end), "it ends where it ends");
    }
    let (head, body) = data.split_at(end);
    let head = Bytes::copy_from_slice(head);
    let body = |size| match http1::decode(&head, &method).ok()?.then {
        Then::Body(rest) => Some(read(rest, body, size)),
        Then::Head | Then::Switch => None,
    };
    assert_eq!(body(usize::from(*first) + 1), body(data.len()));
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// Its bytes and trailers, and how many bytes behind it are of another answer.
    Whole(Vec<u8>, Option<HeaderMap>, usize),
    Short,
    Broken,
}

fn read(mut rest: Rest, body: &[u8], size: usize) -> Read {
    let (mut data, mut trailers, mut behind) = (Vec::new(), None, 0);
    for piece in body.chunks(size) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match rest.take(&mut input) {
                Ok(Part::Data(bytes)) => data.extend_from_slice(&bytes),
                Ok(Part::Trailers(fields)) => trailers = Some(fields),
                Ok(Part::Missing) => break,
                Ok(Part::End) => {
                    behind += input.len();
                    break;
                }
                Err(_) => return Read::Broken,
            }
        }
    }
    if rest.end().is_ok() { Read::Whole(data, trailers, behind) } else { Read::Short }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    /// Changes of each input, beside the input itself.
    const CHANGES: u32 = 1000;

    fn replay(name: &str, body: fn(&[u8])) {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 8, "the corpus holds {} inputs", files.len());
        let mut random = StdRng::seed_from_u64(7);
        for file in files {
            let input = std::fs::read(&file).unwrap();
            body(&input);
            for _ in 0..CHANGES {
                body(&changed(input.clone(), &mut random));
            }
        }
    }

    fn changed(mut input: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..=input.len());
            match random.random_range(0..4) {
                0 => input.insert(at, random.random()),
                1 if at < input.len() => input[at] = random.random(),
                2 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
                _ => input.truncate(at),
            }
        }
        input
    }

    #[test]
    fn the_corpora_are_survived() {
        replay("frames", super::frames);
        replay("socks", super::socks);
        replay("answer", super::answer);
    }
}
