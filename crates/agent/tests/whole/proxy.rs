//! Small proxies, and agents that reach the edge through them.

use agent::{Agent, Event, FallbackReason, Proxies};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::Transport;

use crate::edge::Edge;
use crate::origin::{Origin, read_head};
use crate::{config, event, everything_to, within};

const TOKEN: &str = "dXNlcjpwQHNz"; // user:p@ss

async fn splice(mut from: TcpStream, to: &str) {
    let mut to = TcpStream::connect(to).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
}

/// An HTTP proxy that wants `user` and `p@ss`.
async fn http_proxy() -> Origin {
    Origin::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if !head.contains(&format!("\r\nProxy-Authorization: Basic {TOKEN}\r\n")) {
            let _ = stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
            return;
        }
        let destination = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nX-Proxy: 1\r\n\r\n").await.unwrap();
        splice(stream, &destination).await;
    })
    .await
}

/// A SOCKS5 proxy; with `password`, it wants `user` and `p@ss`.
async fn socks_proxy(password: bool) -> Origin {
    Origin::raw(move |mut stream| async move {
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).await.unwrap();
        let mut methods = vec![0; greeting[1].into()];
        stream.read_exact(&mut methods).await.unwrap();
        let method = if password { 2 } else { 0 };
        if !methods.contains(&method) {
            let _ = stream.write_all(&[5, 0xff]).await;
            return;
        }
        stream.write_all(&[5, method]).await.unwrap();
        if password {
            let mut login = [0; 11];
            stream.read_exact(&mut login).await.unwrap();
            assert_eq!(&login, b"\x01\x04user\x04p@ss");
            stream.write_all(&[1, 0]).await.unwrap();
        }
        let mut request = [0; 10];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..4], [5, 1, 0, 1]);
        let destination = format!(
            "{}.{}.{}.{}:{}",
            request[4],
            request[5],
            request[6],
            request[7],
            u16::from_be_bytes([request[8], request[9]])
        );
        stream.write_all(&[5, 0, 0, 3, 4, b'h', b'o', b's', b't', 0, 80]).await.unwrap();
        splice(stream, &destination).await;
    })
    .await
}

fn proxies(url: String) -> Proxies {
    Proxies::from_variables(|name| (name == "HTTPS_PROXY").then(|| url.clone())).unwrap()
}

#[tokio::test]
async fn the_edge_is_reached_through_each_kind_of_proxy() {
    for (proxy, url) in [
        (http_proxy().await, "http://user:p%40ss@"),
        (socks_proxy(true).await, "socks5://user:p%40ss@"),
        (socks_proxy(false).await, "socks5h://"),
    ] {
        let edge = Edge::start().await;
        let mut config = config(&[&edge], &everything_to("http_status:200", ""));
        config.proxies = proxies(format!("{url}{}", proxy.address));
        let agent = Agent::start(config, None).await.unwrap();
        let mut events = agent.events();
        let told = event(&mut events, |event| match event {
            Event::FellBack { reason } => Some(reason),
            _ => None,
        });
        assert_eq!(told.await, FallbackReason::Proxy);
        assert!(within("a connection", agent.ready()).await);
        assert_eq!(edge.connection().await.transport(), Transport::Http2);
        assert_eq!(edge.get("/").await.0, 200);
        assert_eq!(proxy.accepted(), 1);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_without_the_password() {
    for (proxy, url) in [(http_proxy().await, "http://user:secret@"), (socks_proxy(true).await, "socks5://")] {
        let edge = Edge::start().await;
        let mut config = config(&[&edge], &everything_to("http_status:200", ""));
        config.proxies = proxies(format!("{url}{}", proxy.address));
        let agent = Agent::start(config, None).await.unwrap();
        let mut events = agent.events();
        let reason = event(&mut events, |event| match event {
            Event::ConnectFailed { reason, .. } => Some(reason),
            _ => None,
        });
        let reason = reason.await;
        assert!(reason.contains("user name and password") && !reason.contains("secret"), "{reason}");
    }
}

#[tokio::test]
async fn exceptions_go_straight() {
    let proxy = http_proxy().await;
    let edge = Edge::start().await;
    let address = proxy.address;
    let mut config = config(&[&edge], &everything_to("http_status:200", ""));
    config.proxies = Proxies::from_variables(|name| match name {
        "ALL_PROXY" => Some(format!("http://{address}")),
        "no_proxy" => Some("127.0.0.0/8".to_owned()),
        _ => None,
    })
    .unwrap();
    let _agent = crate::started(config).await;
    assert_eq!(edge.get("/").await.0, 200);
    assert_eq!(proxy.accepted(), 0);
}

#[tokio::test]
async fn origins_are_reached_through_their_proxy_with_the_visitors_host() {
    let proxy = http_proxy().await;
    let edge = Edge::start().await;
    let origin = Origin::web().await;
    let url = format!("http://user:p%40ss@{}", proxy.address);
    let mut config = config(&[&edge], &everything_to(&origin.service(), ""));
    config.proxies = Proxies::from_variables(|name| (name == "HTTP_PROXY").then(|| url.clone())).unwrap();
    let _agent = crate::started(config).await;
    assert_eq!(proxy.accepted(), 0, "the edge is reached without it");
    let (status, seen) = edge.get("/").await;
    assert_eq!((status, proxy.accepted()), (200, 1));
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!((&seen["headers"]["host"], &seen["target"]), (&"app.test".into(), &"/".into()));
}
