//! A connection without its socket: what has come goes in ([`Core::feed`]), what is to leave comes out ([`Core::take_out`]),
//! and between them are the streams. Who waits for something leaves a waker, and whoever calls wakes those that
//! [`Core::woken`] gives.

mod allowance;
mod receive;
mod send;

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use slab::Slab;
use tokio::time::Instant;

use crate::frame::{self, PREFACE, setting};
use crate::hpack::{self, Decoder, Encoder};
use crate::{Breach, Bucket, Error, Rate, Reason};
use allowance::Allowance;

/// The window and the largest frame while nothing else is said (RFC 9113 section 6.5.2).
const DEFAULT_WINDOW: u32 = (1 << 16) - 1;
const DEFAULT_FRAME: usize = 1 << 14;

/// The highest identifier of a stream, and the largest window (sections 5.1.1 and 6.9.1).
const MAX: u32 = (1 << 31) - 1;

/// What a ping says that asks for a sign of life.
const LIFE: &[u8] = b"snicket?";

/// What a ping says whose answer tells that the client knows of a server's leave (section 6.8).
const LEAVE: &[u8] = b"snicket!";

/// Changes of the window of new streams. Programs that measure the way double it some ten times, and then hardly ever change it.
const WINDOW_CHANGES: Rate = Rate { burst: 100, per_second: 1 };

/// Streams whose room is kept while there are none.
const FEW_STREAMS: usize = 16;

/// What one connection allows the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of one stream's body that may wait to be taken, from 65,535 to 2³¹−1.
    pub stream_window: u32,
    /// The same, as long as there is room on the connection, for a reader who takes them as they come; no less.
    pub widest_stream_window: u32,
    /// Bytes of all bodies together that may wait, from 65,535 to 2³¹−1.
    pub connection_window: u32,
    /// Bytes of the largest frame, from 16 KiB to 16 MiB − 1.
    pub frame: u32,
    /// Bytes of one message's fields, counted with 32 for each (RFC 9113 section 6.5.2).
    pub header_list: u32,
    /// A server: streams that may be open at once.
    pub streams: u32,
    /// Streams that may have to be reset because the other end broke the protocol on them; more end the connection
    /// (CVE-2025-8671).
    pub mistakes: Rate,
    /// A server: streams that the client may take back; more end the connection. `None`: any number.
    pub resets: Option<Rate>,
    /// Frames that carry neither a message nor bytes, and that nothing which this end has sent calls for; more end the
    /// connection. `None`: any number.
    pub idle_frames: Option<Rate>,
    /// A server: requests may be CONNECT with a [`Protocol`] (RFC 8441).
    pub extended_connect: bool,
    /// A server: a request whose header is above `header_list` is handed on without the rest of it, marked by [`Cut`], and not
    /// reset.
    pub cut_headers: bool,
}

/// What an extended CONNECT is to lead to (RFC 8441 section 4): an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(pub HeaderValue);

/// An extension of a request whose header was too large and is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

pub(crate) struct Core {
    role: Role,
    settings: Settings,
    /// Streams that somebody holds, or that still have something to say.
    streams: Slab<Stream>,
    /// Those on which something may still come or go.
    open: HashMap<u32, usize>,
    /// The next stream that a client opens.
    next: u32,
    /// The last stream that the client has opened.
    last: u32,
    accepted: VecDeque<usize>,

    /// Bytes of the preface still to come.
    preface: usize,
    /// The other end's settings have come, which are its first frame.
    settled: bool,
    block: Option<Block>,
    decoder: Decoder,
    /// Bytes that the other end may send.
    window: i64,
    /// Bytes that were taken, and of which it has not been told.
    taken: u32,

    out: BytesMut,
    /// Bytes of it that the other end has made us say.
    control: usize,
    /// Bytes that have been taken out and not been written.
    writing: usize,
    encoder: Encoder,
    send_window: i64,
    /// Bytes of all bodies that have been sent.
    sent: u64,
    /// Of new streams.
    initial_window: i64,
    /// How often the other end may change that, which goes over all streams.
    window_changes: Bucket,
    /// Streams that may be reset for its mistakes.
    mistakes: Bucket,
    /// Streams that it may take back.
    resets: Option<Bucket>,
    idle: Allowance,
    largest_frame: usize,
    allowed_streams: Option<u32>,
    /// Streams that wait for room, in the order in which they get some.
    waiting: VecDeque<(usize, u32)>,

    closing: Closing,
    /// Signs of life of the other end, and when the last one came.
    signs: u64,
    heard: Instant,
    /// When bytes of a body came last, or when the connection began.
    fed: Instant,
    /// The other end takes no more streams; why, and which was the last.
    gone: Option<(Reason, u32)>,
    dead: Option<Error>,
    /// Whoever drives the connection, while there is nothing to do.
    driver: Option<Waker>,
    woken: Vec<Waker>,
}

/// How far this end's leave has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Open,
    /// A server has announced it; what the client opens before it knows is still taken.
    Announced,
    /// There are no new streams.
    Closed,
}

