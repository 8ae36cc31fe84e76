//! HTTP/3 over QUIC: what the HTTP/3 library needs of the QUIC library, with three additions. Frames are guarded, the
//! visitor's leaving is seen while nothing is sent, and a stream that is dropped in the middle ends in a reset.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::VarInt;
use tokio::sync::Notify;

use super::guard::{Guard, Refused};

/// What is read at once; more would only wait in memory.
const READ: usize = 64 * 1024;

/// Frames of a control stream are a few numbers.
const CONTROL_FRAME: usize = 4 * 1024;

/// One QUIC connection of a visitor.
pub(super) struct Connection {
    quic: quinn::Connection,
    accepting_both: Option<BoxFuture<'static, Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>>>,
    accepting_one: Option<BoxFuture<'static, Result<quinn::RecvStream, quinn::ConnectionError>>>,
    opener: Opener,
    requests: Requests,
    header_limit: usize,
    flooded: Arc<Notify>,
}

/// Beside each request that the library accepts, what it does not tell.
#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Option<Sidelight>>>);

/// What the library does not tell about a request.
pub(super) struct Sidelight {
    /// Whether it asks for a WebSocket; known when its header is.
    pub(super) websocket: Arc<AtomicBool>,
    /// Ends when the visitor wants no more of the answer, or has all of it.
    pub(super) done: BoxFuture<'static, ()>,
}

impl Requests {
    /// What belongs to the request that was accepted last.
    pub(super) fn latest(&self) -> Option<Sidelight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, sidelight: Sidelight) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sidelight);
    }
}

impl Connection {
    pub(super) fn new(quic: quinn::Connection, header_limit: usize) -> Self {
        Self {
            opener: Opener { quic: quic.clone(), opening: None },
            quic,
            accepting_both: None,
            accepting_one: None,
            requests: Requests::default(),
            header_limit,
            flooded: Arc::default(),
        }
    }

    /// Told when a stream brings too many frames that carry nothing.
    pub(super) fn flooded(&self) -> Arc<Notify> {
        Arc::clone(&self.flooded)
    }

    pub(super) fn requests(&self) -> Requests {
        self.requests.clone()
    }
}

impl<B: Buf> quic::Connection<B> for Connection {
    type RecvStream = Receiver;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Receiver, ConnectionErrorIncoming>> {
        let quic = &self.quic;
        let accepting = self.accepting_one.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.accept_uni().await })
        });
        let accepted = ready!(accepting.as_mut().poll(context));
        self.accepting_one = None;
        let flooded = Arc::clone(&self.flooded);
        Poll::Ready(match accepted {
            Ok(stream) => Ok(Receiver::new(stream, Guard::one_way(CONTROL_FRAME), flooded)),
            Err(error) => Err(connection_error(error)),
        })
    }

    fn poll_accept_bidi(&mut self, context: &mut Context<'_>) -> Poll<Result<Both<B>, ConnectionErrorIncoming>> {
        let quic = &self.quic;
        let accepting = self.accepting_both.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.accept_bi().await })
        });
        let accepted = ready!(accepting.as_mut().poll(context));
        self.accepting_both = None;
        let (send, receive) = accepted.map_err(connection_error)?;
        let stopped = send.stopped();
        let mut receiver = Receiver::new(receive, Guard::request(self.header_limit), Arc::clone(&self.flooded));
        let websocket = Arc::default();
        receiver.websocket = Some(Arc::clone(&websocket));
        let done = Box::pin(async move {
            // Whatever the reason, nobody waits for the answer any more.
            let _ = stopped.await;
        });
        self.requests.put(Sidelight { websocket, done });
        Poll::Ready(Ok(Both { sender: Sender::new(send), receiver }))
    }

    fn opener(&self) -> Opener {
        self.opener.clone()
    }
}

impl<B: Buf> quic::OpenStreams<B> for Connection {
    type BidiStream = Both<B>;
    type SendStream = Sender<B>;

    fn poll_open_bidi(&mut self, context: &mut Context<'_>) -> Poll<Result<Both<B>, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(context)
    }

    fn poll_open_send(&mut self, context: &mut Context<'_>) -> Poll<Result<Sender<B>, StreamErrorIncoming>> {
        self.opener.poll_open_send(context)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<B>::close(&mut self.opener, code, reason);
    }
}

