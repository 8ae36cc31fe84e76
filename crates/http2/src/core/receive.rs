//! What comes.

use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, uri};

use super::{Block, Closing, Core, Cut, DEFAULT_FRAME, LEAVE, MAX, Protocol, Received, Role, Stream};
use crate::Breach::{self, Violation};
use crate::frame::{self, HEADER, Head, PREFACE, flag, kind, setting};
use crate::hpack::{Fields, Undecodable};
use crate::{Error, Reason};

/// Payloads up to this size are copied, so that few bytes do not hold on to all that was read with them.
const SMALL: usize = 16 << 10;

/// What one connection may have to say of its own accord before the other end reads any of it: answers to pings, resets.
const CONTROL: usize = 1 << 20;

/// Interim answers of one stream, and bytes of their fields; more are dropped, since they are advice.
const EARLY: usize = 32;
const EARLY_SIZE: usize = 64 << 10;

/// Settings in one frame; there are not half as many kinds.
const MAX_SETTINGS: usize = 32;

/// A header that is so many times as large as allowed was made to be.
const FAR: usize = 4;

/// CONTINUATION frames of one header block that bring next to nothing.
const SMALL_PARTS: u32 = 16;

/// A part of a header block that brings next to nothing.
const SMALL_PART: usize = 1 << 10;

impl Core {
    /// Takes all whole frames off the input.
    pub(crate) fn feed(&mut self, input: &mut BytesMut) -> Result<(), Breach> {
        if self.preface > 0 {
            let length = self.preface.min(input.len());
            let begun = PREFACE.len() - self.preface;
            if input[..length] != PREFACE[begun..begun + length] {
                return Err(Violation(Reason::PROTOCOL_ERROR, "it does not begin as HTTP/2 does"));
            }
            input.advance(length);
            self.preface -= length;
        }
        while let Some(head) = Head::read(input) {
            if head.length > self.settings.frame as usize {
                return Err(Violation(Reason::FRAME_SIZE_ERROR, "a frame larger than allowed"));
            }
            if input.len() < HEADER + head.length {
                input.reserve(HEADER + head.length - input.len());
                break;
            }
            if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
                return Err(Violation(Reason::PROTOCOL_ERROR, "the first frame holds no settings"));
            }
            if self.block.is_some() && head.kind != kind::CONTINUATION {
                return Err(Violation(Reason::PROTOCOL_ERROR, "a frame in the middle of a header block"));
            }
            input.advance(HEADER);
            let before = self.out.len();
            self.frame(head, input)?;
            self.control += self.out.len() - before;
            if self.control > CONTROL {
                return Err(Breach::Questions);
            }
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, input: &mut BytesMut) -> Result<(), Breach> {
        match head.kind {
            kind::DATA if head.length > SMALL => {
                let payload = input.split_to(head.length).freeze();
                return self.data(head, payload);
            }
            kind::DATA => self.data(head, Bytes::copy_from_slice(&input[..head.length]))?,
            kind::HEADERS => self.headers(head, &input[..head.length])?,
            kind::CONTINUATION => self.continuation(head, &input[..head.length])?,
            kind::WINDOW_UPDATE => self.window_update(head, &input[..head.length])?,
            kind::RST_STREAM => self.stream_reset(head, &input[..head.length])?,
            kind::SETTINGS => self.settings(head, &input[..head.length])?,
            kind::PING => self.pinged(head, &input[..head.length])?,
            kind::GOAWAY => self.go_away(head, &input[..head.length])?,
            kind::PUSH_PROMISE => return Err(Violation(Reason::PROTOCOL_ERROR, "a push, which is not allowed")),
            kind::PRIORITY if head.stream == 0 => {
                return Err(Violation(Reason::PROTOCOL_ERROR, "a priority of no stream"));
            }
            kind::PRIORITY if head.length != 5 => {
                return Err(Violation(Reason::FRAME_SIZE_ERROR, "a priority of a wrong size"));
            }
            // Priorities are deprecated; unknown kinds are to be ignored.
            _ => self.idle.spend(self.heard)?,
        }
        input.advance(head.length);
        Ok(())
    }

    /// The stream that a frame is for; `None`: it has ended, and what is still under way for it goes nowhere.
    fn stream_of(&self, head: Head) -> Result<Option<usize>, Breach> {
        let id = head.stream;
        let known = match self.role {
            Role::Client => id % 2 == 1 && id < self.next,
            Role::Server => id % 2 == 1 && id <= self.last,
        };
        if known {
            Ok(self.open.get(&id).copied())
        } else {
            Err(Violation(Reason::PROTOCOL_ERROR, "a frame of no stream"))
        }
    }

