//! A WebSocket that echoes (RFC 6455). Frames pass through as they come, so a message of any length costs no memory.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::SEC_WEBSOCKET_KEY;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use wire::{Body, BodyError};

use crate::origin::socket::{MASKED, Masked, accepted};

const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const CLOSE: u8 = 0x8;

pub(super) fn answer(request: Request<Body>) -> Response<Body> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
    let state = Some((request.into_body(), Echo::default()));
    let frames = futures_util::stream::unfold(state, |state| async {
        let (mut body, mut echo) = state?;
        loop {
            match echo.next() {
                Ok(Some(bytes)) if echo.closed => return Some((Ok(Frame::data(bytes)), None)),
                Ok(Some(bytes)) => return Some((Ok(Frame::data(bytes)), Some((body, echo)))),
                Ok(None) => {}
                Err(Unmasked) => {
                    return Some((Err(BodyError("the visitor sent a frame without a mask".to_owned())), None));
                }
            }
            match body.frame().await? {
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        echo.frames.input.extend_from_slice(&bytes);
                    }
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
    });
    accepted(key.as_ref(), Body::wrap(StreamBody::new(frames)))
}

/// Turns the visitor's masked frames into the same frames without mask.
#[derive(Default)]
struct Echo {
    frames: Masked,
    /// The frame under way is a Close, after which nothing follows.
    closing: bool,
    closed: bool,
}

#[derive(Debug, PartialEq)]
struct Unmasked;

impl Echo {
    /// What can be sent now; `None`: more input is needed.
    fn next(&mut self) -> Result<Option<Bytes>, Unmasked> {
        let mut output = BytesMut::new();
        loop {
            if !self.frames.is_through() {
                let Some(payload) = self.frames.payload() else { break };
                output.unsplit(payload);
            } else if self.closing {
                self.closed = true;
                break;
            } else if !self.head(&mut output)? {
                break;
            }
        }
        Ok((!output.is_empty()).then(|| output.freeze()))
    }

    /// Reads a frame's head and writes the one of its echo. `false`: more input is needed.
    fn head(&mut self, output: &mut BytesMut) -> Result<bool, Unmasked> {
        let Some([first, second]) = self.frames.peek() else { return Ok(false) };
        if second & MASKED == 0 {
            return Err(Unmasked);
        }
        let Some(length) = self.frames.begin(second) else { return Ok(false) };
        let opcode = first & 0x0f;
        self.closing = opcode == CLOSE;
        output.put_u8(if opcode == PING { (first & 0xf0) | PONG } else { first });
        output.put_u8(second & !MASKED);
        match second & !MASKED {
            126 => output.put_u16(u16::try_from(length).unwrap_or(u16::MAX)),
            127 => output.put_u64(length),
            _ => {}
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..126) => frame.push(0x80 | u8::try_from(length).unwrap()),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        frame
    }

    fn echoed(input: &[u8], chunk: usize) -> Vec<u8> {
        let mut echo = Echo::default();
        let mut output = Vec::new();
        for chunk in input.chunks(chunk) {
            echo.frames.input.extend_from_slice(chunk);
            while let Some(bytes) = echo.next().unwrap() {
                output.extend_from_slice(&bytes);
                if echo.closed {
                    return output;
                }
            }
        }
        output
    }

    #[test]
    fn frames_come_back_unmasked_however_they_are_cut() {
        let long = vec![b'x'; 300];
        let longer = vec![b'y'; 70_000];
        let mut input = masked(1, b"hello");
        input.extend(masked(2, &long));
        input.extend(masked(9, b"p"));
        input.extend(masked(2, &longer));
        input.extend(masked(1, b""));
        input.extend(masked(8, &[3, 232]));
        input.extend(masked(1, b"after the close"));
        let mut expected = vec![0x81, 5];
        expected.extend(b"hello");
        expected.extend([0x82, 126, 1, 44]);
        expected.extend(&long);
        expected.extend([0x8a, 1, b'p', 0x82, 127]);
        expected.extend(70_000_u64.to_be_bytes());
        expected.extend(&longer);
        expected.extend([0x81, 0, 0x88, 2, 3, 232]);
        for chunk in [1, 2, 3, 7, 1000, 1_000_000] {
            assert_eq!(echoed(&input, chunk), expected, "cut at {chunk}");
        }
    }

    #[test]
    fn a_frame_without_mask_is_refused() {
        let mut echo = Echo::default();
        echo.frames.input.extend_from_slice(&[0x81, 1, b'x']);
        assert_eq!(echo.next(), Err(Unmasked));
    }
}
