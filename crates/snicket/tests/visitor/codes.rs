//! Codes of error pages that no other test of the whole program brings about.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Agent, Edge, Origin};

use crate::refusals::raw;
use crate::rig::{Rig, TRANSPORTS};

/// Status and code of an answer in JSON.
fn code(status: u16, body: &str) -> (u16, u64) {
    let page: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert_eq!(page["status"], status, "{page}");
    (status, page["code"].as_u64().expect("a page has a code"))
}

/// The same of a request as it is written here, but for `HOST` and what asks for JSON.
async fn of_request(edge: &Edge, host: &str, request: &str) -> (u16, u64) {
    let request = request.replace("HOST", host).replace('|', "\r\n");
    let (line, rest) = request.split_once("\r\n").expect("a request has lines");
    let request = format!("{line}\r\naccept: application/json\r\nconnection: close\r\n{rest}");
    let answer = raw(edge, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request:?}: {answer:?}"));
    code(head[9..12].parse().expect("a status"), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_meant_are_told_why() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for agent in &rig.agents {
        for (request, status, code) in [
            ("GET / HTTP/1.1|host: 127.0.0.1||", 403, 1003),
            ("GET / HTTP/1.1|host: management.argotunnel.com||", 403, 1014),
            ("GET / HTTP/1.1|x: y||", 400, 1060),
            ("GET / HTTP/1.1|host: HOST|host: other.localhost||", 400, 1061),
            ("GET http://other.localhost/ HTTP/1.1|host: HOST||", 400, 1061),
            ("GET / HTTP/1.1|host: a b||", 400, 1062),
            ("GET / HTTP/1.1|host: HOST:port||", 400, 1062),
            ("POST / HTTP/1.1|host: HOST|transfer-encoding: gzip, chunked||0||", 400, 1063),
            ("POST /hang HTTP/1.1|host: HOST|transfer-encoding: chunked||4|data|zz|", 400, 1064),
            ("GET HOST:80 HTTP/1.1|host: HOST:80||", 400, 1065),
        ] {
            assert_eq!(of_request(&rig.edge, &agent.host(), request).await, (status, code), "{request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_leads_to_itself_is_508() {
    let edge = Edge::start().await;
    for transport in TRANSPORTS {
        let agent = Agent::start(&edge, &format!("http://{}", edge.http()), &["--protocol", transport]).await;
        let answer = edge.visitor().request("GET", &agent.url("/"), &[("accept", "application/json")], "").await;
        assert_eq!(code(answer.status, &answer.text()), (508, 1019), "{transport}");
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_visit_is_told_what_is_missing() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let files = tempfile::tempdir().unwrap();
    let password = files.path().join("password").display().to_string();
    std::fs::write(&password, "correct horse\n").unwrap();
    let visit = async |agent: &Agent, given: Option<&str>| {
        let basic = given.map(|password| format!("Basic {}", STANDARD.encode(format!("ann:{password}"))));
        let mut headers = vec![("accept", "application/json")];
        headers.extend(basic.as_deref().map(|basic| ("authorization", basic)));
        let answer = edge.visitor().request("GET", &agent.url("/"), &headers, "").await;
        if answer.status == 200 { (200, 0) } else { code(answer.status, &answer.text()) }
    };
    for (words, expected) in
        [(&["--allow", "192.0.2.0/24", "--name", "a"][..], (403, 1020)), (&["--pin", "--name", "b"], (401, 1070))]
    {
        let agent = Agent::start(&edge, &origin.service(), words).await;
        assert_eq!(visit(&agent, None).await, expected, "{words:?}");
    }
    let words = ["--basic", "ann", "--basic-password-file", &password, "--name", "c"];
    let agent = Agent::start(&edge, &origin.service(), &words).await;
    assert_eq!(visit(&agent, None).await, (401, 1071));
    assert_eq!(origin.requests(), 0);
    assert_eq!(visit(&agent, Some("correct horse")).await, (200, 0));
    // The eleventh guess from one address is not heard any more.
    for guess in 0..10 {
        assert_eq!(visit(&agent, Some(&guess.to_string())).await, (401, 1071), "guess {guess}");
    }
    assert_eq!(visit(&agent, Some("one more")).await, (429, 1015));
    assert_eq!(origin.requests(), 1);
}