/// A header block that came in several frames.
struct Block {
    stream: u32,
    end_stream: bool,
    bytes: BytesMut,
    /// Frames that brought next to nothing.
    small: u32,
}

/// The head of a message that has come.
pub(crate) enum Received {
    Request(Request<()>),
    Response(Response<()>),
}

pub(crate) struct Stream {
    id: u32,
    /// Ends of it that somebody holds.
    handles: u8,
    error: Option<Error>,

    head: Option<Received>,
    /// The head has come, whether or not it has been taken.
    headed: bool,
    early: VecDeque<Response<()>>,
    /// Bytes of the fields of all interim answers.
    early_size: usize,
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// Nothing more comes.
    ended: bool,
    /// Nobody reads what comes.
    unread: bool,
    /// Bytes of a request that are still to come, if its head says how many.
    left: Option<u64>,
    window: i64,
    /// What the window is when nothing waits.
    width: u32,
    taken: u32,
    /// Its reader has had to wait for more since that was told the last time.
    keeps_up: bool,
    reader: Option<Waker>,

    send_window: i64,
    /// Bytes that the other end's window, or the connection, had no room for.
    pending: Bytes,
    /// What goes behind them.
    last: Last,
    waiting: bool,
    /// Nothing more goes.
    finished: bool,
    writer: Option<Waker>,
    waits: Waits,
    /// Bytes of the body that have been sent.
    sent: u64,
}

/// What a writer waits for, beside a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Reset,
    Room,
    End,
}

/// What ends the sending side of a stream.
enum Last {
    /// More comes.
    Open,
    End,
    Trailers(Box<HeaderMap>),
}

