//! Real programs: `dig` and `kdig` ask.

use std::net::SocketAddr;
use std::path::Path;

use tokio::process::Command;

use crate::setting::{Setting, record};

async fn run(program: &Path, server: SocketAddr, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command.arg(format!("@{}", server.ip())).arg("-p").arg(server.port().to_string()).args(words);
    let output = command.output().await.expect("it starts");
    String::from_utf8(output.stdout).expect("is text")
}

async fn zone() -> Setting {
    let setting = Setting::start().await;
    setting
        .add(vec![
            record("a.example.test", "A", "192.0.2.1"),
            record("uri.example.test", "URI", r#"1 2 "https://a.test/""#),
            record("loc.example.test", "LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000.00m 10.00m"),
            record("key.example.test", "DNSKEY", "257 3 13 AAEC"),
            record("txt.example.test", "TXT", &"x".repeat(1500)),
        ])
        .await;
    setting
}

#[tokio::test]
async fn dig_reads_the_answers() {
    let Some(dig) = harness::peer("dig", "install bind9-dnsutils") else { return };
    let setting = zone().await;
    let server = setting.server.address();
    let short = async |words: &[&str]| {
        let answer = run(&dig, server, &[&["+short"], words].concat()).await;
        answer.trim().to_owned()
    };
    assert_eq!(short(&["a.example.test"]).await, "192.0.2.1");
    assert_eq!(short(&["+tcp", "a.example.test"]).await, "192.0.2.1");
    assert_eq!(short(&["+noedns", "a.example.test"]).await, "192.0.2.1");
    assert_eq!(short(&["uri.example.test", "URI"]).await, r#"1 2 "https://a.test/""#);
    assert_eq!(short(&["loc.example.test", "LOC"]).await, "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m");
    assert!(short(&["key.example.test", "DNSKEY"]).await.starts_with("257 3 13 AAEC"));
    // It comes again over TCP by itself.
    assert_eq!(short(&["txt.example.test", "TXT"]).await.matches('x').count(), 1500);
    let whole = run(&dig, server, &["nobody.example.test"]).await;
    assert!(whole.contains("status: NXDOMAIN") && whole.contains("flags: qr aa rd;"), "{whole}");
    assert!(whole.contains("udp: 1232") && !whole.contains("Warning") && !whole.contains("WARNING: M"), "{whole}");
}

#[tokio::test]
async fn kdig_reads_the_answers() {
    let Some(kdig) = harness::peer("kdig", "install knot-dnsutils") else { return };
    let setting = zone().await;
    let server = setting.server.address();
    let answer = run(&kdig, server, &["+keepopen", "+tcp", "a.example.test", "loc.example.test", "LOC"]).await;
    assert!(answer.contains("192.0.2.1") && answer.contains("52 22 23 N  4 53 32 E  -2m"), "{answer}");
    assert!(!answer.contains("WARNING"), "{answer}");
}
