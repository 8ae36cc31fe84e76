//! What reaches the origin, and what comes back.

use std::time::Duration;

use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::{Body, Kind};

use crate::node::{BOTH, Node, PATIENCE};
use crate::visitor::{ALL, Way, get, post};

/// Longer than the edge keeps its buffers for a visitor over HTTP/1.1 who is silent.
const PAUSE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn every_way_leads_to_the_origin() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        for way in ALL {
            let reply = node.visit(way, get("/hello?x=%zz&y=a%2fb")).await;
            assert_eq!((reply.status, reply.text()), (200, "hello"), "{way:?} {transport}");
            let seen = origin.last();
            assert_eq!((seen.kind, seen.method.as_str()), (Kind::Http, "GET"));
            assert_eq!(seen.uri.path_and_query().unwrap(), "/hello?x=%zz&y=a%2fb");
            assert!(!seen.headers.contains_key("transfer-encoding"), "{way:?} {transport}: {:?}", seen.headers);
        }
    }
}

#[tokio::test]
async fn the_edge_says_who_the_visitor_is() {
    for transport in BOTH {
        let (node, origin, _agent) = Node::with_app(transport).await;
        for way in ALL {
            let mut request = get("/hello");
            for name in ["cf-connecting-ip", "x-forwarded-for", "cf-ray", "cf-cloudflared-proxy-src", "x-real-ip"] {
                request.headers_mut().insert(name, "forged".parse().unwrap());
            }
            let reply = node.visit(way, request).await;
            let headers = origin.last().headers;
            assert!(headers.values().all(|value| value != "forged"), "{headers:?}");
            assert_eq!(headers["cf-connecting-ip"], "127.0.0.1");
            assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
            let scheme = if matches!(way, Way::Plain | Way::PlainHttp2) { "http" } else { "https" };
            assert_eq!(headers["x-forwarded-proto"], scheme);
            assert_eq!(headers["cf-visitor"], format!("{{\"scheme\":\"{scheme}\"}}"));
            assert_eq!(headers["cdn-loop"], "snicket");
            assert_eq!(headers["cf-ray"], reply.headers["cf-ray"]);
            assert!(headers["cf-ray"].to_str().unwrap().ends_with("-LAB01"));
        }
    }
}

#[tokio::test]
async fn http3_is_offered_to_whom_it_may_concern() {
    let (node, _origin, _agent) = Node::with_app(BOTH[0]).await;
    let offer = format!("h3=\":{}\"; ma=86400", node.addresses().https.port());
    for (way, offered) in [(Way::Plain, false), (Way::Http1, true), (Way::Http2, true), (Way::Http3, false)] {
        let reply = node.visit(way, get("/hello")).await;
        let found = reply.headers.get("alt-svc").map(|value| value.to_str().unwrap());
        assert_eq!(found, offered.then_some(offer.as_str()), "{way:?}");
    }
}

#[tokio::test]
async fn answers_without_a_body_stay_so() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        for way in ALL {
            let mut head = get("/length");
            *head.method_mut() = Method::HEAD;
            let reply = node.visit(way, head).await;
            assert_eq!(
                (reply.status, &reply.headers["content-length"], reply.body.len()),
                (200, &"12".parse().unwrap(), 0),
                "{way:?} {transport}"
            );
            let reply = node.visit(way, get("/length")).await;
            assert_eq!((&reply.headers["content-length"], reply.text()), (&"12".parse().unwrap(), "twelve bytes"));
            assert_eq!(node.visit(way, get("/204")).await.status, 204);
            let reply = node.visit(way, get("/304")).await;
            assert_eq!((reply.status, &reply.headers["etag"]), (304, &"\"1\"".parse().unwrap()));
            let reply = node.visit(way, get("/range")).await;
            assert_eq!((reply.status, reply.text()), (206, "cde"));
        }
    }
}

#[tokio::test]
async fn early_hints_reach_those_who_can_take_them() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        for way in ALL {
            let reply = node.visit(way, get("/hints")).await;
            assert_eq!(reply.text(), "hinted");
            let hints: Vec<u16> = reply.interims.iter().map(|(status, _)| *status).collect();
            let expected: &[u16] = if matches!(way, Way::Plain | Way::Http1) { &[] } else { &[103] };
            assert_eq!(hints, expected, "{way:?} {transport}");
            assert!(reply.interims.iter().all(|(_, headers)| headers["link"] == "</style.css>; rel=preload"));
        }
    }
}

#[tokio::test]
async fn a_visitor_who_waits_to_be_asked_is_asked_only_when_the_body_is_wanted() {
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        for way in [Way::PlainHttp2, Way::Http2, Way::Http3] {
            for (path, asked) in [("/count", true), ("/unread", false)] {
                let mut request = post(path, Body::full("12345"));
                request.headers_mut().insert("expect", "100-continue".parse().unwrap());
                let reply = node.visit(way, request).await;
                let interims: Vec<u16> = reply.interims.iter().map(|(status, _)| *status).collect();
                assert_eq!(interims == [100], asked, "{way:?} {transport} {path}: {interims:?}");
            }
        }
    }
}

