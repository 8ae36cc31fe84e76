//! HTTP/2 frame by frame, by the sections of RFC 9113 and, for compressed headers, of RFC 7541: what must be taken, what must
//! end a stream, and what must end the connection. Whatever does not end it is followed by one honest request.

use harness::{Agent, Edge, LIMIT};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame,
};
use crate::strict::{Seen, Strict};
use Reaction::{Answered, Bytes, Closes, Passes, Refused, Resets};

/// What the edge must do.
#[derive(Debug, Clone, Copy)]
enum Reaction {
    /// Stream 1 is answered with 200, and the connection goes on.
    Answered,
    /// Nothing happens to any stream, and the connection goes on.
    Passes,
    /// So many bytes of the answer on stream 1 come before there is more room, and the connection goes on.
    Bytes(usize),
    /// Stream 1 is reset for one of these reasons, or the whole connection ends for one of them, which is allowed too (RFC 9113
    /// section 5.4.2).
    Resets(&'static [u32]),
    /// Stream 1 is reset or answered with an error, or the connection ends.
    Refused,
    /// The connection ends for one of these reasons.
    Closes(&'static [u32]),
}

// Reasons (RFC 9113 section 7).
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const CANCEL: u32 = 8;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

/// A kind of frame that is nobody's.
const UNKNOWN: u8 = 0xee;

// Flags.
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;
const WHOLE: u8 = END_STREAM | END_HEADERS;

// Settings (section 6.5.2).
const TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW: u16 = 4;
const MAX_FRAME: u16 = 5;

/// The stream of the honest request behind each case.
const NEXT: u32 = 1001;

fn setting(name: u16, value: u32) -> Vec<u8> {
    let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// A field, never indexed and without Huffman coding (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        // Each letter is one byte.
        let bytes: Vec<u8> = text.chars().map(|letter| letter as u8).collect();
        block.push(u8::try_from(bytes.len()).ok().filter(|length| *length < 127).expect("it is short"));
        block.extend(bytes);
    }
    block
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// Who is asked, and for what.
struct Site {
    host: String,
    path: String,
}

impl Site {
    /// The pseudo-headers of a request.
    fn pseudo(&self, method: &str) -> Vec<u8> {
        fields(&[(":method", method), (":scheme", "http"), (":authority", &self.host), (":path", &self.path)])
    }

    /// A request without a body, with more in its header's block.
    fn get_with(&self, stream: u32, more: &[u8]) -> Vec<u8> {
        frame(HEADERS, WHOLE, stream, &[&self.pseudo("GET"), more].concat())
    }

    fn get(&self, stream: u32) -> Vec<u8> {
        self.get_with(stream, &[])
    }

    /// A request whose body is still to come.
    fn post(&self, stream: u32) -> Vec<u8> {
        self.post_with(stream, &[])
    }

    fn post_with(&self, stream: u32, more: &[u8]) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &[&self.pseudo("POST"), more].concat())
    }

    /// A GET with these fields and no others.
    fn only(&self, given: &[(&str, &str)]) -> Vec<u8> {
        let fill = |text: &str| text.replace('%', &self.host).replace('~', &self.path);
        let filled: Vec<_> = given.iter().map(|(name, value)| (*name, fill(value))).collect();
        let filled: Vec<_> = filled.iter().map(|(name, value)| (*name, value.as_str())).collect();
        frame(HEADERS, WHOLE, 1, &fields(&filled))
    }
}

/// Section, name, frames behind preface and settings, reaction.
type Case = (&'static str, &'static str, fn(&Site) -> Vec<u8>, Reaction);

macro_rules! cases {
    ($($section:literal $name:literal $site:pat => [$($part:expr),* $(,)?] $reaction:expr;)*) => {
        const CASES: &[Case] = &[$(
            ($section, $name, |$site| [$($part),*].concat(), $reaction),
        )*];
    };
}

const M: (&str, &str) = (":method", "GET");
const S: (&str, &str) = (":scheme", "http");
const A: (&str, &str) = (":authority", "%");
const P: (&str, &str) = (":path", "~");

