//! What goes.

use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};

use super::{Closing, Core, Last, MAX, Role, Stream, Waits};
use crate::frame::{self, HEADER, Head, flag, kind};
use crate::hpack::Encoder;
use crate::{Error, Reason};

/// Bytes of bodies that wait for the socket: what is on its way twice over at 100 Mbit/s and 10 ms. More gains nothing, and is
/// what everything else on the connection waits behind.
const ROOM: usize = 256 << 10;

/// Bytes that wait for the socket beyond which a server reads nothing more. What is more than room for bodies is heads of
/// answers, which no window bounds.
const BEHIND: usize = 2 * ROOM;

/// Bytes that wait for the socket beyond which no new stream is opened: thousands of requests.
const FULL: usize = 4 << 20;

/// Bytes of one stream that go in its turn while others wait.
const TURN: usize = 16 << 10;

impl Core {
    /// What is to be written. The caller says by [`Core::written`] how much of it is left.
    pub(crate) fn take_out(&mut self) -> BytesMut {
        self.serve();
        self.control = 0;
        let out = std::mem::take(&mut self.out);
        self.writing = out.len();
        out
    }

    /// So many bytes of what was taken out are still to be written.
    pub(crate) fn written(&mut self, left: usize) {
        self.writing = left;
    }

    /// Whether something is to be written.
    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.waiting.is_empty() && self.room() > 0 && self.send_window > 0
    }

    /// Bytes that are to be written.
    pub(crate) fn waiting_output(&self) -> usize {
        self.out.len()
    }

    /// A server: the other end does not keep up with the answers.
    pub(crate) fn is_behind(&self) -> bool {
        self.role == Role::Server && self.out.len() + self.writing > BEHIND
    }

    /// Opens a stream; with `end` nothing follows the head.
    pub(crate) fn open(&mut self, head: &Request<()>, end: bool) -> Result<usize, Error> {
        if let Some(error) = &self.dead {
            return Err(error.clone());
        }
        if self.closing == Closing::Closed {
            return Err(Error::Lost("the connection is closing".into()));
        }
        if let Some((reason, _)) = self.gone {
            return Err(Error::GoneAway(reason));
        }
        if self.out.len() + self.writing > FULL {
            return Err(Error::Lost("the other end does not keep up with the requests".into()));
        }
        if self.next > MAX {
            self.close();
            return Err(Error::Lost("the connection has carried as many streams as it can".into()));
        }
        let id = self.next;
        self.next += 2;
        let key = self.add(id);
        self.idle.opened();
        self.streams[key].finished = end;
        self.put_block(id, end, |encoder, out| {
            let uri = head.uri();
            encoder.method(out, head.method());
            if let Some(scheme) = uri.scheme_str() {
                encoder.scheme(out, scheme);
            }
            if let Some(authority) = uri.authority() {
                encoder.authority(out, authority.as_str());
            }
            if let Some(path) = uri.path_and_query() {
                encoder.path(out, path.as_str());
            }
            for (name, value) in head.headers() {
                encoder.header(out, name, value);
            }
        });
        self.wake_driver();
        Ok(key)
    }

    /// Sends the head of an answer, or of one before it; with `end` nothing follows.
    pub(crate) fn answer(&mut self, key: usize, head: &Response<()>, end: bool) -> Result<(), Error> {
        let stream = &mut self.streams[key];
        if let Some(error) = &stream.error {
            return Err(error.clone());
        }
        let id = stream.id;
        if end {
            (stream.finished, stream.last) = (true, Last::End);
        }
        self.put_block(id, end, |encoder, out| {
            encoder.status(out, head.status());
            for (name, value) in head.headers() {
                encoder.header(out, name, value);
            }
        });
        self.wake_driver();
        self.settle(key);
        Ok(())
    }

    fn put_block(&mut self, stream: u32, end: bool, fill: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        let out = &mut self.out;
        let start = out.len();
        out.put_bytes(0, HEADER);
        self.encoder.begin(out);
        fill(&mut self.encoder, out);
        let ends = if end { flag::END_STREAM } else { 0 };
        let length = out.len() - start - HEADER;
        if length <= self.largest_frame {
            let head = Head { length, kind: kind::HEADERS, flags: flag::END_HEADERS | ends, stream };
            out[start..start + HEADER].copy_from_slice(&head.bytes());
            return;
        }
        let block = out.split_off(start + HEADER);
        out.truncate(start);
        let mut parts = block.chunks(self.largest_frame).peekable();
        let (mut kind, mut flags) = (kind::HEADERS, ends);
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            frame::put(out, kind, flags, stream, part);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }

    /// Ready when the stream takes more, and the other end, and the connection, have room for at least a byte.
    pub(crate) fn poll_ready(&mut self, key: usize, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (room, window) = (self.room(), self.send_window);
        let stream = &mut self.streams[key];
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        if !stream.waiting && stream.pending.is_empty() && stream.send_window > 0 && window > 0 && room > 0 {
            stream.waits = Waits::Reset;
            return Poll::Ready(Ok(()));
        }
        stream.waits = Waits::Room;
        stream.wait_to_write(context);
        if stream.send_window > 0 {
            self.enqueue(key);
        }
        Poll::Pending
    }

    /// Ready when the stream has been reset, or its connection is gone.
    pub(crate) fn poll_reset(&mut self, key: usize, context: &mut Context<'_>) -> Poll<Error> {
        let stream = &mut self.streams[key];
        match &stream.error {
            Some(error) => Poll::Ready(error.clone()),
            None => {
                stream.wait_to_write(context);
                Poll::Pending
            }
        }
    }

    /// Ready when all that was given to be sent has found room, its end included.
    pub(crate) fn poll_sent(&mut self, key: usize, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let stream = &mut self.streams[key];
        if let Some(error) = &stream.error {
            return Poll::Ready(Err(error.clone()));
        }
        if stream.finished {
            return Poll::Ready(Ok(()));
        }
        stream.waits = Waits::End;
        stream.wait_to_write(context);
        Poll::Pending
    }

    /// Changes while the other end takes what is before the stream's next byte: of the stream itself as far as it is that which
    /// keeps it waiting, of all otherwise.
    pub(crate) fn progress(&self, key: usize) -> u64 {
        let stream = &self.streams[key];
        if !stream.pending.is_empty() || stream.send_window <= 0 { stream.sent } else { self.sent }
    }

    /// Ready when nothing more goes either way.
    pub(crate) fn poll_ended(&mut self, key: usize, context: &mut Context<'_>) -> Poll<()> {
        let stream = &mut self.streams[key];
        if stream.error.is_some() || (stream.ended && stream.finished) {
            return Poll::Ready(());
        }
        stream.waits = Waits::End;
        stream.wait_to_write(context);
        Poll::Pending
    }

    /// Sends bytes, or keeps them until there is room; with `end` they are the last ones.
    pub(crate) fn send(&mut self, key: usize, bytes: Bytes, end: bool) -> Result<(), Error> {
        let stream = &mut self.streams[key];
        if let Some(error) = &stream.error {
            return Err(error.clone());
        }
        if !matches!(stream.last, Last::Open) || stream.finished {
            return Err(Error::Lost("the stream has ended".into()));
        }
        if stream.pending.is_empty() {
            stream.pending = bytes;
        } else {
            stream.pending = [&stream.pending[..], &bytes].concat().into();
        }
        if end {
            stream.last = Last::End;
        }
        self.push_on(key);
        Ok(())
    }

    /// Sends trailers, which are the end.
    pub(crate) fn send_trailers(&mut self, key: usize, trailers: HeaderMap) -> Result<(), Error> {
        let stream = &mut self.streams[key];
        if let Some(error) = &stream.error {
            return Err(error.clone());
        }
        if !matches!(stream.last, Last::Open) || stream.finished {
            return Err(Error::Lost("the stream has ended".into()));
        }
        stream.last = Last::Trailers(Box::new(trailers));
        self.push_on(key);
        Ok(())
    }

    /// Ends the stream at once, unless it has ended.
    pub(crate) fn send_reset(&mut self, key: usize, reason: Reason) {
        let stream = &self.streams[key];
        if stream.error.is_none() && !(stream.ended && stream.finished) {
            self.reset(key, reason, Error::Reset(reason));
            self.wake_driver();
        }
    }

    /// Nobody sends any more.
    pub(crate) fn release_writer(&mut self, key: usize) {
        let stream = &mut self.streams[key];
        stream.writer = None;
        stream.handles -= 1;
        self.settle(key);
    }

    /// Sends what a stream has, as far as there is room, in its turn.
    fn push_on(&mut self, key: usize) {
        // An end alone takes no room, and so waits for no turn.
        let alone = self.waiting.is_empty() || self.streams[key].pending.is_empty();
        if alone && self.write(key, usize::MAX) {
            self.settle(key);
        } else if self.streams[key].send_window > 0 {
            self.enqueue(key);
        }
        self.wake_driver();
    }

    fn room(&self) -> usize {
        ROOM.saturating_sub(self.out.len() + self.writing)
    }

    fn enqueue(&mut self, key: usize) {
        let stream = &mut self.streams[key];
        if !stream.waiting {
            stream.waiting = true;
            self.waiting.push_back((key, stream.id));
        }
    }

    /// Puts a stream in the line whose own window has grown.
    pub(super) fn enqueue_stalled(&mut self, key: usize) {
        let stream = &self.streams[key];
        if stream.send_window > 0 && (!stream.pending.is_empty() || stream.waits == Waits::Room) {
            self.enqueue(key);
        }
    }

    /// Gives the streams in the line their turns.
    fn serve(&mut self) {
        // Whoever is woken will take room that nobody has yet.
        let mut promised = 0;
        while self.send_window > 0 && self.room() > promised {
            let Some((key, id)) = self.waiting.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.id == id) else { continue };
            stream.waiting = false;
            if !stream.pending.is_empty() && !self.write(key, TURN) {
                if self.streams[key].send_window > 0 {
                    self.enqueue(key);
                }
                continue;
            }
            let stream = &mut self.streams[key];
            if stream.waits == Waits::Room {
                promised += TURN;
            }
            if stream.waits != Waits::Reset {
                stream.waits = Waits::Reset;
                self.woken.extend(stream.writer.take());
            }
            self.settle(key);
        }
    }

    /// Writes up to `most` of what a stream has pending, and its end behind it; `false`: something is left.
    fn write(&mut self, key: usize, mut most: usize) -> bool {
        let mut room = self.room();
        let stream = &mut self.streams[key];
        while !stream.pending.is_empty() {
            let window = stream.send_window.min(self.send_window).max(0) as usize;
            let length = stream.pending.len().min(window).min(room).min(most).min(self.largest_frame);
            if length == 0 {
                return false;
            }
            let ends = length == stream.pending.len() && matches!(stream.last, Last::End);
            let flags = if ends { flag::END_STREAM } else { 0 };
            frame::put(&mut self.out, kind::DATA, flags, stream.id, &stream.pending[..length]);
            stream.pending.advance(length);
            stream.finished = ends;
            stream.send_window -= length as i64;
            self.send_window -= length as i64;
            stream.sent += length as u64;
            self.sent += length as u64;
            self.idle.sent(length);
            room -= length;
            most -= length;
        }
        // Holds on to no memory.
        stream.pending = Bytes::new();
        if stream.finished {
            return true;
        }
        match std::mem::replace(&mut stream.last, Last::End) {
            Last::Open => stream.last = Last::Open,
            Last::End => {
                frame::put(&mut self.out, kind::DATA, flag::END_STREAM, stream.id, &[]);
                stream.finished = true;
            }
            Last::Trailers(trailers) => {
                stream.finished = true;
                let id = stream.id;
                self.put_block(id, true, |encoder, out| {
                    for (name, value) in trailers.iter() {
                        encoder.header(out, name, value);
                    }
                });
            }
        }
        true
    }
}

impl Stream {
    fn wait_to_write(&mut self, context: &Context<'_>) {
        if !self.writer.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.writer = Some(context.waker().clone());
        }
    }
}
