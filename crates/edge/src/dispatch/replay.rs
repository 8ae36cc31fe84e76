use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use wire::{Body, BodyError};

use crate::header::trailers_towards_origin;

/// The body of a request while no answer has come: what has passed is kept up to a limit, so that another connection
/// can be given the whole of it.
pub(crate) struct Replay(Arc<Mutex<State>>);

struct State {
    /// What the visitor has not sent yet.
    rest: Body,
    /// What has passed, as long as all of it fits.
    kept: Option<Kept>,
    /// Which attempt may read; earlier ones have failed and only linger.
    attempt: u32,
    /// When bytes last passed.
    progress: Instant,
    /// Since when the attempt waits for the visitor; none while the visitor waits for the attempt.
    starving: Option<Instant>,
    ended: bool,
}

struct Kept {
    frames: Vec<Piece>,
    bytes: usize,
    limit: usize,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

/// Whom a request without an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The origin: it has had this long since it was last given something.
    Origin(Duration),
    /// The visitor, who has sent nothing of the body for this long.
    Visitor(Duration),
}

impl Replay {
    /// Keeps up to `limit` bytes of this body.
    pub(crate) fn new(body: Body, limit: usize, now: Instant) -> Self {
        let ended = body.is_end_stream();
        Self(Arc::new(Mutex::new(State {
            rest: body,
            kept: Some(Kept { frames: Vec::new(), bytes: 0, limit }),
            attempt: 0,
            progress: now,
            starving: None,
            ended,
        })))
    }

    /// The whole body is still at hand.
    pub(crate) fn is_whole(&self) -> bool {
        lock(&self.0).kept.is_some()
    }

    /// The body for the next attempt; the one before can read no more. Only while [`Replay::is_whole`].
    pub(crate) fn body(&self, now: Instant) -> Body {
        let mut state = lock(&self.0);
        state.attempt += 1;
        state.progress = now;
        let pending: VecDeque<Piece> = state.kept.iter().flat_map(|kept| kept.frames.iter().cloned()).collect();
        if state.ended && pending.is_empty() {
            return Body::empty();
        }
        let hint = if pending.is_empty() { state.rest.size_hint() } else { SizeHint::default() };
        let attempt = state.attempt;
        drop(state);
        Body::wrap(Reader { state: Arc::clone(&self.0), attempt, pending, hint })
    }

    /// An answer has come: nothing is kept any more.
    pub(crate) fn settle(&self) {
        lock(&self.0).kept = None;
    }

    /// Who keeps whom waiting.
    pub(crate) fn waiting(&self, now: Instant) -> Waiting {
        let state = lock(&self.0);
        match state.starving {
            Some(since) if !state.ended => Waiting::Visitor(now.saturating_duration_since(since)),
            _ => Waiting::Origin(now.saturating_duration_since(state.progress)),
        }
    }
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(trailers.clone()),
            (None, None) => return,
        };
        if let Piece::Data(data) = &piece {
            kept.bytes += data.len();
        }
        if kept.bytes > kept.limit {
            self.kept = None;
        } else {
            kept.frames.push(piece);
        }
    }
}

/// One attempt's view of the body.
struct Reader {
    state: Arc<Mutex<State>>,
    attempt: u32,
    pending: VecDeque<Piece>,
    hint: SizeHint,
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.pending.pop_front() {
            return Poll::Ready(Some(Ok(match piece {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        let this = &mut *self;
        let mut state = lock(&this.state);
        if state.attempt != this.attempt {
            return Poll::Ready(Some(Err(BodyError("another connection has taken over the request".to_owned()))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let mut polled = Pin::new(&mut state.rest).poll_frame(context);
        let now = Instant::now();
        match &mut polled {
            Poll::Pending => {
                state.starving.get_or_insert(now);
            }
            Poll::Ready(frame) => {
                state.starving = None;
                state.progress = now;
                match frame {
                    Some(Ok(frame)) => {
                        if let Some(trailers) = frame.trailers_mut() {
                            trailers_towards_origin(trailers);
                        }
                        state.keep(frame);
                    }
                    Some(Err(_)) => state.kept = None,
                    None => state.ended = true,
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_empty() && {
            let state = lock(&self.state);
            state.ended || state.rest.is_end_stream()
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// A poisoned lock means that a body panicked while it was read; its state is still what it was.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn replay(pieces: &'static [&'static str], limit: usize) -> Replay {
        let frames = pieces.iter().map(|piece| Ok::<_, BodyError>(Frame::data(Bytes::from_static(piece.as_bytes()))));
        Replay::new(Body::wrap(StreamBody::new(stream::iter(frames))), limit, Instant::now())
    }

    async fn next(body: &mut Body) -> String {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        String::from_utf8(data.to_vec()).unwrap()
    }

    async fn all(body: Body) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_second_attempt_sees_the_whole() {
        let replay = replay(&["ab", "cd", "ef"], 64);
        let mut first = replay.body(Instant::now());
        assert_eq!((next(&mut first).await, next(&mut first).await), ("ab".into(), "cd".into()));
        assert!(replay.is_whole());
        let second = replay.body(Instant::now());
        assert!(first.frame().await.unwrap().is_err(), "the first attempt reads no more");
        assert_eq!(all(second).await, "abcdef");
    }

    #[tokio::test]
    async fn a_third_attempt_after_the_end_too() {
        let replay = replay(&["ab", "cd"], 64);
        for _ in 0..3 {
            assert_eq!(all(replay.body(Instant::now())).await, "abcd");
        }
    }

    #[tokio::test]
    async fn beyond_the_limit_nothing_is_kept() {
        let replay = replay(&["abc", "d"], 3);
        let mut first = replay.body(Instant::now());
        next(&mut first).await;
        assert!(replay.is_whole());
        next(&mut first).await;
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn trailers_are_part_of_the_whole() {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let mut sent = trailers.clone();
        sent.insert("cf-connecting-ip", http::HeaderValue::from_static("forged"));
        let frames = [Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"a"))), Ok(Frame::trailers(sent))];
        let replay = Replay::new(Body::wrap(StreamBody::new(stream::iter(frames))), 64, Instant::now());
        for _ in 0..2 {
            let body = replay.body(Instant::now()).collect().await.unwrap();
            assert_eq!(body.trailers(), Some(&trailers));
        }
    }

    #[tokio::test]
    async fn no_body_stays_no_body() {
        let replay = Replay::new(Body::empty(), 64, Instant::now());
        assert!(replay.body(Instant::now()).is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn it_knows_who_keeps_whom_waiting() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BodyError>>(1);
        let frames = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let replay = Replay::new(Body::wrap(StreamBody::new(Box::pin(frames))), 64, Instant::now());
        let mut body = replay.body(Instant::now());
        assert!(futures_util::poll!(body.frame()).is_pending());
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(replay.waiting(Instant::now()), Waiting::Visitor(Duration::from_secs(7)));

        sender.send(Ok(Frame::data(Bytes::from_static(b"a")))).await.unwrap();
        assert_eq!(next(&mut body).await, "a");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(replay.waiting(Instant::now()), Waiting::Origin(Duration::from_secs(2)));
    }
}
