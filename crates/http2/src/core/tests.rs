//! Two ends against each other, and one end against whatever may come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::frame::{Head, flag, kind};

const SETTINGS: Settings = Settings {
    stream_window: 1 << 16,
    widest_stream_window: 1 << 16,
    connection_window: 1 << 17,
    frame: 1 << 14,
    header_list: 16 << 10,
    streams: 8,
    mistakes: Rate { burst: 64, per_second: 1 },
    resets: None,
    idle_frames: None,
    extended_connect: false,
    cut_headers: false,
};

fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://a.test{path}")).header("accept", "*/*").body(()).unwrap()
}

/// Takes what one end says, and gives it to the other.
fn pass(from: &mut Core, to: &mut Core) -> Result<(), Breach> {
    let mut bytes = from.take_out();
    from.written(0);
    to.feed(&mut bytes)?;
    assert!(bytes.is_empty(), "whole frames");
    Ok(())
}

fn pair() -> (Core, Core) {
    pair_of(SETTINGS)
}

fn pair_of(settings: Settings) -> (Core, Core) {
    let now = Instant::now();
    let (mut client, mut server) = (Core::new(Role::Client, settings, now), Core::new(Role::Server, settings, now));
    pass(&mut client, &mut server).unwrap();
    pass(&mut server, &mut client).unwrap();
    (client, server)
}

#[test]
fn a_request_and_its_answer() {
    let (mut client, mut server) = pair();
    let asked = client.open(&get("/x?y"), true).unwrap();
    client.release_writer(asked);
    pass(&mut client, &mut server).unwrap();
    let (key, request) = server.accept().unwrap();
    assert_eq!(request.uri(), "https://a.test/x?y");
    assert_eq!(request.headers()["accept"], "*/*");
    assert!(server.is_read(key));

    server.answer(key, &Response::builder().status(103).header("link", "</a>").body(()).unwrap(), false).unwrap();
    server.answer(key, &Response::builder().header("etag", "1").body(()).unwrap(), false).unwrap();
    server.send(key, Bytes::from_static(b"hello"), false).unwrap();
    server.send_trailers(key, HeaderMap::from_iter([(http::header::ETAG, "2".parse().unwrap())])).unwrap();
    server.release_writer(key);
    server.release_reader(key);
    pass(&mut server, &mut client).unwrap();
    let Poll::Ready(Some(early)) = client.poll_early(asked, &mut idle()) else { panic!("an interim answer") };
    assert_eq!(early.status(), 103);
    assert!(matches!(client.poll_early(asked, &mut idle()), Poll::Ready(None)));
    let Poll::Ready(Ok(head)) = client.poll_head(asked, &mut idle()) else { panic!("an answer") };
    assert_eq!(head.headers()["etag"], "1");
    assert_eq!(client.poll_data(asked, &mut idle()), Poll::Ready(Some(Ok("hello".into()))));
    assert_eq!(client.poll_data(asked, &mut idle()), Poll::Ready(None));
    assert_eq!(client.trailers(asked).unwrap()["etag"], "2");
    client.release_reader(asked);
    for core in [&client, &server] {
        assert!(core.streams.is_empty() && core.open.is_empty());
    }
}

#[test]
fn large_headers_go_in_several_frames() {
    let (mut client, mut server) = pair();
    server.settings.header_list = 1 << 20;
    let mut head = get("/");
    head.headers_mut().insert("x-large", HeaderValue::try_from("x".repeat(100_000)).unwrap());
    client.open(&head, true).unwrap();
    pass(&mut client, &mut server).unwrap();
    assert_eq!(server.accept().unwrap().1.headers()["x-large"].len(), 100_000);
}

/// Both ends send bodies of random sizes on random streams, read them or leave, and their bytes come in random pieces.
#[test]
fn bodies_arrive_whole_whatever_the_order() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut client, mut server) = pair();
        let mut wires = [BytesMut::new(), BytesMut::new()];
        // Of each request: what is left to be sent and to be read, at either end.
        let mut requests: Vec<Transfer> = Vec::new();
        let mut begun = 0;
        for _ in 0..20_000 {
            match random.random_range(0..6) {
                0 if begun < 30 && client.open.len() < SETTINGS.streams as usize => {
                    begun += 1;
                    let length = random.random_range(0..300_000);
                    let key = client.open(&get(&format!("/{length}")), false).unwrap();
                    let leaves = random.random_ratio(1, 5);
                    requests.push(Transfer { key, sent: 0, read: 0, length, leaves, answered: None });
                }
                1 | 2 => {
                    let (core, wire) =
                        if random.random() { (&mut client, &mut wires[0]) } else { (&mut server, &mut wires[1]) };
                    wire.extend_from_slice(&core.take_out());
                    core.written(0);
                }
                3 => {
                    let (core, wire) =
                        if random.random() { (&mut server, &mut wires[0]) } else { (&mut client, &mut wires[1]) };
                    let mut part = wire.split_to(random.random_range(0..=wire.len()));
                    core.feed(&mut part).unwrap();
                    // What was no whole frame comes again with the rest.
                    part.unsplit(wire.split());
                    *wire = part;
                }
                _ => {
                    while let Some((key, request)) = server.accept() {
                        let length: usize = request.uri().path()[1..].parse().unwrap();
                        let transfer =
                            requests.iter_mut().rev().find(|one| one.length == length && one.answered.is_none());
                        transfer.unwrap().answered = Some(Answer { key, sent: 0, read: 0 });
                        server.answer(key, &Response::new(()), false).unwrap();
                    }
                    if !requests.is_empty() {
                        let at = random.random_range(0..requests.len());
                        if requests[at].step(&mut client, &mut server, &mut random) {
                            requests.swap_remove(at);
                        }
                    }
                }
            }
        }
        // Then all goes on to its end.
        for _ in 0..20_000 {
            if requests.is_empty() {
                break;
            }
            pass_with(&mut wires[0], &mut client, &mut server);
            pass_with(&mut wires[1], &mut server, &mut client);
            while let Some((key, request)) = server.accept() {
                let length: usize = request.uri().path()[1..].parse().unwrap();
                let transfer = requests.iter_mut().rev().find(|one| one.length == length && one.answered.is_none());
                transfer.unwrap().answered = Some(Answer { key, sent: 0, read: 0 });
                server.answer(key, &Response::new(()), false).unwrap();
            }
            requests.retain_mut(|request| !request.step(&mut client, &mut server, &mut random));
        }
        assert!(requests.is_empty(), "seed {seed}: {} hang", requests.len());
        pass_with(&mut wires[0], &mut client, &mut server);
        pass_with(&mut wires[1], &mut server, &mut client);
        for core in [&client, &server] {
            assert!(core.open.is_empty() && core.streams.is_empty(), "seed {seed}");
            let given = core.window + i64::from(core.taken);
            assert_eq!(given, i64::from(SETTINGS.connection_window), "seed {seed}: no room is lost");
        }
    }
}

