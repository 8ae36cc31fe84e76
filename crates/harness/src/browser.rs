use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{LIMIT, Visitor, peer};

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // The edges under test have authorities of their own.
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
];

/// A chromium without a screen, steered through its debugging protocol; it ends when dropped.
#[derive(Debug)]
pub struct Browser {
    address: std::net::SocketAddr,
    complaints: JoinHandle<()>,
    _process: Child,
    _profile: TempDir,
}

/// An open page.
#[derive(Debug)]
pub struct Page {
    socket: WebSocketStream<TcpStream>,
    calls: u64,
}

impl Browser {
    /// Starts one; without chromium on this machine, says so by way of [`peer`] and answers `None`.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start() -> Option<Self> {
        let chromium = peer("chromium", "apt-get install chromium brings it")?;
        let profile = tempfile::tempdir().expect("a directory can be made");
        let mut process = Command::new(chromium)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--window-size=1280,860", "about:blank"])
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the browser can be run");
        let mut lines = BufReader::new(process.stderr.take().expect("standard error is piped")).lines();
        let listening = async {
            loop {
                let line = lines.next_line().await.ok().flatten().expect("the browser says where it listens");
                if let Some((_, rest)) = line.split_once("DevTools listening on ws://") {
                    let address = rest.split_once('/').map_or(rest, |(address, _)| address);
                    return address.parse().expect("an address");
                }
            }
        };
        let address = tokio::time::timeout(LIMIT, listening).await.expect("the browser starts");
        // It complains about much, and stops when nobody reads that.
        let complaints = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { address, complaints, _process: process, _profile: profile })
    }

    /// Opens a URL in a new page.
    ///
    /// # Panics
    /// The browser does not take the call.
    pub async fn open(&self, url: &str) -> Page {
        let answer = Visitor::plain(self.address).request("PUT", &format!("/json/new?{url}"), &[], "").await;
        let target: Value = serde_json::from_slice(&answer.body).expect("the browser answers with JSON");
        let socket = target["webSocketDebuggerUrl"].as_str().expect("the page can be steered");
        let stream = TcpStream::connect(self.address).await.expect("the browser listens");
        let (socket, _) = tokio_tungstenite::client_async(socket, stream).await.expect("the browser speaks WebSocket");
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
    ///
    /// # Panics
    /// It is not answered within [`LIMIT`].
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let text = json!({ "id": id, "method": method, "params": parameters }).to_string();
        self.socket.send(Message::text(text)).await.expect("the browser listens");
        let answer = async {
            loop {
                let message =
                    self.socket.next().await.expect("the browser runs").expect("the browser speaks WebSocket");
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
                if message["id"] == id {
                    return message;
                }
            }
        };
        let answer = tokio::time::timeout(LIMIT, answer).await;
        answer.unwrap_or_else(|_| panic!("{method} {parameters} brings no answer"))["result"].take()
    }

    /// The value of an expression; of a promise, once it is there.
    ///
    /// # Panics
    /// It throws.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", parameters).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true, and answers what it is then.
    ///
    /// # Panics
    /// It does not become true within twenty seconds.
    pub async fn until(&mut self, expression: &str) -> Value {
        let polls = format!(
            "new Promise(done => {{ let left = 400; const look = () => {{ let value = null; try {{ value = {expression}; }} catch {{}} \
             if (value || !left--) done(value || 'never: ' + document.body.innerText); else setTimeout(look, 50); }}; look(); }})"
        );
        loop {
            let value = self.evaluate(&polls).await;
            assert!(!value.as_str().is_some_and(|text| text.starts_with("never: ")), "{expression} is {value}");
            // Nothing: the page has made way to another one meanwhile, as the empty one does that a browser begins with.
            if !value.is_null() {
                return value;
            }
        }
    }

    /// Presses a key as a person does.
    pub async fn press(&mut self, key: &str, code: u32) {
        let text = if key.len() == 1 { key } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let parameters = json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", parameters).await;
        }
    }

    /// Takes a picture of the page. It stays as `NAME.png` in the directory `SNICKET_PICTURES` where somebody asks for it
    /// by that variable.
    ///
    /// # Panics
    /// There is no picture, or it cannot be kept.
    pub async fn picture(&mut self, name: &str) {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let picture = STANDARD.decode(picture["data"].as_str().expect("there is a picture")).expect("it is base64");
        assert!(picture.len() > 1000, "{name}: the picture is empty");
        if let Some(directory) = std::env::var_os("SNICKET_PICTURES").map(PathBuf::from) {
            std::fs::write(directory.join(format!("{name}.png")), picture).expect("the picture can be kept");
        }
    }
}