/// Opens the streams on which the edge tells its settings.
pub(super) struct Opener {
    quic: quinn::Connection,
    opening: Option<BoxFuture<'static, Result<quinn::SendStream, quinn::ConnectionError>>>,
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self { quic: self.quic.clone(), opening: None }
    }
}

impl<B: Buf> quic::OpenStreams<B> for Opener {
    type BidiStream = Both<B>;
    type SendStream = Sender<B>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both<B>, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown("only visitors open streams for requests".into())))
    }

    fn poll_open_send(&mut self, context: &mut Context<'_>) -> Poll<Result<Sender<B>, StreamErrorIncoming>> {
        let quic = &self.quic;
        let opening = self.opening.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(context));
        self.opening = None;
        Poll::Ready(opened.map(Sender::new).map_err(lost))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(error_code(code.value()), reason);
    }
}

/// Both directions of a request's stream.
pub(super) struct Both<B: Buf> {
    sender: Sender<B>,
    receiver: Receiver,
}

impl<B: Buf> quic::BidiStream<B> for Both<B> {
    type SendStream = Sender<B>;
    type RecvStream = Receiver;

    fn split(self) -> (Sender<B>, Receiver) {
        (self.sender, self.receiver)
    }
}

impl<B: Buf> quic::RecvStream for Both<B> {
    type Buf = Bytes;

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiver.poll_data(context)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receiver.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receiver.recv_id()
    }
}

impl<B: Buf> quic::SendStream<B> for Both<B> {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sender.poll_ready(context)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sender.send_data(data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sender.poll_finish(context)
    }

    fn reset(&mut self, code: u64) {
        self.sender.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.sender.send_id()
    }
}

/// The visitor's half of a stream.
pub(super) struct Receiver {
    stream: quinn::RecvStream,
    guard: Guard,
    flooded: Arc<Notify>,
    websocket: Option<Arc<AtomicBool>>,
    ended: bool,
}

impl Receiver {
    fn new(stream: quinn::RecvStream, guard: Guard, flooded: Arc<Notify>) -> Self {
        Self { stream, guard, flooded, websocket: None, ended: false }
    }
}

impl quic::RecvStream for Receiver {
    type Buf = Bytes;

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(ready) = self.guard.next() {
                if self.guard.is_websocket()
                    && let Some(flag) = self.websocket.take()
                {
                    flag.store(true, Ordering::Release);
                }
                return Poll::Ready(Ok(Some(ready)));
            }
            // The future only borrows the stream, so it may be made anew for each poll.
            let read = pin!(self.stream.read_chunk(READ, true)).poll(context);
            match ready!(read) {
                Ok(Some(chunk)) => {
                    if let Err(refused) = self.guard.feed(chunk.bytes) {
                        if refused == Refused::Idle {
                            self.flooded.notify_one();
                        }
                        return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(refused))));
                    }
                }
                Ok(None) => {
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Err(read_error(error)));
                }
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.ended = true;
        // A stream that has ended already needs no stopping.
        let _ = self.stream.stop(error_code(code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

/// What is not read any more need not be sent (RFC 9114 section 4.1).
impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.stop(error_code(Code::H3_NO_ERROR.value()));
        }
    }
}

/// The edge's half of a stream.
pub(super) struct Sender<B: Buf> {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<B>>,
    ended: bool,
}

impl<B: Buf> Sender<B> {
    fn new(stream: quinn::SendStream) -> Self {
        Self { stream, writing: None, ended: false }
    }
}

impl<B: Buf> quic::SendStream<B> for Sender<B> {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written =
                    ready!(Pin::new(&mut self.stream).poll_write(context, data.chunk())).map_err(write_error)?;
                data.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.ended = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.ended = true;
        let _ = self.stream.reset(error_code(code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

/// The QUIC library would end the stream as if it were complete, and the visitor would take half an answer for a whole
/// one.
impl<B: Buf> Drop for Sender<B> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.reset(error_code(Code::H3_INTERNAL_ERROR.value()));
        }
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    u64::from(VarInt::from(id)).try_into().expect("both libraries number streams as QUIC does")
}

fn error_code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
