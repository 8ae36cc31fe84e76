//! WebSockets to origins (section 5.4): an upgrade request, then raw bytes both ways.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::{Body, BodyError};

use super::connect::Io;

/// How long an origin may still speak after the visitor's side has ended: time for a Close frame.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes read from the origin at once.
const CHUNK: usize = 16 * 1024;

type Socket = Box<dyn Io>;

/// Adds what HTTP/1.1 demands of an upgrade and no tunnel carries.
pub(super) fn complete_request(request: &mut Request<Body>) {
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    // Visitors over HTTP/2 and HTTP/3 send no key, and their edge may not have made one up.
    headers.entry(SEC_WEBSOCKET_KEY).or_insert_with(|| {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        HeaderValue::from_str(&key).expect("base64 is fit for a header")
    });
}

/// Joins the visitor's bytes with the upgraded connection, which has `said` something already. The answer's body holds the
/// origin's bytes.
pub(super) fn join(socket: Socket, said: BytesMut, from_visitor: Body) -> Body {
    let (reader, writer) = tokio::io::split(socket);
    let over = CancellationToken::new();
    let gone = CancellationToken::new();
    tokio::spawn(towards_origin(from_visitor, writer, over.clone(), gone.clone()));
    from_origin(reader, said, over, gone.drop_guard())
}

/// Writes until the visitor ends, fails, or the answer's body is dropped (`gone`); then tells the other way (`over`).
async fn towards_origin(
    mut from_visitor: Body,
    mut writer: WriteHalf<Socket>,
    over: CancellationToken,
    gone: CancellationToken,
) {
    let orderly = async {
        while let Some(frame) = from_visitor.frame().await {
            let Ok(frame) = frame else { return false };
            if let Ok(bytes) = frame.into_data()
                && (writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err())
            {
                return false;
            }
        }
        writer.shutdown().await.is_ok()
    };
    tokio::select! {
        orderly = orderly => {
            if orderly {
                let _ = tokio::time::timeout(LAST_WORDS, gone.cancelled()).await;
            }
            over.cancel();
        }
        () = gone.cancelled() => {}
    }
}

/// The origin's bytes until it ends, or the visitor's side is over.
fn from_origin(reader: ReadHalf<Socket>, said: BytesMut, over: CancellationToken, gone: DropGuard) -> Body {
    let mut over = Box::pin(over.cancelled_owned());
    let mut source = Some((reader, gone));
    let mut buffer = said;
    let frames = futures_util::stream::poll_fn(move |context| {
        let Some((reader, _)) = &mut source else { return Poll::Ready(None) };
        if !buffer.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(buffer.split().freeze()))));
        }
        let last = if over.as_mut().poll(context).is_ready() {
            None
        } else {
            buffer.reserve(CHUNK);
            match poll_read_buf(Pin::new(reader), context, &mut buffer) {
                Poll::Pending => {
                    // Nobody holds memory for a WebSocket that is silent.
                    buffer = BytesMut::new();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => None,
                Poll::Ready(Ok(_)) => return Poll::Ready(Some(Ok(Frame::data(buffer.split().freeze())))),
                Poll::Ready(Err(error)) => Some(Err(BodyError(format!("the origin's WebSocket broke off: {error}")))),
            }
        };
        source = None;
        Poll::Ready(last)
    });
    Body::wrap(StreamBody::new(frames))
}
