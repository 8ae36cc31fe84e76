use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Host;

/// Nothing that works takes so long, on a busy machine of two cores either.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Lines that wait to be read by a test.
const LINES: usize = 4096;

/// A command line of the program, not yet started.
#[derive(Debug)]
pub struct Program {
    command: Command,
    name: String,
    input: Option<String>,
}

impl Program {
    /// The program with these arguments, its files under `home`, and nothing of the caller's environment that concerns
    /// it.
    pub fn new(home: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        Self::start_with(Command::new(binary()), home, arguments)
    }

    /// The same on a host.
    pub fn on(host: &Host, home: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        let (program, words) = host.within();
        let mut command = Command::new(program);
        command.args(words).arg(binary());
        Self::start_with(command, home, arguments)
    }

    fn start_with(mut command: Command, home: &Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        command.args(arguments).env_clear().current_dir(home);
        command.env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (variable, directory) in
            [("XDG_DATA_HOME", "data"), ("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config")]
        {
            command.env(variable, home.join(directory));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        Self { command, name: format!("snicket {}", words.join(" ")), input: None }
    }

    /// Sets a variable.
    pub fn env(mut self, variable: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(variable, value);
        self
    }

    /// What the program reads from standard input.
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self.command.stdin(Stdio::piped());
        self
    }

    /// Runs it to its end: exit code, standard output, standard error.
    ///
    /// # Panics
    /// It does not start, or takes longer than [`LIMIT`].
    pub async fn run(self) -> (i32, String, String) {
        let name = self.name.clone();
        let mut child = self.spawn_child().await;
        let read = async {
            let (out, err) = (child.stdout.take(), child.stderr.take());
            let (out, err) = tokio::join!(read_all(out), read_all(err));
            let status = child.wait().await.expect("a child can be waited for");
            (status.code().unwrap_or(-1), out, err)
        };
        tokio::time::timeout(LIMIT, read).await.unwrap_or_else(|_| panic!("{name} did not end"))
    }

    /// Starts it.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(self) -> Process {
        let name = self.name.clone();
        let mut child = self.spawn_child().await;
        let (sender, lines) = mpsc::channel(LINES);
        let stdout = child.stdout.take().expect("standard output is piped");
        let (deafen, mut deaf) = oneshot::channel();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stdout).lines();
            loop {
                let line = tokio::select! {
                    Ok(()) = &mut deaf => std::future::pending().await,
                    line = reader.next_line() => line,
                };
                let Ok(Some(line)) = line else { break };
                if sender.send(line).await.is_err() {
                    break;
                }
            }
        });
        let (collected, stderr) = watch::channel(String::new());
        let pipe = child.stderr.take().expect("standard error is piped");
        tokio::spawn(async move {
            let mut reader = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                collected.send_modify(|text| {
                    text.push_str(&line);
                    text.push('\n');
                });
            }
        });
        Process { child, lines, deafen: Some(deafen), passed: VecDeque::new(), stderr, name }
    }

    async fn spawn_child(mut self) -> Child {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        if let Some(input) = self.input {
            let mut pipe = child.stdin.take().expect("standard input is piped");
            // A program that does not read its input may have ended already.
            let _ = pipe.write_all(input.as_bytes()).await;
        }
        child
    }
}

/// The binary that belongs to the running test: cargo puts it one directory above the tests.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let directory = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let binary = directory.join(format!("snicket{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is not built; run the tests of the package `snicket`", binary.display());
    binary
}

async fn read_all(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut pipe, &mut text).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A running program. It is killed when dropped; when the test has failed, what it wrote to standard error is shown.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    deafen: Option<oneshot::Sender<()>>,
    passed: VecDeque<Value>,
    stderr: watch::Receiver<String>,
    name: String,
}

impl Process {
    /// Reads nothing of its standard output any more, and keeps that open.
    pub fn stop_reading(&mut self) {
        if let Some(deafen) = self.deafen.take() {
            // It is gone if the program has ended.
            let _ = deafen.send(());
        }
    }

    /// The next line of standard output.
    ///
    /// # Panics
    /// None comes within [`LIMIT`].
    pub async fn line(&mut self) -> String {
        match tokio::time::timeout(LIMIT, self.lines.recv()).await {
            Ok(Some(line)) => line,
            Ok(None) => {
                let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
                panic!("{} ended ({status:?}) without the line; standard error:\n{}", self.name, self.stderr())
            }
            Err(_) => panic!("{} printed nothing more; standard error:\n{}", self.name, self.stderr()),
        }
    }

    /// The next event of this name, with `--json`. Events of other names that come before stay for later calls.
    ///
    /// # Panics
    /// None comes within [`LIMIT`], or a line is not JSON.
    pub async fn event(&mut self, name: &str) -> Value {
        self.event_where(|event| event["event"] == name).await
    }

    /// The next event that fits. Events that do not stay for later calls.
    ///
    /// # Panics
    /// None comes within [`LIMIT`], or a line is not JSON.
    pub async fn event_where(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.passed.iter().position(&fits) {
            return self.passed.remove(index).expect("the index was found just now");
        }
        loop {
            let line = self.line().await;
            let event: Value = serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("{} printed a line that is not JSON ({error}): {line}", self.name));
            if fits(&event) {
                return event;
            }
            self.passed.push_back(event);
        }
    }

    /// The process id.
    ///
    /// # Panics
    /// It has ended and was waited for.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// Sends a signal, such as `TERM`.
    ///
    /// # Panics
    /// It cannot be sent.
    pub async fn signal(&self, signal: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.id())).status().await;
        assert!(status.expect("sh is everywhere").success(), "cannot send SIG{signal} to {}", self.name);
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Panics
    /// It takes longer than [`LIMIT`].
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.wait().await
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// It takes longer than [`LIMIT`].
    pub async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(LIMIT, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("{} did not end; standard error:\n{}", self.name, self.stderr()))
            .expect("a child can be waited for")
    }

    /// Kills it as a power failure would, and waits until it is gone.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        self.stderr.borrow().clone()
    }

    /// Waits until it has written this text to standard error.
    ///
    /// # Panics
    /// It does not within [`LIMIT`].
    pub async fn complaint(&self, text: &str) {
        let mut stderr = self.stderr.clone();
        let written = tokio::time::timeout(LIMIT, stderr.wait_for(|written| written.contains(text))).await;
        assert!(matches!(written, Ok(Ok(_))), "{} did not write {text:?}, but:\n{}", self.name, self.stderr());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- standard error of {}\n{}---", self.name, self.stderr());
        }
    }
}
