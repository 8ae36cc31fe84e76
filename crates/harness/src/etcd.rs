use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::{Host, LIMIT, lasting_address, peer, until};

/// Of clients, members and metrics, where nobody else is.
const USUAL_PORTS: [u16; 3] = [2379, 2380, 2381];
/// A port that was free may be taken before etcd listens on it.
const STARTS: usize = 5;

/// A running etcd of one or several members, on loopback and free ports, with its files in a directory of its own. The
/// members end with it; when the test has failed, the end of what they wrote is shown.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    program: PathBuf,
    arguments: Vec<String>,
    tls: Option<EtcdCertificates>,
    home: TempDir,
}

/// What an [`Etcd`] with TLS asks of those who come, as PEM.
#[derive(Debug, Clone)]
pub struct EtcdCertificates {
    /// Signed all others.
    pub ca: String,
    /// Of a client.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

#[derive(Debug)]
struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    /// Where it tells of its health without TLS.
    metrics: SocketAddr,
    child: Option<Child>,
    /// What starts it on its host, if it has one.
    within: Option<(&'static str, Vec<String>)>,
}

impl Etcd {
    /// Starts so many members, and waits until they have a leader. `None` where etcd is not installed.
    ///
    /// # Panics
    /// They do not work within [`LIMIT`].
    pub async fn start(members: usize) -> Option<Self> {
        Self::start_with(members, &[], false).await
    }

    /// One member that is spoken to with TLS only, by those whom its authority knows.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn start_secure() -> Option<Self> {
        Self::start_with(1, &[], true).await
    }