impl Core {
    pub(crate) fn new(role: Role, settings: Settings, now: Instant) -> Self {
        let mut out = BytesMut::new();
        if role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        let mut said = vec![
            (setting::HEADER_TABLE_SIZE, hpack::TABLE as u32),
            (setting::INITIAL_WINDOW_SIZE, settings.stream_window),
            (setting::MAX_FRAME_SIZE, settings.frame),
            (setting::MAX_HEADER_LIST_SIZE, settings.header_list),
        ];
        match role {
            Role::Client => said.push((setting::ENABLE_PUSH, 0)),
            Role::Server => said.push((setting::MAX_CONCURRENT_STREAMS, settings.streams)),
        }
        if settings.extended_connect {
            said.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
        }
        frame::put_settings(&mut out, &said);
        if settings.connection_window > DEFAULT_WINDOW {
            frame::put_window_update(&mut out, 0, settings.connection_window - DEFAULT_WINDOW);
        }
        Self {
            role,
            settings,
            streams: Slab::new(),
            open: HashMap::new(),
            next: 1,
            last: 0,
            accepted: VecDeque::new(),
            preface: if role == Role::Server { PREFACE.len() } else { 0 },
            settled: false,
            block: None,
            decoder: Decoder::new(hpack::TABLE),
            window: settings.connection_window.into(),
            taken: 0,
            out,
            control: 0,
            writing: 0,
            encoder: Encoder::new(),
            send_window: DEFAULT_WINDOW.into(),
            sent: 0,
            initial_window: DEFAULT_WINDOW.into(),
            window_changes: Bucket::new(WINDOW_CHANGES, now),
            mistakes: Bucket::new(settings.mistakes, now),
            resets: settings.resets.filter(|_| role == Role::Server).map(|rate| Bucket::new(rate, now)),
            idle: Allowance::new(settings.idle_frames, now),
            largest_frame: DEFAULT_FRAME,
            allowed_streams: None,
            waiting: VecDeque::new(),
            closing: Closing::Open,
            signs: 0,
            heard: now,
            fed: now,
            gone: None,
            dead: None,
            driver: None,
            woken: Vec::new(),
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Streams that the other end allows at once, if it has said so.
    pub(crate) fn allowed_streams(&self) -> Option<u32> {
        self.allowed_streams
    }

    /// Takes the connection's leave once the last stream has ended. A server takes on what the client opens before it knows.
    pub(crate) fn close(&mut self) {
        match (self.role, self.closing) {
            (Role::Client, _) => self.closing = Closing::Closed,
            (Role::Server, Closing::Open) => {
                frame::put_go_away(&mut self.out, MAX, Reason::NO_ERROR, "");
                frame::put(&mut self.out, frame::kind::PING, 0, 0, LEAVE);
                self.idle.asked();
                self.closing = Closing::Announced;
            }
            (Role::Server, Closing::Announced | Closing::Closed) => {}
        }
        self.wake_driver();
    }

    /// Whether all is said and done after [`Core::close`].
    pub(crate) fn is_done(&self) -> bool {
        self.closing == Closing::Closed && self.open.is_empty()
    }

    /// Ends the connection that is done.
    pub(crate) fn finish(&mut self) {
        if self.role == Role::Client {
            // A server has said so before.
            self.say_goodbye(Reason::NO_ERROR, "");
        }
        self.die(&Error::Lost("the connection was closed".into()));
    }

    pub(crate) fn say_goodbye(&mut self, reason: Reason, text: &str) {
        frame::put_go_away(&mut self.out, self.last, reason, text);
    }

    /// Why the other end went away, if it said that something was wrong.
    pub(crate) fn complaint(&self) -> Option<Reason> {
        self.gone.map(|(reason, _)| reason).filter(|reason| *reason != Reason::NO_ERROR)
    }

    /// Fails all streams, and those that are yet to be opened.
    pub(crate) fn die(&mut self, error: &Error) {
        if self.dead.is_some() {
            return;
        }
        self.dead = Some(error.clone());
        for key in std::mem::take(&mut self.open).into_values() {
            self.fail(key, error.clone());
        }
        // Nobody will accept them.
        for key in std::mem::take(&mut self.accepted) {
            self.streams.remove(key);
        }
    }

    /// Why the connection has ended.
    pub(crate) fn death(&self) -> Option<Error> {
        self.dead.clone()
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(&mut self) {
        frame::put(&mut self.out, frame::kind::PING, 0, 0, LIFE);
        self.idle.asked();
        self.wake_driver();
    }

    /// The other end has given a sign of life.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.signs += 1;
        self.heard = now;
    }

    /// How many it has given.
    pub(crate) fn signs(&self) -> u64 {
        self.signs
    }

    /// When it gave the last one, or when the connection began.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// When bytes of a body came last, or when the connection began.
    pub(crate) fn fed(&self) -> Instant {
        self.fed
    }

    /// Those whose wait is over go to the end of the list.
    pub(crate) fn woken(&mut self, list: &mut Vec<Waker>) {
        list.append(&mut self.woken);
    }

    /// One of those whose wait is over.
    pub(crate) fn next_woken(&mut self) -> Option<Waker> {
        self.woken.pop()
    }

    pub(crate) fn wake_driver(&mut self) {
        self.woken.extend(self.driver.take());
    }

    /// The driver is at work, and sees for itself what there is to do.
    pub(crate) fn rise(&mut self) {
        self.driver = None;
    }

    /// The driver has nothing to do until it is woken.
    pub(crate) fn rest(&mut self, context: &Context<'_>) {
        if self.streams.is_empty() && self.streams.capacity() > FEW_STREAMS {
            // An idle connection needs no room for what was on it.
            (self.streams, self.open) = (Slab::new(), HashMap::new());
            (self.accepted, self.waiting) = (VecDeque::new(), VecDeque::new());
        }
        self.driver = Some(context.waker().clone());
    }

    fn add(&mut self, id: u32) -> usize {
        let key = self.streams.insert(Stream {
            id,
            handles: 2,
            error: None,
            head: None,
            headed: false,
            early: VecDeque::new(),
            early_size: 0,
            data: VecDeque::new(),
            trailers: None,
            ended: false,
            unread: false,
            left: None,
            window: self.settings.stream_window.into(),
            width: self.settings.stream_window,
            keeps_up: false,
            taken: 0,
            reader: None,
            send_window: self.initial_window,
            pending: Bytes::new(),
            last: Last::Open,
            waiting: false,
            finished: false,
            writer: None,
            waits: Waits::Reset,
            sent: 0,
        });
        self.open.insert(id, key);
        key
    }

    /// Ends a stream on both sides.
    fn fail(&mut self, key: usize, error: Error) {
        let stream = &mut self.streams[key];
        self.open.remove(&stream.id);
        stream.error.get_or_insert(error);
        stream.pending = Bytes::new();
        self.woken.extend(stream.reader.take());
        self.woken.extend(stream.writer.take());
        if stream.handles == 0 {
            self.streams.remove(key);
        }
    }

    /// Tells the other end that a stream is over, and ends it.
    fn reset(&mut self, key: usize, reason: Reason, error: Error) {
        let stream = &self.streams[key];
        frame::put_reset(&mut self.out, stream.id, reason);
        self.idle.reset(stream.window);
        self.fail(key, error);
    }

    /// Counts a mistake of the other end on one stream, for which that is reset.
    fn mistake(&mut self) -> Result<(), Breach> {
        if self.mistakes.take(self.heard) { Ok(()) } else { Err(Breach::Mistakes) }
    }

    /// Lets a stream go that has ended, or that nobody wants any more.
    fn settle(&mut self, key: usize) {
        let stream = &mut self.streams[key];
        let (id, held) = (stream.id, stream.handles > 0);
        if stream.error.is_some() || (stream.ended && stream.finished) {
            if stream.waits == Waits::End {
                self.woken.extend(stream.writer.take());
            }
            self.open.remove(&id);
            if !held {
                self.streams.remove(key);
            }
            return;
        }
        if held {
            return;
        }
        let answered = self.role == Role::Server && !matches!(stream.last, Last::Open);
        if answered && !stream.finished {
            // The rest of the answer goes without anybody's doing.
            return;
        }
        let reason = if answered { Reason::NO_ERROR } else { Reason::CANCEL };
        self.reset(key, reason, Error::Reset(reason));
        self.wake_driver();
    }
}

#[cfg(test)]
mod tests;
