//! Examines a request's block of QPACK (RFC 9204) before the HTTP/3 library does.
//!
//! The library refuses every request with a protocol that it does not know, and it does not know `:protocol: websocket` (RFC
//! 9220): the line is taken out. And it believes the last of several pseudo-headers, wherever it stands, where RFC 9114 section
//! 4.3 wants each once and before every field. Nothing is decoded: lines are only measured and their names compared.

/// What a block holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Examined {
    /// Nothing that concerns us; whatever else is wrong with it, the library refuses.
    Ordinary,
    /// It asked for a WebSocket; this is the rest of it.
    WebSocket(Vec<u8>),
    /// Its pseudo-headers break the rules.
    Malformed,
}

/// The pseudo-headers of requests, as text and in the Huffman code of RFC 7541.
const PSEUDO: [(&[u8], &[u8]); 5] = [
    (b":authority", &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]),
    (b":method", &[0xb9, 0x49, 0x53, 0x39, 0xe4]),
    (b":path", &[0xb9, 0x58, 0xd3, 0x3f]),
    (b":scheme", &[0xb8, 0x82, 0x4e, 0x5a, 0x4b]),
    (b":protocol", &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f]),
];
const AUTHORITY: usize = 0;
const METHOD: usize = 1;
const PATH: usize = 2;
const SCHEME: usize = 3;
const PROTOCOL: usize = 4;

const WEBSOCKET: &[u8] = b"websocket";
/// [`WEBSOCKET`] in the Huffman code.
const WEBSOCKET_HUFFMAN: &[u8] = &[0xf0, 0x58, 0xd0, 0x72, 0x75, 0x2a, 0x7f];

/// Looks at the pseudo-headers of a block.
pub(super) fn examine(block: &[u8]) -> Examined {
    // A block that cannot be measured cannot be decoded either.
    read(block).unwrap_or(Examined::Ordinary)
}

fn read(block: &[u8]) -> Option<Examined> {
    let mut reader = Reader { block, at: 0 };
    // Required Insert Count and Base.
    reader.integer(8)?;
    reader.integer(7)?;
    let mut seen = [false; PSEUDO.len()];
    let mut fields_began = false;
    let mut websocket = None;
    while reader.at < block.len() {
        let begin = reader.at;
        match reader.line()? {
            Line::Field => fields_began = true,
            Line::Foreign => return Some(Examined::Malformed),
            Line::Pseudo(which, value) => {
                if fields_began || std::mem::replace(&mut seen[which], true) {
                    return Some(Examined::Malformed);
                }
                if which == PROTOCOL && (value == WEBSOCKET || value == WEBSOCKET_HUFFMAN) {
                    websocket = Some(begin..reader.at);
                }
            }
        }
    }
    Some(
        websocket.map_or(Examined::Ordinary, |line| {
            Examined::WebSocket([&block[..line.start], &block[line.end..]].concat())
        }),
    )
}

enum Line<'a> {
    Field,
    /// The index of its name in [`PSEUDO`]; its value, coded or not, if that is not in a table.
    Pseudo(usize, &'a [u8]),
    /// A pseudo-header that no request has.
    Foreign,
}

impl<'a> Line<'a> {
    /// The line whose name has this index in the static table (RFC 9204 appendix A).
    fn of_table(index: usize, value: &'a [u8]) -> Self {
        match index {
            0 => Self::Pseudo(AUTHORITY, value),
            1 => Self::Pseudo(PATH, value),
            15..=21 => Self::Pseudo(METHOD, value),
            22 | 23 => Self::Pseudo(SCHEME, value),
            24..=28 | 63..=71 => Self::Foreign,
            _ => Self::Field,
        }
    }

    fn of_name(name: &[u8], is_coded: bool, value: &'a [u8]) -> Self {
        let known = PSEUDO.iter().position(|(text, coded)| name == if is_coded { *coded } else { *text });
        let begins_like_one = match (name.first(), is_coded) {
            (Some(first), false) => *first == b':',
            // Seven bits are a colon.
            (Some(first), true) => first >> 1 == 0x5c,
            (None, _) => false,
        };
        match known {
            Some(which) => Self::Pseudo(which, value),
            None if begins_like_one => Self::Foreign,
            None => Self::Field,
        }
    }
}

struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Passes over one field line (section 4.5). The dynamic table is not in use, so that what refers to it is for the
    /// library to refuse.
    fn line(&mut self) -> Option<Line<'a>> {
        let first = *self.block.get(self.at)?;
        if first & 0x80 != 0 {
            let index = self.integer(6)?;
            return Some(if first & 0x40 != 0 { Line::of_table(index, &[]) } else { Line::Field });
        }
        if first & 0x40 != 0 {
            let index = self.integer(4)?;
            let value = self.string(7)?;
            return Some(if first & 0x10 != 0 { Line::of_table(index, value) } else { Line::Field });
        }
        if first & 0x20 != 0 {
            let name = self.string(3)?;
            let value = self.string(7)?;
            return Some(Line::of_name(name, first & 0x08 != 0, value));
        }
        if first & 0x10 != 0 {
            self.integer(4)?;
        } else {
            self.integer(3)?;
            self.string(7)?;
        }
        Some(Line::Field)
    }

    /// An integer whose first byte has this many bits for it (RFC 7541 section 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let mask = (1_usize << bits) - 1;
        let mut value = usize::from(*self.block.get(self.at)?) & mask;
        self.at += 1;
        if value < mask {
            return Some(value);
        }
        let mut shift = 0_u32;
        loop {
            let byte = usize::from(*self.block.get(self.at)?);
            self.at += 1;
            // No block is so long that its integers need more than 28 bits.
            if shift > 21 {
                return None;
            }
            value += (byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    }

    /// The bytes of a string, coded or not.
    fn string(&mut self, bits: u32) -> Option<&'a [u8]> {
        let length = self.integer(bits)?;
        let bytes = self.block.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = &[0xc0 | 17];
    const CONNECT: &[u8] = &[0xc0 | 15];
    const HTTPS: &[u8] = &[0xc0 | 23];
    const OK: &[u8] = &[0xc0 | 25];
    const ANY_AGE: &[u8] = &[0xc0 | 2];

    fn block(lines: &[&[u8]]) -> Vec<u8> {
        [&[0, 0], &*lines.concat()].concat()
    }

    /// A line with a literal name, coded or not.
    fn literal(name: &[u8], coded: bool, value: &[u8], value_coded: bool) -> Vec<u8> {
        let flag = if coded { 0x08 } else { 0 };
        let length = u8::try_from(name.len()).unwrap();
        let mut line = if length < 7 { vec![0x20 | flag | length] } else { vec![0x20 | flag | 7, length - 7] };
        line.extend_from_slice(name);
        line.push(if value_coded { 0x80 } else { 0 } | u8::try_from(value.len()).unwrap());
        line.extend_from_slice(value);
        line
    }

    fn pseudo(which: usize, coded: bool, value: &[u8]) -> Vec<u8> {
        literal(if coded { PSEUDO[which].1 } else { PSEUDO[which].0 }, coded, value, false)
    }

    /// A path whose name is in the static table.
    fn path(value: &[u8]) -> Vec<u8> {
        [&[0x50 | 1, u8::try_from(value.len()).unwrap()], value].concat()
    }

    #[test]
    fn the_line_of_a_websocket_is_found_in_either_code() {
        for (name_coded, value_coded) in [(false, false), (true, true), (true, false), (false, true)] {
            let name = if name_coded { PSEUDO[PROTOCOL].1 } else { PSEUDO[PROTOCOL].0 };
            let line = literal(name, name_coded, if value_coded { WEBSOCKET_HUFFMAN } else { WEBSOCKET }, value_coded);
            let whole = block(&[CONNECT, &path(b"/chat"), &line, HTTPS]);
            assert_eq!(examine(&whole), Examined::WebSocket(block(&[CONNECT, &path(b"/chat"), HTTPS])));
        }
    }

    #[test]
    fn other_blocks_are_ordinary() {
        let other = pseudo(PROTOCOL, false, b"webtransport");
        assert_eq!(examine(&block(&[CONNECT, &path(b"/"), &other])), Examined::Ordinary);
        assert_eq!(examine(&block(&[GET, HTTPS, &path(b"/"), ANY_AGE, ANY_AGE])), Examined::Ordinary);
        assert_eq!(examine(&block(&[])), Examined::Ordinary);
    }

    #[test]
    fn a_pseudo_header_stands_once_and_first() {
        for coded in [false, true] {
            for which in 0..PSEUDO.len() {
                let line = pseudo(which, coded, b"x");
                let other = pseudo(which, !coded, b"y");
                assert_eq!(examine(&block(&[&line])), Examined::Ordinary);
                assert_eq!(examine(&block(&[&line, &other])), Examined::Malformed, "{which}");
                assert_eq!(examine(&block(&[ANY_AGE, &line])), Examined::Malformed, "{which}");
            }
        }
        for lines in [[GET, CONNECT], [HTTPS, HTTPS], [GET, OK], [ANY_AGE, GET]] {
            assert_eq!(examine(&block(&lines)), Examined::Malformed, "{lines:?}");
        }
        assert_eq!(examine(&block(&[&path(b"/a"), &pseudo(PATH, true, b"/b")])), Examined::Malformed);
        assert_eq!(examine(&block(&[&literal(b":status", false, b"200", false)])), Examined::Malformed);
        assert_eq!(examine(&block(&[&literal(b":x", false, b"", false)])), Examined::Malformed);
        // `:status` coded.
        let status = literal(&[0xb8, 0x84, 0x8d, 0x36, 0xa3], true, b"200", false);
        assert_eq!(examine(&block(&[&status])), Examined::Malformed);
    }

    #[test]
    fn broken_blocks_are_left_to_the_library() {
        let whole = block(&[CONNECT, &path(b"/chat"), &pseudo(PROTOCOL, false, WEBSOCKET)]);
        for end in 0..whole.len() {
            assert_eq!(examine(&whole[..end]), Examined::Ordinary, "{end}");
        }
        assert_eq!(examine(&[0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Examined::Ordinary);
    }
}
