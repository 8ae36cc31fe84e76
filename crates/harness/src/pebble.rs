use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{LIMIT, Visitor, lasting_address, peer, until};

/// A port that was free may be taken before pebble listens on it.
const STARTS: usize = 5;

/// A running pebble, the ACME server for tests, on loopback and free ports, and the DNS that it asks, which says that
/// every name is this machine. It looks at names where [`Pebble::look_at`] says, and waits until that is said. When the test has failed, the end of what it
/// wrote is shown.
#[derive(Debug)]
pub struct Pebble {
    program: PathBuf,
    acme: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    /// Whom it asks instead.
    asks: Option<SocketAddr>,
    children: Vec<Child>,
    http: Way,
    tls: Way,
    home: TempDir,
}

/// A port at which pebble looks, and where that leads.
#[derive(Debug)]
struct Way {
    address: SocketAddr,
    targets: Targets,
    looks: Arc<AtomicUsize>,
    task: AbortHandle,
}

/// Where a way leads, once that is known.
type Targets = Arc<watch::Sender<Option<Vec<SocketAddr>>>>;

impl Way {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (targets, looks) = (Targets::default(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn(lead(listener, Arc::clone(&targets), Arc::clone(&looks))).abort_handle();
        Self { address, targets, looks, task }
    }

    fn lead_to(&self, targets: &[SocketAddr]) {
        self.targets.send_replace(Some(targets.to_vec()));
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Leads each connection to the next of the targets; ends it, if there is none.
async fn lead(listener: TcpListener, targets: Targets, looks: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let turn = looks.fetch_add(1, Ordering::SeqCst);
        let mut targets = targets.subscribe();
        tokio::spawn(async move {
            let target = match targets.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(targets)) if !targets.is_empty() => Some(targets[turn % targets.len()]),
                _ => None,
            };
            if let Some(target) = target
                && let Ok(mut onwards) = TcpStream::connect(target).await
            {
                let _ = copy_bidirectional(&mut stream, &mut onwards).await;
            }
        });
    }
}

impl Pebble {
    /// Starts it, with certificates that last so long. `None` where it is not installed.
    ///
    /// # Panics
    /// It does not work within [`LIMIT`].
    pub async fn start(life: Duration) -> Option<Self> {
        Self::start_as(life, None).await
    }

    /// The same, but that it asks this server for names and their records.
    ///
    /// # Panics
    /// As [`Pebble::start`].
    pub async fn start_asking(life: Duration, dns: SocketAddr) -> Option<Self> {
        Self::start_as(life, Some(dns)).await
    }

    async fn start_as(life: Duration, asks: Option<SocketAddr>) -> Option<Self> {
        let program = peer("pebble", "apt-get install pebble")?;
        peer("pebble-challtestsrv", "apt-get install pebble")?;
        let (http, tls) = (Way::start().await, Way::start().await);
        let home = tempfile::tempdir().expect("a directory can be made");
        make_certificate(home.path());
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (acme, management, dns) = (nobody, nobody, nobody);
        let mut pebble = Self { program, acme, management, dns, asks, children: Vec::new(), http, tls, home };
        for _ in 0..STARTS {
            pebble.choose_ports();
            pebble.write_configuration(life);
            if pebble.spawn().await {
                return Some(pebble);
            }
        }
        panic!("pebble ends at once, however often it is started:\n{}", pebble.written());
    }

    fn choose_ports(&mut self) {
        [self.acme, self.management, self.dns] = [(); 3].map(|()| lasting_address());
    }

    fn write_configuration(&self, life: Duration) {
        let file = |name: &str| self.home.path().join(name);
        let configuration = json!({ "pebble": {
            "listenAddress": self.acme.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": file("pebble.pem"),
            "privateKey": file("pebble.key"),
            "httpPort": self.http.address.port(),
            "tlsPort": self.tls.address.port(),
            "certificateValidityPeriod": life.as_secs(),
        }});
        std::fs::write(file("pebble.json"), configuration.to_string()).expect("a file can be made");
    }

    async fn spawn(&mut self) -> bool {
        let dns = self.dns.to_string();
        let mut names = self.command("pebble-challtestsrv".as_ref());
        names.args(["-dns01", &dns, "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-management", "127.0.0.1:0"]);
        let mut pebble = self.command(&self.program);
        pebble
            .arg("-config")
            .arg(self.home.path().join("pebble.json"))
            .arg("-dnsserver")
            .arg(self.asks.unwrap_or(self.dns).to_string());
        // Otherwise it waits for up to 15 s before it looks.
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        self.children = [names, pebble].map(|mut command| command.spawn().expect("it can be started")).into();
        let ready = async {
            loop {
                for child in &mut self.children {
                    if child.try_wait().expect("a child can be waited for").is_some() {
                        return false;
                    }
                }
                if TcpStream::connect(self.acme).await.is_ok() && TcpStream::connect(self.management).await.is_ok() {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, ready).await.unwrap_or(false)
    }

    fn command(&self, program: &Path) -> Command {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.log()).expect("a file can be made");
        let errors = log.try_clone().expect("a file can be opened twice");
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
        command
    }

    /// Kills it as a power failure would.
    pub async fn kill(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill().await;
        }
    }

    /// Starts it again after that, with other roots, and nothing in its memory.
    ///
    /// # Panics
    /// It does not work within [`LIMIT`].
    pub async fn start_again(&mut self) {
        assert!(self.spawn().await, "pebble does not start again:\n{}", self.written());
    }

    /// The URL for `--acme-directory`.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.acme)
    }

    /// The file for `--acme-ca`.
    pub fn ca(&self) -> PathBuf {
        self.home.path().join("pebble.pem")
    }

    /// Where it looks at names from now on: by HTTP, and by TLS. One after the other, if there are several; nowhere, if none.
    pub fn look_at(&self, http: &[SocketAddr], tls: &[SocketAddr]) {
        self.http.lead_to(http);
        self.tls.lead_to(tls);
    }

    /// How often it has looked by HTTP, and by TLS.
    pub fn looks(&self) -> (usize, usize) {
        (self.http.looks.load(Ordering::SeqCst), self.tls.looks.load(Ordering::SeqCst))
    }

    /// How many accounts were made.
    ///
    /// # Panics
    /// Its log cannot be read.
    pub fn accounts(&self) -> usize {
        let log = std::fs::read_to_string(self.log()).expect("it writes one");
        log.lines().filter(|line| line.contains("accounts in memory")).count()
    }

    /// A file with the root of the certificates that it signs.
    ///
    /// # Panics
    /// It does not tell.
    pub async fn root(&self) -> PathBuf {
        let itself = Visitor::new(self.management, self.management, &self.ca());
        let ready = async || TcpStream::connect(self.management).await.is_ok();
        until(LIMIT, "pebble tells of itself", ready).await;
        let root = itself.get(&format!("https://localhost:{}/roots/0", self.management.port())).await;
        assert_eq!(root.status, 200, "{}", root.text());
        let file = self.home.path().join("root.pem");
        std::fs::write(&file, root.body).expect("a file can be made");
        file
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("pebble.log")
    }

    fn written(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("--- pebble\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n"))
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.written());
        }
    }
}

/// The certificate of its API, as files in this directory.
fn make_certificate(directory: &Path) {
    let key = KeyPair::generate().expect("keys can be made");
    let names = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let certificate = CertificateParams::new(names).and_then(|params| params.self_signed(&key)).expect("it signs");
    for (name, text) in [("pebble.pem", certificate.pem()), ("pebble.key", key.serialize_pem())] {
        std::fs::write(directory.join(name), text).expect("a file can be made");
    }
}
