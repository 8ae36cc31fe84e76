//! A chromium without a screen, steered through its debugging protocol.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use harness::{LIMIT, Visitor};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
];

/// A running browser; it ends when dropped.
pub(crate) struct Browser {
    address: std::net::SocketAddr,
    complaints: JoinHandle<()>,
    _process: Child,
    _profile: TempDir,
}

/// An open page.
pub(crate) struct Page {
    socket: WebSocketStream<TcpStream>,
    calls: u64,
}

impl Browser {
    pub(crate) async fn start(chromium: &Path) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new(chromium)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--window-size=1280,860", "about:blank"])
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the browser says where it listens");
                if let Some((_, rest)) = line.split_once("DevTools listening on ws://") {
                    return rest.split('/').next().unwrap().parse().unwrap();
                }
            }
        };
        let address = tokio::time::timeout(LIMIT, listening).await.expect("the browser starts");
        // It complains about much, and stops when nobody reads that.
        let complaints = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, complaints, _process: process, _profile: profile }
    }

    /// Opens a URL in a new page.
    pub(crate) async fn open(&self, url: &str) -> Page {
        let answer = Visitor::plain(self.address).request("PUT", &format!("/json/new?{url}"), &[], "").await;
        let target: Value = serde_json::from_slice(&answer.body).unwrap();
        let socket = target["webSocketDebuggerUrl"].as_str().unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(socket, stream).await.unwrap();
        Page { socket, calls: 0 }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.complaints.abort();
    }
}

impl Page {
    /// Calls a method of the debugging protocol.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let text = json!({ "id": id, "method": method, "params": parameters }).to_string();
        self.socket.send(Message::text(text)).await.unwrap();
        let answer = async {
            loop {
                let Message::Text(text) = self.socket.next().await.unwrap().unwrap() else { continue };
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["id"] == id {
                    return message;
                }
            }
        };
        let answer = tokio::time::timeout(LIMIT, answer).await;
        answer.unwrap_or_else(|_| panic!("{method} {parameters} brings no answer"))["result"].take()
    }

    /// The value of an expression; of a promise, once it is there.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", parameters).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true, and answers what it is then.
    pub(crate) async fn until(&mut self, expression: &str) -> Value {
        let polls = format!(
            "new Promise(done => {{ let left = 400; const look = () => {{ let value = null; try {{ value = {expression}; }} catch {{}} \
             if (value || !left--) done(value || 'never: ' + document.body.innerText); else setTimeout(look, 50); }}; look(); }})"
        );
        let value = self.evaluate(&polls).await;
        assert!(!value.as_str().is_some_and(|text| text.starts_with("never: ")), "{expression} is {value}");
        value
    }

    /// Presses a key as a person does.
    pub(crate) async fn press(&mut self, key: &str, code: u32) {
        let text = if key.len() == 1 { key } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let parameters = json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", parameters).await;
        }
    }

    /// A picture of the page.
    pub(crate) async fn picture(&mut self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        std::fs::write(file, STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}