cases! {
    // What is honest, to know that the others fail for their own reasons.
    "8.1" "a GET" s => [s.get(1)] Answered;
    "8.1" "a HEAD" s => [frame(HEADERS, WHOLE, 1, &s.pseudo("HEAD"))] Answered;
    "8.1" "a POST in two frames" s => [
        s.post(1),
        frame(DATA, 0, 1, b"he"),
        frame(DATA, END_STREAM, 1, b"llo"),
    ] Answered;
    "8.1" "a POST with trailers" s => [
        s.post(1),
        frame(DATA, 0, 1, b"hi"),
        frame(HEADERS, WHOLE, 1, &field("x", "y")),
    ] Answered;
    "8.1" "a POST with an empty body" s => [s.post(1), frame(DATA, END_STREAM, 1, b"")] Answered;
    // 4.1, 5.5: what is not known is passed over.
    "4.1" "a frame of no known type" s => [frame(UNKNOWN, 0, 0, b"12345678"), s.get(1)] Answered;
    "4.1" "a frame of no known type on the stream" s => [
        s.post(1),
        frame(UNKNOWN, 0xff, 1, b"x"),
        frame(DATA, 1, 1, b"hi"),
    ] Answered;
    "4.1" "a PING with all flags but ACK" s => [frame(PING, 0xfe, 0, b"12345678"), s.get(1)] Answered;
    "4.1" "the reserved bit of a stream's number" s => [frame(HEADERS, WHOLE, 1 | 1 << 31, &s.pseudo("GET"))] Answered;
    "4.1" "the reserved bit of a PING" s => [frame(PING, 0, 1 << 31, b"12345678"), s.get(1)] Answered;
    "5.5" "a setting of no known name" s => [setting(0xff, 7), s.get(1)] Answered;
    "5.5" "an unknown frame within a header" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(UNKNOWN, 0, 1, b""),
        frame(CONTINUATION, 4, 1, b""),
    ] Closes(&[PROTOCOL]);
    // 4.2: sizes.
    "4.2" "DATA of the largest size" s => [s.post(1), frame(DATA, 1, 1, &[b'x'; 16_384])] Answered;
    "4.2" "DATA that is larger" s => [s.post(1), frame(DATA, 1, 1, &[b'x'; 16_385])] Resets(&[FRAME_SIZE]);
    "4.2" "HEADERS that are larger" s => [s.get_with(1, &[0; 16_385])] Closes(&[FRAME_SIZE]);
    "4.2" "CONTINUATION that is larger" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(CONTINUATION, 4, 1, &[0; 16_385]),
    ] Closes(&[FRAME_SIZE]);
    "4.2" "an unknown frame that is larger" _ => [frame(UNKNOWN, 0, 0, &[0; 16_385])] Closes(&[FRAME_SIZE]);
    "4.2" "SETTINGS that are larger" _ => [frame(SETTINGS, 0, 0, &[0; 16_386])] Closes(&[FRAME_SIZE]);
    // 4.3 and RFC 7541: compression.
    "7541 6.1" "an index of the static table" s => [s.get_with(1, &[0x80 | 16])] Answered;
    "7541 6.1" "index 0" s => [s.get_with(1, &[0x80])] Closes(&[COMPRESSION]);
    "7541 2.3.3" "an index beyond both tables" s => [s.get_with(1, &[0xff, 0xff, 0x7f])] Closes(&[COMPRESSION]);
    "7541 2.3.3" "the first index of an empty dynamic table" s => [s.get_with(1, &[0x80 | 62])] Closes(&[COMPRESSION]);
    "7541 2.3.3" "a name beyond both tables" s => [s.get_with(1, &[0x7f, 0x40, 1, b'x'])] Closes(&[COMPRESSION]);
    "7541 2.3.3" "an entry of the dynamic table" s => [s.get_with(1, &[0x40, 1, b'x', 1, b'y', 0x80 | 62])] Answered;
    "7541 6.2.1" "a literal to be indexed, its name indexed" s => [s.get_with(1, &[0x40 | 58, 1, b'x'])] Answered;
    "7541 6.2.2" "a literal without indexing, its name indexed" s => [
        s.get_with(1, &[0x0f, 58 - 15, 1, b'x']),
    ] Answered;
    "7541 6.2.3" "a literal never to be indexed" s => [s.get_with(1, &[0x10, 1, b'x', 1, b'y'])] Answered;
    "7541 5.2" "a value in Huffman code" s => [s.get_with(1, &[0, 1, b'x', 0x81, 0x1f])] Answered;
    "7541 5.2" "a name in Huffman code" s => [s.get_with(1, &[0, 0x81, 0x1f, 1, b'y'])] Answered;
    "7541 5.2" "padding of more than 7 bits" s => [
        s.get_with(1, &[0, 1, b'x', 0x82, 0x1f, 0xff]),
    ] Closes(&[COMPRESSION]);
    "7541 5.2" "padding of zeros" s => [s.get_with(1, &[0, 1, b'x', 0x81, 0x18])] Closes(&[COMPRESSION]);
    "7541 5.2" "the end of string in a string" s => [
        s.get_with(1, &[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
    ] Closes(&[COMPRESSION]);
    "7541 5.1" "a number without an end" s => [
        s.get_with(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
    ] Closes(&[COMPRESSION]);
    "7541 5.1" "a number cut short" s => [s.get_with(1, &[0xff])] Closes(&[COMPRESSION]);
    "7541 5.2" "a string cut short" s => [s.get_with(1, &[0, 1, b'x', 9, b'y'])] Closes(&[COMPRESSION]);
    "7541 5.2" "a name cut short" s => [s.get_with(1, &[0, 9, b'x'])] Closes(&[COMPRESSION]);
    "7541 6.3" "a smaller table at the beginning" s => [
        frame(HEADERS, WHOLE, 1, &[&[0x20], &s.pseudo("GET")[..]].concat()),
    ] Answered;
    "7541 4.2" "two table sizes at the beginning" s => [
        frame(HEADERS, WHOLE, 1, &[&[0x20, 0x3f, 0xe1, 0x1f], &s.pseudo("GET")[..]].concat()),
    ] Answered;
    "7541 6.3" "a table larger than allowed" s => [
        frame(HEADERS, WHOLE, 1, &[&[0x3f, 0xe2, 0x3f], &s.pseudo("GET")[..]].concat()),
    ] Closes(&[COMPRESSION]);
    "7541 4.2" "a table size at the end" s => [s.get_with(1, &[0x20])] Closes(&[COMPRESSION]);
    "4.3" "an empty header" _ => [frame(HEADERS, WHOLE, 1, &[])] Refused;
    // 5.1: states.
    "5.1" "DATA on an idle stream" _ => [frame(DATA, 0, 1, b"x")] Closes(&[PROTOCOL]);
    "5.1" "RST_STREAM on an idle stream" _ => [reset(1, CANCEL)] Closes(&[PROTOCOL]);
    "5.1" "WINDOW_UPDATE on an idle stream" _ => [window(1, 1)] Closes(&[PROTOCOL]);
    "5.1" "CONTINUATION on an idle stream" _ => [frame(CONTINUATION, 4, 1, &[0x82])] Closes(&[PROTOCOL]);
    "5.1" "PRIORITY on an idle stream" s => [frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]), s.get(1)] Answered;
    "5.1" "DATA behind the end" s => [s.get(1), frame(DATA, 1, 1, b"x")] Resets(&[STREAM_CLOSED]);
    "5.1" "HEADERS behind the end" s => [s.get(1), s.get(1)] Resets(&[STREAM_CLOSED, PROTOCOL]);
    "5.1" "CONTINUATION behind the end" s => [
        s.get(1),
        frame(CONTINUATION, 4, 1, &[0x82]),
    ] Closes(&[STREAM_CLOSED, PROTOCOL]);
    "5.1" "WINDOW_UPDATE behind the end" s => [s.get(1), window(1, 100)] Answered;
    "5.1" "PRIORITY behind the end" s => [s.get(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])] Answered;
    "5.1" "DATA behind a reset" s => [s.post(1), reset(1, CANCEL), frame(DATA, 1, 1, b"x")] Resets(&[STREAM_CLOSED]);
    "5.1" "HEADERS behind a reset" s => [s.post(1), reset(1, CANCEL), s.get(1)] Resets(&[STREAM_CLOSED, PROTOCOL]);
    "5.1" "CONTINUATION behind a reset" s => [
        s.post(1),
        reset(1, CANCEL),
        frame(CONTINUATION, 4, 1, &[0x82]),
    ] Closes(&[STREAM_CLOSED, PROTOCOL]);
    "5.1" "WINDOW_UPDATE behind a reset" s => [s.post(1), reset(1, CANCEL), window(1, 1)] Passes;
    "5.1" "PRIORITY behind a reset" s => [s.post(1), reset(1, CANCEL), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])] Passes;
    "5.1.1" "an even number" s => [frame(HEADERS, WHOLE, 2, &s.pseudo("GET"))] Closes(&[PROTOCOL]);
    "5.1.1" "a smaller number than before" s => [s.get(5), s.get(3)] Closes(&[PROTOCOL, STREAM_CLOSED]);
    "5.3.1" "HEADERS that depend on themselves" s => [
        frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 1], &s.pseudo("GET")[..]].concat()),
    ] Resets(&[PROTOCOL]);
    // 6.1: DATA.
    "6.1" "DATA on the connection" s => [s.post(1), frame(DATA, 0, 0, b"x")] Closes(&[PROTOCOL]);
    "6.1" "padding" s => [s.post(1), frame(DATA, END_STREAM | PADDED, 1, &[2, b'h', b'i', 0, 0])] Answered;
    "6.1" "nothing but padding" s => [s.post(1), frame(DATA, END_STREAM | PADDED, 1, &[2, 0, 0])] Answered;
    "6.1" "padding as long as the frame" s => [
        s.post(1),
        frame(DATA, END_STREAM | PADDED, 1, &[3, 0, 0]),
    ] Closes(&[PROTOCOL]);
    "6.1" "padding longer than the frame" s => [
        s.post(1),
        frame(DATA, END_STREAM | PADDED, 1, &[200, 0, 0]),
    ] Closes(&[PROTOCOL]);
    "6.1" "padding without its length" s => [
        s.post(1),
        frame(DATA, END_STREAM | PADDED, 1, &[]),
    ] Closes(&[PROTOCOL, FRAME_SIZE]);
    // 6.2: HEADERS.
    "6.2" "HEADERS on the connection" s => [frame(HEADERS, WHOLE, 0, &s.pseudo("GET"))] Closes(&[PROTOCOL]);
    "6.2" "padding" s => [frame(HEADERS, WHOLE | PADDED, 1, &[&[2], &s.pseudo("GET")[..], &[0, 0]].concat())] Answered;
    "6.2" "padding longer than the frame" s => [
        frame(HEADERS, WHOLE | PADDED, 1, &[&[200], &s.pseudo("GET")[..]].concat()),
    ] Closes(&[PROTOCOL]);
    "6.2" "padding without its length" _ => [frame(HEADERS, WHOLE | PADDED, 1, &[])] Closes(&[PROTOCOL, FRAME_SIZE]);
    "6.2" "a priority" s => [
        frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0x80, 0, 0, 0, 255], &s.pseudo("GET")[..]].concat()),
    ] Answered;
    "6.2" "a priority cut short" _ => [
        frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0, 0, 0, 0]),
    ] Closes(&[PROTOCOL, FRAME_SIZE]);
    "6.2" "a PRIORITY within a header" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
    ] Closes(&[PROTOCOL]);
    "6.2" "a PING within a header" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(PING, 0, 0, b"12345678"),
    ] Closes(&[PROTOCOL]);
    "6.2" "SETTINGS within a header" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(SETTINGS, 0, 0, &[]),
    ] Closes(&[PROTOCOL]);
    "6.2" "DATA within a header" s => [
        frame(HEADERS, 0, 1, &s.pseudo("POST")),
        frame(DATA, 1, 1, b"x"),
    ] Closes(&[PROTOCOL]);
    "6.2" "HEADERS of another stream within a header" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        s.get(3),
    ] Closes(&[PROTOCOL]);
    "6.2" "HEADERS of the same stream within a header" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        s.get(1),
    ] Closes(&[PROTOCOL]);
    // 6.3: PRIORITY.
    "6.3" "a PRIORITY" s => [
        s.post(1),
        frame(PRIORITY, 0, 1, &[0x80, 0, 0, 0, 255]),
        frame(DATA, 1, 1, b"hi"),
    ] Answered;
    "6.3" "PRIORITY on the connection" _ => [frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1])] Closes(&[PROTOCOL]);
    "6.3" "PRIORITY of 4 bytes" s => [s.post(1), frame(PRIORITY, 0, 1, &[0; 4])] Resets(&[FRAME_SIZE]);
    "6.3" "PRIORITY of 6 bytes" s => [s.post(1), frame(PRIORITY, 0, 1, &[0; 6])] Resets(&[FRAME_SIZE]);
    // 6.4: RST_STREAM.
    "6.4" "a reset for no known reason" s => [s.post(1), reset(1, 0xff)] Passes;
    "6.4" "RST_STREAM on the connection" _ => [reset(0, CANCEL)] Closes(&[PROTOCOL]);
    "6.4" "RST_STREAM of 3 bytes" s => [s.post(1), frame(RST_STREAM, 0, 1, &[0; 3])] Closes(&[FRAME_SIZE]);
    "6.4" "RST_STREAM of 5 bytes" s => [s.post(1), frame(RST_STREAM, 0, 1, &[0; 5])] Closes(&[FRAME_SIZE]);
    // 6.5: SETTINGS.
    "6.5" "SETTINGS on a stream" _ => [frame(SETTINGS, 0, 1, &[])] Closes(&[PROTOCOL]);
    "6.5" "an acknowledgement that says something" _ => [frame(SETTINGS, ACK, 0, &[0; 6])] Closes(&[FRAME_SIZE]);
    "6.5" "SETTINGS of 5 bytes" _ => [frame(SETTINGS, 0, 0, &[0; 5])] Closes(&[FRAME_SIZE]);
    "6.5" "SETTINGS of 7 bytes" _ => [frame(SETTINGS, 0, 0, &[0; 7])] Closes(&[FRAME_SIZE]);
    "6.5" "SETTINGS again" s => [frame(SETTINGS, 0, 0, &[]), s.get(1)] Answered;
    "6.5.2" "push switched off" s => [setting(ENABLE_PUSH, 0), s.get(1)] Answered;
    "6.5.2" "push of 2" _ => [setting(ENABLE_PUSH, 2)] Closes(&[PROTOCOL]);
    "6.5.2" "no dynamic table" s => [setting(TABLE_SIZE, 0), s.get(1)] Answered;
    "6.5.2" "the largest window" s => [setting(INITIAL_WINDOW, 0x7fff_ffff), s.get(1)] Answered;
    "6.5.2" "a window beyond it" _ => [setting(INITIAL_WINDOW, 0x8000_0000)] Closes(&[FLOW_CONTROL]);
    "6.5.2" "the smallest frames" s => [setting(MAX_FRAME, 16_384), s.get(1)] Answered;
    "6.5.2" "frames below it" _ => [setting(MAX_FRAME, 16_383)] Closes(&[PROTOCOL]);
    "6.5.2" "the largest frames" s => [setting(MAX_FRAME, 0xff_ffff), s.get(1)] Answered;
    "6.5.2" "frames beyond it" _ => [setting(MAX_FRAME, 0x100_0000)] Closes(&[PROTOCOL]);
    "6.5.3" "the last of two values counts" s => [
        setting(INITIAL_WINDOW, 100),
        setting(INITIAL_WINDOW, 1),
        s.get(1),
    ] Bytes(1);
    // 6.6: PUSH_PROMISE, which visitors have no right to.
    "6.6" "a promise" s => [
        s.post(1),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &s.pseudo("GET")[..]].concat()),
    ] Closes(&[PROTOCOL]);
    // 6.7: PING.
    "6.7" "a PING" s => [frame(PING, 0, 0, b"12345678"), s.get(1)] Answered;
    "6.7" "an answer to no PING" s => [frame(PING, ACK, 0, b"12345678"), s.get(1)] Answered;
    "6.7" "PING on a stream" _ => [frame(PING, 0, 1, b"12345678")] Closes(&[PROTOCOL]);
    "6.7" "PING of 7 bytes" _ => [frame(PING, 0, 0, b"1234567")] Closes(&[FRAME_SIZE]);
    "6.7" "PING of 9 bytes" _ => [frame(PING, 0, 0, b"123456789")] Closes(&[FRAME_SIZE]);
    "6.7" "PING of nothing" _ => [frame(PING, 0, 0, b"")] Closes(&[FRAME_SIZE]);
    // 6.8: GOAWAY.
    "6.8" "GOAWAY on a stream" s => [s.post(1), frame(GOAWAY, 0, 1, &[0; 8])] Closes(&[PROTOCOL]);
    "6.8" "GOAWAY of 7 bytes" _ => [frame(GOAWAY, 0, 0, &[0; 7])] Closes(&[FRAME_SIZE]);
    // 6.9: WINDOW_UPDATE.
    "6.9" "more room on the connection" s => [window(0, 1000), s.get(1)] Answered;
    "6.9" "more room on the stream" s => [s.post(1), window(1, 1000), frame(DATA, 1, 1, b"hi")] Answered;
    "6.9" "no more room on the connection" _ => [window(0, 0)] Closes(&[PROTOCOL]);
    "6.9" "no more room on the stream" s => [s.post(1), window(1, 0)] Resets(&[PROTOCOL]);
    "6.9" "WINDOW_UPDATE of 3 bytes" _ => [frame(WINDOW_UPDATE, 0, 0, &[0; 3])] Closes(&[FRAME_SIZE]);
    "6.9" "WINDOW_UPDATE of 5 bytes" _ => [frame(WINDOW_UPDATE, 0, 0, &[0; 5])] Closes(&[FRAME_SIZE]);
    "6.9" "WINDOW_UPDATE of 5 bytes on a stream" s => [
        s.post(1),
        frame(WINDOW_UPDATE, 0, 1, &[0; 5]),
    ] Closes(&[FRAME_SIZE]);
    "6.9.1" "a window beyond the largest, of the connection" _ => [
        window(0, 0x7fff_ffff),
        window(0, 1),
    ] Closes(&[FLOW_CONTROL]);
    "6.9.1" "a window beyond the largest, of the stream" s => [
        s.post(1),
        window(1, 0x7fff_ffff),
        window(1, 1),
    ] Resets(&[FLOW_CONTROL]);
    "6.9.2" "a window of one byte" s => [setting(INITIAL_WINDOW, 1), s.get(1)] Bytes(1);
    "6.9.2" "a window of nothing" s => [setting(INITIAL_WINDOW, 0), s.get(1)] Bytes(0);
    "6.9.2" "a window that opens later" s => [setting(INITIAL_WINDOW, 0), s.get(1), window(1, 1)] Bytes(1);
    "6.9.2" "settings push a window beyond the largest" s => [
        s.post(1),
        window(1, 0x7fff_0000),
        setting(INITIAL_WINDOW, 0x7fff_ffff),
    ] Closes(&[FLOW_CONTROL]);
    // 6.10: CONTINUATION.
    "6.10" "a header in three frames" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")[..5]),
        frame(CONTINUATION, 0, 1, &s.pseudo("GET")[5..9]),
        frame(CONTINUATION, 4, 1, &s.pseudo("GET")[9..]),
    ] Answered;
    "6.10" "an empty one at the end" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(CONTINUATION, 4, 1, &[]),
    ] Answered;
    "6.10" "CONTINUATION on the connection" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(CONTINUATION, 4, 0, &[]),
    ] Closes(&[PROTOCOL]);
    "6.10" "CONTINUATION on another stream" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(CONTINUATION, 4, 3, &[]),
    ] Closes(&[PROTOCOL]);
    "6.10" "CONTINUATION of a header that is whole" s => [
        s.post(1),
        frame(CONTINUATION, 4, 1, &field("x", "y")),
    ] Closes(&[PROTOCOL]);
    "6.10" "CONTINUATION of a header that has become whole" s => [
        frame(HEADERS, 0, 1, &s.pseudo("POST")),
        frame(CONTINUATION, 4, 1, &[]),
        frame(CONTINUATION, 4, 1, &[]),
    ] Closes(&[PROTOCOL]);
    "6.10" "CONTINUATION behind DATA" s => [
        s.post(1),
        frame(DATA, 0, 1, b"x"),
        frame(CONTINUATION, 4, 1, &[]),
    ] Closes(&[PROTOCOL]);
    "6.10" "CONTINUATION without end" s => [
        frame(HEADERS, 1, 1, &s.pseudo("GET")),
        frame(CONTINUATION, 0, 1, &[]).repeat(200),
    ] Closes(&[CALM, PROTOCOL]);
    // 8.1: requests as a whole.
    "8.1" "trailers that do not end the stream" s => [
        s.post(1),
        frame(DATA, 0, 1, b"x"),
        frame(HEADERS, 4, 1, &field("x", "y")),
    ] Resets(&[PROTOCOL]);
    "8.1.1" "less than announced" s => [
        s.post_with(1, &field("content-length", "9")),
        frame(DATA, 1, 1, b"hi"),
    ] Resets(&[PROTOCOL]);
    "8.1.1" "more than announced" s => [
        s.post_with(1, &field("content-length", "1")),
        frame(DATA, 1, 1, b"hi"),
    ] Resets(&[PROTOCOL]);
    "8.1.1" "more than announced in two frames" s => [
        s.post_with(1, &field("content-length", "3")),
        frame(DATA, 0, 1, b"hi"),
        frame(DATA, 1, 1, b"hi"),
    ] Resets(&[PROTOCOL]);
    "8.1.1" "announced and not there" s => [s.get_with(1, &field("content-length", "2"))] Refused;
    "8.1.1" "a length that is none" s => [
        s.post_with(1, &field("content-length", "x")),
        frame(DATA, 1, 1, b"hi"),
    ] Refused;
    // 8.2: fields.
    "8.2.1" "a capital in a name" s => [s.get_with(1, &field("X", "y"))] Resets(&[PROTOCOL]);
    "8.2.1" "a space in a name" s => [s.get_with(1, &field("x y", "z"))] Refused;
    "8.2.1" "a name of nothing" s => [s.get_with(1, &field("", "z"))] Refused;
    "8.2.1" "a colon in a name" s => [s.get_with(1, &field("x:", "z"))] Refused;
    "8.2.1" "a line in a value" s => [s.get_with(1, &field("x", "y\nz"))] Refused;
    "8.2.1" "a carriage return in a value" s => [s.get_with(1, &field("x", "y\rz"))] Refused;
    "8.2.1" "a NUL in a value" s => [s.get_with(1, &field("x", "y\0z"))] Refused;
    "8.2.2" "connection" s => [s.get_with(1, &field("connection", "keep-alive"))] Refused;
    "8.2.2" "transfer-encoding" s => [s.get_with(1, &field("transfer-encoding", "chunked"))] Refused;
    "8.2.2" "te of something else" s => [s.get_with(1, &field("te", "gzip"))] Refused;
    "8.2.2" "te of trailers" s => [s.get_with(1, &field("te", "trailers"))] Answered;
    "8.2.3" "a cookie in pieces" s => [s.get_with(1, &fields(&[("cookie", "a=b"), ("cookie", "c=d")]))] Answered;
    // 8.3: pseudo-headers.
    "8.3" "one that is not known" s => [s.only(&[M, S, A, P, (":x", "y")])] Refused;
    "8.3" "one of answers" s => [s.only(&[M, S, A, P, (":status", "200")])] Refused;
    "8.3" "one behind a field" s => [s.only(&[M, S, A, ("x", "y"), P])] Refused;
    "8.3.1" "no method" s => [s.only(&[S, A, P])] Refused;
    "8.3.1" "no scheme" s => [s.only(&[M, A, P])] Refused;
    "8.3.1" "no path" s => [s.only(&[M, S, A, ("x", "~")])] Refused;
    "8.3.1" "a path of nothing" s => [s.only(&[M, S, A, (":path", ""), ("x", "~")])] Refused;
    "8.3.1" "two methods" s => [s.only(&[M, M, S, A, P])] Refused;
    "8.3.1" "two schemes" s => [s.only(&[M, S, S, A, P])] Refused;
    "8.3.1" "two authorities" s => [s.only(&[M, S, A, A, P])] Refused;
    "8.3.1" "two paths" s => [s.only(&[M, S, A, P, P])] Refused;
    "8.5" "CONNECT with a path" s => [s.only(&[(":method", "CONNECT"), S, A, P])] Refused;
    "8.5" "CONNECT to nobody" s => [s.only(&[(":method", "CONNECT"), ("x", "~")])] Refused;
}

