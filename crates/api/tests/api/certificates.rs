use http::Method;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, RsaKeySize};
use registry::ZoneId;
use serde_json::{Value, json};

use crate::edge::{Answer, Edge};

fn csr_of(key: &KeyPair) -> String {
    let params = CertificateParams::new(["not.counted.example".to_owned()]).unwrap();
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn csr() -> String {
    csr_of(&KeyPair::generate().unwrap())
}

fn body(hostnames: &[&str]) -> Value {
    json!({ "csr": csr(), "hostnames": hostnames, "request_type": "origin-ecc" })
}

impl Edge {
    async fn certificates(&self, zone: &str) -> Vec<Value> {
        self.get(&format!("/certificates?zone_id={zone}")).await.result().as_array().unwrap().clone()
    }

    async fn second_zone(&self, name: &str) -> String {
        self.post("/zones", json!({ "name": name })).await.result()["id"].as_str().unwrap().to_owned()
    }

    /// A token that may do something with the certificates of one zone.
    async fn certificates_token(&self, zone: &str, group: &str) -> String {
        let scope = format!("com.cloudflare.api.account.zone.{zone}");
        let policies =
            json!([{ "effect": "allow", "resources": { scope: "*" }, "permission_groups": [{ "name": group }] }]);
        let made = self.post("/user/tokens", json!({ "name": "certificates", "policies": policies })).await.result();
        made["value"].as_str().unwrap().to_owned()
    }

    async fn as_token(&self, token: &str, method: Method, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send(method, &format!("/client/v4{path}"), &[("authorization", &bearer)], body.to_string()).await
    }
}

#[tokio::test]
async fn a_certificate_is_made_listed_shown_and_revoked() {
    let edge = Edge::start().await;
    let wanted = body(&["App.Example.test", "*.example.test", "app.example.test"]);
    let made = edge.post("/certificates", wanted.clone()).await.result();
    let id = made["id"].as_str().unwrap();
    assert!(id.parse::<u128>().is_ok(), "{id}");
    assert_eq!(made["hostnames"], json!(["app.example.test", "*.example.test"]));
    assert_eq!((&made["csr"], &made["request_type"]), (&wanted["csr"], &wanted["request_type"]));
    assert_eq!(made["requested_validity"], 5475);
    assert!(made["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let expires: Timestamp = made["expires_on"].as_str().unwrap().parse().unwrap();
    let days = (expires.as_second() - Timestamp::now().as_second()) / (24 * 3600);
    assert!((5473..=5475).contains(&days), "{days}");

    let path = format!("/certificates/{id}");
    assert_eq!(edge.get(&path).await.result(), made);
    let short = json!({ "csr": csr(), "hostnames": ["b.example.test"], "request_type": "origin-ecc", "requested_validity": "7" });
    let short = edge.post("/certificates", short).await.result();
    assert_eq!(edge.certificates(&edge.zone).await, [made.clone(), short.clone()]);
    let second = edge.get(&format!("/certificates?zone_id={}&per_page=1&page=2", edge.zone)).await;
    assert_eq!(second.json()["result_info"]["total_count"], 2);
    assert_eq!(second.result(), json!([short]));

    let revoked = edge.call(Method::DELETE, &path, "").await.result();
    assert_eq!(revoked["id"], made["id"]);
    assert!(revoked["revoked_at"].is_string());
    assert_eq!(edge.call(Method::DELETE, &path, "").await.result(), revoked, "once more changes nothing");
    assert_eq!(edge.get(&path).await.result()["revoked_at"], revoked["revoked_at"]);
    assert_eq!(edge.certificates(&edge.zone).await, [short]);
}

#[tokio::test]
async fn the_authority_is_told_and_signs_all() {
    let edge = Edge::start().await;
    edge.post("/certificates", body(&["a.example.test"])).await.result();
    let first = edge.send(Method::GET, "/.well-known/snicket", &[], "").await.json()["origin_ca"].clone();
    edge.post("/certificates", body(&["b.example.test"])).await.result();
    let second = edge.send(Method::GET, "/.well-known/snicket", &[], "").await.json()["origin_ca"].clone();
    assert!(first.as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(first, second);
    assert!(!first.as_str().unwrap().contains("PRIVATE"));
}

#[tokio::test]
async fn what_cannot_be_signed_is_refused_and_leaves_nothing() {
    let edge = Edge::start().await;
    let rsa = csr_of(&KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap());
    let odd = csr_of(&KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap());
    let good = csr();
    let mut damaged: Vec<char> = good.chars().collect();
    // In the signature, which is last.
    let place = good.find("\n-----END").unwrap() - 12;
    damaged[place] = if damaged[place] == 'A' { 'B' } else { 'A' };
    let damaged: String = damaged.into_iter().collect();
    let names = json!(["a.example.test"]);
    let many: Vec<String> = (0..201).map(|index| format!("n{index}.example.test")).collect();
    for (body, reason) in [
        (json!({}), "request_type"),
        (json!({ "request_type": "origin-ecc", "hostnames": names }), "csr"),
        (json!({ "request_type": "origin-ecc", "csr": "hello", "hostnames": names }), "PEM"),
        (json!({ "request_type": "origin-ecc", "csr": damaged, "hostnames": names }), "csr"),
        (json!({ "request_type": "origin-ecc", "csr": odd, "hostnames": names }), "P-256"),
        (json!({ "request_type": "origin-ecc", "csr": "x".repeat(20_000), "hostnames": names }), "16384 bytes"),
        (json!({ "request_type": "origin-ecc", "csr": rsa, "hostnames": names }), "origin-rsa is wanted"),
        (json!({ "request_type": "origin-rsa", "csr": good, "hostnames": names }), "origin-ecc is wanted"),
        (json!({ "request_type": "origin-ecc", "csr": good }), "hostnames"),
        (json!({ "request_type": "origin-ecc", "csr": good, "hostnames": [] }), "hostnames"),
        (json!({ "request_type": "origin-ecc", "csr": good, "hostnames": many }), "1 to 200"),
        (json!({ "request_type": "origin-ecc", "csr": good, "hostnames": ["a b.example.test"] }), "hostnames"),
        (json!({ "request_type": "origin-ecc", "csr": good, "hostnames": ["a.*.example.test"] }), "hostnames"),
        (json!({ "request_type": "origin-ecc", "csr": good, "hostnames": names, "requested_validity": 8 }), "5475"),
    ] {
        let message = edge.post("/certificates", body.clone()).await.refused(400, 1004);
        assert!(message.contains(reason), "{body}: {message}");
    }
    for body in [json!({ "request_type": "origin", "csr": good }), json!({ "hostnames": "x" }), json!([])] {
        edge.post("/certificates", body).await.refused(400, 6007);
    }
    let foreign = ["example.com", "*.test", "test", "notexample.test"];
    for name in foreign {
        let message = edge.post("/certificates", body(&["a.example.test", name])).await.refused(400, 1010);
        assert!(message.contains(name), "{message}");
    }
    assert_eq!(edge.certificates(&edge.zone).await, Vec::<Value>::new());
    edge.get("/certificates").await.refused(400, 1004);
    edge.get("/certificates?zone_id=x").await.refused(404, 7003);
    edge.get(&format!("/certificates?zone_id={}", ZoneId::random())).await.refused(404, 7003);
    for id in ["x", "0", "7", "-7", &"9".repeat(60)] {
        edge.get(&format!("/certificates/{id}")).await.refused(404, 7003);
        edge.call(Method::DELETE, &format!("/certificates/{id}"), "").await.refused(404, 7003);
    }
}

#[tokio::test]
async fn a_certificate_is_for_zones_that_the_token_may_certify() {
    let edge = Edge::start().await;
    let other = edge.second_zone("other.test").await;
    let writer = edge.certificates_token(&edge.zone, "SSL and Certificates Write").await;
    let reader = edge.certificates_token(&edge.zone, "SSL and Certificates Read").await;
    let stranger = edge.certificates_token(&other, "SSL and Certificates Write").await;
    let of = |names: &[&str]| body(names);
    let make = |token: &str, names: &[&str]| {
        let (edge, token, body) = (&edge, token.to_owned(), of(names));
        async move { edge.as_token(&token, Method::POST, "/certificates", body).await }
    };
    make(&writer, &["a.other.test"]).await.refused(400, 1010);
    make(&writer, &["a.example.test", "a.other.test"]).await.refused(400, 1010);
    make(&reader, &["a.example.test"]).await.refused(403, 10000);
    let id = make(&writer, &["a.example.test"]).await.result()["id"].as_str().unwrap().to_owned();
    let path = format!("/certificates/{id}");
    let list = format!("/certificates?zone_id={}", edge.zone);
    for (token, sees) in [(&writer, true), (&reader, true), (&stranger, false)] {
        for path in [&path, &list] {
            let answer = edge.as_token(token, Method::GET, path, Value::Null).await;
            if sees { drop(answer.result()) } else { drop(answer.refused(404, 7003)) }
        }
    }
    edge.as_token(&stranger, Method::DELETE, &path, Value::Null).await.refused(404, 7003);
    edge.as_token(&reader, Method::DELETE, &path, Value::Null).await.refused(403, 10000);
    edge.as_token(&writer, Method::DELETE, &path, Value::Null).await.result();

    // A certificate with names of two zones is for those who may do so in both.
    let both = edge.post("/certificates", body(&["a.example.test", "a.other.test"])).await.result();
    assert_eq!(edge.certificates(&other).await, std::slice::from_ref(&both));
    let path = format!("/certificates/{}", both["id"].as_str().unwrap());
    edge.as_token(&writer, Method::GET, &path, Value::Null).await.refused(404, 7003);
    // The list shows no more than that.
    let listed = edge.as_token(&writer, Method::GET, &list, Value::Null).await.result();
    assert_eq!(listed, json!([]));
    assert_eq!(edge.certificates(&edge.zone).await, [both]);
}

#[tokio::test]
async fn a_wildcard_does_not_reach_into_a_zone_below() {
    let edge = Edge::start().await;
    let child = edge.second_zone("child.example.test").await;
    edge.second_zone("far.child.example.test").await;
    let parents = edge.certificates_token(&edge.zone, "SSL and Certificates Write").await;
    let childs = edge.certificates_token(&child, "SSL and Certificates Write").await;
    let make = async |token: &str, name: &str| edge.as_token(token, Method::POST, "/certificates", body(&[name])).await;
    let message = make(&parents, "*.example.test").await.refused(400, 1010);
    assert!(message.contains("child.example.test"), "{message}");
    make(&parents, "*.a.example.test").await.result();
    make(&parents, "example.test").await.result();
    make(&parents, "child.example.test").await.refused(400, 1010);
    make(&childs, "child.example.test").await.result();
    edge.post("/certificates", body(&["*.example.test"])).await.result();
}

#[tokio::test]
async fn the_key_for_certificates_alone_opens_nothing_else() {
    let edge = Edge::start().await;
    let list = format!("/client/v4/certificates?zone_id={}", edge.zone);
    let with = |key: String, path: String| {
        let edge = &edge;
        async move { edge.send(Method::GET, &path, &[("x-auth-user-service-key", &key)], "").await }
    };
    with(format!("v1.0-{}", edge.token), list.clone()).await.result();
    with(edge.token.clone(), list.clone()).await.result();
    with("v1.0-nonsense".into(), list.clone()).await.refused(403, 9103);
    with(String::new(), list).await.refused(400, 6003);
    with(format!("v1.0-{}", edge.token), "/client/v4/zones".into()).await.refused(400, 9106);
}

#[tokio::test]
async fn certificates_that_ended_make_way_for_new_ones() {
    let edge = Edge::start().await;
    let made = edge.post("/certificates", body(&["a.example.test"])).await.result();
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let old = edge.registry.snapshot().origin_certificate(id).unwrap().value.clone();
    let new = registry::OriginCertificate {
        id: registry::CertificateId::random(),
        created_at: old.expires_on,
        expires_on: old.expires_on + jiff::SignedDuration::from_hours(1),
        ..old
    };
    edge.registry.keep_origin_certificate(&new).await.unwrap();
    let snapshot = edge.registry.snapshot();
    assert_eq!(snapshot.origin_certificates().map(|kept| kept.id).collect::<Vec<_>>(), [new.id]);
}

#[tokio::test]
async fn an_authority_is_replaced_by_whoever_may_do_everything() {
    let edge = Edge::start().await;
    let told = async || {
        let known = edge.send(Method::GET, "/.well-known/snicket", &[], "").await.json()["origin_ca"].clone();
        known.as_str().unwrap_or_default().matches("BEGIN CERTIFICATE").count()
    };
    let own = async |method: Method, path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        edge.send(method, &format!("/snicket/v1/authorities/{path}"), &[("authorization", &bearer)], "").await
    };
    edge.post("/certificates", body(&["a.example.test"])).await.result();
    let less = edge.certificates_token(&edge.zone, "SSL and Certificates Write").await;
    own(Method::POST, "origins", &less).await.refused(403, 10000);
    own(Method::DELETE, "origins/former", &less).await.refused(403, 10000);
    assert_eq!(told().await, 1);

    let rotated = own(Method::POST, "origins", &edge.token).await.result();
    assert_eq!((told().await, &rotated["former"]["until"]), (2, &Value::Null));
    assert_ne!(rotated["former"]["fingerprint"], rotated["fingerprint"]);
    own(Method::POST, "origins", &edge.token).await.refused(409, 1410);
    let ended = own(Method::DELETE, "origins/former", &edge.token).await.result();
    assert_eq!((told().await, &ended["former"], &ended["fingerprint"]), (1, &Value::Null, &rotated["fingerprint"]));
    own(Method::DELETE, "origins/former", &edge.token).await.refused(404, 7003);
    own(Method::POST, "visitors", &edge.token).await.refused(404, 7003);
}
