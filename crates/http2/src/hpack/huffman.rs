//! The code for strings (RFC 7541 appendix B). Nothing is sent in it: what it saves in bytes it costs several times in
//! instructions, and what repeats goes as an index anyway.

use bytes::BytesMut;

/// Bits of the code of each byte. The code is canonical: ordered by length, then by byte, codes count upwards.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Bits of the longest code.
const LONGEST: usize = 30;

/// Codes up to this length are found by one look; longer ones are rare bytes.
const SHORT: usize = 10;

/// Bits at the end that are not a whole code (section 5.2).
const MAX_PADDING: usize = 7;

struct Tables {
    /// By the next [`SHORT`] bits: the byte, and the length of its code; zero for a longer code.
    short: [(u8, u8); 1 << SHORT],
    /// By length: the first code, and where its byte stands in `bytes`.
    first: [(u32, usize); LONGEST + 2],
    /// All bytes in the order of their codes.
    bytes: [u8; 256],
}

static TABLES: Tables = Tables::new();

impl Tables {
    const fn new() -> Self {
        let mut tables = Self { short: [(0, 0); 1 << SHORT], first: [(0, 0); LONGEST + 2], bytes: [0; 256] };
        let (mut code, mut found, mut length) = (0_u32, 0, 1);
        while length <= LONGEST + 1 {
            code <<= 1;
            tables.first[length] = (code, found);
            let mut byte = 0;
            while byte < 256 {
                if LENGTHS[byte] as usize == length {
                    tables.bytes[found] = byte as u8;
                    if length <= SHORT {
                        let spare = SHORT - length;
                        let mut rest = 0;
                        while rest < 1 << spare {
                            tables.short[((code as usize) << spare) + rest] = (byte as u8, length as u8);
                            rest += 1;
                        }
                    }
                    found += 1;
                    code += 1;
                }
                byte += 1;
            }
            length += 1;
        }
        tables
    }

    /// The byte whose code the highest of these bits are, and the length of the code. `None`: no code, such as padding.
    fn find(&self, bits: u64) -> Option<(u8, usize)> {
        let (byte, length) = self.short[(bits >> (64 - SHORT)) as usize];
        if length > 0 {
            return Some((byte, usize::from(length)));
        }
        (SHORT + 1..=LONGEST).find_map(|length| {
            let code = (bits >> (64 - length)) as u32;
            let (first, index) = self.first[length];
            let (_, next) = self.first[length + 1];
            let index = index + code.checked_sub(first)? as usize;
            (index < next).then(|| (self.bytes[index], length))
        })
    }
}

/// Appends what a string in the code means; `None`: it is none.
pub(super) fn decode(code: &[u8], out: &mut BytesMut) -> Option<()> {
    // The shortest code has five bits.
    out.reserve(code.len() * 8 / 5);
    let mut input = code.iter();
    // The bits not yet decoded, from the highest on; ones behind them, as the padding is.
    let (mut bits, mut held) = (u64::MAX, 0_usize);
    loop {
        while held <= 56 {
            let Some(byte) = input.next() else { break };
            let shift = 56 - held;
            bits &= !(0xff << shift) | (u64::from(*byte) << shift);
            held += 8;
        }
        match TABLES.find(bits) {
            Some((byte, length)) if length <= held => {
                out.extend_from_slice(&[byte]);
                bits = (bits << length) | ((1 << length) - 1);
                held -= length;
            }
            // What is left is the beginning of the longest code, which no text holds.
            _ => return (held <= MAX_PADDING && bits == u64::MAX).then_some(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(code: &[u8]) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        decode(code, &mut out).map(|()| out.to_vec())
    }

    /// By the definition, bit for bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut codes = [(0_u32, 0_u8); 256];
        let mut code = 0;
        for length in 1..=LONGEST as u8 {
            code <<= 1;
            for byte in 0..=255_usize {
                if LENGTHS[byte] == length {
                    codes[byte] = (code, length);
                    code += 1;
                }
            }
        }
        let mut bits = String::new();
        for byte in text {
            let (code, length) = codes[usize::from(*byte)];
            bits.push_str(&format!("{code:0width$b}", width = usize::from(length)));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn examples_of_the_rfc() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&www).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(encode(b"www.example.com"), www);
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)).unwrap(), all);
        for byte in all {
            for count in 1..9 {
                let text = vec![byte; count];
                assert_eq!(decoded(&encode(&text)).unwrap(), text, "{byte} {count}");
            }
        }
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn wrong_endings_are_refused() {
        // Zeros are no padding; more than seven ones are the code of the end, which may not stand in a string.
        for wrong in [&[0x00][..], &[0xf1, 0xe3, 0x00], &[0xff], &[0xf8, 0xff], &[0xff, 0xff, 0xff, 0xff], &[0xfe]] {
            assert_eq!(decoded(wrong), None, "{wrong:x?}");
        }
    }
}
