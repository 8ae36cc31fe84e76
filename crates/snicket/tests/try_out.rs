//! `snicket try`: both ends in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use harness::{Curl, Http, Origin, Program, Try, Visitor};

#[tokio::test(flavor = "multi_thread")]
async fn the_hello_page_is_there_with_nothing_but_try() {
    let mut it = Try::start(&[]).await;
    let ready = it.ready().clone();
    for key in ["url", "http_url", "api", "tunnel", "https", "http", "ca", "token_file", "origin"] {
        assert!(ready[key].is_string(), "{key} in {ready}");
    }
    let answer = it.visitor().get(&it.url("/")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/html"), "{answer:?}");
    assert!(!answer.header("cf-ray").is_empty());
    let request = it.process.event("request").await;
    assert_eq!((&request["method"], &request["path"], &request["status"]), (&"GET".into(), &"/".into(), &200.into()));
    assert_eq!(request["bytes"].as_u64(), Some(answer.body.len() as u64));
    let token_file = std::path::PathBuf::from(ready["token_file"].as_str().expect("a path"));
    assert!(token_file.exists());
    it.process.signal("INT").await;
    it.process.event("draining").await;
    assert_eq!(it.process.wait().await.code(), Some(0));
    it.process.event("stopped").await;
    assert!(!token_file.exists(), "the token's registry is gone, so the token goes too");
    assert!(!it.process.stderr().contains("WARN"), "stopping is no trouble: {}", it.process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_the_origin_over_each_version_and_transport() {
    let origin = Origin::start().await;
    for protocol in ["quic", "http2"] {
        let it = Try::start(&[&origin.service(), "--protocol", protocol]).await;
        assert_eq!(it.ready()["protocol"], protocol);
        for version in [Http::One, Http::Two] {
            let answer = it.visitor().over(version).post(&it.url("/echo"), "ping").await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "ping"), "{protocol} {version:?}");
        }
        let answer = it.visitor().post(&it.http_url("/echo"), "plain").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "plain"), "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_opens_the_url_with_the_ca() {
    let Some(curl) = Curl::find() else { return };
    let origin = Origin::start().await;
    let it = Try::start(&[&origin.service()]).await;
    for version in ["--http1.1", "--http2"] {
        let out = curl.ask(&it.visitor(), &it.url("/echo"), &[version, "--data", "from curl"]).await;
        assert_eq!(out, "from curl", "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_keep_out_of_each_others_way() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().display().to_string();
    let first = Try::start(&["--data", &data]).await;
    let second = Try::start(&["--data", &data]).await;
    let hosts = [&first, &second].map(|it| it.url("").rsplit_once(':').expect("there is a port").0.to_owned());
    assert_eq!(hosts[0], hosts[1], "the name is kept, so that people find it again");
    assert_eq!(first.ready()["ca"], second.ready()["ca"], "the CA is trusted once");
    for it in [&first, &second] {
        assert_eq!(it.visitor().get(&it.url("/")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_edge_refuses_is_told_with_its_code() {
    let mut it = Try::start(&[]).await;
    let elsewhere = it.http_url("/").replace("//", "//not-");
    let answer = it.visitor().get(&elsewhere).await;
    assert_eq!(answer.status, 530);
    let request = it.process.event("request").await;
    assert_eq!(request["code"], 1016, "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_down_is_521_until_it_comes() {
    let origin = Origin::start().await;
    let (service, address) = (origin.service(), origin.address());
    drop(origin);
    let mut it = Try::start(&[&service]).await;
    let answer = it.visitor().get(&it.url("/")).await;
    assert_eq!(answer.status, 521, "{}", answer.text());
    let _origin = Origin::start_on(address).await;
    assert_eq!(it.visitor().get(&it.url("/")).await.status, 200);
    let failed = it.process.event("request").await;
    assert_eq!((&failed["status"], &failed["code"]), (&521.into(), &521.into()), "{failed}");
    assert!(failed["remark"].as_str().is_some_and(|text| text.contains(&address.port().to_string())), "{failed}");
    let next = it.process.event("request").await;
    assert_eq!(next["status"], 200, "a request is told once, by the edge or by the agent: {next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_is_a_port_an_address_or_a_url() {
    let origin = Origin::start().await;
    let address = origin.address();
    for written in [address.port().to_string(), address.to_string(), format!("http://{address}")] {
        let it = Try::start(&[&written]).await;
        assert_eq!(it.visitor().get(&it.url("/")).await.text(), "hello from the origin", "{written}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_the_url_on_a_line_of_its_own_and_a_line_per_request() {
    let home = tempfile::tempdir().unwrap();
    let arguments = ["try", "--http", "0", "--https", "0", "--name", "my-name"];
    let mut process = Program::new(home.path(), &arguments).start().await;
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.contains("curl --cacert")) {
        lines.push(process.line().await);
    }
    let url = |scheme: &str| {
        let begin = format!("{scheme}://my-name.localhost:");
        let url = lines.iter().find(|line| line.starts_with(&begin) && !line.contains(' '));
        url.unwrap_or_else(|| panic!("{scheme} in {lines:?}")).clone()
    };
    let (_, http) = (url("https"), url("http"));
    assert!(lines.iter().any(|line| line.starts_with("leads to the built-in hello page")), "{lines:?}");

    let port = http.rsplit_once(':').unwrap().1.parse().unwrap();
    let visitor = Visitor::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    assert_eq!(visitor.request("GET", &format!("{http}/some/path?secret=1"), &[], "").await.status, 200);
    let mut line = process.line().await;
    while !line.contains("GET") {
        lines.push(line);
        line = process.line().await;
    }
    assert!(line.contains(" 200 ") && line.contains("/some/path"), "{line}");
    assert!(!line.contains("secret"), "what stands in a query is nobody's business: {line}");
    assert!(!(lines.concat() + &line).contains('\x1b'), "no colour without a terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_is_there_within_a_second() {
    // A machine that is busy with other things makes any one start slow, but not each of twenty; a wait in the program
    // would.
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        drop(Try::start(&[]).await);
        best = best.min(started.elapsed());
        if best < Duration::from_secs(1) {
            return;
        }
    }
    panic!("the quickest of twenty takes {best:?}");
}
