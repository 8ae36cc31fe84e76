//! Bodies that tell what passes. They are polled exactly as the one inside is.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use wire::BodyError;

/// Is told of a body's frames.
pub(crate) trait Watch {
    /// A frame passes.
    fn frame(&mut self, frame: &Frame<Bytes>);

    /// The body has come to its end. Called once, and never for one that breaks off.
    fn ended(&mut self);
}

/// A body, and who is told of it.
pub(crate) struct Watched<B, W> {
    body: B,
    watch: W,
    ended: bool,
}

impl<B, W: Watch> Watched<B, W> {
    pub(crate) fn new(body: B, watch: W) -> Self {
        Self { body, watch, ended: false }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.watch.ended();
        }
    }
}

impl<B, W> Body for Watched<B, W>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
    W: Watch + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.watch.frame(frame);
                // Whoever reads may not poll again after the last frame; trailers always are that.
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.end();
                }
            }
            Poll::Ready(None) => this.end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