fn pass_with(wire: &mut BytesMut, from: &mut Core, to: &mut Core) {
    wire.extend_from_slice(&from.take_out());
    from.written(0);
    to.feed(wire).unwrap();
}

/// A request whose body the server sends back.
struct Transfer {
    key: usize,
    sent: usize,
    read: usize,
    length: usize,
    /// The client wants no more of it, half way.
    leaves: bool,
    answered: Option<Answer>,
}

struct Answer {
    key: usize,
    sent: usize,
    read: usize,
}

fn piece(from: usize, length: usize) -> Bytes {
    (from..from + length).map(|number| (number % 251) as u8).collect()
}

impl Transfer {
    /// Does what can be done; `true`: all is done.
    fn step(&mut self, client: &mut Core, server: &mut Core, random: &mut StdRng) -> bool {
        if let Some(answer) = &mut self.answered {
            let over = self.key == usize::MAX && answer.sent == self.length && answer.read == self.length;
            if over || server.poll_reset(answer.key, &mut idle()).is_ready() {
                server.release_reader(answer.key);
                server.release_writer(answer.key);
                self.answered = None;
                return true;
            }
            match server.poll_data(answer.key, &mut idle()) {
                Poll::Ready(Some(Ok(bytes))) => {
                    assert_eq!(bytes, piece(answer.read, bytes.len()));
                    answer.read += bytes.len();
                }
                Poll::Ready(Some(Err(error))) => panic!("{error}"),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if answer.sent < answer.read && server.poll_ready(answer.key, &mut idle()).is_ready() {
                let length = (answer.read - answer.sent).min(random.random_range(1..40_000));
                // The end may come with the last bytes, or alone.
                let end = answer.sent + length == self.length && random.random();
                if server.send(answer.key, piece(answer.sent, length), end).is_ok() {
                    answer.sent += length;
                }
            } else if answer.sent == self.length && server.is_read(answer.key) {
                // Fails if it has ended already.
                let _ = server.send(answer.key, Bytes::new(), true);
            }
        }
        if self.key == usize::MAX {
            // Only the server is left, and learns it by the reset.
            return self.answered.is_none();
        }
        if self.sent < self.length.max(1) && client.poll_ready(self.key, &mut idle()).is_ready() {
            let length = (self.length - self.sent).min(random.random_range(1..40_000));
            client.send(self.key, piece(self.sent, length), self.sent + length == self.length).unwrap();
            self.sent += length.max(1);
        }
        if self.leaves && self.read > self.length / 2 {
            client.release_reader(self.key);
            client.release_writer(self.key);
            self.key = usize::MAX;
            return self.answered.is_none();
        }
        let _ = client.poll_head(self.key, &mut idle());
        match client.poll_data(self.key, &mut idle()) {
            Poll::Ready(Some(Ok(bytes))) => {
                assert_eq!(bytes, piece(self.read, bytes.len()));
                self.read += bytes.len();
                false
            }
            Poll::Ready(None) => {
                assert_eq!(self.read, self.length);
                client.release_reader(self.key);
                client.release_writer(self.key);
                if let Some(answer) = self.answered.take() {
                    server.release_reader(answer.key);
                    server.release_writer(answer.key);
                }
                true
            }
            Poll::Ready(Some(Err(error))) => panic!("{error}"),
            Poll::Pending => false,
        }
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn room_is_given_in_turns_and_to_whoever_still_wants_it() {
    let (mut client, mut server) = pair();
    server.settings.streams = 100;
    client.send_window = 1 << 30;
    client.initial_window = 1 << 30;
    let streams: Vec<usize> = (0..40).map(|_| client.open(&get("/"), false).unwrap()).collect();
    pass(&mut client, &mut server).unwrap();
    // Nothing is written meanwhile.
    let whole = Bytes::from(vec![0; 1 << 20]);
    client.send(streams[0], whole, true).unwrap();
    let counts: Vec<Arc<Count>> = streams.iter().map(|_| Arc::default()).collect();
    for (stream, count) in streams.iter().zip(&counts).skip(1) {
        let waker = Waker::from(Arc::clone(count));
        assert!(client.poll_ready(*stream, &mut Context::from_waker(&waker)).is_pending());
    }
    // Those that wait longest are woken first, as many as find room; the others get theirs though those do not want it.
    let mut rounds = 0;
    while counts.iter().skip(1).any(|count| count.0.load(Ordering::Relaxed) == 0) {
        client.take_out();
        client.written(0);
        while let Some(waker) = client.next_woken() {
            waker.wake();
        }
        rounds += 1;
        assert!(rounds < 20);
    }
    assert!(rounds > 1, "not all at once");
    assert!(!client.streams[streams[0]].pending.is_empty(), "a large body does not keep the others waiting");
}

#[test]
fn an_end_alone_waits_for_nobody() {
    let (mut client, mut server) = pair();
    let streams: Vec<usize> = (0..3).map(|_| client.open(&get("/"), false).unwrap()).collect();
    pass(&mut client, &mut server).unwrap();
    let [large, ended, trailed] = [0, 1, 2].map(|_| server.accept().unwrap().0);
    for key in [large, ended, trailed] {
        server.answer(key, &Response::new(()), false).unwrap();
    }
    // All of the connection's window is taken, and the first waits for more.
    server.streams[large].send_window = 1 << 30;
    client.streams[streams[0]].window = 1 << 30;
    server.send(large, vec![0; 1 << 20].into(), true).unwrap();
    assert!(!server.waiting.is_empty() && server.send_window < 1 << 17);
    // The windows of the others need not have room for an end either.
    server.streams[ended].send_window = 0;
    server.send(ended, Bytes::new(), true).unwrap();
    server.send_trailers(trailed, HeaderMap::new()).unwrap();
    pass(&mut server, &mut client).ok();
    for key in &streams[1..] {
        let _ = client.poll_head(*key, &mut idle());
        assert_eq!(client.poll_data(*key, &mut idle()), Poll::Ready(None));
    }
}

/// Readers who take nothing hold a part of the window, and the others go on with the rest.
#[test]
fn the_rest_of_a_window_is_used_on() {
    let (mut client, mut server) = pair();
    let [stalled, other] = [0, 1].map(|_| client.open(&get("/"), false).unwrap());
    pass(&mut client, &mut server).unwrap();
    let answers = [0, 1].map(|_| server.accept().unwrap().0);
    for key in answers {
        server.answer(key, &Response::new(()), false).unwrap();
    }
    let mut read = 0;
    for _ in 0..200 {
        for key in answers {
            if server.poll_ready(key, &mut idle()).is_ready() {
                server.send(key, vec![0; 10_000].into(), false).unwrap();
            }
        }
        pass(&mut server, &mut client).unwrap();
        let _ = client.poll_head(other, &mut idle());
        while let Poll::Ready(Some(Ok(bytes))) = client.poll_data(other, &mut idle()) {
            read += bytes.len();
        }
        pass(&mut client, &mut server).unwrap();
    }
    assert!(read > 1_000_000, "{read}");
    assert!(client.unread(stalled) > 60_000);
}

/// An answer without end.
struct Endless {
    client: Core,
    server: Core,
    asked: usize,
    answer: usize,
}

impl Endless {
    fn new(connection_window: u32) -> Self {
        let settings = Settings { widest_stream_window: 1 << 20, connection_window, ..SETTINGS };
        let (mut client, mut server) = pair_of(settings);
        let asked = client.open(&get("/"), false).unwrap();
        pass(&mut client, &mut server).unwrap();
        let (answer, _) = server.accept().unwrap();
        server.answer(answer, &Response::new(()), false).unwrap();
        pass(&mut server, &mut client).unwrap();
        assert!(client.poll_head(asked, &mut idle()).is_ready());
        Self { client, server, asked, answer }
    }

    /// In each round comes as much as may, and so many pieces of it are taken. How wide the window is then.
    fn width_after(&mut self, rounds: usize, pieces: usize) -> u32 {
        let Self { client, server, asked, answer } = self;
        for round in 0..rounds {
            while server.poll_ready(*answer, &mut idle()).is_ready() {
                server.send(*answer, vec![0; 10_000].into(), false).unwrap();
            }
            pass(server, client).unwrap();
            for _ in 0..pieces {
                let Poll::Ready(Some(Ok(_))) = client.poll_data(*asked, &mut idle()) else { break };
            }
            pass(client, server).unwrap();
            let stream = &client.streams[*asked];
            assert_eq!(stream.window, server.streams[*answer].send_window, "{round}: both ends know what may come");
            let all = stream.window + client.unread(*asked) as i64 + i64::from(stream.taken);
            assert_eq!(all, stream.width.into(), "{round}: no room is lost");
        }
        client.streams[*asked].width
    }
}

#[test]
fn a_window_is_wide_for_readers_who_keep_up() {
    assert_eq!(Endless::new(8 << 20).width_after(1000, 1), 1 << 16, "much is always waiting");
    assert_eq!(Endless::new(8 << 20).width_after(100, usize::MAX), 1 << 20);
}

/// Whoever has become slow leaves room to others, if they need it.
#[test]
fn a_wide_window_is_narrowed_where_there_is_little_room() {
    let mut roomy = Endless::new(8 << 20);
    assert_eq!(roomy.width_after(100, usize::MAX), 1 << 20);
    assert_eq!(roomy.width_after(1000, 1), 1 << 20, "nobody else needs it");
    let mut scarce = Endless::new(1 << 20);
    let before = scarce.width_after(100, usize::MAX);
    let after = scarce.width_after(1000, 1);
    assert!(before > 1 << 19 && after <= 1 << 19, "{before} and then {after}");
}

#[test]
fn what_waits_for_a_slow_end_is_no_fault_of_its_own() {
    let (mut client, mut server) = pair();
    server.settings.streams = 10_000;
    let mut head = get("/");
    head.headers_mut().insert("authorization", HeaderValue::try_from("x".repeat(8000)).unwrap());
    let mut opened = 0;
    while client.open(&head, true).is_ok() {
        opened += 1;
    }
    assert!((400..2000).contains(&opened), "{opened}");
    client.feed(&mut BytesMut::from(&made(kind::PING, 0, 0, &[0; 8])[..])).expect("one ping is no flood");
    pass(&mut client, &mut server).unwrap();
    assert!(client.open(&head, true).is_ok(), "there is room again");
}

#[test]
fn a_stream_of_an_answer_that_nobody_holds_goes_on() {
    let (mut client, mut server) = pair();
    let asked = client.open(&get("/"), false).unwrap();
    pass(&mut client, &mut server).unwrap();
    let (key, _) = server.accept().unwrap();
    server.answer(key, &Response::new(()), false).unwrap();
    server.send(key, vec![7; 100_000].into(), true).unwrap();
    server.release_reader(key);
    server.release_writer(key);
    let mut read = 0;
    for _ in 0..10 {
        pass(&mut server, &mut client).unwrap();
        let _ = client.poll_head(asked, &mut idle());
        while let Poll::Ready(Some(Ok(bytes))) = client.poll_data(asked, &mut idle()) {
            read += bytes.len();
        }
        pass(&mut client, &mut server).unwrap();
    }
    assert_eq!(read, 100_000);
    assert!(server.streams.is_empty(), "the body of the request was not waited for");
    assert_eq!(client.poll_data(asked, &mut idle()), Poll::Ready(None));
}

/// A server that has been greeted, and what it says to these frames of a client.
fn reaction(frames: &[Vec<u8>]) -> Result<Vec<(u8, u32, Vec<u8>)>, Breach> {
    let (_, mut server) = pair();
    server.feed(&mut BytesMut::from(&frames.concat()[..]))?;
    let mut out = server.take_out();
    let mut said = Vec::new();
    while let Some(head) = Head::read(&out) {
        let frame = out.split_to(9 + head.length);
        said.push((head.kind, head.stream, frame[9..].to_vec()));
    }
    Ok(said)
}

fn made(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put(&mut out, kind, flags, stream, payload);
    out.to_vec()
}

/// GET https://a/, as indexes and one literal.
const GET: &[u8] = b"\x82\x87\x84\x01\x01a";
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

fn asks(stream: u32) -> Vec<u8> {
    made(kind::HEADERS, WHOLE, stream, GET)
}

#[test]
fn mistakes_that_end_the_connection() {
    let posts = made(kind::HEADERS, flag::END_HEADERS, 1, GET);
    let cases: Vec<(&str, Reason, Vec<Vec<u8>>)> = vec![
        ("a large frame", Reason::FRAME_SIZE_ERROR, vec![made(kind::DATA, 0, 1, &[0; (1 << 14) + 1])]),
        ("bytes of no stream", Reason::PROTOCOL_ERROR, vec![made(kind::DATA, 0, 0, b"x")]),
        ("bytes of an idle stream", Reason::PROTOCOL_ERROR, vec![made(kind::DATA, 0, 1, b"x")]),
        ("too much padding", Reason::PROTOCOL_ERROR, vec![posts.clone(), made(kind::DATA, flag::PADDED, 1, b"\x02x")]),
        ("no padding", Reason::PROTOCOL_ERROR, vec![posts.clone(), made(kind::DATA, flag::PADDED, 1, b"")]),
        ("a header of no stream", Reason::PROTOCOL_ERROR, vec![asks(0)]),
        ("a header of an even stream", Reason::PROTOCOL_ERROR, vec![asks(2)]),
        ("a broken header", Reason::COMPRESSION_ERROR, vec![made(kind::HEADERS, WHOLE, 1, b"\xff\xff")]),
        (
            "a frame in a header block",
            Reason::PROTOCOL_ERROR,
            vec![made(kind::HEADERS, 0, 1, GET), made(kind::PING, 0, 0, &[0; 8])],
        ),
        (
            "a continuation of another stream",
            Reason::PROTOCOL_ERROR,
            vec![made(kind::HEADERS, 0, 1, GET), made(kind::CONTINUATION, 4, 3, b"")],
        ),
        ("a continuation of nothing", Reason::PROTOCOL_ERROR, vec![made(kind::CONTINUATION, 4, 1, b"")]),
        (
            "a header block without end",
            Reason::ENHANCE_YOUR_CALM,
            std::iter::once(made(kind::HEADERS, 0, 1, GET))
                .chain((0..100).map(|_| made(kind::CONTINUATION, 0, 1, b"")))
                .collect(),
        ),
        ("a priority of a wrong size", Reason::FRAME_SIZE_ERROR, vec![made(kind::PRIORITY, 0, 1, b"1234")]),
        ("a priority of no stream", Reason::PROTOCOL_ERROR, vec![made(kind::PRIORITY, 0, 0, b"12345")]),
        ("a reset of an idle stream", Reason::PROTOCOL_ERROR, vec![made(kind::RST_STREAM, 0, 1, &[0; 4])]),
        ("a reset of a wrong size", Reason::FRAME_SIZE_ERROR, vec![asks(1), made(kind::RST_STREAM, 0, 1, &[0; 3])]),
        ("settings of a stream", Reason::PROTOCOL_ERROR, vec![made(kind::SETTINGS, 0, 1, b"")]),
        ("settings of a wrong size", Reason::FRAME_SIZE_ERROR, vec![made(kind::SETTINGS, 0, 0, &[0; 5])]),
        ("an acknowledgement that says something", Reason::FRAME_SIZE_ERROR, vec![made(kind::SETTINGS, 1, 0, &[0; 6])]),
        ("push neither on nor off", Reason::PROTOCOL_ERROR, vec![made(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])]),
        ("a huge window", Reason::FLOW_CONTROL_ERROR, vec![made(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])]),
        ("tiny frames", Reason::PROTOCOL_ERROR, vec![made(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])]),
        (
            "settings beyond number",
            Reason::ENHANCE_YOUR_CALM,
            vec![made(kind::SETTINGS, 0, 0, &[[0, 4, 0, 0, 0, 1], [0, 4, 0, 0, 0, 2]].concat().repeat(17))],
        ),
        (
            "a window that swings",
            Reason::ENHANCE_YOUR_CALM,
            (0..102).map(|number| made(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, number])).collect(),
        ),
        ("a push", Reason::PROTOCOL_ERROR, vec![made(kind::PUSH_PROMISE, 4, 1, &[0; 4])]),
        ("a ping of a stream", Reason::PROTOCOL_ERROR, vec![made(kind::PING, 0, 1, &[0; 8])]),
        ("a ping of a wrong size", Reason::FRAME_SIZE_ERROR, vec![made(kind::PING, 0, 0, &[0; 7])]),
        ("a leave of a stream", Reason::PROTOCOL_ERROR, vec![made(kind::GOAWAY, 0, 1, &[0; 8])]),
        ("a leave of a wrong size", Reason::FRAME_SIZE_ERROR, vec![made(kind::GOAWAY, 0, 0, &[0; 7])]),
        ("no growth", Reason::PROTOCOL_ERROR, vec![made(kind::WINDOW_UPDATE, 0, 0, &[0; 4])]),
        (
            "a stream that depends on itself",
            Reason::PROTOCOL_ERROR,
            vec![made(kind::HEADERS, WHOLE | flag::PRIORITY, 1, &[&[0, 0, 0, 1, 9], GET].concat())],
        ),
        ("an older stream", Reason::PROTOCOL_ERROR, vec![asks(5), asks(3)]),
        ("too much growth", Reason::FLOW_CONTROL_ERROR, vec![made(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])]),
        ("growth of an idle stream", Reason::PROTOCOL_ERROR, vec![made(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])]),
        ("growth of a wrong size", Reason::FRAME_SIZE_ERROR, vec![made(kind::WINDOW_UPDATE, 0, 0, &[0; 5])]),
        (
            "more than the stream's window",
            Reason::FLOW_CONTROL_ERROR,
            std::iter::once(posts).chain((0..5).map(|_| made(kind::DATA, 0, 1, &[0; 1 << 14]))).collect(),
        ),
        (
            "more than the connection's window",
            Reason::FLOW_CONTROL_ERROR,
            [1, 3, 5]
                .into_iter()
                .flat_map(|stream| {
                    let data = (0..4).map(move |_| made(kind::DATA, 0, stream, &[0; 1 << 14]));
                    std::iter::once(made(kind::HEADERS, flag::END_HEADERS, stream, GET)).chain(data)
                })
                .collect(),
        ),
        (
            "pings without reading the answers",
            Reason::ENHANCE_YOUR_CALM,
            (0..100_000).map(|_| made(kind::PING, 0, 0, &[0; 8])).collect(),
        ),
    ];
    for (name, reason, frames) in cases {
        match reaction(&frames) {
            Err(breach) => assert_eq!(breach.reason(), reason, "{name}"),
            Ok(said) => panic!("{name}: {said:?}"),
        }
    }
    let mut server = Core::new(Role::Server, SETTINGS, Instant::now());
    assert!(server.feed(&mut BytesMut::from(&b"GET / HTTP/1.1\r\n"[..])).is_err(), "another protocol");
    let mut server = Core::new(Role::Server, SETTINGS, Instant::now());
    server.feed(&mut BytesMut::from(PREFACE)).unwrap();
    assert!(server.feed(&mut BytesMut::from(&asks(1)[..])).is_err(), "no settings");
}

