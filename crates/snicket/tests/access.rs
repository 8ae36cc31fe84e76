//! Who may visit what `http` shares: flags, the edge, real visitors.

use harness::{Agent, Browser, Curl, Edge, Origin};

/// What curl gets, and the status on a line of its own.
async fn curl(agent: &Agent, edge: &Edge, path: &str, words: &[&str]) -> Option<String> {
    let words = [&["--write-out", "\n%{http_code}"], words].concat();
    Some(Curl::find()?.ask(&edge.visitor(), &agent.url(path), &words).await)
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

#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_the_page_that_asks_for_the_pin() {
    let Some(browser) = Browser::start().await else { return };
    let (origin, edge) = (Origin::start().await, Edge::start().await);
    let agent = Agent::start(&edge, &origin.service(), &["--pin"]).await;
    let mut page = browser.open(&agent.url("/secret?x=1")).await;
    page.until("document.querySelector('h1').innerText === 'PIN needed'").await;
    page.until("document.querySelector('[value=\"/secret?x=1\"]') !== null").await;
    page.picture("pin").await;
}
