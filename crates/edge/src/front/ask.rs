use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
use wire::{Body, BodyError};

/// A body whose visitor waits to be asked for it: the first poll asks.
struct Asking {
    body: Body,
    ask: Option<oneshot::Sender<()>>,
}

/// Makes the first poll of the body resolve the receiver, when the visitor waits for that (`expect: 100-continue`).
pub(super) fn asking(headers: &HeaderMap, body: Body) -> (Body, Option<oneshot::Receiver<()>>) {
    let expects =
        headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expects || body.is_end_stream() {
        return (body, None);
    }
    let (ask, asked) = oneshot::channel();
    (Body::wrap(Asking { body, ask: Some(ask) }), Some(asked))
}

/// Resolves when the visitor is to be asked; never if there is nothing to ask for.
pub(super) async fn asked(receiver: &mut Option<oneshot::Receiver<()>>) {
    if let Some(waiting) = receiver {
        let polled = waiting.await;
        *receiver = None;
        if polled.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

impl http_body::Body for Asking {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(ask) = self.ask.take() {
            // Nobody listens once the answer has come; then there is nothing to ask for either.
            let _ = ask.send(());
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