/// What came back.
#[derive(Debug, Default)]
struct Answers {
    /// Of stream 1: its status is 200, or another.
    good: Option<bool>,
    /// Bytes of DATA on stream 1.
    data: usize,
    resets: Vec<(u32, u32)>,
    goaway: Option<u32>,
    closed: bool,
    /// The honest request behind is answered with 200.
    next: bool,
}

fn number(payload: &[u8], at: usize) -> u32 {
    payload.get(at..at + 4).map_or(u32::MAX, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
}

/// Sends the case and an honest request behind it, and reads until everything is said.
async fn exchange(edge: &Edge, site: &Site, frames: &[u8], reaction: Reaction) -> Answers {
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    sent.extend(frames);
    sent.extend(site.get(NEXT));
    let (mut reader, mut writer) = TcpStream::connect(edge.http()).await.unwrap().into_split();
    let writing = tokio::spawn(async move {
        // The edge may end it in the middle.
        let _ = writer.write_all(&sent).await;
        writer
    });
    let mut answers = Answers::default();
    // `:status: 200` is one byte.
    let is_good = |payload: &[u8]| payload.iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&0x88);
    while !reaction.is_over(&answers) {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() {
            answers.closed = true;
            break;
        }
        let mut payload = vec![0; number(&[0, head[0], head[1], head[2]], 0) as usize];
        if reader.read_exact(&mut payload).await.is_err() {
            answers.closed = true;
            break;
        }
        match (head[3], number(&head, 5)) {
            (HEADERS, 1) => answers.good = Some(is_good(&payload)),
            (HEADERS, NEXT) => answers.next = is_good(&payload),
            (DATA, 1) => answers.data += payload.len(),
            (RST_STREAM, stream) => answers.resets.push((stream, number(&payload, 0))),
            (GOAWAY, _) => answers.goaway = Some(number(&payload, 4)),
            _ => (),
        }
    }
    writing.abort();
    answers
}

