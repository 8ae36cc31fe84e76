//! Who may visit what `http` shares: flags, the edge, real visitors.

use std::path::Path;

use harness::{Agent, Edge, LIMIT, Origin, peer};
use tokio::process::Command;

async fn curl(agent: &Agent, edge: &Edge, path: &str, words: &[&str]) -> Option<String> {
    let curl = peer("curl", "apt-get install curl brings it")?;
    let mut command = Command::new(curl);
    command
        .args(["--silent", "--show-error", "--cacert"])
        .arg(edge.ca())
        .args(["--resolve", &format!("{}:{}:127.0.0.1", agent.host(), edge.https().port())])
        .args(["--write-out", "\n%{http_code}"])
        .args(words)
        .arg(agent.url(path))
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("curl ends").expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_made_shown_and_asked_for() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let agent = Agent::start(&edge, &origin.service(), &["--name", "pinned", "--pin"]).await;
    let pin = agent.ready()["pin"].as_str().unwrap().to_owned();
    let files = tempfile::tempdir().unwrap();
    let jar = files.path().join("jar").display().to_string();
    let Some(refused) = curl(&agent, &edge, "/", &[]).await else { return };
    assert!(refused.ends_with("\n401") && refused.contains("PIN needed"), "{refused}");
    let form = ["--data-urlencode", "back=/", "--cookie-jar", &jar, "--data-urlencode"];
    let wrong = curl(&agent, &edge, "/.snicket/pin", &[&form[..], &["pin=0000"]].concat()).await.unwrap();
    assert!(wrong.ends_with("\n403"), "{wrong}");
    let right = format!("pin={pin}");
    let entered = curl(&agent, &edge, "/.snicket/pin", &[&form[..], &[&right]].concat()).await.unwrap();
    assert!(entered.ends_with("\n303"), "{entered}");
    let seen = curl(&agent, &edge, "/", &["--cookie", &jar]).await.unwrap();
    assert_eq!(seen, "hello from the origin\n200");
    assert!(!agent.process.stderr().contains(&pin), "it is not logged");

    let home = agent.stop().await;
    let open = Agent::start_at(&edge, &origin.service(), &["--name", "pinned"], home).await;
    assert!(curl(&open, &edge, "/", &[]).await.unwrap().ends_with("\n200"), "without the flag everybody may come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_comes_from_a_file_and_rules_add_up() {
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let files = tempfile::tempdir().unwrap();
    let password = files.path().join("password").display().to_string();
    std::fs::write(&password, "correct horse\n").unwrap();
    let words = [
        "--basic",
        "ann",
        "--basic-password-file",
        &password,
        "--allow",
        "127.0.0.0/8",
        "--header",
        "X-Env: demo",
        "--header",
        "-User-Agent",
        "--rewrite",
        "/seen=/request",
    ];
    let agent = Agent::start(&edge, &origin.service(), &words).await;
    let Some(refused) = curl(&agent, &edge, "/seen", &["--user", "ann:wrong"]).await else { return };
    assert!(refused.ends_with("\n401"), "{refused}");
    let seen = curl(&agent, &edge, "/seen", &["--user", "ann:correct horse"]).await.unwrap().to_ascii_lowercase();
    assert!(seen.ends_with("\n200") && seen.contains("x-env") && seen.contains("/request"), "{seen}");
    assert!(!seen.contains("user-agent") && !seen.contains("authorization"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_before_anything_is_shared() {
    let edge = Edge::start().await;
    for (words, said) in [
        (&["--allow", "192.0.2.0/33"][..], "is no network"),
        (&["--header", "Host: a"], "cannot be changed"),
        (&["--rewrite", "api=v1"], "is no rewrite"),
        (&["--basic", "ann"], "which password for ann?"),
        (&["--basic-password-file", "x"], "--basic"),
    ] {
        let (code, _, error) = edge.command(&[&["http", "3000"], words].concat()).await;
        assert!(code == 2 && error.contains(said), "{words:?}: {code} {error}");
    }
}

/// The page as a browser shows it.
#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_the_page_that_asks_for_the_pin() {
    let Some(chromium) = peer("chromium", "apt-get install chromium brings it") else { return };
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let agent = Agent::start(&edge, &origin.service(), &["--pin"]).await;
    let files = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("SNICKET_PICTURES").map(std::path::PathBuf::from);
    let picture = kept.unwrap_or_else(|| files.path().to_owned()).join("pin.png");
    let dom = open(&chromium, &agent.url("/secret?x=1"), &picture, files.path()).await;
    assert!(dom.contains("<h1>PIN needed</h1>") && dom.contains("value=\"/secret?x=1\""), "{dom}");
    assert!(std::fs::metadata(picture).is_ok_and(|picture| picture.len() > 1000), "no picture");
}

async fn open(chromium: &Path, url: &str, picture: &Path, profile: &Path) -> String {
    let mut command = Command::new(chromium);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--ignore-certificate-errors", "--window-size=1000,800", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", picture.display()))
        .args(["--dump-dom", url])
        .env("HOME", profile)
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the browser ends").expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
