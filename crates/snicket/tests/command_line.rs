//! What people type, and what they are told when it is wrong.

use harness::{Origin, Program, RawOrigin};

async fn run(arguments: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().expect("a directory can be made");
    Program::new(home.path(), arguments).run().await
}

#[tokio::test]
async fn mistakes_exit_with_2_and_say_what_to_do() {
    for (arguments, said) in [
        (&["upp"][..], "similar"),
        (&["up", "--domian", "x"], "--domain"),
        (&["try", "99999"], "1 to 65535"),
        (&["http", "3000"], "snicket up"),
        (&["up", "--cert", "x"], "--key"),
        (&["up", "--location", "a\nb"], "letters, digits and hyphens"),
        (&["up", "--max-connections", "0"], "from 1"),
        (&["tunnel", "--ha-connections", "0", "run"], "1 to 255"),
        (&["tunnel", "--retries", "x", "run"], "from 0"),
        (&["service", "install", "http"], "<ORIGIN>"),
        (&["up", "--config", "/nowhere.yml"], "/nowhere.yml"),
        (&["explain", "9"], "snicket explain"),
        (&["explain", "tea"], "such as 1033"),
        (&["tunnel"], "snicket tunnel run"),
        (&["tunnel", "run"], "which tunnel"),
        (&["tunnel", "run", "--token", "AAAA"], "the token cannot be read"),
        (&["tunnel", "list"], "snicket up"),
        (&["cloudflared"], "snicket up"),
        (&["tunnel", "--metrics", "nowhere", "run", "--token", "x"], ""),
    ] {
        let (code, _, error) = run(arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?} says {error}");
    }
}

#[tokio::test]
async fn failures_with_json_are_an_event_too() {
    let (code, out, _) = run(&["http", "3000", "--json"]).await;
    assert_eq!(code, 2);
    let event: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(event["event"], "error");
    assert_eq!(event["exit"], 2);
    assert!(event["advice"].as_str().is_some_and(|advice| advice.contains("snicket up")), "{event}");

    // What the parser of flags finds wrong as well, but not the help that was asked for.
    let (code, out, error) = run(&["up", "--json", "--domian", "x"]).await;
    assert_eq!(code, 2);
    let event: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert!(event["error"].as_str().is_some_and(|said| said.contains("--domian")), "{event}");
    assert!(event["advice"].as_str().is_some_and(|advice| advice.contains("--domain")), "{event}");
    assert!(error.contains("--domian"), "{error}");
    let (code, out, _) = run(&["up", "--json", "--help"]).await;
    assert!(code == 0 && out.contains("Examples"), "{out}");
}

#[tokio::test]
async fn all_mistakes_of_a_file_come_at_once() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("edge.yml"), "domian: x\nhttps: nowhere\n").unwrap();
    let (code, _, error) = Program::new(home.path(), &["up", "--config", "edge.yml"]).run().await;
    assert_eq!(code, 2, "{error}");
    for said in ["edge.yml:1:", "\"domain\"", "edge.yml:2:"] {
        assert!(error.contains(said), "{said} in {error}");
    }
}

#[tokio::test]
async fn ingress_rules_are_looked_at_as_cloudflared_does() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config.yml");
    std::fs::write(
        &path,
        "tunnel: web\ningress:\n  - hostname: a.example.test\n    path: ^/api\n    service: http://localhost:1\n  - service: http_status:404\n",
    )
    .unwrap();
    let file = path.display().to_string();
    let (code, out, _) = Program::new(home.path(), &["tunnel", "--config", &file, "ingress", "validate"]).run().await;
    assert_eq!((code, out.lines().last()), (0, Some("OK")));
    let words = ["tunnel", "--config", &file, "ingress", "rule", "https://a.example.test/api/1"];
    let (code, out, _) = Program::new(home.path(), &words).run().await;
    assert_eq!(code, 0);
    assert!(out.contains("Matched rule #0") && out.contains("service: http://localhost:1"), "{out}");
    // Flags of `tunnel` may stand behind the subcommand too.
    let words = ["tunnel", "ingress", "rule", "https://b.example.test/", "--config", &file];
    let (_, out, _) = Program::new(home.path(), &words).run().await;
    assert!(out.contains("Matched rule #1") && out.contains("http_status:404"), "{out}");

    std::fs::write(&path, "ingress:\n  - service: nonsense\nprotocol: x\nunknown-key: 1\n").unwrap();
    let (code, _, error) = Program::new(home.path(), &["tunnel", "--config", &file, "ingress", "validate"]).run().await;
    assert_eq!(code, 2);
    for line in [":2:", ":3:", ":4:"] {
        assert!(error.contains(line), "{line} in {error}");
    }
    let (code, out, _) =
        run(&["tunnel", "ingress", "validate", "--json", r#"{"ingress":[{"service":"http_status:404"}]}"#]).await;
    assert_eq!(code, 0, "{out}");
}

#[tokio::test]
async fn completions_and_codes() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, _) = run(&["completions", shell]).await;
        assert_eq!(code, 0);
        assert!(out.contains("cloudflared") && out.contains("doctor"), "{shell}");
        let (code, events, _) = run(&["--json", "completions", shell]).await;
        assert_eq!(code, 0);
        let event: serde_json::Value = serde_json::from_str(&events).unwrap();
        assert_eq!((&event["event"], &event["shell"]), (&"completions".into(), &(*shell).into()));
        assert_eq!(event["script"].as_str().map(str::trim_end), Some(out.trim_end()), "{shell}");
    }
    let (code, out, _) = run(&["explain"]).await;
    assert!(code == 0 && out.lines().count() > 20, "{out}");
    let (code, out, _) = run(&["explain", "1033"]).await;
    assert!(code == 0 && out.contains("What to do"), "{out}");
}

#[tokio::test]
async fn health_of_nothing_is_1() {
    let (code, _, error) = run(&["health", "--metrics", "127.0.0.1:1"]).await;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("no agent answers"), "{error}");
}

#[tokio::test]
async fn strangers_are_told_from_agents_and_edges() {
    let page = Origin::start().await;
    let garbage = RawOrigin::start(async |mut stream: tokio::net::TcpStream| {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").await;
    });
    let garbage = garbage.await;
    for (words, said) in [
        (&["health", "--metrics", &page.address().to_string()][..], "is no agent of snicket"),
        (&["health", "--api", &page.address().to_string()], "is no edge of snicket"),
        (&["health", "--api", &garbage.service()], "does not speak HTTP"),
        (&["http", "3000", "--edge", &page.service()], "is not a snicket edge"),
        (&["http", "3000", "--edge", &garbage.service()], "does not speak HTTP"),
        (&["up", "--http", "192.0.2.1:80"], "no address of this machine"),
    ] {
        let (code, _, error) = run(words).await;
        assert!(code == 1 && error.contains(said) && error.contains("what to do"), "{words:?}: {code} {error}");
    }
}

#[tokio::test]
async fn secrets_are_not_echoed() {
    let secret = "c2VjcmV0LXNlY3JldA";
    for arguments in [&["tunnel", "run", "--token", secret][..], &["tunnel", "run", "--credentials-contents", secret]] {
        let (_, out, error) = run(arguments).await;
        assert!(!out.contains(secret) && !error.contains(secret), "{arguments:?}: {out}{error}");
    }
    let home = tempfile::tempdir().unwrap();
    let help = Program::new(home.path(), &["tunnel", "run", "--help"]).env("TUNNEL_TOKEN", secret).run().await;
    assert!(!help.1.contains(secret), "{}", help.1);
}
