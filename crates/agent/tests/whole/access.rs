//! Rules that let pass only who can prove an identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use agent::Protocol;
use agent::access::HEADER;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use wire::{Body, ExchangeError, Interim, Kind, OriginFault};

use crate::edge::{Edge, text};
use crate::origin::{Origin, read_head};
use crate::{config, everything_to, request_told, started, within};

/// Somebody who makes out assertions and publishes the keys.
struct Issuer {
    web: Origin,
    keys: Arc<std::sync::Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    pair: RsaKeyPair,
}

impl Issuer {
    async fn start() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let keys = Arc::new(std::sync::Mutex::new(json!({ "keys": [published(&pair, "one")], "public_certs": [] })));
        let asked = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (Arc::clone(&keys), Arc::clone(&asked));
        let web = Origin::raw(move |mut stream| {
            let (answer, count) = (answer.lock().unwrap().to_string(), Arc::clone(&count));
            async move {
                let head = read_head(&mut stream).await;
                assert!(head.starts_with("GET /cdn-cgi/access/certs HTTP/1.1\r\n"), "{head}");
                count.fetch_add(1, Ordering::SeqCst);
                let length = answer.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { web: web.await, keys, asked, pair }
    }

    fn rule(&self, service: &str) -> String {
        let access = json!({ "required": true, "teamName": self.web.service(), "audTag": ["app"] });
        everything_to(service, &format!(r#""access":{access}"#))
    }

    fn assertion(&self, key: &str, audience: &str) -> String {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
        let claims = json!({ "iss": self.web.service(), "aud": [audience], "exp": until, "email": "ada@example.test" });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(json!({ "alg": "RS256", "kid": key })), encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The numbers stand at fixed places in the DER form of a public key of 2048 bits.
fn published(pair: &RsaKeyPair, id: &str) -> Value {
    let der = pair.public_key().as_ref();
    let [n, e] = [&der[9..265], &der[der.len() - 3..]].map(|number| URL_SAFE_NO_PAD.encode(number));
    json!({ "kid": id, "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e })
}

fn request(assertions: &[&str]) -> Request<Body> {
    let request = Request::get("https://app.test/");
    assertions.iter().fold(request, |request, text| request.header(HEADER, *text)).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn only_who_can_prove_an_identity_passes() {
    let issuer = Issuer::start().await;
    let origin = Origin::web().await;
    for protocol in [Protocol::Http2, Protocol::Quic] {
        let edge = Edge::start().await;
        let mut config = config(&[&edge], &issuer.rule(&origin.service()));
        config.protocol = protocol;
        let _agent = started(config).await;
        let good = issuer.assertion("one", "app");
        let answer = edge.exchange(request(&[&good])).await.unwrap();
        assert_eq!(answer.status(), 200);
        let seen: Value = serde_json::from_str(&text(answer.into_body()).await).unwrap();
        assert_eq!(seen["headers"][HEADER.as_str()], good, "the origin may look at it too");

        let reached = origin.accepted();
        let elsewhere = issuer.assertion("one", "elsewhere");
        let damaged = format!("{}AAAA", &good[..good.len() - 4]);
        for (assertions, reason) in [
            (vec![], "carries no identity assertion"),
            (vec![good.as_str(), good.as_str()], "more than one"),
            (vec!["nonsense"], "cannot be read"),
            (vec![damaged.as_str()], "signature"),
            (vec![elsewhere.as_str()], "another application"),
        ] {
            let answer = edge.exchange(request(&assertions)).await.unwrap();
            assert_eq!(answer.status(), 403, "{protocol:?}: {reason}");
            let told = text(answer.into_body()).await;
            assert!(told.contains(reason), "{protocol:?}: {told} is not {reason}");
        }
        let head = Request::builder().method(Method::HEAD).uri("https://app.test/").body(Body::empty()).unwrap();
        let answer = edge.exchange(head).await.unwrap();
        assert_eq!((answer.status().as_u16(), text(answer.into_body()).await), (403, String::new()));
        let connection = edge.connection().await;
        let socket = connection.exchange(Kind::WebSocket, request(&[]), Interim::unwanted());
        assert_eq!(within("the answer", socket).await.unwrap().status(), 403);
        assert_eq!(origin.accepted(), reached, "nothing of that reached the origin");
    }
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept_over_configurations() {
    let issuer = Issuer::start().await;
    let edge = Edge::managing().await;
    let _agent = started(config(&[&edge], &issuer.rule("http_status:201"))).await;
    let good = issuer.assertion("one", "app");
    // Many at once wait for one fetch.
    let connection = edge.connection().await;
    let together = (0..20).map(|_| connection.exchange(Kind::Http, request(&[&good]), Interim::unwanted()));
    for answer in within("the answers", futures_util::future::join_all(together)).await {
        assert_eq!(answer.unwrap().status(), 201);
    }
    assert_eq!(connection.update_configuration(1, issuer.rule("http_status:202").into()).await, Ok(1));
    assert_eq!(edge.exchange(request(&[&good])).await.unwrap().status(), 202);
    // A visitor makes up names of keys.
    for name in ["two", "three", "four"] {
        let unknown = issuer.assertion(name, "app");
        let answer = edge.exchange(request(&[&unknown])).await.unwrap();
        assert_eq!(answer.status(), 403);
        assert!(text(answer.into_body()).await.contains("does not publish"));
    }
    assert!(issuer.asked.load(Ordering::SeqCst) <= 2, "made up names ask the issuer at most once in ten seconds");
}

#[tokio::test]
async fn nobody_passes_while_the_keys_cannot_be_had() {
    let issuer = Issuer::start().await;
    *issuer.keys.lock().unwrap() = json!({ "keys": [] });
    let edge = Edge::start().await;
    let agent = started(config(&[&edge], &issuer.rule("http_status:200"))).await;
    let mut events = agent.events();
    let good = issuer.assertion("one", "app");
    let refused = edge.exchange(request(&[&good])).await.map(|answer| answer.status());
    let Err(ExchangeError::Origin(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.fault, OriginFault::Unknown);
    let told = request_told(&mut events).await;
    assert!(format!("{:?}", told.outcome).contains("cannot be had"), "{told:?}");
    // That a request carries no assertion is known without keys.
    assert_eq!(edge.exchange(request(&[])).await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_rule_that_names_nobody_lets_nobody_pass() {
    let issuer = Issuer::start().await;
    let edge = Edge::start().await;
    let _agent = started(config(&[&edge], &everything_to("http_status:200", r#""access":{"required":true}"#))).await;
    let answer = edge.exchange(request(&[&issuer.assertion("one", "app")])).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
}
