//! WebSockets by `tungstenite`, origin and visitor; the visitor over HTTP/1.1 (RFC 6455), HTTP/2 (RFC 8441) and HTTP/3
//! (RFC 9220).

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use harness::{Http, LIMIT, RawOrigin, Stream};
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{self, Message, handshake};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::http3;
use crate::rig::{Rig, Way};
use crate::visit::Over;

type Socket = WebSocketStream<Box<dyn Stream>>;

/// Says how each WebSocket went: the path, then how it ended.
struct Origin {
    raw: RawOrigin,
    events: mpsc::Receiver<String>,
}

impl Origin {
    /// An origin that sends every message back. `/refuse` is refused with 403, `/bye` is closed after its first message, and `/drop`
    /// loses its connection there.
    async fn start() -> Self {
        let (sender, events) = mpsc::channel(64);
        let raw = RawOrigin::start(move |stream| {
            let sender = sender.clone();
            async move {
                let end = serve(stream, &sender).await;
                let _ = sender.send(end).await;
            }
        });
        Self { raw: raw.await, events }
    }

    async fn event(&mut self) -> String {
        tokio::time::timeout(LIMIT, self.events.recv()).await.expect("the origin tells of itself").unwrap()
    }
}

async fn serve(stream: TcpStream, events: &mpsc::Sender<String>) -> String {
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the library's callback type")]
    let accept = |request: &handshake::server::Request, mut answer: handshake::server::Response| {
        path = request.uri().path().to_owned();
        if let Some(offered) = request.headers().get("sec-websocket-protocol") {
            answer.headers_mut().insert("sec-websocket-protocol", offered.clone());
        }
        if path == "/refuse" {
            return Err(http::Response::builder().status(403).body(Some("no sockets here".to_owned())).unwrap());
        }
        Ok(answer)
    };
    let Ok(mut socket) = accept_hdr_async(stream, accept).await else { return format!("{path} refused") };
    events.send(path.clone()).await.unwrap();
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => {
                // What is left is to send the answer that the library has prepared.
                while let Some(Ok(_)) = socket.next().await {}
                return format!("closed {}", frame.map_or(0, |frame| frame.code.into()));
            }
            Some(Ok(_)) if path == "/drop" => return "dropped".to_owned(),
            Some(Ok(_)) if path == "/bye" => {
                let frame = CloseFrame { code: CloseCode::Library(4001), reason: "enough".into() };
                socket.close(Some(frame)).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
                return "said bye".to_owned();
            }
            Some(Ok(message)) if message.is_text() || message.is_binary() => socket.send(message).await.unwrap(),
            Some(Ok(_)) => (),
            Some(Err(_)) | None => return "lost".to_owned(),
        }
    }
}

/// Opens a WebSocket; the status if it is refused.
async fn open(way: &Way<'_>, path: &str) -> Result<Socket, u16> {
    let opening = async {
        match way.over {
            Over::Plain | Over::One => over_http1(way, path).await,
            Over::Two => over_http2(way, path).await,
            Over::Three => over_http3(way, path).await,
        }
    };
    tokio::time::timeout(LIMIT, opening).await.expect("the edge answers in time")
}

async fn over_http1(way: &Way<'_>, path: &str) -> Result<Socket, u16> {
    let stream = way.edge.visitor().over(Http::One).dial(&way.url(path)).await;
    let authority = way.url(path).authority().unwrap().to_string();
    let request = Request::builder()
        .uri(format!("ws://{authority}{path}"))
        .header("host", authority)
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "chat")
        .body(())
        .unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, answer)) => {
            assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
            Ok(socket)
        }
        Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{way}: {error}"),
    }
}

