//! Origins that answer what no web server answers. Whatever they send, a visitor gets one answer that can be read in one way, or
//! an error; a visitor's next request gets its own answer; and edge and agent stay up, and as small as they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Agent, Edge, Http, LIMIT, Process, RawOrigin};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What a visitor gets.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The edge's word that there is no answer.
    Refused,
    /// This status and this body, whole.
    Whole(u16, &'static str),
    /// This status, and a body that visibly ends before its end.
    Cut(u16),
    /// Any one of these, as long as it can be read in one way.
    OneThing,
}

use Fate::{Cut, OneThing, Refused, Whole};

/// What the origin does after its bytes.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Waits for the next request.
    Waits,
    Closes,
    /// Sends the same for ever.
    Repeats(&'static str),
    /// Sends the same so many times, and then this.
    Counts(&'static str, usize, &'static str),
    /// Sends this byte by byte.
    Drips(&'static str),
}

use Then::{Closes, Counts, Drips, Repeats, Waits};

/// Between two bytes.
const DRIP: Duration = Duration::from_millis(5);

const fn ok(answer: &'static str, body: &'static str) -> (&'static str, Then, Fate) {
    (answer, Waits, Whole(200, body))
}

/// Name; what the origin sends, each letter a byte, and then; what the visitor gets.
const ANSWERS: &[(&str, (&str, Then, Fate))] = &[
    ("honest", ok("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi")),
    ("honest chunks", ok("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi")),
    ("honest end", ("HTTP/1.1 200 OK\r\n\r\nhi", Closes, Whole(200, "hi"))),
    // Two framings, and lengths that are none.
    (
        "CL and TE",
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            Waits,
            OneThing,
        ),
    ),
    (
        "TE and CL",
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            Waits,
            OneThing,
        ),
    ),
    ("CL twice", ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", Waits, Refused)),
    ("CL twice, equal", ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", Waits, OneThing)),
    ("CL list", ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nhi!", Closes, OneThing)),
    ("CL plus", ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi", Closes, OneThing)),
    ("CL minus", ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi", Closes, OneThing)),
    ("CL hexadecimal", ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nhi", Closes, OneThing)),
    ("CL beyond 64 bits", ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nhi", Closes, OneThing)),
    ("TE unknown", ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi", Closes, OneThing)),
    (
        "TE not last",
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            Closes,
            Whole(200, "2\r\nhi\r\n0\r\n\r\n"),
        ),
    ),
    ("TE in HTTP/1.0", ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Closes, OneThing)),
    // Bodies of another length than announced.
    ("shorter", ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", Closes, Cut(200))),
    ("longer", ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more", Waits, Whole(200, "hi"))),
    (
        "longer by an answer",
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned",
            Waits,
            Whole(200, "hi"),
        ),
    ),
    (
        "chunks longer by an answer",
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned",
            Waits,
            Whole(200, "hi"),
        ),
    ),
    ("no end of chunks", ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", Closes, Cut(200))),
    (
        "chunk size with 0x",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", Waits, Cut(200)),
    ),
    (
        "chunk beyond 64 bits",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nhi\r\n0\r\n\r\n", Waits, Cut(200)),
    ),
    (
        "chunk longer than it says",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi!!0\r\n\r\n", Waits, Cut(200)),
    ),
    (
        "chunk extension for ever",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", Repeats("xxxxxxxxxxxxxxxx"), Cut(200)),
    ),
    (
        "trailers for ever",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", Repeats("X-More: x\r\n"), Cut(200)),
    ),
    (
        "trailers that frame",
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n2\r\nhi\r\n0\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\n\r\n",
            Waits,
            Whole(200, "hi"),
        ),
    ),
    ("204 with a body", ("HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\npoisoned", Waits, Whole(204, ""))),
    (
        "304 with a body",
        (
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n8\r\npoisoned\r\n0\r\n\r\n",
            Waits,
            Whole(304, ""),
        ),
    ),
    // Splitting, control bytes.
    ("CR in a value", ("HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nhi", Waits, Refused)),
    ("NUL in a value", ("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nhi", Waits, Refused)),
    ("bell in a value", ("HTTP/1.1 200 OK\r\nX: a\x07b\r\nContent-Length: 2\r\n\r\nhi", Waits, Refused)),
    ("DEL in a value", ("HTTP/1.1 200 OK\r\nX: a\x7fb\r\nContent-Length: 2\r\n\r\nhi", Waits, Refused)),
    ("LF ends a field", ok("HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nhi", "hi")),
    ("folded", ok("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n\r\nhi", "hi")),
    ("space before the colon", ("HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nhi", Waits, OneThing)),
    ("space before the colon of a length", ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi", Closes, OneThing)),
    ("no colon", ("HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nhi", Waits, Refused)),
    ("NUL in a name", ("HTTP/1.1 200 OK\r\nX\0: a\r\nContent-Length: 2\r\n\r\nhi", Waits, Refused)),
    ("bell in the reason", ("HTTP/1.1 200 O\x07K\r\nContent-Length: 2\r\n\r\nhi", Waits, OneThing)),
    ("CR in the reason", ("HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nhi", Waits, OneThing)),
    // Lines that are no status.
    ("status of two digits", ("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi", Closes, Refused)),
    ("status of four digits", ("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi", Closes, Refused)),
    ("status zero", ("HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nhi", Closes, Refused)),
    ("HTTP/0.9", ("hi", Closes, Refused)),
    ("ICY", ("ICY 200 OK\r\nContent-Length: 2\r\n\r\nhi", Closes, Refused)),
    ("HTTP/2.0", ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", Closes, Refused)),
    ("nothing", ("", Closes, Refused)),
    ("the preface of HTTP/2", ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Closes, Refused)),
    ("TLS", ("\x15\x03\x03\0\x02\x02\x46", Closes, Refused)),
    // Interim answers.
    (
        "101 unasked",
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw", Waits, Refused),
    ),
    ("100 unasked", ok("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi")),
    (
        "103 that frames",
        ok(
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "hi",
        ),
    ),
    ("103 for ever", ("", Repeats("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), Refused)),
    ("102 for ever", ("", Repeats("HTTP/1.1 102 Processing\r\n\r\n"), Refused)),
    // Headers without end.
    ("fields for ever", ("HTTP/1.1 200 OK\r\n", Repeats("X-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"), Refused)),
    ("a field for ever", ("HTTP/1.1 200 OK\r\nX-Long: ", Repeats("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), Refused)),
    ("a status line for ever", ("HTTP/1.1 200 ", Repeats("OKOKOKOKOKOKOKOK"), Refused)),
    (
        "two hundred fields",
        ("HTTP/1.1 200 OK\r\n", Counts("X: y\r\n", 200, "Content-Length: 2\r\n\r\nhi"), Whole(200, "hi")),
    ),
    ("a thousand fields", ("HTTP/1.1 200 OK\r\n", Counts("X: y\r\n", 1000, "Content-Length: 2\r\n\r\nhi"), Refused)),
    (
        "a field of 4 MB",
        ("HTTP/1.1 200 OK\r\nX: ", Counts("xxxxxxxxxxxxxxxx", 250_000, "\r\nContent-Length: 2\r\n\r\nhi"), Refused),
    ),
    (
        "two hundred interim answers",
        ("", Counts("HTTP/1.1 102 Processing\r\n\r\n", 200, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), Refused),
    ),
    // As slow as can be, and still whole.
    ("a head byte by byte", ("", Drips("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), Whole(200, "hi"))),
    (
        "chunks byte by byte",
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Drips("1;a=b\r\nh\r\n01\r\ni\r\n0\r\nX: y\r\n\r\n"),
            Whole(200, "hi"),
        ),
    ),
    // Ends in the middle.
    ("closed within the status line", ("HTTP/1.1 20", Closes, Refused)),
    ("closed within a field", ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a", Closes, Refused)),
    ("closed before the head's last line", ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Closes, Refused)),
    ("closed behind an interim answer", ("HTTP/1.1 100 Continue\r\n\r\n", Closes, Refused)),
    ("closed before the first chunk", ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Closes, Cut(200))),
    ("closed within a chunk", ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi", Closes, Cut(200))),
    (
        "closed within the trailers",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y", Closes, Cut(200)),
    ),
    (
        "a chunk without a size",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhi\r\n0\r\n\r\n", Waits, Cut(200)),
    ),
    (
        "a chunk of less than nothing",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n", Waits, Cut(200)),
    ),
    (
        "TE chunked twice",
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            Closes,
            OneThing,
        ),
    ),
    (
        "TE behind a control byte, and CL",
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\nContent-Length: 2\r\n\r\nhi", Closes, OneThing),
    ),
    ("empty lines for ever", ("", Repeats("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"), Refused)),
];

/// Sends the answer that the path's number names, and an honest one to every other path.
async fn serve(mut stream: TcpStream) {
    while let Some(path) = asked(&mut stream).await {
        let number = path.strip_prefix("/answer/").and_then(|number| number.parse::<usize>().ok());
        let Some((bytes, then)) = number.map(|number| (ANSWERS[number].1.0, ANSWERS[number].1.1)) else {
            let body = format!("own answer to {path}");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        };
        let letters = |text: &str| text.chars().map(|letter| letter as u8).collect::<Vec<u8>>();
        if stream.write_all(&letters(bytes)).await.is_err() {
            return;
        }
        match then {
            Waits => (),
            Closes => return,
            Repeats(part) => {
                let many = letters(part).repeat(256);
                while stream.write_all(&many).await.is_ok() {}
                return;
            }
            Counts(part, count, end) => {
                if stream.write_all(&[letters(part).repeat(count), letters(end)].concat()).await.is_err() {
                    return;
                }
            }
            Drips(part) => {
                for byte in letters(part) {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    sleep(DRIP).await;
                }
            }
        }
    }
}

/// The path of the next request.
async fn asked(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()?.split(' ').nth(1).map(str::to_owned)
}

/// What came on a visitor's connection.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: String,
    whole: bool,
}

impl Answer {
    /// A connection or stream that broke off before the header: the end of a body that fails at once may overtake it.
    fn none() -> Self {
        Self { status: 0, body: String::new(), whole: false }
    }
}

/// Takes the bytes of a connection apart as strictly as RFC 9112 allows.
fn answers(mut bytes: &[u8]) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or("a header without end")?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| format!("the status line of {head:?}"))?;
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            if line.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
                return Err(format!("a control byte in {line:?}"));
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| format!("the field {line:?}"))?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" if length.is_none() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    length = Some(value.parse::<usize>().map_err(|_| format!("the length {value:?}"))?);
                }
                "transfer-encoding" if value == "chunked" && !chunked => chunked = true,
                "content-length" | "transfer-encoding" => return Err(format!("the framing of {head:?}")),
                name if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => (),
                _ => return Err(format!("the field {line:?}")),
            }
        }
        if length.is_some() && chunked {
            return Err(format!("two framings in {head:?}"));
        }
        if status == 100 {
            continue;
        }
        let none = matches!(status, 204 | 304);
        let (body, whole) = match (none, chunked, length) {
            (true, ..) => (Vec::new(), true),
            (false, true, _) => chunks(&mut bytes)?,
            (false, false, Some(length)) => {
                let there = length.min(bytes.len());
                let body = bytes[..there].to_vec();
                bytes = &bytes[there..];
                (body, there == length)
            }
            (false, false, None) => return Err(format!("no framing in {head:?}")),
        };
        answers.push(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), whole });
    }
    Ok(answers)
}

fn chunks(bytes: &mut &[u8]) -> Result<(Vec<u8>, bool), String> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return Ok((body, false)) };
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| format!("the chunk size {:?}", &bytes[..end]))?;
        *bytes = &bytes[end + 2..];
        if size == 0 {
            let end = bytes.windows(2).position(|window| window == b"\r\n").ok_or("no end of trailers")?;
            if end != 0 {
                return Err(format!("trailers {:?}", String::from_utf8_lossy(bytes)));
            }
            *bytes = &bytes[2..];
            return Ok((body, true));
        }
        let Some(rest) = bytes.get(size..) else { return Ok((body, false)) };
        body.extend_from_slice(&bytes[..size]);
        *bytes = rest.strip_prefix(b"\r\n").ok_or("a chunk without end")?;
    }
}