    /// The same with more arguments of `etcd`.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn start_with(members: usize, arguments: &[&str], secure: bool) -> Option<Self> {
        let program = peer("etcd", "apt-get install etcd-server")?;
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        for _ in 1..STARTS {
            let mut etcd = Self::new(program.clone(), members, arguments.clone(), secure);
            if etcd.start_all().await {
                return Some(etcd);
            }
        }
        let mut etcd = Self::new(program, members, arguments, secure);
        assert!(etcd.start_all().await, "etcd ends at once, however often it is started:\n{}", etcd.written());
        Some(etcd)
    }

    /// A member on each of these hosts, that is spoken to with TLS only, by those whom its authority knows.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn start_on(hosts: &[Host]) -> Option<Self> {
        let program = peer("etcd", "apt-get install etcd-server")?;
        let home = tempfile::tempdir().expect("a directory can be made");
        let members = hosts.iter().map(|host| {
            let [client, peer, metrics] = USUAL_PORTS.map(|port| (host.address(), port).into());
            Member { client, peer, metrics, child: None, within: Some(host.within()) }
        });
        let addresses: Vec<_> = hosts.iter().map(Host::address).collect();
        let tls = Some(make_certificates(home.path(), &addresses));
        let mut etcd = Self { members: members.collect(), program, arguments: Vec::new(), tls, home };
        assert!(etcd.start_all().await, "etcd ends at once:\n{}", etcd.written());
        Some(etcd)
    }

    fn new(program: PathBuf, members: usize, arguments: Vec<String>, secure: bool) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let tls = secure.then(|| make_certificates(home.path(), &[Ipv4Addr::LOCALHOST]));
        let members = (0..members).map(|_| {
            let [client, peer, metrics] = [(); 3].map(|()| lasting_address());
            Member { client, peer, metrics, child: None, within: None }
        });
        Self { members: members.collect(), program, arguments, tls, home }
    }

    async fn start_all(&mut self) -> bool {
        for index in 0..self.members.len() {
            self.spawn(index);
        }
        let ready = async {
            loop {
                for index in 0..self.members.len() {
                    let child = self.members[index].child.as_mut().expect("spawned above");
                    if child.try_wait().expect("a child can be waited for").is_some() {
                        return false;
                    }
                }
                let mut healthy = 0;
                for index in 0..self.members.len() {
                    healthy += usize::from(self.is_healthy(index).await);
                }
                if healthy == self.members.len() {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, ready).await.unwrap_or(false)
    }

    fn spawn(&mut self, index: usize) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let name = |index: usize| format!("m{index}");
        let all = self.members.iter().enumerate();
        let cluster: Vec<_> = all.map(|(index, member)| format!("{}=http://{}", name(index), member.peer)).collect();
        let member = &self.members[index];
        let directory = self.home.path().join(name(index));
        let log =
            std::fs::OpenOptions::new().append(true).create(true).open(self.log(index)).expect("a file can be made");
        let mut command = match &member.within {
            None => Command::new(&self.program),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.program);
                command
            }
        };
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // Debian's is not for every machine that runs it well.
        command.env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"));
        command.args(["--name", &name(index), "--data-dir"]).arg(&directory);
        command.args(["--listen-client-urls", &format!("{scheme}://{}", member.client)]);
        command.args(["--advertise-client-urls", &format!("{scheme}://{}", member.client)]);
        command.args(["--listen-metrics-urls", &format!("http://{}", member.metrics)]);
        command.args(["--listen-peer-urls", &format!("http://{}", member.peer)]);
        command.args(["--initial-advertise-peer-urls", &format!("http://{}", member.peer)]);
        command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-token", "test"]);
        if self.tls.is_some() {
            let file = |name: &str| self.home.path().join(name);
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
            command.arg("--cert-file").arg(file("member.pem")).arg("--key-file").arg(file("member.key"));
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        self.members[index].child = Some(child);
    }

    /// `HOST:PORT` of all members, with commas between.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.members.iter().map(|member| member.client.to_string()).collect();
        addresses.join(",")
    }

    /// Where one member listens for clients.
    pub fn address(&self, member: usize) -> SocketAddr {
        self.members[member].client
    }

    /// What it asks of those who come, if it was started with TLS.
    pub fn certificates(&self) -> Option<&EtcdCertificates> {
        self.tls.as_ref()
    }

    /// Kills a member as a power failure would.
    pub async fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            let _ = child.kill().await;
        }
    }

    /// Starts a member again with its data, and waits until it works. It needs a majority for that.
    ///
    /// # Panics
    /// It does not within [`LIMIT`].
    pub async fn start_again(&mut self, member: usize) {
        self.start_these_again(&[member]).await;
    }

    /// The same with several, which may need one another.
    ///
    /// # Panics
    /// They do not work within [`LIMIT`].
    pub async fn start_these_again(&mut self, members: &[usize]) {
        members.iter().for_each(|member| self.spawn(*member));
        for member in members {
            until(LIMIT, "the member of etcd works again", async || self.is_healthy(*member).await).await;
        }
    }

    /// Starts a member anew without its data: what a copy from before would be, if it had been empty.
    ///
    /// # Panics
    /// It does not work within [`LIMIT`].
    pub async fn start_empty(&mut self, member: usize) {
        let directory = self.home.path().join(format!("m{member}"));
        std::fs::remove_dir_all(directory).expect("the member had data");
        self.start_again(member).await;
    }

    /// Stops a member's clock, as it were: it keeps its connections and says nothing. `CONT` goes on.
    ///
    /// # Panics
    /// It does not run.
    pub async fn signal(&self, member: usize, signal: &str) {
        let id = self.members[member].child.as_ref().and_then(Child::id).expect("the member runs");
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {id}")).status().await;
        assert!(status.expect("sh is everywhere").success(), "cannot send SIG{signal} to etcd");
    }

    /// Who leads.
    ///
    /// # Panics
    /// Nobody within [`LIMIT`], or TLS is spoken.
    pub async fn leader(&self) -> usize {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while tokio::time::Instant::now() < deadline {
            for index in 0..self.members.len() {
                let Some(metrics) = ask(self.members[index].metrics, "GET", "/metrics", "").await else { continue };
                if metrics.lines().any(|line| line == "etcd_server_is_leader 1") {
                    return index;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd has no leader");
    }

    /// Asks the JSON form of etcd's API at the first member, such as `kv/compaction`.
    ///
    /// # Panics
    /// It does not answer with JSON, or with an error.
    pub async fn post(&self, path: &str, request: &Value) -> Value {
        let answer = self.try_post(0, path, request).await.unwrap_or_else(|| panic!("no answer to {path}"));
        assert!(answer.get("error").is_none(), "{path}: {answer}");
        answer
    }

    async fn try_post(&self, member: usize, path: &str, request: &Value) -> Option<Value> {
        let answer = ask(self.members[member].client, "POST", &format!("/v3/{path}"), &request.to_string()).await?;
        serde_json::from_str(&answer).ok()
    }

    async fn is_healthy(&self, member: usize) -> bool {
        let answer = ask(self.members[member].metrics, "GET", "/health", "").await;
        answer.is_some_and(|answer| answer.contains(r#""health":"true""#))
    }

    fn log(&self, member: usize) -> PathBuf {
        self.home.path().join(format!("m{member}.log"))
    }

    fn written(&self) -> String {
        let end = |index| {
            let text = std::fs::read_to_string(self.log(index)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- etcd {index}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        (0..self.members.len()).map(end).collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.written());
        }
    }
}

/// One request by HTTP/1.0, whose answer ends with the connection. `None`: no answer.
async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8(answer).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    };
    tokio::time::timeout(LIMIT, asked).await.ok()?
}

/// An authority, a member's certificate and a client's, as files in this directory.
fn make_certificates(directory: &Path, addresses: &[Ipv4Addr]) -> EtcdCertificates {
    let key = || KeyPair::generate().expect("keys can be made");
    let mut authority = CertificateParams::new([]).expect("no name is wrong");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = key();
    let ca = authority.self_signed(&authority_key).expect("the authority signs itself");
    let issuer = Issuer::new(authority, authority_key);
    let signed = |name: &str| {
        let key = key();
        let names: Vec<_> = [name.to_owned()].into_iter().chain(addresses.iter().map(Ipv4Addr::to_string)).collect();
        let params = CertificateParams::new(names).expect("the names are names");
        let certificate = params.signed_by(&key, &issuer).expect("the authority signs");
        (certificate.pem(), key.serialize_pem())
    };
    let (member, member_key) = signed("member");
    for (name, text) in [("ca.pem", ca.pem()), ("member.pem", member), ("member.key", member_key)] {
        std::fs::write(directory.join(name), text).expect("a file can be made");
    }
    let (certificate, key) = signed("node");
    EtcdCertificates { ca: ca.pem(), certificate, key }
}
