//! The agent as the end of a visitor's WebSocket (section 5.4): frames off and on, bytes to and from a stream.

mod masked;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Interval;
use tokio_util::sync::{CancellationToken, PollSender};
use wire::{Body, BodyError};

pub(in crate::origin) use masked::{MASKED, Masked};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Payload of the largest frame that is sent; what the stock client sends as well.
const LARGEST_FRAME: usize = 16 << 10;

/// Payload of a control frame (RFC 6455 section 5.5).
const LARGEST_CONTROL: u64 = 125;

/// Frames that wait for the tunnel; beyond them the origin waits.
const FRAMES: usize = 4;

/// The pause between pings, as the reference has it: proxies close what is silent for a minute.
const PING_PAUSE: Duration = Duration::from_secs(54);

const CONTINUATION: u8 = 0x0;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FINAL: u8 = 0x80;

/// Close code 1000, a normal end.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// The answer that accepts a WebSocket. Without a key, which an edge may leave out, there is nothing to prove.
pub(super) fn accepted(key: Option<&HeaderValue>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Some(key) = key {
        let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(GUID).finalize();
        let accept = HeaderValue::from_str(&STANDARD.encode(digest)).expect("base64 is fit for a header");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// The bytes in a visitor's WebSocket. Its end comes as the end of reading; shutting it down says Close.
///
/// A WebSocket has no end of its own for each way: [`Signals::over`] tells that one of them has ended.
pub(super) struct Socket {
    visitor: Body,
    decoder: Decoder,
    unread: Bytes,
    /// `None` once the last frame is sent.
    frames: Option<PollSender<Bytes>>,
    /// A control frame that is due. A newer one takes its place: nobody needs more than the last Pong.
    due: Option<Bytes>,
    pings: Interval,
    ended: bool,
    orderly: Arc<AtomicBool>,
    over: CancellationToken,
}

/// What is known of a socket from outside.
pub(super) struct Signals {
    /// One of the two ways has ended.
    pub(super) over: CancellationToken,
    /// The visitor's side is gone: its answer was dropped.
    pub(super) gone: CancellationToken,
}

impl Socket {
    /// The socket whose visitor speaks in `visitor`, what is known of it, and the body of the answer.
    pub(super) fn new(visitor: Body) -> (Self, Signals, Body) {
        let (sender, receiver) = mpsc::channel(FRAMES);
        let (over, gone) = (CancellationToken::new(), CancellationToken::new());
        let orderly = Arc::new(AtomicBool::new(false));
        let state = Some((receiver, Arc::clone(&orderly), gone.clone().drop_guard()));
        let answer = futures_util::stream::unfold(state, |state| async {
            let (mut receiver, orderly, gone) = state?;
            match receiver.recv().await {
                Some(frame) => Some((Ok(Frame::data(frame)), Some((receiver, orderly, gone)))),
                None if orderly.load(Ordering::Acquire) => None,
                None => Some((Err(BodyError("the origin's byte stream broke off".to_owned())), None)),
            }
        });
        let answer = Body::wrap(StreamBody::new(Box::pin(answer)));
        let mut pings = tokio::time::interval(PING_PAUSE);
        pings.reset();
        let socket = Self {
            visitor,
            decoder: Decoder::default(),
            unread: Bytes::new(),
            frames: Some(PollSender::new(sender)),
            due: None,
            pings,
            ended: false,
            orderly,
            over: over.clone(),
        };
        (socket, Signals { over, gone }, answer)
    }

    /// Sends a control frame that is due, as soon as there is room.
    fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pings.poll_tick(context).is_ready() {
            self.due.get_or_insert_with(|| frame(PING, &[]));
        }
        if self.due.is_none() {
            return Poll::Ready(Ok(()));
        }
        let Some(frames) = &mut self.frames else { return Poll::Ready(Ok(())) };
        ready!(frames.poll_reserve(context)).map_err(|_| left())?;
        match self.due.take() {
            Some(frame) => Poll::Ready(frames.send_item(frame).map_err(|_| left())),
            None => Poll::Ready(Ok(())),
        }
    }
}

fn left() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the visitor left")
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Whether it could be sent or has to wait: reading goes on.
        if let Poll::Ready(Err(error)) = this.poll_control(context) {
            return Poll::Ready(Err(error));
        }
        loop {
            if !this.unread.is_empty() {
                let ready = this.unread.len().min(buffer.remaining());
                buffer.put_slice(&this.unread.split_to(ready));
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            match this.decoder.next()? {
                Some(Event::Payload(bytes)) => this.unread = bytes,
                Some(Event::Ping(bytes)) => {
                    this.due = Some(frame(PONG, &bytes));
                    if let Poll::Ready(Err(error)) = this.poll_control(context) {
                        return Poll::Ready(Err(error));
                    }
                }
                Some(Event::Close) => this.ended = true,
                None => match ready!(Pin::new(&mut this.visitor).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            this.decoder.feed(&bytes);
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                    None => this.ended = true,
                },
            }
            if this.ended {
                this.over.cancel();
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_control(context))?;
        let Some(frames) = &mut self.frames else { return Poll::Ready(Err(left())) };
        ready!(frames.poll_reserve(context)).map_err(|_| left())?;
        let payload = &bytes[..bytes.len().min(LARGEST_FRAME)];
        frames.send_item(frame(BINARY, payload)).map_err(|_| left())?;
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_control(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_control(context))?;
        if let Some(frames) = &mut self.frames {
            ready!(frames.poll_reserve(context)).map_err(|_| left())?;
            frames.send_item(frame(CLOSE, &NORMAL)).map_err(|_| left())?;
            self.orderly.store(true, Ordering::Release);
            self.frames = None;
            self.over.cancel();
        }
        Poll::Ready(Ok(()))
    }
}

/// Waits until the answer is gone or, from the end of one way on, for `last_words`.
pub(super) async fn finished(signals: Signals, last_words: Duration) {
    let ending = async {
        signals.over.cancelled().await;
        tokio::time::sleep(last_words).await;
    };
    let mut ending = std::pin::pin!(ending);
    let mut gone = std::pin::pin!(signals.gone.cancelled());
    poll_fn(|context| {
        let done = gone.as_mut().poll(context).is_ready() || ending.as_mut().poll(context).is_ready();
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One frame without mask. The payload is not larger than [`LARGEST_FRAME`].
fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(4 + payload.len());
    frame.put_u8(FINAL | opcode);
    match u16::try_from(payload.len()).unwrap_or(u16::MAX) {
        length @ 0..126 => frame.put_u8(u8::try_from(length).unwrap_or(u8::MAX)),
        length => {
            frame.put_u8(126);
            frame.put_u16(length);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}

/// Takes a visitor's frames apart (RFC 6455 section 5), however they are cut.
#[derive(Default)]
pub(super) struct Decoder {
    frames: Masked,
    opcode: u8,
    control: BytesMut,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Payload(Bytes),
    Ping(Bytes),
    Close,
}

/// A visitor's bytes are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the visitor's WebSocket is broken: {0}")]
pub(super) struct Malformed(&'static str);

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, malformed)
    }
}

impl Decoder {
    /// Takes more input.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.frames.input.extend_from_slice(bytes);
    }

    /// The next event; `None`: more input is needed.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Malformed> {
        loop {
            if self.frames.is_through() {
                if !self.head()? {
                    return Ok(None);
                }
                if self.frames.is_through()
                    && self.opcode >= CLOSE
                    && let Some(event) = self.controlled()
                {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(payload) = self.frames.payload() else { return Ok(None) };
            if self.opcode < CLOSE {
                return Ok(Some(Event::Payload(payload.freeze())));
            }
            self.control.unsplit(payload);
            if self.frames.is_through()
                && let Some(event) = self.controlled()
            {
                return Ok(Some(event));
            }
        }
    }

    /// A whole control frame is there.
    fn controlled(&mut self) -> Option<Event> {
        let payload = std::mem::take(&mut self.control).freeze();
        match self.opcode {
            CLOSE => Some(Event::Close),
            PING => Some(Event::Ping(payload)),
            _ => None,
        }
    }

    /// Reads a frame's head. `false`: more input is needed.
    fn head(&mut self) -> Result<bool, Malformed> {
        let Some([first, second]) = self.frames.peek() else { return Ok(false) };
        if second & MASKED == 0 {
            return Err(Malformed("a frame without a mask"));
        }
        if first & 0x70 != 0 {
            return Err(Malformed("an extension that was not agreed on"));
        }
        let opcode = first & 0x0f;
        let control = opcode >= CLOSE;
        if !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG) {
            return Err(Malformed("an unknown kind of frame"));
        }
        let short = u64::from(second & !MASKED);
        if control && (first & FINAL == 0 || short > LARGEST_CONTROL) {
            return Err(Malformed("a control frame that is too long, or in parts"));
        }
        if self.frames.begin(second).is_none() {
            return Ok(false);
        }
        self.opcode = opcode;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [9, 8, 7, 6];
        let mut frame = vec![first];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..126) => frame.push(MASKED | u8::try_from(length).unwrap()),
            Ok(length) => {
                frame.push(MASKED | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(MASKED | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        frame
    }

    /// Payloads joined, and what else was said.
    fn decoded(input: &[u8], chunk: usize) -> Result<(Vec<u8>, Vec<Event>), Malformed> {
        let (mut payload, mut others) = (Vec::new(), Vec::new());
        let mut decoder = Decoder::default();
        for chunk in input.chunks(chunk) {
            decoder.frames.input.extend_from_slice(chunk);
            while let Some(event) = decoder.next()? {
                match event {
                    Event::Payload(bytes) => payload.extend_from_slice(&bytes),
                    other => others.push(other),
                }
            }
        }
        Ok((payload, others))
    }

    #[test]
    fn frames_are_taken_apart_however_they_are_cut() {
        let long: Vec<u8> = (0..70_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut input = masked(0x82, b"hello");
        input.extend(masked(0x02, &long[..300]));
        input.extend(masked(0x89, b"p"));
        input.extend(masked(0x80, &long));
        input.extend(masked(0x8a, b""));
        input.extend(masked(0x89, b""));
        input.extend(masked(0x81, b""));
        input.extend(masked(0x88, &NORMAL));
        let expected = [b"hello", &long[..300], &long[..]].concat();
        for chunk in [1, 2, 3, 7, 1000, 1_000_000] {
            let (payload, others) = decoded(&input, chunk).unwrap();
            assert_eq!(payload, expected, "cut at {chunk}");
            let pings = [Event::Ping(Bytes::from_static(b"p")), Event::Ping(Bytes::new()), Event::Close];
            assert_eq!(others, pings, "cut at {chunk}");
        }
    }

    #[test]
    fn what_is_no_frame_of_a_visitor_is_refused() {
        let long = [0; 126];
        let wrong = [
            vec![0x82, 1, b'x'],
            masked(0xc2, b"x"),
            masked(0x83, b"x"),
            masked(0x8b, b"x"),
            masked(0x09, b"x"),
            masked(0x89, &long),
        ];
        for input in wrong {
            assert!(decoded(&input, 1000).is_err(), "{input:?}");
        }
    }

    #[test]
    fn whatever_comes_brings_no_more_than_came() {
        let frames = [masked(0x82, b"hello"), masked(0x89, &[1; 125]), masked(0x02, &[2; 300]), masked(0x88, &NORMAL)];
        let valid = frames.concat();
        let mut state: u64 = 7;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % limit.max(1)
        };
        for _ in 0..20_000 {
            let mut input = valid.clone();
            for _ in 0..=below(4) {
                let at = below(input.len());
                match below(3) {
                    0 => input.truncate(at),
                    1 => input.insert(at, u8::try_from(below(256)).unwrap()),
                    _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
                }
            }
            if let Ok((payload, others)) = decoded(&input, 1 + below(50)) {
                let told: usize = others
                    .iter()
                    .map(|event| match event {
                        Event::Payload(bytes) | Event::Ping(bytes) => bytes.len(),
                        Event::Close => 0,
                    })
                    .sum();
                assert!(payload.len() + told <= input.len());
            }
        }
    }

    #[tokio::test]
    async fn bytes_become_frames_and_the_end_a_close() {
        let mut said = masked(0x82, b"question");
        said.extend(masked(0x89, b"?"));
        said.extend(masked(0x88, &NORMAL));
        let (mut socket, signals, answer) = Socket::new(Body::full(said));
        let speaking = async {
            let mut question = String::new();
            socket.read_to_string(&mut question).await.unwrap();
            assert_eq!(question, "question");
            assert!(signals.over.is_cancelled());
            socket.write_all(&[7; LARGEST_FRAME + 1]).await.unwrap();
            socket.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(answer.collect(), speaking);
        let mut expected = vec![0x8a, 1, b'?', 0x82, 126, 0x40, 0];
        expected.extend([7; LARGEST_FRAME]);
        expected.extend([0x82, 1, 7, 0x88, 2, 3, 232]);
        assert_eq!(answer.unwrap().to_bytes(), expected);
        assert!(signals.gone.is_cancelled());
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_no_end() {
        let (socket, _, answer) = Socket::new(Body::empty());
        drop(socket);
        assert!(answer.collect().await.is_err());
    }
}
