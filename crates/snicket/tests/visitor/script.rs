//! Origins that do exactly what a test says, byte for byte, over HTTP/1.1.

use std::sync::Arc;

use harness::{LIMIT, RawOrigin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

/// An origin that gives the same answer to every request, and keeps what it was asked.
pub(crate) struct Recorder {
    origin: RawOrigin,
    seen: Mutex<mpsc::Receiver<Seen>>,
}

/// A request as it came.
pub(crate) struct Seen {
    /// Up to the empty line.
    pub(crate) head: Vec<u8>,
    /// Everything behind it, with the marks of chunks.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The request line.
    pub(crate) fn line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_owned()
    }

    /// The values of a header field.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let fields = text.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    }

    /// The head, each byte as one letter.
    pub(crate) fn text(&self) -> String {
        self.head.iter().copied().map(char::from).collect()
    }
}

impl Recorder {
    /// Starts it with this whole answer.
    pub(crate) async fn start(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        let (sender, seen) = mpsc::channel(64);
        let origin = RawOrigin::start(move |mut stream| {
            let (answer, sender) = (Arc::clone(&answer), sender.clone());
            async move {
                while let Some(head) = read_head(&mut stream).await {
                    let body = read_body(&mut stream, &head).await;
                    let written = stream.write_all(&answer).await;
                    if sender.send(Seen { head, body }).await.is_err() || written.is_err() {
                        return;
                    }
                }
            }
        });
        Self { origin: origin.await, seen: Mutex::new(seen) }
    }

    pub(crate) fn service(&self) -> String {
        self.origin.service()
    }

    /// What it was asked next.
    pub(crate) async fn seen(&self) -> Seen {
        let mut seen = self.seen.lock().await;
        tokio::time::timeout(LIMIT, seen.recv()).await.expect("the origin is asked in time").unwrap()
    }

    /// Nothing has reached it that was not taken by [`Recorder::seen`].
    pub(crate) async fn saw_no_more(&self) -> bool {
        self.seen.lock().await.try_recv().is_err()
    }
}

/// Reads up to the empty line; none when the connection ends before.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(head)
}

/// Reads the body that this head announces, as it comes.
async fn read_body(stream: &mut TcpStream, head: &[u8]) -> Vec<u8> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked\r\n") {
        // The test's own bodies hold no such line but the last chunk.
        while !(body.starts_with(b"0\r\n") || contains(&body, b"\r\n0\r\n")) || !body.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => body.push(byte),
                Err(_) => return body,
            }
        }
    } else if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.split_once("\r\n").unwrap().0.parse().unwrap();
        body.resize(length, 0);
        stream.read_exact(&mut body).await.unwrap();
    }
    body
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