#[tokio::test]
async fn expectations_of_http1_are_met() {
    use crate::visitor::raw;
    for transport in BOTH {
        let (node, _origin, _agent) = Node::with_app(transport).await;
        let request = |path: &str, body: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nhost: app.edge.test\r\nconnection: close\r\nexpect: 100-continue\r\n\
                 content-length: 5\r\n\r\n{body}"
            )
        };
        let answer = raw(&node, request("/count", "12345")).await;
        assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{transport}: {answer}");
        assert!(answer.contains("\r\n5 \r\n"), "{answer}");
        let answer = raw(&node, request("/unread", "")).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{transport}: {answer}");
    }
}

#[tokio::test]
async fn the_host_chooses_the_tunnel_in_whatever_case() {
    let (node, origin, _agent) = Node::with_app(BOTH[1]).await;
    for way in ALL {
        let port = node.addresses().https.port();
        let uri = format!("https://APP.Edge.test.:{port}/hello");
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        assert_eq!(node.visit(way, request).await.status, 200, "{way:?}");
        let seen = origin.last();
        let host = seen.headers.get("host").map(|value| value.to_str().unwrap().to_owned());
        let host = host.or_else(|| seen.uri.authority().map(ToString::to_string)).unwrap();
        assert_eq!(host, format!("app.edge.test:{port}"), "{way:?}");
    }
}

#[tokio::test]
async fn pauses_of_a_visitor_change_nothing() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    let plain = TcpStream::connect(node.addresses().http).await.unwrap();
    tokio::join!(converse_with_pauses(plain), converse_with_pauses(node.tls(b"http/1.1").await));
    assert_eq!(origin.count(), 6);
}

/// Pauses before a request, within its head and within its body.
async fn converse_with_pauses(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let steps = [
        ("", ""),
        ("GET /hello HTTP/1.1\r\nhost: app.edge.test\r\n\r\n", "hello"),
        ("GET /hel", ""),
        ("lo HTTP/1.1\r\nhost: app.edge.test\r\n\r\n", "hello"),
        ("POST /echo HTTP/1.1\r\nhost: app.edge.test\r\ncontent-length: 10\r\n\r\nfirst", "first"),
        ("later", "later"),
    ];
    for (said, heard) in steps {
        io.write_all(said.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.contains(heard) {
            let mut room = [0; 1024];
            let length = tokio::time::timeout(PATIENCE, io.read(&mut room)).await.expect("no answer").unwrap();
            assert_ne!(length, 0, "closed after {said:?}: {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&room[..length]));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn every_host_says_how_the_visitor_is_seen() {
    let (node, origin, _agent) = Node::with_app(BOTH[0]).await;
    for way in ALL {
        let ask = |method: Method, host: &str| {
            let uri = format!("https://{host}/cdn-cgi/trace?x");
            let request = Request::builder().method(method).uri(uri).header("user-agent", "test/1");
            node.visit(way, request.body(Body::empty()).unwrap())
        };
        for host in ["app.edge.test", "unknown.edge.test", "nobody.test:8443"] {
            let reply = ask(Method::GET, host).await;
            assert_eq!((reply.status, &reply.headers["content-type"]), (200, &"text/plain".parse().unwrap()));
            assert_eq!(reply.headers["cache-control"], "no-store");
            let text = reply.text();
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
                line.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
            };
            let secure = !matches!(way, Way::Plain | Way::PlainHttp2);
            assert_eq!((value("h"), value("ip")), (host.trim_end_matches(":8443").into(), "127.0.0.1".into()));
            assert_eq!((value("colo"), value("uag"), value("warp")), ("LAB01".into(), "test/1".into(), "off".into()));
            assert_eq!(value("visit_scheme"), if secure { "https" } else { "http" });
            assert_eq!(value("tls"), if secure { "TLSv1.3" } else { "off" });
            assert_eq!(value("sni"), if secure { "plaintext" } else { "off" });
            let kex = match way {
                Way::Plain | Way::PlainHttp2 => "none",
                Way::Http1 | Way::Http2 => "X25519MLKEM768",
                Way::Http3 => "unknown",
            };
            assert_eq!(value("kex"), kex, "{way:?}");
            let http = match way {
                Way::Plain | Way::Http1 => "http/1.1",
                Way::PlainHttp2 | Way::Http2 => "http/2",
                Way::Http3 => "http/3",
            };
            assert_eq!(value("http"), http);
        }
        let head = ask(Method::HEAD, "app.edge.test").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert!(head.headers["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 100);
        assert_eq!(ask(Method::POST, "app.edge.test").await.status, 501);
    }
    assert_eq!(origin.count(), 0, "no origin is asked");
}