#[test]
fn mistakes_that_end_the_stream_alone() {
    let posts = made(kind::HEADERS, flag::END_HEADERS, 1, GET);
    let header = |block: &[u8]| vec![made(kind::HEADERS, WHOLE, 1, block)];
    let two = made(kind::HEADERS, flag::END_HEADERS, 1, &[GET, b"\x0f\x0d\x012"].concat());
    let cases: Vec<(&str, Reason, Vec<Vec<u8>>)> = vec![
        ("no method", Reason::PROTOCOL_ERROR, header(b"\x87\x84\x01\x01a")),
        ("no scheme", Reason::PROTOCOL_ERROR, header(b"\x82\x84\x01\x01a")),
        ("no path", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x01\x01a")),
        ("an empty path", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x04\x00\x01\x01a")),
        ("a status", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x88")),
        ("two paths", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x84")),
        ("an upper case name", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x00\x01A\x01x")),
        ("a field of a connection", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x00\x0aconnection\x01x")),
        ("a control character", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x00\x01a\x01\x00")),
        ("an unknown protocol", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x00\x09:protocol\x01x")),
        ("bytes behind the end", Reason::STREAM_CLOSED, vec![asks(1), made(kind::DATA, 0, 1, b"x")]),
        ("a header behind the end", Reason::STREAM_CLOSED, vec![asks(1), asks(1)]),
        (
            "bytes behind a reset",
            Reason::STREAM_CLOSED,
            vec![asks(1), made(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), made(kind::DATA, 0, 1, b"x")],
        ),
        ("a length that is none", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x01\x01a\x0f\x0d\x02+0")),
        ("two lengths", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x01\x01a\x0f\x0d\x010\x0f\x0d\x0200")),
        ("no bytes where some are said", Reason::PROTOCOL_ERROR, header(b"\x82\x87\x84\x01\x01a\x0f\x0d\x012")),
        ("too many bytes", Reason::PROTOCOL_ERROR, vec![two.clone(), made(kind::DATA, 0, 1, b"123")]),
        ("too few bytes", Reason::PROTOCOL_ERROR, vec![two.clone(), made(kind::DATA, flag::END_STREAM, 1, b"1")]),
        ("too few before trailers", Reason::PROTOCOL_ERROR, vec![two, made(kind::HEADERS, WHOLE, 1, b"")]),
        ("trailers that do not end it", Reason::PROTOCOL_ERROR, vec![posts.clone(), made(kind::HEADERS, 4, 1, b"")]),
        ("a second head", Reason::PROTOCOL_ERROR, vec![posts.clone(), asks(1)]),
        ("no growth", Reason::PROTOCOL_ERROR, vec![posts.clone(), made(kind::WINDOW_UPDATE, 0, 1, &[0; 4])]),
        (
            "too much growth",
            Reason::FLOW_CONTROL_ERROR,
            vec![posts, made(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])],
        ),
    ];
    for (name, reason, mut frames) in cases {
        // The connection goes on.
        frames.push(made(kind::PING, 0, 0, &[1; 8]));
        let said = reaction(&frames).unwrap_or_else(|fatal| panic!("{name}: {fatal:?}"));
        assert!(said.contains(&(kind::RST_STREAM, 1, reason.0.to_be_bytes().to_vec())), "{name}: {said:?}");
        assert!(said.contains(&(kind::PING, 0, vec![1; 8])), "{name}: {said:?}");
    }
    let said = reaction(&(0..10).map(|number| asks(2 * number + 1)).collect::<Vec<_>>()).unwrap();
    let refused: Vec<u32> = said.iter().filter(|(kind, ..)| *kind == kind::RST_STREAM).map(|(_, id, _)| *id).collect();
    assert_eq!(refused, [17, 19], "more streams than allowed");
}

#[test]
fn one_mistake_too_many_ends_the_connection() {
    let wrong = |number: u32| made(kind::HEADERS, WHOLE, 2 * number + 1, b"\x82");
    let frames: Vec<_> = (0..=SETTINGS.mistakes.burst).map(wrong).collect();
    assert!(reaction(&frames[1..]).is_ok());
    assert_eq!(reaction(&frames), Err(Breach::Mistakes));
}

const HOUR: Duration = Duration::from_secs(3600);

/// So many more of this are let through.
fn passes(core: &mut Core, one: impl Fn(u32) -> Vec<u8>) -> (u32, Option<Breach>) {
    const MANY: u32 = 10_000;
    for number in 0..MANY {
        if let Err(breach) = core.feed(&mut BytesMut::from(&one(number)[..])) {
            return (number, Some(breach));
        }
        core.take_out();
    }
    (MANY, None)
}

#[test]
fn what_long_connections_did_wrong_is_forgotten() {
    let (_, mut server) = pair();
    let start = server.heard();
    for hour in 0..3 {
        server.hear(start + hour * HOUR);
        let wrong = |number: u32| made(kind::HEADERS, WHOLE, 1 + 2 * (1_000 * hour + number), b"\x82");
        assert_eq!(passes(&mut server, wrong), (SETTINGS.mistakes.burst, Some(Breach::Mistakes)));
        let window = |number: u32| {
            let value = (1_000 * hour + number).to_be_bytes();
            made(kind::SETTINGS, 0, 0, &[&[0, 4][..], &value].concat())
        };
        // One was in the first settings.
        let left = WINDOW_CHANGES.burst - u32::from(hour == 0);
        assert_eq!(passes(&mut server, window), (left, Some(Breach::Settings)));
    }
}

/// An end of a connection that lets few frames through which carry nothing, and all of them left.
fn strict(role: Role) -> Core {
    const FEW: Rate = Rate { burst: 10, per_second: 1 };
    let settings = Settings { resets: Some(Rate { burst: 5, ..FEW }), idle_frames: Some(FEW), ..SETTINGS };
    let start = Instant::now();
    let mut core = Core::new(role, settings, start);
    let preface = if role == Role::Server { PREFACE } else { b"" };
    core.feed(&mut BytesMut::from(&[preface, &made(kind::SETTINGS, 0, 0, b"")].concat()[..])).unwrap();
    core.idle = Allowance::new(settings.idle_frames, start);
    core.take_out();
    core
}

#[test]
fn frames_that_carry_nothing_are_counted() {
    let frames = [
        ("settings", made(kind::SETTINGS, 0, 0, b"")),
        ("known settings", made(kind::SETTINGS, flag::ACK, 0, b"")),
        ("pings", made(kind::PING, 0, 0, &[0; 8])),
        ("answers to no ping", made(kind::PING, flag::ACK, 0, &[0; 8])),
        ("priorities", made(kind::PRIORITY, 0, 1, b"12345")),
        ("leaves", made(kind::GOAWAY, 0, 0, &[0; 8])),
        ("unknown frames", made(0x77, 0, 0, b"unknown")),
        ("room for nothing", made(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ];
    for role in [Role::Client, Role::Server] {
        for (name, frame) in &frames {
            let mut core = strict(role);
            let now = core.heard();
            assert_eq!(passes(&mut core, |_| frame.clone()), (10, Some(Breach::Idle)), "{name} to a {role:?}");
            core.hear(now + Duration::from_secs(3));
            assert_eq!(passes(&mut core, |_| frame.clone()), (3, Some(Breach::Idle)), "{name} to a {role:?}");
        }
    }
}

#[test]
fn frames_on_streams_are_counted_unless_they_are_called_for() {
    let posts = || {
        let mut server = strict(Role::Server);
        server.feed(&mut BytesMut::from(&made(kind::HEADERS, flag::END_HEADERS, 1, GET)[..])).unwrap();
        server
    };
    let empty = |_| made(kind::DATA, 0, 1, b"");
    assert_eq!(passes(&mut posts(), empty), (10, Some(Breach::Idle)));
    assert_eq!(passes(&mut posts(), |_| made(kind::DATA, flag::PADDED, 1, b"\x00")), (10, Some(Breach::Idle)));
    let taken_back = |_| made(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    assert_eq!(passes(&mut posts(), taken_back), (5, Some(Breach::Resets)));

    // It is over: what was under way when the other end came to know is let pass, and no more.
    let late = [
        made(kind::DATA, 0, 1, b"x"),
        made(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        made(kind::HEADERS, WHOLE, 1, b"\x00\x01a\x01b"),
    ];
    for frame in late {
        let mut server = posts();
        let (key, _) = server.accept().unwrap();
        server.send_reset(key, Reason::CANCEL);
        let (passed, breach) = passes(&mut server, |_| frame.clone());
        assert_eq!(breach, Some(Breach::Idle), "{frame:?}");
        assert!((100..1_000).contains(&passed), "{passed} of {frame:?}");
    }

    let mut server = strict(Role::Server);
    let (opened, breach) = passes(&mut server, |number| asks(2 * number + 1));
    assert_eq!((opened, breach), (SETTINGS.streams + 10, Some(Breach::Idle)), "more streams than allowed");

    let mut client = strict(Role::Client);
    client.open(&get("/"), true).unwrap();
    let early = made(kind::HEADERS, flag::END_HEADERS, 1, b"\x08\x03103");
    let (passed, breach) = passes(&mut client, |_| early.clone());
    assert_eq!(breach, Some(Breach::Idle), "interim answers");
    assert!((11..100).contains(&passed), "{passed}");
}

/// Thousands of requests within one moment, to an agent that says all that an honest one may.
#[test]
fn an_honest_busy_end_is_never_counted_out() {
    let mut client = strict(Role::Client);
    let room = |stream, bytes: u32| made(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    for number in 0..5_000 {
        let id = 2 * number + 1;
        let key = client.open(&get("/"), false).unwrap();
        let mut said = Vec::new();
        if number % 2 == 0 {
            // As stock agents: of each 4 KiB they say so twice.
            client.send(key, vec![0; 32 << 10].into(), false).unwrap();
            said.extend((0..8).flat_map(|_| [room(0, 4 << 10), room(id, 4 << 10)]));
        } else {
            // A WebSocket's messages, each taken by itself.
            for _ in 0..20 {
                client.send(key, Bytes::from_static(b"a message"), false).unwrap();
                said.extend([room(0, 9), room(id, 9)]);
            }
        }
        client.ping();
        said.push(made(kind::PING, flag::ACK, 0, LIFE));
        // The answer comes before the end of the request, which is then taken back, or has ended meanwhile.
        said.push(made(kind::HEADERS, WHOLE, id, b"\x88"));
        if number % 3 == 0 {
            client.send(key, Bytes::new(), true).unwrap();
        }
        said.push(made(kind::RST_STREAM, 0, id, &[0; 4]));
        client.take_out();
        client.written(0);
        client.feed(&mut BytesMut::from(&said.concat()[..])).unwrap_or_else(|breach| panic!("{number}: {breach}"));
        client.release_reader(key);
        client.release_writer(key);
    }
    assert!(client.streams.is_empty());
    let breach = passes(&mut client, |_| made(kind::PING, 0, 0, &[0; 8]));
    assert_eq!(breach, (10, Some(Breach::Idle)), "nothing of it counted");
}

#[test]
fn the_last_bytes_of_a_body_are_remembered() {
    let (_, mut server) = pair();
    let start = server.fed();
    let mut hear = |hours: u32, frame: Vec<u8>| {
        server.hear(start + hours * HOUR);
        server.feed(&mut BytesMut::from(&frame[..])).unwrap();
        server.fed()
    };
    assert_eq!(hear(1, made(kind::HEADERS, flag::END_HEADERS, 1, GET)), start);
    assert_eq!(hear(2, made(kind::DATA, 0, 1, b"x")), start + 2 * HOUR);
    assert_eq!(hear(3, made(kind::PING, 0, 0, &[0; 8])), start + 2 * HOUR);
    assert_eq!(hear(4, made(kind::DATA, flag::END_STREAM, 1, b"x")), start + 4 * HOUR);
    assert_eq!(hear(5, made(kind::DATA, 0, 1, b"late")), start + 4 * HOUR);
}

/// A field of 4 KB that a byte each repeats.
#[test]
fn a_header_above_the_limit_is_cut_or_refused_or_ends_the_connection() {
    let block = |repeats: usize| {
        let field = [&b"\x40\x01x\x7f\xa1\x1e"[..], &[b'v'; 4000]].concat();
        [GET, &field, &vec![0xbe; repeats]].concat()
    };
    let asks = |repeats| [made(kind::HEADERS, WHOLE, 1, &block(repeats))];
    let refused = (kind::RST_STREAM, 1, Reason::ENHANCE_YOUR_CALM.0.to_be_bytes().to_vec());
    assert!(!reaction(&asks(2)).unwrap().contains(&refused));
    assert!(reaction(&asks(8)).unwrap().contains(&refused));
    assert_eq!(reaction(&asks(20)), Err(Breach::Header));

    let (_, mut server) = pair();
    server.settings.cut_headers = true;
    server.feed(&mut BytesMut::from(&asks(8)[0][..])).unwrap();
    let (_, request) = server.accept().unwrap();
    assert!(request.extensions().get::<Cut>().is_some());
    assert!(request.headers().get_all("x").iter().count() < 5);
}

#[test]
fn a_protocol_is_asked_for_only_where_there_may_be_one() {
    let protocol = b"\x00\x09:protocol\x09websocket";
    let connect = b"\x02\x07CONNECT\x87\x84\x01\x01a";
    let accepted = |block: &[u8], allowed| {
        let (_, mut server) = pair();
        server.settings.extended_connect = allowed;
        server.feed(&mut BytesMut::from(&made(kind::HEADERS, flag::END_HEADERS, 1, block)[..])).unwrap();
        server.accept().map(|(_, request)| request)
    };
    let request = accepted(&[&connect[..], protocol].concat(), true).unwrap();
    assert_eq!(request.extensions().get(), Some(&Protocol(HeaderValue::from_static("websocket"))));
    assert_eq!(request.uri(), "https://a/");
    assert!(accepted(&[&connect[..], protocol].concat(), false).is_none());
    assert!(accepted(&[GET, protocol].concat(), true).is_none(), "only CONNECT has one");
    assert!(accepted(connect, true).is_none(), "without one, CONNECT has an authority and nothing else");
}

/// What a client opens before it knows of the leave is served; what it opens then is not.
#[test]
fn a_server_takes_its_leave_in_two_steps() {
    let (mut client, mut server) = pair();
    let before = client.open(&get("/1"), true).unwrap();
    pass(&mut client, &mut server).unwrap();
    server.close();
    let crossing = client.open(&get("/2"), true).unwrap();
    let mut crossed = client.take_out();
    client.written(0);
    pass(&mut server, &mut client).unwrap();
    assert!(matches!(client.open(&get("/3"), true), Err(Error::GoneAway(Reason::NO_ERROR))));
    server.feed(&mut crossed).unwrap();
    let (first, second) = (server.accept().unwrap().0, server.accept().unwrap().0);
    pass(&mut client, &mut server).unwrap();
    for key in [first, second] {
        assert!(!server.is_done());
        server.answer(key, &Response::new(()), true).unwrap();
    }
    assert!(server.is_done());
    pass(&mut server, &mut client).unwrap();
    for key in [before, crossing] {
        assert!(matches!(client.poll_head(key, &mut idle()), Poll::Ready(Ok(_))));
    }
}

#[test]
fn an_end_is_waited_for() {
    let (mut client, mut server) = pair();
    let asked = client.open(&get("/"), false).unwrap();
    pass(&mut client, &mut server).unwrap();
    let key = server.accept().unwrap().0;
    server.answer(key, &Response::new(()), false).unwrap();
    server.send(key, vec![0; 100_000].into(), true).unwrap();
    assert_eq!(server.poll_sent(key, &mut idle()), Poll::Pending);
    let before = server.progress(key);
    let woken = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut waiting = Context::from_waker(&waker);
    assert_eq!(server.poll_sent(key, &mut waiting), Poll::Pending);
    while !server.streams[key].finished {
        pass(&mut server, &mut client).unwrap();
        while let Poll::Ready(Some(Ok(_))) = client.poll_data(asked, &mut idle()) {}
        pass(&mut client, &mut server).unwrap();
    }
    assert!(server.progress(key) > before);
    server.next_woken().expect("it waits").wake();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(server.poll_sent(key, &mut waiting), Poll::Ready(Ok(())));
    assert_eq!(server.poll_ended(key, &mut waiting), Poll::Pending, "the request goes on");
    client.send(asked, Bytes::new(), true).unwrap();
    pass(&mut client, &mut server).unwrap();
    assert!(std::iter::from_fn(|| server.next_woken()).count() > 0);
    assert_eq!(server.poll_ended(key, &mut waiting), Poll::Ready(()));
}

#[test]
fn what_is_late_or_unknown_is_let_pass() {
    let frames = [
        asks(1),
        made(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        made(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        made(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        made(kind::PRIORITY, 0, 5, b"12345"),
        made(0x77, 0xff, 3, b"unknown"),
        made(kind::SETTINGS, 0, 0, &[0x77, 0x77, 0, 0, 0, 1]),
        made(kind::HEADERS, WHOLE | flag::PADDED | flag::PRIORITY, 3, b"\x02\0\0\0\0\x10\x82\x87\x84\x01\x01a\0\0"),
    ];
    let said = reaction(&frames).unwrap();
    assert!(said.iter().all(|(kind, ..)| *kind != kind::RST_STREAM), "{said:?}");
}

/// Whatever comes, an end neither panics nor grows, and its account of room stays right.
#[test]
fn noise_is_survived() {
    let mut random = StdRng::seed_from_u64(9113);
    for _ in 0..1_500 {
        let (_, mut server) = pair();
        let mut input = BytesMut::new();
        for _ in 0..random.random_range(1..30) {
            let stream = [0, 1, 1, 3, 5, 2][random.random_range(0..6)];
            let mut payload: Vec<u8> = match random.random_range(0..3) {
                0 => GET.to_vec(),
                1 => vec![0; [4, 5, 6, 8][random.random_range(0..4)]],
                _ => (0..random.random_range(0..40)).map(|_| random.random()).collect(),
            };
            if random.random_ratio(1, 10) && !payload.is_empty() {
                let at = random.random_range(0..payload.len());
                payload[at] = random.random();
            }
            input.extend_from_slice(&made(random.random_range(0..11), random.random(), stream, &payload));
        }
        if server.feed(&mut input).is_ok() {
            while let Some((key, _)) = server.accept() {
                let _ = server.answer(key, &Response::new(()), random.random());
                let _ = server.send(key, Bytes::from_static(b"x"), true);
                server.release_reader(key);
                server.release_writer(key);
            }
            let _ = server.take_out();
        }
        server.die(&Error::Lost("over".into()));
        assert!(server.streams.is_empty() && server.open.is_empty());
        assert!(server.out.len() < 1 << 20);
    }
}
