//! Finds `:protocol: websocket` (RFC 9220) in a block of QPACK (RFC 9204).
//!
//! The HTTP/3 library refuses every request with a protocol that it does not know, and it does not know this one. So
//! the line is taken out before the library sees the block. Nothing is decoded: lines are only measured.

const NAME: &[u8] = b":protocol";
/// [`NAME`] in the Huffman code of RFC 7541.
const NAME_HUFFMAN: &[u8] = &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f];
const VALUE: &[u8] = b"websocket";
/// [`VALUE`] in the Huffman code of RFC 7541.
const VALUE_HUFFMAN: &[u8] = &[0xf0, 0x58, 0xd0, 0x72, 0x75, 0x2a, 0x7f];

/// The block without the line, if it has one. A block that breaks the rules is left to the library to refuse.
pub(super) fn without_websocket(block: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { block, at: 0 };
    // Required Insert Count and Base.
    reader.integer(8)?;
    reader.integer(7)?;
    while reader.at < block.len() {
        let begin = reader.at;
        if reader.line()? {
            return Some([&block[..begin], &block[reader.at..]].concat());
        }
    }
    None
}

struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Passes over one field line (section 4.5), and answers whether it is the one.
    fn line(&mut self) -> Option<bool> {
        let first = *self.block.get(self.at)?;
        if first & 0x80 != 0 {
            self.integer(6)?;
        } else if first & 0x40 != 0 {
            self.integer(4)?;
            self.string(7)?;
        } else if first & 0x20 != 0 {
            let name = self.string(3)?;
            let value = self.string(7)?;
            return Some((name == NAME || name == NAME_HUFFMAN) && (value == VALUE || value == VALUE_HUFFMAN));
        } else if first & 0x10 != 0 {
            self.integer(4)?;
        } else {
            self.integer(3)?;
            self.string(7)?;
        }
        Some(false)
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

    /// `:method: CONNECT` by the static table, `:path: /chat`, then what comes.
    fn block(rest: &[&[u8]]) -> Vec<u8> {
        let mut block = vec![0, 0, 0xc0 | 15, 0x50 | 1, 5];
        block.extend_from_slice(b"/chat");
        for part in rest {
            block.extend_from_slice(part);
        }
        block
    }

    fn literal(name: &[u8], huffman: bool) -> Vec<u8> {
        let flag = if huffman { 0x08 } else { 0 };
        let mut line = vec![0x20 | flag | 7];
        line.push(u8::try_from(name.len() - 7).unwrap());
        line.extend_from_slice(name);
        line
    }

    fn value(value: &[u8], huffman: bool) -> Vec<u8> {
        let mut string = vec![if huffman { 0x80 } else { 0 } | u8::try_from(value.len()).unwrap()];
        string.extend_from_slice(value);
        string
    }

    #[test]
    fn the_line_is_found_in_either_code() {
        for (name_coded, value_coded) in [(false, false), (true, true), (true, false), (false, true)] {
            let name = literal(if name_coded { NAME_HUFFMAN } else { NAME }, name_coded);
            let text = value(if value_coded { VALUE_HUFFMAN } else { VALUE }, value_coded);
            let tail: &[u8] = &[0xc0 | 23];
            assert_eq!(without_websocket(&block(&[&name, &text, tail])), Some(block(&[tail])));
        }
    }

    #[test]
    fn other_blocks_are_left_alone() {
        let other = [literal(NAME, false), value(b"webtransport", false)].concat();
        assert_eq!(without_websocket(&block(&[&other])), None);
        assert_eq!(without_websocket(&block(&[])), None);
    }

    #[test]
    fn broken_blocks_are_left_alone() {
        let whole = block(&[&literal(NAME, false), &value(VALUE, false)]);
        for end in 0..whole.len() {
            assert_eq!(without_websocket(&whole[..end]), None, "{end}");
        }
        assert_eq!(without_websocket(&[0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