impl Reaction {
    /// All has come that is to come if the connection goes on.
    fn is_over(self, answers: &Answers) -> bool {
        let is_reset = answers.resets.iter().any(|(stream, _)| *stream == 1);
        answers.next
            && match self {
                Answered => answers.good.is_some() || is_reset,
                Passes | Closes(_) => true,
                Bytes(count) => answers.good.is_some() && answers.data >= count,
                Resets(_) => is_reset,
                Refused => answers.good.is_some() || is_reset,
            }
    }

    fn fits(self, answers: &Answers) -> bool {
        // The word may be lost with a connection that is cut while more is being sent.
        let ends = |reasons: &[u32]| answers.closed && answers.goaway.is_none_or(|reason| reasons.contains(&reason));
        let reset = answers.resets.iter().find(|(stream, _)| *stream == 1);
        match self {
            Answered => answers.good == Some(true) && answers.next && reset.is_none(),
            Passes => answers.next && answers.resets.is_empty(),
            Bytes(count) => answers.next && answers.data == count,
            Resets(reasons) => {
                reset.map_or_else(|| ends(reasons), |(_, reason)| reasons.contains(reason) && answers.next)
            }
            Refused => answers.good != Some(true) && (reset.is_some() || answers.closed || answers.good.is_some()),
            Closes(reasons) => ends(reasons),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_breach_of_http2_is_met_as_the_standard_says() {
    let origin = Strict::start().await;
    let edge = Edge::start().await;
    let mut agent = Agent::start(&edge, &origin.service(), &["--protocol", "http2"]).await;
    let mut problems = Vec::new();
    for (number, (section, name, frames, reaction)) in CASES.iter().enumerate() {
        let site = Site { host: agent.host(), path: format!("/case-{number}/") };
        let sent = frames(&site);
        let exchange = exchange(&edge, &site, &sent, *reaction);
        match tokio::time::timeout(LIMIT, exchange).await {
            Ok(answers) if reaction.fits(&answers) => (),
            Ok(answers) => problems.push(format!("{section} {name}: {reaction:?}, but {answers:?}")),
            Err(_) => problems.push(format!("{section} {name}: {reaction:?}, but silence")),
        }
    }
    agent.process.terminate().await;
    let seen = origin.seen().await;
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), CASES.len(), problems.join("\n"));
    for (number, (section, name, _, reaction)) in CASES.iter().enumerate() {
        let path = format!("/case-{number}/");
        let whole = seen.iter().filter(|seen| matches!(seen, Seen::Whole { .. }) && seen.mentions(&path)).count();
        // Behind what is refused goes the honest request; behind what closes the connection goes nothing.
        let most = if matches!(reaction, Refused | Closes(_)) { 1 } else { 2 };
        assert!(whole <= most, "{section} {name}: the origin got {whole} requests: {seen:?}");
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Ambiguous { .. })), "{section} {name}: {seen:?}");
    }
}
