//! A network of a test's own: loopback and nothing else, with rules that lose packets and names of the test's choice.

use std::future::Future;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use crate::skip;

/// Tells the test that it has been started again inside.
const INSIDE: &str = "SNICKET_TEST_NETWORK";

/// The network that a test runs in, with mounts of its own. The kernel removes it, and its rules, with the last process in it, however that
/// ends.
#[derive(Debug)]
pub struct Network(());

impl Network {
    /// Runs a test in a network namespace of its own: starts the test binary again in one, with this test only. `test`
    /// is its full name, such as `vanished::over_tcp`. Where that is not allowed, the test is skipped.
    ///
    /// # Panics
    /// The test fails, or has another name.
    pub fn run<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Self) -> F) {
        if std::env::var_os(INSIDE).is_some() {
            command("ip", &["link", "set", "lo", "up"]);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(body(Self(())));
            return;
        }
        let Some(unshare) = unshare() else { return };
        let binary = std::env::current_exe().expect("a running test has a path");
        let output = Command::new(unshare[0])
            .args(&unshare[1..])
            .arg(binary)
            .args(["--exact", test, "--nocapture", "--test-threads", "1"])
            .env(INSIDE, test)
            .stdin(Stdio::null())
            .output()
            .expect("the test starts again");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        print!("{out}");
        eprint!("{err}");
        assert!(
            output.status.success() && out.contains("1 passed"),
            "{test} failed in a network of its own, see above"
        );
    }

    /// From now on whatever fits is lost on arrival, such as `udp dport 7844`; the sender does not learn of it.
    ///
    /// # Panics
    /// It is no rule.
    pub fn lose(&self, what: &str) {
        command("nft", &["add", "table", "inet", "loss"]);
        command("nft", &["add", "chain", "inet", "loss", "in", "{ type filter hook input priority 0 ; }"]);
        command("nft", &["add", "rule", "inet", "loss", "in", &format!("{what} drop")]);
    }

    /// From now on this name has these addresses, and no other name has any.
    ///
    /// # Panics
    /// The file of names cannot be replaced.
    pub fn name(&self, name: &str, addresses: &[&str]) {
        let lines: String = addresses.iter().map(|address| format!("{address} {name}\n")).collect();
        let directory = tempfile::tempdir().expect("a directory can be made");
        let file = directory.path().join("hosts");
        std::fs::write(&file, lines).expect("a file can be written");
        // The mount keeps the file when its name is gone.
        command("mount", &["--bind", &file.display().to_string(), "/etc/hosts"]);
    }

    /// Hosts beside this one, each in a network of its own with one address and a cable to a switch; this one, at
    /// [`Host::SWITCH`], reaches them all.
    ///
    /// # Panics
    /// They cannot be made, or there are some already.
    pub fn hosts(&self, count: u8) -> Vec<Host> {
        command("ip", &["link", "add", SWITCH, "type", "bridge"]);
        command("ip", &["address", "add", &format!("{}/24", Host::SWITCH), "dev", SWITCH]);
        command("ip", &["link", "set", SWITCH, "up"]);
        (1..=count).map(Host::start).collect()
    }

    /// Takes the switch away, so that there may be other hosts.
    ///
    /// # Panics
    /// There were no hosts.
    pub fn no_hosts(&self) {
        command("ip", &["link", "delete", SWITCH]);
    }

    /// From now on nothing is lost.
    ///
    /// # Panics
    /// Nothing was lost before.
    pub fn heal(&self) {
        command("nft", &["delete", "table", "inet", "loss"]);
    }
}

/// The name of the switch between hosts; the network is the test's own.
const SWITCH: &str = "switch";

/// A network beside the test's own, with one address, as long as the value lives.
#[derive(Debug)]
pub struct Host {
    /// Does nothing but to be in it.
    holder: Child,
    /// The end of its cable at the switch.
    port: String,
    address: Ipv4Addr,
}

impl Host {
    /// Where the test itself is.
    pub const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);

    fn start(number: u8) -> Self {
        let holder = Command::new("unshare")
            // Ends when nobody can write to it any more, however the test ends.
            .args(["--net", "sh", "-c", "echo in && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a network can be made, since one was");
        let mut host = Self { holder, port: format!("port{number}"), address: Ipv4Addr::new(10, 99, 0, number) };
        let mut said = [0; 3];
        let out = host.holder.stdout.as_mut().expect("it is piped");
        out.read_exact(&mut said).expect("it says when it is in");
        let (port, process) = (host.port.as_str(), host.holder.id().to_string());
        command("ip", &["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", &process]);
        command("ip", &["link", "set", port, "master", SWITCH, "up"]);
        let inside = |words: &str| {
            let (program, rest) = host.within();
            let words: Vec<&str> = words.split(' ').collect();
            let rest: Vec<&str> = rest.iter().map(String::as_str).chain(words).collect();
            command(program, &rest);
        };
        inside("ip link set lo up");
        inside(&format!("ip address add {}/24 dev eth0", host.address));
        inside("ip link set eth0 up");
        host
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What starts a program there, in front of its command line; the process is the program's own.
    pub fn within(&self) -> (&'static str, Vec<String>) {
        ("nsenter", ["--target", &self.holder.id().to_string(), "--net", "--"].map(str::to_owned).to_vec())
    }

    /// Pulls its cable out of the switch: it reaches itself only, and nobody is told.
    ///
    /// # Panics
    /// The switch is gone.
    pub fn cut(&self) {
        // Beyond the switch, so that the host's own end stays up, as it does when a cable is cut further away.
        command("ip", &["link", "set", &self.port, "nomaster"]);
    }

    /// Puts its cable back.
    ///
    /// # Panics
    /// The switch is gone.
    pub fn mend(&self) {
        command("ip", &["link", "set", &self.port, "master", SWITCH]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // The kernel takes its time to remove a network, and another host may be given this one's name.
        let _ = Command::new("ip").args(["link", "delete", &self.port]).stderr(Stdio::null()).status();
    }
}

/// How a namespace of network and mounts is made here, if it can be.
fn unshare() -> Option<&'static [&'static str]> {
    let missing = ["nft", "ip", "unshare"].into_iter().find(|program| {
        let found = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_err()
    });
    if let Some(missing) = missing {
        skip(&format!("{missing} is not here; apt-get install nftables iproute2 util-linux"));
        return None;
    }
    let ways: [&[&str]; 2] = [&["unshare", "-nm"], &["unshare", "-rnm"]];
    let works = |way: &&&[&str]| {
        let probe = "ip link set lo up && nft add table inet probe";
        let tried = Command::new(way[0]).args(&way[1..]).args(["sh", "-c", probe]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(works).copied();
    if way.is_none() {
        skip("network namespaces with nftables are not allowed here; run as root, or allow user namespaces");
    }
    way
}

pub(crate) fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}
