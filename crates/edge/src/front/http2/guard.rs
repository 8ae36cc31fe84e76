//! Frames that cost work and carry nothing, and requests that are taken back, by their rates.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Limits;
use crate::defence::Defence;
use crate::front::bucket::Bucket;

/// Bytes that every connection begins with (RFC 9113 section 3.4), before the first frame.
const PREFACE: usize = 24;
/// Bytes of the head of a frame (section 4.1).
const HEAD: usize = 9;

/// What kind of frame it is (section 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

const END_STREAM: u8 = 1;

/// Follows the frames of a visitor without looking into them. Never fails: what is malformed is the engine's to refuse.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
    resets: Bucket,
    idle: Bucket,
}

impl Frames {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            filled: 0,
            resets: Bucket::new(limits.resets, now),
            idle: Bucket::new(limits.idle_frames, now),
        }
    }

    /// Takes what has come, and answers when it is too much of something.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Defence> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                self.filled = 0;
                self.count()?;
            }
        }
    }

    fn count(&mut self) -> Result<(), Defence> {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        match kind {
            // These carry something, or the engine counts them itself.
            kind::HEADERS | kind::CONTINUATION | kind::WINDOW_UPDATE => Ok(()),
            kind::DATA if self.skip > 0 || flags & END_STREAM != 0 => Ok(()),
            kind::RST_STREAM if !self.resets.take(Instant::now()) => Err(Defence::Resets),
            kind::RST_STREAM => Ok(()),
            _ if !self.idle.take(Instant::now()) => Err(Defence::IdleFrames),
            _ => Ok(()),
        }
    }
}

/// A visitor's bytes, watched. After too much of something nothing more is read.
pub(super) struct Guarded<IO> {
    io: IO,
    frames: Frames,
    alarm: Arc<Alarm>,
}

/// Rings when a visitor has sent too much of something.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    defence: OnceLock<Defence>,
    rung: Notify,
}

impl Alarm {
    /// Waits until it rings.
    pub(super) async fn rung(&self) -> Defence {
        loop {
            let rung = self.rung.notified();
            if let Some(defence) = self.defence.get() {
                return *defence;
            }
            rung.await;
        }
    }

    fn ring(&self, defence: Defence) {
        self.defence.get_or_init(|| defence);
        self.rung.notify_one();
    }
}

impl<IO> Guarded<IO> {
    pub(super) fn new(io: IO, limits: &Limits) -> (Self, Arc<Alarm>) {
        let alarm = Arc::<Alarm>::default();
        (Self { io, frames: Frames::new(limits, Instant::now()), alarm: Arc::clone(&alarm) }, alarm)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.alarm.defence.get().is_some() {
            // Whoever waits for the alarm ends the connection.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let passed = self.frames.pass(&buffer.filled()[before..]);
        if let Err(defence) = passed {
            buffer.set_filled(before);
            self.alarm.ring(defence);
            return Poll::Pending;
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// The number of frames that pass, cut into pieces of this many bytes.
    fn passed(one: &[u8], piece: usize) -> Result<(), Defence> {
        let rate = Rate { burst: 10, per_second: 1 };
        let limits = Limits { resets: rate, idle_frames: rate, ..Limits::default() };
        let mut frames = Frames::new(&limits, Instant::now());
        let all = [&[b'P'; PREFACE][..], &one.repeat(12)].concat();
        all.chunks(piece).try_for_each(|bytes| frames.pass(bytes))
    }

    #[test]
    fn what_carries_nothing_is_counted_however_it_is_cut() {
        for piece in [1, 7, 9, 24, 1000] {
            assert_eq!(passed(&frame(kind::RST_STREAM, 0, &[0; 4]), piece), Err(Defence::Resets));
            for (kind, payload) in [(0, 0), (2, 5), (4, 0), (4, 6), (6, 8), (0x10, 5), (0xfe, 300)] {
                assert_eq!(passed(&frame(kind, 0, &vec![0xff; payload]), piece), Err(Defence::IdleFrames), "{kind}");
            }
            for (kind, flags, payload) in [(0, 0, 1), (0, 1, 0), (1, 5, 9), (8, 0, 4), (9, 4, 0)] {
                assert_eq!(passed(&frame(kind, flags, &vec![6; payload]), piece), Ok(()), "{kind}");
            }
        }
    }
}