    fn data(&mut self, head: Head, mut payload: Bytes) -> Result<(), Breach> {
        let key = self.stream_of(head)?;
        self.window -= head.length as i64;
        if self.window < 0 {
            return Err(Violation(Reason::FLOW_CONTROL_ERROR, "more bytes than the connection's window allows"));
        }
        if head.has(flag::PADDED) {
            let padding = payload.first().map_or(usize::MAX, |length| usize::from(*length));
            if padding >= payload.len() {
                return Err(Violation(Reason::PROTOCOL_ERROR, "more padding than payload"));
            }
            payload.advance(1);
            payload.truncate(payload.len() - padding);
        }
        let Some(key) = key else {
            self.take(head.length);
            self.idle.expect(self.heard)?;
            // It is late, or the other end has lost count: then it is told.
            frame::put_reset(&mut self.out, head.stream, Reason::STREAM_CLOSED);
            return Ok(());
        };
        let stream = &mut self.streams[key];
        if !stream.ended && stream.window < head.length as i64 {
            return Err(Violation(Reason::FLOW_CONTROL_ERROR, "more bytes than the stream's window allows"));
        }
        let broken = if stream.ended {
            Some((Reason::STREAM_CLOSED, "bytes behind the end"))
        } else if !stream.headed {
            Some((Reason::PROTOCOL_ERROR, "bytes before the head"))
        } else {
            stream.count(payload.len(), head.has(flag::END_STREAM)).err()
        };
        if let Some((reason, text)) = broken {
            self.take(head.length);
            self.reset(key, reason, Error::Broken(text));
            return self.mistake();
        }
        stream.window -= head.length as i64;
        if !payload.is_empty() {
            self.fed = self.heard;
        } else if !head.has(flag::END_STREAM) {
            self.idle.spend(self.heard)?;
        }
        // What was padding is nobody's to take.
        let mut taken = head.length - payload.len();
        if stream.unread {
            taken = head.length;
        } else {
            stream.taken += taken as u32;
            if !payload.is_empty() {
                push(&mut stream.data, payload);
            }
        }
        if head.has(flag::END_STREAM) {
            stream.ended = true;
        }
        self.woken.extend(stream.reader.take());
        self.widen(key);
        self.take(taken);
        self.settle(key);
        Ok(())
    }

    /// Tells the other end of the room that there is on a stream again, once it is worth a frame.
    fn widen(&mut self, key: usize) {
        let stream = &self.streams[key];
        if stream.taken < stream.width / 2 || stream.ended || stream.error.is_some() {
            return;
        }
        let width = self.width(key);
        let stream = &mut self.streams[key];
        // It is narrowed by half at the most, and at least half of it was taken.
        let more = stream.taken + width - stream.width;
        (stream.width, stream.taken, stream.keeps_up) = (width, 0, false);
        if more > 0 {
            frame::put_window_update(&mut self.out, stream.id, more);
            stream.window += i64::from(more);
            self.wake_driver();
        }
    }

    /// How wide the window of a stream is to be of which half has been taken: twice as wide for whoever has taken all that came, and
    /// half as wide for whoever always leaves some of it waiting where others need the connection's.
    fn width(&self, key: usize) -> u32 {
        let Stream { width, keeps_up, .. } = self.streams[key];
        let is_scarce = self.window < i64::from(self.settings.connection_window / 2);
        match (keeps_up, is_scarce) {
            (true, false) => width.saturating_mul(2).min(self.settings.widest_stream_window).max(width),
            (false, true) => (width - width / 2).max(self.settings.stream_window),
            (true, true) | (false, false) => width,
        }
    }

