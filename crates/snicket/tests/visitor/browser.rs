//! A real browser, without a screen.

use std::path::Path;

use harness::{LIMIT, Origin, Try, peer};
use tokio::process::Command;

const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
];

/// Opens the URL and answers the page as the browser has understood it; the picture goes to the file.
async fn open(chromium: &Path, url: &str, picture: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(chromium);
    command
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", picture.display()))
        // Time enough for what the page itself asks for, in the browser's own count.
        .args(["--window-size=1000,800", "--virtual-time-budget=5000", "--dump-dom", url])
        .env("HOME", profile.path())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the browser ends").unwrap();
    let (dom, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !dom.is_empty(), "{url}: {error}");
    assert!(std::fs::metadata(picture).is_ok_and(|picture| picture.len() > 1000), "{url}: no picture: {error}");
    dom.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_the_hello_page_and_error_pages() {
    let Some(chromium) = peer("chromium", "apt-get install chromium brings it") else { return };
    // Pictures stay where somebody asks for them.
    let files = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("SNICKET_PICTURES").map(std::path::PathBuf::from);
    let pictures = kept.unwrap_or_else(|| files.path().to_owned());
    for transport in ["http2", "quic"] {
        let it = Try::start(&["--protocol", transport]).await;
        let dom = open(&chromium, &it.url("/"), &pictures.join("hello.png")).await;
        assert!(dom.contains("It works."), "{transport}: {dom}");
        assert!(dom.contains("echoed \"hello\" after"), "a WebSocket through {transport}: {dom}");
        assert!(dom.contains(">event "), "server-sent events through {transport}: {dom}");
    }
    let origin = Origin::start().await;
    let service = origin.service();
    drop(origin);
    let it = Try::start(&[&service]).await;
    let dom = open(&chromium, &it.url("/"), &pictures.join("error.png")).await;
    assert!(dom.contains("Origin is down") && dom.contains("snicket explain 521"), "{dom}");
}
