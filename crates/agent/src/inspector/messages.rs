//! Counting the messages inside bodies, as they pass and without keeping them: WebSocket frames (RFC 6455 section 5.2)
//! and gRPC's length-prefixed messages.
//!
//! Both counters take bytes in pieces of any size, hold a few bytes of state whatever the peer claims, and stop at the
//! first thing that cannot be: what was counted until then stays.

/// Counts the frames of one direction of a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebSocketCounter {
    head: Head<14>,
    payload: Payload,
    /// A message has begun whose last frame has not come.
    inside: bool,
    tally: Tally,
}

/// Counts the messages of one direction of a gRPC call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcCounter {
    head: Head<5>,
    payload: Payload,
    tally: Tally,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Messages whose last byte has come.
    pub messages: u64,
    /// WebSocket only: pings, pongs and closes.
    pub controls: u64,
    /// Bytes of payload, without the heads of frames.
    pub bytes: u64,
    /// What came is no frame, so nothing more is counted.
    pub broken: bool,
}

/// The bytes of a frame's head that have come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Default for Head<N> {
    fn default() -> Self {
        Self { bytes: [0; N], filled: 0 }
    }
}

impl<const N: usize> Head<N> {
    /// Takes from `data` until there are `wanted` bytes, and says whether there are.
    fn fill(&mut self, data: &mut &[u8], wanted: usize) -> bool {
        let taken = wanted.saturating_sub(self.filled).min(data.len());
        let (now, later) = data.split_at(taken);
        self.bytes[self.filled..self.filled + taken].copy_from_slice(now);
        self.filled += taken;
        *data = later;
        self.filled >= wanted
    }
}

/// Bytes of the current frame's payload that are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Payload(u64);

impl Payload {
    /// Takes of `data` what belongs to it and counts that; says whether it is whole.
    fn pass(&mut self, data: &mut &[u8], tally: &mut Tally) -> bool {
        let here = usize::try_from(self.0).unwrap_or(usize::MAX).min(data.len());
        *data = &data[here..];
        self.0 -= here as u64;
        tally.bytes += here as u64;
        self.0 == 0
    }
}