    /// Counts bytes that make room for others on the connection. The other end is told when it is worth a frame: what is left to
    /// it may be little, while others hold the rest.
    fn take(&mut self, length: usize) {
        self.taken += length as u32;
        let least = (DEFAULT_FRAME as u32).min(self.settings.connection_window / 2);
        let left = self.window.clamp(0, MAX.into()) as u32;
        if self.taken >= (left / 2).clamp(least, self.settings.connection_window / 2) {
            frame::put_window_update(&mut self.out, 0, self.taken);
            self.window += i64::from(self.taken);
            self.taken = 0;
            self.wake_driver();
        }
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        if head.stream.is_multiple_of(2) {
            return Err(Violation(Reason::PROTOCOL_ERROR, "a header of no stream"));
        }
        let mut block = payload;
        let mut padding = 0;
        if head.has(flag::PADDED) {
            let (length, rest) =
                block.split_first().ok_or(Violation(Reason::FRAME_SIZE_ERROR, "a header without size"))?;
            (padding, block) = (usize::from(*length), rest);
        }
        if head.has(flag::PRIORITY) {
            let size = Violation(Reason::FRAME_SIZE_ERROR, "a header without its priority");
            let (parent, rest) = block.split_first_chunk().ok_or(size)?;
            if u32::from_be_bytes(*parent) & MAX == head.stream {
                return Err(Violation(Reason::PROTOCOL_ERROR, "a stream that depends on itself"));
            }
            block = rest.get(1..).ok_or(size)?;
        }
        let length = block.len().checked_sub(padding);
        let length = length.ok_or(Violation(Reason::PROTOCOL_ERROR, "more padding than payload"))?;
        let (block, end_stream) = (&block[..length], head.has(flag::END_STREAM));
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, end_stream, block);
        }
        let (stream, bytes) = (head.stream, BytesMut::from(block));
        self.block = Some(Block { stream, end_stream, bytes, small: 0 });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        let Some(mut block) = self.block.take().filter(|block| block.stream == head.stream) else {
            return Err(Violation(Reason::PROTOCOL_ERROR, "the continuation of nothing"));
        };
        let ends = head.has(flag::END_HEADERS);
        block.small += u32::from(!ends && payload.len() < SMALL_PART);
        if block.bytes.len() + payload.len() > FAR * self.settings.header_list as usize || block.small > SMALL_PARTS {
            return Err(Breach::Header);
        }
        block.bytes.extend_from_slice(payload);
        if ends {
            return self.block(block.stream, block.end_stream, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    fn block(&mut self, id: u32, end_stream: bool, block: &[u8]) -> Result<(), Breach> {
        let decoded = self.decoder.decode(block, self.settings.header_list as usize);
        let fields = decoded.map_err(|Undecodable(why)| Violation(Reason::COMPRESSION_ERROR, why))?;
        if self.role == Role::Server && id > self.last {
            self.last = id;
            return self.opened(id, end_stream, fields);
        }
        let head = Head { length: block.len(), kind: kind::HEADERS, flags: 0, stream: id };
        let Some(key) = self.stream_of(head)? else {
            if fields.has_request_pseudo() {
                return Err(Violation(Reason::PROTOCOL_ERROR, "a stream that was opened before, or passed over"));
            }
            return self.idle.expect(self.heard);
        };
        let stream = &mut self.streams[key];
        match stream.take_fields(end_stream, fields) {
            Ok(Taken::Used) => {}
            Ok(Taken::Dropped) => self.idle.spend(self.heard)?,
            Err((reason, text)) => {
                self.reset(key, reason, Error::Broken(text));
                return self.mistake();
            }
        }
        self.woken.extend(stream.reader.take());
        self.settle(key);
        Ok(())
    }

    /// A client has opened a stream.
    fn opened(&mut self, id: u32, end_stream: bool, fields: Fields) -> Result<(), Breach> {
        if fields.size() > FAR * self.settings.header_list as usize {
            return Err(Breach::Header);
        }
        // Those that were reset unseen are still to be taken off the line.
        let streams = self.open.len().max(self.accepted.len());
        if self.closing == Closing::Closed || streams >= self.settings.streams as usize {
            frame::put_reset(&mut self.out, id, Reason::REFUSED_STREAM);
            return self.idle.spend(self.heard);
        }
        if fields.too_large && !self.settings.cut_headers {
            frame::put_reset(&mut self.out, id, Reason::ENHANCE_YOUR_CALM);
            return self.mistake();
        }
        let request = request(fields, self.settings.extended_connect);
        let Some((request, left)) =
            request.and_then(|request| length(&request, end_stream).map(|left| (request, left)))
        else {
            frame::put_reset(&mut self.out, id, Reason::PROTOCOL_ERROR);
            return self.mistake();
        };
        let key = self.add(id);
        let stream = &mut self.streams[key];
        (stream.head, stream.headed, stream.ended) = (Some(Received::Request(request)), true, end_stream);
        stream.left = left;
        self.accepted.push_back(key);
        self.idle.opened();
        Ok(())
    }

    /// The next stream that the client has opened.
    pub(crate) fn accept(&mut self) -> Option<(usize, Request<()>)> {
        loop {
            let key = self.accepted.pop_front()?;
            match self.streams[key].head.take() {
                Some(Received::Request(request)) if self.streams[key].error.is_none() => return Some((key, request)),
                _ => {
                    // Reset before anybody has seen it.
                    let unread: usize = self.streams.remove(key).data.iter().map(Bytes::len).sum();
                    self.take(unread);
                }
            }
        }
    }

    pub(crate) fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        let increment = number(payload, "a window of a wrong size")? & MAX;
        self.idle.expect(self.heard)?;
        if head.stream == 0 {
            self.send_window += i64::from(increment);
            return match increment {
                0 => Err(Violation(Reason::PROTOCOL_ERROR, "a window that does not grow")),
                _ if self.send_window > i64::from(MAX) => {
                    Err(Violation(Reason::FLOW_CONTROL_ERROR, "a window that is too large"))
                }
                _ => Ok(()),
            };
        }
        let Some(key) = self.stream_of(head)? else { return Ok(()) };
        let stream = &mut self.streams[key];
        stream.send_window += i64::from(increment);
        if increment == 0 || stream.send_window > i64::from(MAX) {
            let reason = if increment == 0 { Reason::PROTOCOL_ERROR } else { Reason::FLOW_CONTROL_ERROR };
            self.reset(key, reason, Error::Broken("a window that does not grow, or too far"));
            return self.mistake();
        }
        self.enqueue_stalled(key);
        Ok(())
    }

    fn stream_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        let reason = Reason(number(payload, "a reset of a wrong size")?);
        let key = self.stream_of(head)?;
        if let Some(resets) = &mut self.resets
            && !resets.take(self.heard)
        {
            return Err(Breach::Resets);
        }
        match key {
            Some(key) => {
                self.fail(key, Error::Reset(reason));
                Ok(())
            }
            None => self.idle.expect(self.heard),
        }
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        if head.stream != 0 {
            return Err(Violation(Reason::PROTOCOL_ERROR, "settings of a stream"));
        }
        self.idle.spend(self.heard)?;
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || (head.has(flag::ACK) && !payload.is_empty()) {
            return Err(Violation(Reason::FRAME_SIZE_ERROR, "settings of a wrong size"));
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        if settings.len() > MAX_SETTINGS {
            return Err(Breach::Settings);
        }
        for [a, b, value @ ..] in settings {
            self.set(u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value))?;
        }
        self.settled = true;
        frame::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), Breach> {
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.allow(value as usize),
            setting::ENABLE_PUSH if value > 1 => {
                return Err(Violation(Reason::PROTOCOL_ERROR, "a setting that is neither on nor off"));
            }
            setting::MAX_CONCURRENT_STREAMS => self.allowed_streams = Some(value),
            setting::INITIAL_WINDOW_SIZE => {
                if value > MAX {
                    return Err(Violation(Reason::FLOW_CONTROL_ERROR, "a window that is too large"));
                }
                let change = i64::from(value) - self.initial_window;
                if change == 0 {
                    return Ok(());
                }
                if !self.window_changes.take(self.heard) {
                    return Err(Breach::Settings);
                }
                self.initial_window = value.into();
                let open: Vec<usize> = self.open.values().copied().collect();
                for key in open {
                    let stream = &mut self.streams[key];
                    stream.send_window += change;
                    if stream.send_window > i64::from(MAX) {
                        return Err(Violation(Reason::FLOW_CONTROL_ERROR, "a window that is too large"));
                    }
                    self.enqueue_stalled(key);
                }
            }
            setting::MAX_FRAME_SIZE => {
                if !(1 << 14..1 << 24).contains(&value) {
                    return Err(Violation(Reason::PROTOCOL_ERROR, "a largest frame that is not allowed"));
                }
                self.largest_frame = value as usize;
            }
            // Limits on headers are advice; the other end says so if it minds. Unknown settings are to be ignored.
            _ => {}
        }
        Ok(())
    }

    fn pinged(&mut self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        if head.stream != 0 {
            return Err(Violation(Reason::PROTOCOL_ERROR, "a ping of a stream"));
        }
        if payload.len() != 8 {
            return Err(Violation(Reason::FRAME_SIZE_ERROR, "a ping of a wrong size"));
        }
        if !head.has(flag::ACK) {
            self.idle.spend(self.heard)?;
            frame::put(&mut self.out, kind::PING, flag::ACK, 0, payload);
            return Ok(());
        }
        self.idle.expect(self.heard)?;
        if payload == LEAVE && self.closing == Closing::Announced {
            self.closing = Closing::Closed;
            self.say_goodbye(Reason::NO_ERROR, "");
        }
        Ok(())
    }

    fn go_away(&mut self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        if head.stream != 0 {
            return Err(Violation(Reason::PROTOCOL_ERROR, "a stream that goes away"));
        }
        self.idle.spend(self.heard)?;
        /// The last stream, and why.
        const FIELDS: usize = 8;
        let fields = payload.get(..FIELDS).unwrap_or_default();
        let (last, reason) = fields.split_at(fields.len() / 2);
        let last = number(last, "a leave of a wrong size")? & MAX;
        let reason = Reason(number(reason, "a leave of a wrong size")?);
        let falls = self.gone.is_none_or(|(_, before)| last < before);
        self.gone = Some((reason, last));
        if self.role == Role::Client && falls {
            let unseen: Vec<usize> = self.open.iter().filter(|(id, _)| **id > last).map(|(_, key)| *key).collect();
            for key in unseen {
                self.fail(key, Error::GoneAway(reason));
            }
        }
        Ok(())
    }

    /// The head of the answer.
    pub(crate) fn poll_head(&mut self, key: usize, context: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let stream = &mut self.streams[key];
        match stream.head.take() {
            Some(Received::Response(head)) => {
                stream.early = std::collections::VecDeque::new();
                Poll::Ready(Ok(head))
            }
            _ => match &stream.error {
                Some(error) => Poll::Ready(Err(error.clone())),
                None => stream.wait_to_read(context),
            },
        }
    }

    /// The next interim answer; `None`: the answer itself, or an error, is next.
    pub(crate) fn poll_early(&mut self, key: usize, context: &mut Context<'_>) -> Poll<Option<Response<()>>> {
        let stream = &mut self.streams[key];
        match stream.early.pop_front() {
            Some(head) => Poll::Ready(Some(head)),
            None if stream.headed || stream.error.is_some() => Poll::Ready(None),
            None => stream.wait_to_read(context),
        }
    }

    /// The next bytes; the other end may send as many more. `None`: no more come.
    pub(crate) fn poll_data(&mut self, key: usize, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let stream = &mut self.streams[key];
        let Some(bytes) = stream.data.pop_front() else {
            return match &stream.error {
                _ if stream.ended => Poll::Ready(None),
                Some(error) => Poll::Ready(Some(Err(error.clone()))),
                None => {
                    stream.keeps_up |= stream.taken > 0;
                    stream.wait_to_read(context)
                }
            };
        };
        stream.taken += bytes.len() as u32;
        self.widen(key);
        self.take(bytes.len());
        Poll::Ready(Some(Ok(bytes)))
    }

    /// What came behind the last bytes.
    pub(crate) fn trailers(&mut self, key: usize) -> Option<HeaderMap> {
        self.streams[key].trailers.take()
    }

    /// Nothing more comes, and all that came has been taken.
    pub(crate) fn is_read(&self, key: usize) -> bool {
        let stream = &self.streams[key];
        stream.ended && stream.data.is_empty() && stream.trailers.is_none()
    }

    /// Bytes of a request of which nothing has been taken, if its head says how many.
    pub(crate) fn promised(&self, key: usize) -> Option<u64> {
        self.streams[key].left.map(|left| left + self.unread(key) as u64)
    }

    /// Bytes that have come and were not taken.
    pub(crate) fn unread(&self, key: usize) -> usize {
        self.streams[key].data.iter().map(Bytes::len).sum()
    }

    /// Nobody reads on.
    pub(crate) fn release_reader(&mut self, key: usize) {
        let stream = &mut self.streams[key];
        stream.unread = true;
        stream.reader = None;
        let unread: usize = std::mem::take(&mut stream.data).iter().map(Bytes::len).sum();
        stream.handles -= 1;
        self.take(unread);
        self.settle(key);
    }
}

