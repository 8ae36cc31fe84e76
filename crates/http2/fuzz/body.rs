//! One end of a connection, and whatever bytes may come to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http2::{Rate, Settings, client as client_of, server as server_of};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SETTINGS: Settings = Settings {
    stream_window: 1 << 16,
    widest_stream_window: 1 << 16,
    connection_window: 1 << 17,
    frame: 1 << 14,
    header_list: 8 << 10,
    streams: 16,
    mistakes: Rate { burst: 64, per_second: 1 },
    resets: None,
    idle_frames: None,
    extended_connect: true,
    cut_headers: true,
};

/// Gives its bytes in pieces, whose length the first of each says, and counts what is written.
struct Io<'a> {
    input: &'a [u8],
    written: usize,
}

impl AsyncRead for Io<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.input.first().map_or(0, |first| usize::from(*first) + 1);
        let (piece, rest) = self.input.split_at(length.min(self.input.len()).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.input = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written += bytes.len();
        // Far more than there is to answer to so little.
        assert!(self.written < 64 << 20);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The preface and the settings need not be found by chance.
fn greeted(preface: &[u8], data: &[u8]) -> Vec<u8> {
    [preface, b"\0\0\0\x04\0\0\0\0\0", data].concat()
}

/// A server that answers what it understands.
pub(crate) fn server(data: &[u8]) {
    let input = greeted(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", data);
    let (mut driver, _handle) = server_of(Io { input: &input, written: 0 }, SETTINGS);
    let mut context = Context::from_waker(Waker::noop());
    let mut kept = Vec::new();
    // It is polled as often as it may want for its bytes.
    for turn in 0..2 * input.len() + 10 {
        match driver.poll_accept(&mut context) {
            Poll::Ready(Some(Ok(mut accepted))) => {
                let _ = accepted.send.answer(&Response::new(()), turn % 3 == 0);
                let _ = accepted.send.send(Bytes::from_static(b"hello"), turn % 2 == 0);
                kept.push(accepted);
                kept.truncate(4);
            }
            Poll::Ready(_) => return,
            Poll::Pending => {
                for accepted in &mut kept {
                    let _ = accepted.recv.poll_data(&mut context);
                    let _ = accepted.recv.trailers();
                    let _ = accepted.send.poll_ready(&mut context);
                }
            }
        }
    }
    panic!("the end is not seen");
}

/// A client that waits for answers.
pub(crate) fn client(data: &[u8]) {
    let input = greeted(b"", data);
    let (mut driver, handle) = client_of(Io { input: &input, written: 0 }, SETTINGS);
    let mut context = Context::from_waker(Waker::noop());
    let request = Request::get("https://a.test/").body(()).expect("is a request");
    let mut streams: Vec<_> = (0..3).map(|_| handle.request(&request, false).expect("a new connection")).collect();
    for turn in 0..2 * input.len() + 10 {
        if driver.poll(&mut context).is_ready() {
            return;
        }
        for (send, recv) in &mut streams {
            let _ = recv.poll_early(&mut context);
            let _ = recv.poll_head(&mut context);
            let _ = recv.poll_data(&mut context);
            let _ = recv.trailers();
            if send.poll_ready(&mut context).is_ready() {
                let _ = send.send(Bytes::from_static(b"hello"), turn % 4 == 0);
            }
        }
    }
    panic!("the end is not seen");
}