async fn over_http2(way: &Way<'_>, path: &str) -> Result<Socket, u16> {
    let stream = way.edge.visitor().over(Http::Two).dial(&way.url(path)).await;
    let (requests, mut connection) = h2::client::handshake(stream).await.unwrap();
    // The edge's SETTINGS say whether extended CONNECT may be used, so they have to be read first.
    std::future::poll_fn(|context| {
        assert!(
            std::pin::Pin::new(&mut connection).poll(context).is_pending(),
            "the connection ended before its settings"
        );
        if requests.is_extended_connect_protocol_enabled() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let mut request =
        Request::builder().method("CONNECT").uri(way.url(path)).header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, send) = requests.send_request(request, false).unwrap();
    let answer = answer.await.expect("an answer to the extended CONNECT");
    if answer.status() != 200 {
        return Err(answer.status().as_u16());
    }
    assert!(!answer.headers().contains_key("sec-websocket-accept"), "{way}: RFC 8441 has no such field");
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(carry_http2(requests, send, answer.into_body(), far));
    Ok(socket(Box::new(near)).await)
}

/// Carries bytes both ways; that `far` is dropped resets the stream.
async fn carry_http2(
    requests: h2::client::SendRequest<Bytes>,
    mut send: h2::SendStream<Bytes>,
    mut receive: h2::RecvStream,
    far: DuplexStream,
) {
    let (mut from_near, mut to_near) = tokio::io::split(far);
    let sending = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_near.read(&mut buffer).await {
            let mut data = Bytes::copy_from_slice(&buffer[..length]);
            while !data.is_empty() {
                send.reserve_capacity(data.len());
                let Some(Ok(_)) = std::future::poll_fn(|context| send.poll_capacity(context)).await else { return };
                let part = data.split_to(send.capacity().min(data.len()));
                if send.send_data(part, false).is_err() {
                    return;
                }
            }
        }
        let _ = send.send_data(Bytes::new(), true);
    };
    let receiving = async {
        while let Some(Ok(data)) = receive.data().await {
            let _ = receive.flow_control().release_capacity(data.len());
            if to_near.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = to_near.shutdown().await;
    };
    tokio::join!(sending, receiving);
    drop(requests);
}

async fn over_http3(way: &Way<'_>, path: &str) -> Result<Socket, u16> {
    let (endpoint, connection) = http3::dial(way.edge.https(), &way.agent.host(), &way.edge.ca()).await;
    let authority = way.url(path).authority().unwrap().to_string();
    let (head, near) = http3::websocket(&connection, &authority, path).await;
    // Two bytes of prefix, then `:status` as a line of the static table (RFC 9204, appendix A: 25 is 200, 68 is 403).
    match &head[2..] {
        [0xd9, ..] => (),
        [0xff, 0x05, ..] => return Err(403),
        other => panic!("{way}: neither 200 nor 403: {other:x?}"),
    }
    let (one, mut other) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let mut near = near;
        let _ = tokio::io::copy_bidirectional(&mut near, &mut other).await;
        drop((endpoint, connection));
    });
    Ok(socket(Box::new(one)).await)
}

/// WebSocket messages over raw bytes whose handshake is done.
async fn socket(bytes: Box<dyn Stream>) -> Socket {
    WebSocketStream::from_raw_socket(bytes, Role::Client, None).await
}

async fn next(socket: &mut Socket) -> Option<Result<Message, tungstenite::Error>> {
    tokio::time::timeout(LIMIT, socket.next()).await.expect("something comes in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_and_the_visitor_closes() {
    let mut origin = Origin::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    for way in rig.ways() {
        let mut socket = open(&way, "/echo?x=1").await.unwrap_or_else(|status| panic!("{way}: {status}"));
        assert_eq!(origin.event().await, "/echo", "{way}");
        let large = Message::binary(vec![7; 300_000]);
        for message in [Message::text("hello"), Message::binary(vec![0, 255]), large, Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(next(&mut socket).await.unwrap().unwrap(), message, "{way}");
        }
        socket.send(Message::Ping(Bytes::from("are you there"))).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::Pong(Bytes::from("are you there")), "{way}");
        socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "".into() })).await.unwrap();
        let Some(Ok(Message::Close(Some(frame)))) = next(&mut socket).await else { panic!("{way}: no close") };
        assert_eq!(frame.code, CloseCode::Away, "{way}");
        assert!(next(&mut socket).await.is_none(), "{way}: a clean end");
        assert_eq!(origin.event().await, "closed 1001", "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_closes() {
    let mut origin = Origin::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    for way in rig.ways() {
        let mut socket = open(&way, "/bye").await.unwrap_or_else(|status| panic!("{way}: {status}"));
        socket.send(Message::text("go")).await.unwrap();
        let Some(Ok(Message::Close(Some(frame)))) = next(&mut socket).await else { panic!("{way}: no close") };
        assert_eq!((frame.code.into(), frame.reason.as_str()), (4001_u16, "enough"), "{way}");
        assert!(next(&mut socket).await.is_none(), "{way}: a clean end");
        assert_eq!((origin.event().await, origin.event().await), ("/bye".to_owned(), "said bye".to_owned()), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_origin_is_the_visitors_answer() {
    let mut origin = Origin::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    for way in rig.ways() {
        assert_eq!(open(&way, "/refuse").await.err(), Some(403), "{way}");
        assert_eq!(origin.event().await, "/refuse refused", "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_notices_that_the_other_is_gone() {
    let mut origin = Origin::start().await;
    let rig = Rig::start(&origin.raw.service()).await;
    for way in rig.ways() {
        let mut socket = open(&way, "/drop").await.unwrap_or_else(|status| panic!("{way}: {status}"));
        socket.send(Message::text("go")).await.unwrap();
        let end = next(&mut socket).await;
        assert!(matches!(end, Some(Err(_)) | None), "{way}: {end:?}");
        assert_eq!((origin.event().await, origin.event().await), ("/drop".to_owned(), "dropped".to_owned()), "{way}");

        let socket = open(&way, "/echo").await.unwrap_or_else(|status| panic!("{way}: {status}"));
        assert_eq!(origin.event().await, "/echo", "{way}");
        drop(socket);
        assert_eq!(origin.event().await, "lost", "{way}");
    }
}