impl WebSocketCounter {
    /// The bytes that came next.
    pub fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.tally.broken {
            if self.payload.0 > 0 {
                if self.payload.pass(&mut data, &mut self.tally) {
                    self.ended();
                }
                continue;
            }
            if !self.head.fill(&mut data, 2) {
                return;
            }
            let length = self.head.bytes[1] & 0x7F;
            let extended = match length {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mask = if self.head.bytes[1] & 0x80 == 0 { 0 } else { 4 };
            if !self.head.fill(&mut data, 2 + extended + mask) {
                return;
            }
            self.begun(length, extended);
        }
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn begun(&mut self, length: u8, extended: usize) {
        let payload = match extended {
            0 => u64::from(length),
            _ => self.head.bytes[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let opcode = self.head.bytes[0] & 0x0F;
        let last = self.head.bytes[0] & 0x80 != 0;
        let sound = match opcode {
            // Only a message that has begun can go on.
            0 => self.inside,
            1 | 2 => !self.inside,
            // Control frames are short and whole.
            8..=10 => last && payload <= 125,
            _ => false,
        };
        if !sound || payload > i64::MAX as u64 {
            self.tally.broken = true;
            return;
        }
        self.payload = Payload(payload);
        if payload == 0 {
            self.ended();
        }
    }

    fn ended(&mut self) {
        let last = self.head.bytes[0] & 0x80 != 0;
        if self.head.bytes[0] & 0x08 != 0 {
            self.tally.controls += 1;
        } else {
            self.inside = !last;
            self.tally.messages += u64::from(last);
        }
        self.head = Head::default();
    }
}

impl GrpcCounter {
    /// The bytes that came next.
    pub fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.tally.broken {
            if self.payload.0 > 0 {
                if self.payload.pass(&mut data, &mut self.tally) {
                    self.ended();
                }
                continue;
            }
            if !self.head.fill(&mut data, 5) {
                return;
            }
            let [compressed, length @ ..] = self.head.bytes;
            // A flag of zero or one; the text form of gRPC-Web and anything else is told by it.
            if compressed > 1 {
                self.tally.broken = true;
                return;
            }
            self.payload = Payload(u64::from(u32::from_be_bytes(length)));
            if self.payload.0 == 0 {
                self.ended();
            }
        }
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn ended(&mut self) {
        self.tally.messages += 1;
        self.head = Head::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        let mask = if masked { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => frame.push(mask | length as u8),
            length @ 126..=0xFFFF => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        frame.extend_from_slice(payload);
        frame
    }

    /// The same whatever the pieces are.
    fn websocket(bytes: &[u8]) -> Tally {
        let mut whole = WebSocketCounter::default();
        whole.take(bytes);
        for size in [1, 2, 3, 7] {
            let mut pieces = WebSocketCounter::default();
            bytes.chunks(size).for_each(|piece| pieces.take(piece));
            assert_eq!(pieces, whole, "pieces of {size}");
        }
        whole.tally()
    }

    fn grpc(bytes: &[u8]) -> Tally {
        let mut whole = GrpcCounter::default();
        whole.take(bytes);
        for size in [1, 2, 3, 7] {
            let mut pieces = GrpcCounter::default();
            bytes.chunks(size).for_each(|piece| pieces.take(piece));
            assert_eq!(pieces, whole, "pieces of {size}");
        }
        whole.tally()
    }

    #[test]
    fn messages_of_all_lengths_are_counted_masked_or_not() {
        let lengths = [0, 1, 125, 126, 0xFFFF, 0x1_0000];
        for masked in [false, true] {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| frame(0x82, masked, &vec![7; *length])).collect();
            let expected =
                Tally { messages: 6, controls: 0, bytes: lengths.iter().map(|n| *n as u64).sum(), broken: false };
            assert_eq!(websocket(&bytes), expected);
        }
    }

    #[test]
    fn fragments_are_one_message_and_controls_may_come_between() {
        let bytes = [
            frame(0x01, true, b"hel"),
            frame(0x89, true, b"ping"),
            frame(0x00, true, b"l"),
            frame(0x80, true, b"o"),
            frame(0xC1, true, b"compressed"),
            frame(0x88, true, &[3, 232]),
        ];
        assert_eq!(websocket(&bytes.concat()), Tally { messages: 2, controls: 2, bytes: 21, broken: false });
    }

    #[test]
    fn a_message_counts_once_it_is_whole() {
        let bytes = frame(0x81, false, b"hello");
        assert_eq!(websocket(&bytes[..bytes.len() - 1]), Tally { bytes: 4, ..Tally::default() });
        assert_eq!(websocket(&bytes[..1]), Tally::default());
    }

    #[test]
    fn what_is_no_frame_ends_the_count() {
        let good = frame(0x81, false, b"x");
        for bad in [
            frame(0x80, false, b"nothing to go on with"),
            frame(0x83, false, b"reserved"),
            frame(0x8B, false, b"reserved"),
            frame(0x09, false, b"a ping in parts"),
            frame(0x89, false, &[0; 126]),
            [&frame(0x01, false, b"a")[..], &frame(0x81, false, b"b")[..]].concat(),
            vec![0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let tally = websocket(&[&good[..], &bad[..], &good[..]].concat());
            assert!(tally.broken && tally.messages == 1, "{bad:?}: {tally:?}");
        }
    }

    #[test]
    fn a_frame_of_eight_exbibytes_is_only_a_number() {
        let tally = websocket(&[&[0x82, 127, 0x7F, 255, 255, 255, 255, 255, 255, 255][..], &[0; 100]].concat());
        assert_eq!(tally, Tally { bytes: 100, ..Tally::default() });
    }

    #[test]
    fn grpc_messages_are_counted_by_their_prefixes() {
        let bytes = b"\x00\x00\x00\x00\x03abc\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02de\x00\xFF\xFF\xFF\xFFpart";
        assert_eq!(grpc(bytes), Tally { messages: 3, controls: 0, bytes: 9, broken: false });
        assert!(grpc(b"<html>").broken);
        assert_eq!(grpc(b""), Tally::default());
    }
}