fn fits(fate: Fate, answer: &Answer) -> bool {
    match fate {
        Refused => answer.status == 502 && answer.whole,
        Whole(status, body) => (answer.status, answer.body.as_str(), answer.whole) == (status, body, true),
        Cut(status) => [0, status].contains(&answer.status) && !answer.whole || answer.status == 502,
        OneThing => {
            [0, 200, 502].contains(&answer.status) && ["", "hi"].contains(&answer.body.as_str()) || answer.status == 502
        }
    }
}

/// Asks for the hostile answer, and on the same connection for an honest one.
async fn over_http1(edge: &Edge, host: &str, number: usize) -> Result<Vec<Answer>, String> {
    let mut stream = TcpStream::connect(edge.http()).await.map_err(|error| error.to_string())?;
    let asked = format!(
        "GET /answer/{number} HTTP/1.1\r\nHost: {host}\r\n\r\nGET /next/{number} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut bytes)).await.map_err(|_| "it goes on".to_owned())?;
    answers(&bytes)
}

/// The same on a connection of HTTP/2, whose framing cannot be mistaken.
async fn over_http2(edge: &Edge, url: &str) -> Answer {
    let body = http_body_util::Full::new(bytes::Bytes::new()).map_err(|never| match never {}).boxed();
    let asking = async {
        let response = edge.visitor().over(Http::Two).open("GET", url, &[], body).await;
        let Ok(response) = response else { return Answer::none() };
        let (head, mut body) = response.into_parts();
        let (mut text, mut whole) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => text.extend_from_slice(&data),
                Ok(Err(trailers)) => {
                    let trailers = trailers.into_trailers().unwrap();
                    assert!(!trailers.contains_key("content-length") && !trailers.contains_key("set-cookie"));
                }
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        Answer { status: head.status.as_u16(), body: String::from_utf8_lossy(&text).into_owned(), whole }
    };
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("{url}: it goes on"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_origin_sends_its_visitor_gets_one_answer() {
    let origin = RawOrigin::start(serve).await;
    let edge = Edge::start().await;
    let (mut problems, mut agents) = (Vec::new(), Vec::new());
    for transport in ["http2", "quic"] {
        let agent = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
        let host = agent.host();
        for (number, (name, (_, _, fate))) in ANSWERS.iter().enumerate() {
            let name = format!("{name} through {transport}");
            match over_http1(&edge, &host, number).await {
                Err(problem) => problems.push(format!("{name}: {problem}")),
                Ok(got) => {
                    let own = format!("own answer to /next/{number}");
                    let good = match &got[..] {
                        // Only after a whole answer the connection can go on.
                        [] => fits(*fate, &Answer::none()),
                        [cut] => !cut.whole && fits(*fate, cut),
                        [first, next] => fits(*fate, first) && next.status == 200 && next.whole && next.body == own,
                        _ => false,
                    };
                    if !good {
                        problems.push(format!("{name} over HTTP/1.1: {got:?}, not {fate:?}"));
                    }
                }
            }
            let got = over_http2(&edge, &agent.url(&format!("/answer/{number}"))).await;
            if !fits(*fate, &got) {
                problems.push(format!("{name} over HTTP/2: {got:?}, not {fate:?}"));
            }
            let next = over_http2(&edge, &agent.url("/next")).await;
            if (next.status, next.body.as_str()) != (200, "own answer to /next") {
                problems.push(format!("{name}, and then: {next:?}"));
            }
        }
        for end in ["connection has ended", "panicked"] {
            if edge.process.stderr().contains(end) || agent.process.stderr().contains(end) {
                problems.push(format!("{end} through {transport}"));
            }
        }
        // Lives on, so that no end of its connections is its own.
        agents.push(agent);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// An answer to nobody's question, as servers give that are tired of waiting for one.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_request_is_one_answer_or_none() {
    let early = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&early);
    let origin = RawOrigin::start(move |mut stream| {
        let early = Arc::clone(&counted);
        async move {
            // Every other connection.
            if early.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                let _ =
                    stream.write_all(b"HTTP/1.1 408 Late\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await;
                return;
            }
            serve(stream).await;
        }
    })
    .await;
    let edge = Edge::start().await;
    for transport in ["http2", "quic"] {
        let agent = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
        for round in 0..20 {
            let path = format!("/{round}");
            let got = over_http2(&edge, &agent.url(&path)).await;
            let good = match got.status {
                200 => got.whole && got.body == format!("own answer to {path}"),
                408 => got.whole && got.body == "hi",
                status => status == 502,
            };
            assert!(good, "{round} through {transport}: {got:?}");
        }
    }
    assert!(early.load(Ordering::Relaxed) > 2, "every request went to a new connection or to an honest one");
}

/// What an origin sends without end: before, and then again and again.
const ENDLESS: &[(&str, &str)] = &[
    ("HTTP/1.1 200 OK\r\n", "X-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"),
    ("HTTP/1.1 200 OK\r\nX: ", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    ("HTTP/1.1 200 OK\r\n\r\n", "a body that nobody reads"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;", "xxxxxxxxxxxxxxxx"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", "X-More: x\r\n"),
];
/// Visitors of each of them at once.
const EACH: usize = 20;
/// What all that may take of an agent's memory at its most: for each visitor what a stream's window holds, and as much again.
const MOST_KIB: u64 = (2 * ENDLESS.len() * EACH * 1024) as u64;
/// How long they all go on.
const FLOOD: Duration = Duration::from_secs(3);

/// Memory beside the pages of the program's file, in KiB.
fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    anonymous.trim().trim_end_matches(" kB").parse().unwrap()
}

fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count()
}

/// Sends for ever what the path's number names.
async fn flood(mut stream: TcpStream) {
    while let Some(path) = asked(&mut stream).await {
        let number = path.strip_prefix("/endless/").and_then(|number| number.parse::<usize>().ok());
        let Some((before, again)) = number.and_then(|number| ENDLESS.get(number)) else {
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.is_err() {
                return;
            }
            continue;
        };
        let many = again.repeat(16 * 1024 / again.len());
        let mut sent = stream.write_all(before.as_bytes()).await;
        while sent.is_ok() {
            sent = stream.write_all(many.as_bytes()).await;
        }
        return;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_without_end_fills_no_agent() {
    let origin = RawOrigin::start(flood).await;
    let edge = Edge::start().await;
    for transport in ["http2", "quic"] {
        let agent = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
        assert_eq!(over_http2(&edge, &agent.url("/honest")).await.body, "hi");
        let (before, open) = (memory(&agent.process), descriptors(&agent.process));
        let mut visitors = JoinSet::new();
        for number in (0..ENDLESS.len()).cycle().take(EACH * ENDLESS.len()) {
            let (address, host) = (edge.http(), agent.host());
            visitors.spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                    let asked = format!("GET /endless/{number} HTTP/1.1\r\nHost: {host}\r\n\r\n");
                    let _ = stream.write_all(asked.as_bytes()).await;
                    // The head, or the word that there is no answer, and nothing after it.
                    let _ = stream.read(&mut [0; 1000]).await;
                    sleep(FLOOD / 10).await;
                }
            });
        }
        let until = tokio::time::Instant::now() + FLOOD;
        let mut most = before;
        while tokio::time::Instant::now() < until {
            most = most.max(memory(&agent.process));
            sleep(FLOOD / 100).await;
        }
        visitors.shutdown().await;
        eprintln!("{transport}: {before} KiB, {most} KiB at its most");
        assert!(most < before + MOST_KIB, "through {transport}: {before} KiB, then {most} KiB");
        let is_back = async || descriptors(&agent.process) <= open + 8;
        harness::until(LIMIT, "the agent lets go of the origin's connections", is_back).await;
        assert_eq!(over_http2(&edge, &agent.url("/honest")).await.body, "hi");
        assert!(!agent.process.stderr().contains("panicked"), "{}", agent.process.stderr());
    }
}