/// What became of fields.
enum Taken {
    Used,
    /// They were advice, and too much of it.
    Dropped,
}

impl Stream {
    fn wait_to_read<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        if !self.reader.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.reader = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Counts bytes of a request that says how many there are.
    fn count(&mut self, length: usize, ends: bool) -> Result<(), (Reason, &'static str)> {
        let Some(left) = &mut self.left else { return Ok(()) };
        match left.checked_sub(length as u64) {
            Some(rest) if rest == 0 || !ends => {
                *left = rest;
                Ok(())
            }
            Some(_) => Err((Reason::PROTOCOL_ERROR, "fewer bytes than its content-length says")),
            None => Err((Reason::PROTOCOL_ERROR, "more bytes than its content-length says")),
        }
    }

    /// The head of an answer, one before it, or trailers.
    fn take_fields(&mut self, end_stream: bool, fields: Fields) -> Result<Taken, (Reason, &'static str)> {
        let wrong = |text| Err((Reason::PROTOCOL_ERROR, text));
        if self.ended {
            return Err((Reason::STREAM_CLOSED, "a header behind the end"));
        }
        if fields.too_large {
            return Err((Reason::ENHANCE_YOUR_CALM, "its header is too large"));
        }
        if let Some(why) = fields.malformed {
            return wrong(why);
        }
        if fields.has_request_pseudo() {
            return wrong("a pseudo-header field where it does not belong");
        }
        if self.headed {
            if fields.status.is_some() {
                return wrong("a second head");
            }
            if !end_stream {
                return wrong("trailers that do not end it");
            }
            self.count(0, true)?;
            (self.trailers, self.ended) = (Some(fields.headers), true);
            return Ok(Taken::Used);
        }
        let fields_size = fields.size();
        let Some(status) = fields.status else { return wrong("a head without status") };
        let mut head = Response::new(());
        (*head.status_mut(), *head.headers_mut()) = (status, fields.headers);
        if status.is_informational() {
            if end_stream || status == StatusCode::SWITCHING_PROTOCOLS {
                return wrong("an interim answer that can be none");
            }
            if self.early.len() >= EARLY || self.early_size + fields_size > EARLY_SIZE {
                return Ok(Taken::Dropped);
            }
            self.early_size += fields_size;
            self.early.push_back(head);
            return Ok(Taken::Used);
        }
        (self.head, self.headed, self.ended) = (Some(Received::Response(head)), true, end_stream);
        Ok(Taken::Used)
    }
}

