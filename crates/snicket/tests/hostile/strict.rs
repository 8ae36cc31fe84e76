//! An origin that takes requests apart as strictly as RFC 9112 allows, and calls everything else ambiguous.

use std::sync::{Arc, Mutex};

use harness::{LIMIT, RawOrigin};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Fields that say where a message ends or to whom it goes, which no trailer may repeat (RFC 9110 section 6.5.1).
const NO_TRAILERS: [&str; 5] = ["content-length", "transfer-encoding", "host", "connection", "upgrade"];

/// More is not part of any test.
const LARGEST: u64 = 1 << 20;

/// What reached the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// `METHOD TARGET BODY`; the head as it came.
    Whole { text: String, head: String },
    /// A request whose connection closed before its announced end, so that nobody takes it for whole.
    Cut { text: String },
    /// What two parsers could read in two ways, and why.
    Ambiguous { why: String, bytes: String },
}

impl Seen {
    pub(crate) fn mentions(&self, part: &str) -> bool {
        match self {
            Self::Whole { text, head } => text.contains(part) || head.contains(part),
            Self::Cut { text } => text.contains(part),
            Self::Ambiguous { bytes, .. } => bytes.contains(part),
        }
    }
}

pub(crate) struct Strict {
    origin: RawOrigin,
    seen: Arc<Mutex<Vec<Seen>>>,
    open: watch::Sender<usize>,
}

impl Strict {
    pub(crate) async fn start() -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let open = watch::Sender::new(0_usize);
        let origin = RawOrigin::start({
            let (seen, open) = (Arc::clone(&seen), open.clone());
            move |stream| {
                let (seen, open) = (Arc::clone(&seen), open.clone());
                async move {
                    open.send_modify(|count| *count += 1);
                    serve(stream, &seen).await;
                    open.send_modify(|count| *count -= 1);
                }
            }
        });
        Self { origin: origin.await, seen, open }
    }

    pub(crate) fn service(&self) -> String {
        self.origin.service()
    }

    /// All that was seen, once nobody is connected any more.
    pub(crate) async fn seen(&self) -> Vec<Seen> {
        let mut open = self.open.subscribe();
        tokio::time::timeout(LIMIT, open.wait_for(|count| *count == 0)).await.expect("everybody leaves").unwrap();
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, seen: &Mutex<Vec<Seen>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut bytes = Vec::new();
        let end = request(&mut stream, &mut bytes).await;
        let text: String = bytes.iter().copied().map(char::from).collect();
        let (one, go_on) = match end {
            Ok(whole) => (whole, true),
            Err(End::Eof) if bytes.is_empty() => return,
            Err(End::Eof) => (Seen::Cut { text }, false),
            Err(End::Ambiguous(why)) => (Seen::Ambiguous { why, bytes: text }, false),
        };
        seen.lock().unwrap().push(one);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if !go_on || stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

enum End {
    Eof,
    Ambiguous(String),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Eof
    }
}

fn ambiguous<T>(why: impl Into<String>) -> Result<T, End> {
    Err(End::Ambiguous(why.into()))
}

/// One line without its end, which must be CR LF and nothing else.
async fn line(stream: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>) -> Result<String, End> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    bytes.extend_from_slice(&line);
    if !line.ends_with(b"\n") {
        return Err(End::Eof);
    }
    let Some(line) = line.strip_suffix(b"\r\n") else { return ambiguous("a bare LF") };
    if let Some(byte) = line.iter().find(|byte| (**byte < 0x20 && **byte != b'\t') || **byte == 0x7f) {
        return ambiguous(format!("the control byte {byte:#x}"));
    }
    Ok(line.iter().copied().map(char::from).collect())
}

fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

async fn request(stream: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>) -> Result<Seen, End> {
    let first = line(stream, bytes).await?;
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return ambiguous("the request line") };
    if !is_token(method) || !target.starts_with('/') || target.chars().any(|letter| letter <= ' ') {
        return ambiguous("method or target");
    }
    let (mut hosts, mut chunked, mut length) = (0, false, None);
    loop {
        let field = line(stream, bytes).await?;
        if field.is_empty() {
            break;
        }
        let Some((name, value)) = field.split_once(": ") else { return ambiguous("a field without `: `") };
        if !is_token(name) || value.trim() != value {
            return ambiguous(format!("the field {name:?}"));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "transfer-encoding" if value != "chunked" || chunked => return ambiguous("Transfer-Encoding"),
            "transfer-encoding" => chunked = true,
            "content-length" => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                match value.parse::<u64>() {
                    Ok(value) if digits && length.is_none() => length = Some(value),
                    Ok(_) | Err(_) => return ambiguous("Content-Length"),
                }
            }
            "upgrade" if value != "websocket" => return ambiguous("Upgrade"),
            _ => (),
        }
    }
    if hosts != 1 {
        return ambiguous(format!("{hosts} Host fields"));
    }
    let head = bytes.iter().copied().map(char::from).collect();
    let body = match (chunked, length) {
        (true, Some(_)) => return ambiguous("two framings"),
        (true, None) => chunks(stream, bytes).await?,
        (false, length) => exactly(stream, bytes, length.unwrap_or(0)).await?,
    };
    let body: String = body.iter().copied().map(char::from).collect();
    Ok(Seen::Whole { text: format!("{method} {target} {body}").trim_end().to_owned(), head })
}

async fn exactly(stream: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>, length: u64) -> Result<Vec<u8>, End> {
    if length > LARGEST {
        // It can only be cut.
        tokio::io::copy(stream, &mut tokio::io::sink()).await?;
        return Err(End::Eof);
    }
    let mut body = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut body).await?;
    bytes.extend_from_slice(&body);
    Ok(body)
}

async fn chunks(stream: &mut BufReader<TcpStream>, bytes: &mut Vec<u8>) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    loop {
        let size = line(stream, bytes).await?;
        if size.len() > 8 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return ambiguous(format!("the chunk size {size:?}"));
        }
        let Ok(size) = u64::from_str_radix(&size, 16) else { return ambiguous("an empty chunk size") };
        if size == 0 {
            break;
        }
        body.extend(exactly(stream, bytes, size).await?);
        if !line(stream, bytes).await?.is_empty() {
            return ambiguous("a chunk longer than it says");
        }
    }
    loop {
        let trailer = line(stream, bytes).await?;
        if trailer.is_empty() {
            return Ok(body);
        }
        let name = trailer.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if NO_TRAILERS.contains(&name.as_str()) {
            return ambiguous(format!("the trailer {trailer:?}"));
        }
    }
}
