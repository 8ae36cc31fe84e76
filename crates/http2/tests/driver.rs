//! A connection over streams that are full, hold back, or say nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::Response;
use http2::{Rate, Settings, server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SETTINGS: Settings = Settings {
    stream_window: 1 << 16,
    widest_stream_window: 1 << 16,
    connection_window: 1 << 20,
    frame: 1 << 14,
    header_list: 16 << 10,
    streams: 100,
    mistakes: Rate { burst: 64, per_second: 1 },
    resets: None,
    idle_frames: None,
    extended_connect: false,
    cut_headers: false,
};

const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A stream in memory, whose other end the test is.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    input: Vec<u8>,
    read: usize,
    /// Written and not flushed.
    held: Vec<u8>,
    flushed: Vec<u8>,
    takes: bool,
    flushes: bool,
}

impl Pipe {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().expect("no test panics while it holds it"))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|state| {
            let length = state.input.len().min(buffer.remaining());
            if length == 0 {
                return Poll::Pending;
            }
            buffer.put_slice(&state.input[..length]);
            state.input.drain(..length);
            state.read += length;
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|state| {
            if !state.takes {
                return Poll::Pending;
            }
            state.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|state| {
            if !state.flushes {
                return Poll::Pending;
            }
            let held = std::mem::take(&mut state.held);
            state.flushed.extend(held);
            Poll::Ready(Ok(()))
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls as often as something may come of it: a driver lets others go first now and then.
fn poll<IO: AsyncRead + AsyncWrite + Unpin>(driver: &mut http2::Driver<IO>) {
    for _ in 0..4 {
        assert!(driver.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}

/// A stream of TLS takes bytes and keeps them while the socket is full.
#[test]
fn what_the_stream_holds_back_is_flushed_when_there_is_room() {
    let pipe = Pipe::default();
    pipe.with(|state| (state.takes, state.input) = (true, GREETING.to_vec()));
    let (mut driver, _handle) = server(pipe.clone(), SETTINGS);
    poll(&mut driver);
    pipe.with(|state| {
        assert!(!state.held.is_empty() && state.flushed.is_empty());
        state.flushes = true;
    });
    poll(&mut driver);
    pipe.with(|state| assert!(state.held.is_empty() && !state.flushed.is_empty()));
}

/// Answers without bodies are bounded by no window, and what is answered does not count as open any more.
#[test]
fn who_does_not_read_is_not_read() {
    const REQUESTS: usize = 100_000;
    let pipe = Pipe::default();
    let mut input = GREETING.to_vec();
    for number in 0..REQUESTS {
        let [_, a, b, c] = u32::try_from(2 * number + 1).unwrap().to_be_bytes();
        // GET https://a/
        input.extend([0, 0, 6, 1, 5, 0, a, b, c, 0x82, 0x87, 0x84, 0x01, 0x01, b'a']);
    }
    let length = input.len();
    pipe.with(|state| (state.flushes, state.input) = (true, input));
    let (mut driver, handle) = server(pipe.clone(), SETTINGS);
    let answer = Response::builder().status(304).header("x-policy", "p".repeat(8000)).body(()).unwrap();
    let mut serve = |most: usize| {
        let mut served = 0;
        while served < most {
            let accepted = driver.poll_accept(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Some(Ok(mut accepted))) = accepted else { break };
            served += 1;
            accepted.send.answer(&answer, true).unwrap();
        }
        served
    };
    let (before, began) = (handle.signs(), handle.heard());
    assert!(serve(REQUESTS) < 1_000, "it goes on for ever");
    assert!(pipe.with(|state| state.read) < length / 2);
    assert!(handle.signs() > before && handle.heard() > began);
    let (silent, last) = (handle.signs(), handle.heard());
    assert_eq!(serve(1), 0);
    assert_eq!((handle.signs(), handle.heard()), (silent, last));

    pipe.with(|state| state.takes = true);
    assert!((0..10).map(|_| serve(REQUESTS)).sum::<usize>() > 100, "it goes on once there is room");
    assert!(handle.signs() > silent && handle.heard() > last, "who takes something is there");
}