/// Adds bytes to those that wait. What comes in very small pieces is put together, or each would take as much memory again.
fn push(data: &mut std::collections::VecDeque<Bytes>, bytes: Bytes) {
    /// Smaller pieces are put together, up to this.
    const TINY: usize = 256;
    if bytes.len() < TINY
        && let Some(last) = data.back_mut()
        && last.len() < TINY
    {
        *last = [&last[..], &bytes].concat().into();
        return;
    }
    data.push_back(bytes);
}

/// A request of what a client sent (section 8.3.1, RFC 8441 section 4); `None`: none can be made of it.
fn request(fields: Fields, extended_connect: bool) -> Option<Request<()>> {
    if fields.malformed.is_some() || fields.status.is_some() || (fields.protocol.is_some() && !extended_connect) {
        return None;
    }
    let method = fields.method?;
    let mut parts = uri::Parts::default();
    parts.authority = fields.authority;
    if method == Method::CONNECT && fields.protocol.is_none() {
        if fields.scheme.is_some() || fields.path.is_some() {
            return None;
        }
    } else {
        if fields.protocol.is_some() && (method != Method::CONNECT || parts.authority.is_none()) {
            return None;
        }
        let (scheme, path) = (fields.scheme?, fields.path?);
        // Without an authority, the host is a field as in HTTP/1.1.
        parts.scheme = parts.authority.is_some().then_some(scheme);
        parts.path_and_query = Some(path);
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    (*request.method_mut(), *request.headers_mut()) = (method, fields.headers);
    if let Some(protocol) = fields.protocol {
        request.extensions_mut().insert(Protocol(protocol));
    }
    if fields.too_large {
        request.extensions_mut().insert(Cut);
    }
    Some(request)
}

/// How many bytes a request says that it has (section 8.1.1); `None`: it contradicts itself.
fn length(request: &Request<()>, ended: bool) -> Option<Option<u64>> {
    let mut values = request.headers().get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Some(None) };
    let text = value.as_bytes();
    let is_number = text.iter().all(u8::is_ascii_digit) && values.all(|other| other == value);
    let length = value.to_str().ok().filter(|_| is_number)?.parse().ok()?;
    (!ended || length == 0).then_some(Some(length))
}

fn number(payload: &[u8], wrong_size: &'static str) -> Result<u32, Breach> {
    let bytes = payload.try_into().map_err(|_| Violation(Reason::FRAME_SIZE_ERROR, wrong_size))?;
    Ok(u32::from_be_bytes(bytes))
}
