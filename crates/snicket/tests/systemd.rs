//! `snicket service`, on a directory that stands for a machine's root, judged by systemd's own tools.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::Program;
use serde_json::Value;
use tokio::net::UnixDatagram;
use tokio::process::Command;

const UNITS: &str = "etc/systemd/system";

/// Nothing that works takes so long, on a busy machine of two cores either.
const LIMIT: Duration = Duration::from_secs(30);

/// What `systemd-analyze security` calls "OK" begins at 4.9; a hardened service stays well below.
const EXPOSURE: f64 = 2.0;

/// A machine without anything on it but an edge's files.
struct Image {
    root: tempfile::TempDir,
}

impl Image {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("ca.pem"), "a certificate").unwrap();
        Self { root }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.path().join(UNITS).join(format!("{name}.service"))
    }

    fn program(&self, action: &str, words: &[&str]) -> Program {
        let root = self.path().display().to_string();
        let own = std::env::current_exe().unwrap().display().to_string();
        let mut all = vec!["service", action, "--json", "--root", &root];
        if action == "install" {
            all.extend(["--program", &own]);
        }
        all.extend(words);
        Program::new(self.path(), &all)
    }

    async fn run(&self, action: &str, words: &[&str]) -> Value {
        let (code, out, error) = self.program(action, words).run().await;
        assert_eq!(code, 0, "{out}{error}");
        serde_json::from_str(out.lines().next().unwrap_or_default()).unwrap()
    }
}

fn required() -> bool {
    std::env::var_os("SNICKET_REQUIRE_PEERS").is_some()
}

/// Runs one of systemd's tools; `None` where there is none, which CI does not allow.
async fn analyze(words: &[&str]) -> Option<(bool, String)> {
    match Command::new("systemd-analyze").args(words).output().await {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Err(error) => {
            assert!(!required(), "systemd-analyze: {error}");
            None
        }
    }
}

async fn accepted_by_systemd(unit: &Path) {
    let path = unit.display().to_string();
    let Some((good, said)) = analyze(&["verify", "--recursive-errors=no", &path]).await else { return };
    assert!(good && said.is_empty(), "{said}");
    let (_, said) = analyze(&["security", "--offline=true", "--no-pager", &path]).await.expect("it is there");
    let level = said.lines().last().and_then(|line| line.split_once(": ")).map(|(_, level)| level.to_owned());
    let level: f64 =
        level.as_deref().and_then(|text| text.split(' ').next()?.parse().ok()).expect("a level at the end");
    assert!(level <= EXPOSURE, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_are_installed_once_and_accepted_by_systemd() {
    let image = Image::new();
    let edge = ["up", "--domain", "tunnel.example.com", "--https", "443", "--http", "80"];
    assert_eq!(image.run("install", &edge).await["outcome"], "installed");
    assert_eq!(image.run("install", &edge).await["outcome"], "unchanged");
    assert_eq!(image.run("install", &edge[..5]).await["outcome"], "replaced");
    let agent = ["http", "3000", "--edge", "tunnel.example.com", "--ca", "ca.pem"];
    assert_eq!(image.run("install", &agent).await["outcome"], "installed");
    for name in ["snicket-edge", "snicket-agent"] {
        let link = image.path().join(UNITS).join(format!("multi-user.target.wants/{name}.service"));
        assert_eq!(std::fs::read_link(link).unwrap(), Path::new("/").join(UNITS).join(format!("{name}.service")));
        accepted_by_systemd(&image.unit(name)).await;
    }
    let text = std::fs::read_to_string(image.unit("snicket-agent")).unwrap();
    let ca = image.path().canonicalize().unwrap().join("ca.pem");
    assert!(text.contains(&format!("LoadCredential=ca:{}\n", ca.display())), "{text}");

    let (code, out, error) = image.program("uninstall", &[]).run().await;
    assert!(code == 2 && error.contains("snicket-agent, snicket-edge"), "{out}{error}");
    for name in ["snicket-edge", "snicket-agent"] {
        assert_eq!(image.run("uninstall", &["--name", name]).await["outcome"], "removed");
        assert_eq!(image.run("uninstall", &["--name", name]).await["outcome"], "absent");
        assert!(!image.unit(name).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_by_input_or_variable_and_is_for_root_only() {
    let image = Image::new();
    let words = ["tunnel", "--edge", "edge.example:7844", "run", "--token-file", "-"];
    let (code, out, error) = image.program("install", &words).input("the-token\n").run().await;
    assert_eq!(code, 0, "{out}{error}");
    let stored = image.path().join("etc/snicket/snicket-agent.token-file");
    assert_eq!(std::fs::read_to_string(&stored).unwrap(), "the-token\n");
    assert_eq!(std::fs::metadata(&stored).unwrap().permissions().mode() & 0o777, 0o600);
    let unit = std::fs::read_to_string(image.unit("snicket-agent")).unwrap();
    assert!(!unit.contains("the-token"), "{unit}");
    assert!(unit.contains("run --token-file ${CREDENTIALS_DIRECTORY}/token-file\n"), "{unit}");

    let words = ["--name", "other", "tunnel", "--edge", "edge.example:7844", "run"];
    let (code, out, error) = image.program("install", &words).run().await;
    assert!(code == 2 && error.contains("TUNNEL_TOKEN"), "{out}{error}");
    let (code, out, error) = image.program("install", &words).env("TUNNEL_TOKEN", "second").run().await;
    assert_eq!(code, 0, "{out}{error}");
    let other = image.path().join("etc/snicket/other.token-file");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "second\n");

    image.run("uninstall", &["--name", "other"]).await;
    assert!(!other.exists() && stored.exists(), "only the secret of the service that goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn printing_writes_nothing() {
    let image = Image::new();
    let event = image.run("install", &["--print", "up", "--domain", "tunnel.example.com"]).await;
    assert_eq!(event["path"], "/etc/systemd/system/snicket-edge.service");
    assert!(event["text"].as_str().unwrap().contains("DynamicUser=yes"), "{event}");
    assert_eq!(std::fs::read_dir(image.path()).unwrap().count(), 1, "only the certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_brings_its_files_and_ports() {
    let image = Image::new();
    std::fs::write(image.path().join("edge.yml"), "domain: t.example\nhttps: 443\ngrace-period: 2m\n").unwrap();
    let (code, out, error) = image.program("install", &["up", "--config", "edge.yml"]).run().await;
    assert!(code == 2 && error.contains("install -D -m 644"), "temporary files are not seen: {out}{error}");

    // A place that a service sees, and that is gone afterwards: beside the test's own binary.
    let seen = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    if ["/home", "/root", "/tmp"].iter().any(|hidden| seen.path().starts_with(hidden)) {
        return;
    }
    let config = seen.path().join("edge.yml");
    std::fs::copy(image.path().join("edge.yml"), &config).unwrap();
    image.run("install", &["up", "--config", &config.display().to_string()]).await;
    let text = std::fs::read_to_string(image.unit("snicket-edge")).unwrap();
    for expected in ["AmbientCapabilities=CAP_NET_BIND_SERVICE", "TimeoutStopSec=130"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }

    let config = seen.path().join("agent.yml");
    std::fs::write(image.path().join("web.json"), "{}").unwrap();
    let credentials = image.path().join("web.json").display().to_string();
    std::fs::write(&config, format!("tunnel: web\ncredentials-file: {credentials}\nedge: [edge.example:7844]\n"))
        .unwrap();
    image.run("install", &["tunnel", "--config", &config.display().to_string(), "run"]).await;
    let text = std::fs::read_to_string(image.unit("snicket-agent")).unwrap();
    assert!(text.contains(&format!("LoadCredential=credentials-file:{credentials}\n")), "{text}");
    assert!(text.contains("--credentials-file ${CREDENTIALS_DIRECTORY}/credentials-file"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_well_is_refused_with_the_next_step() {
    let image = Image::new();
    for (words, reason) in [
        (&["http", "3000"][..], "--edge"),
        (&["http", "3000", "--edge", "e", "--token-file", "absent"], "absent is no file"),
        (&["tunnel", "list"], "no service"),
        (&["up", "--data", "x"], "/var/lib"),
        (&["--name", "../x", "up"], "letters"),
    ] {
        let (code, out, error) = image.program("install", words).run().await;
        assert!(code == 2 && error.contains(reason), "{words:?}: {out}{error}");
    }
    let theirs = image.unit("snicket-edge");
    std::fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    std::fs::write(&theirs, "[Service]\nExecStart=/bin/true\n").unwrap();
    let (code, _, error) = image.program("install", &["up"]).run().await;
    assert!(code == 1 && error.contains("--name"), "{error}");
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "[Service]\nExecStart=/bin/true\n");
    let (code, _, error) = image.program("status", &[]).run().await;
    assert!(code == 1 && error.contains("no service"), "{error}");
}

/// The real machine is not touched: either this is not root, or systemd does not run it, and with both the test has
/// nothing to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_be_changed_is_left_alone() {
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    let expected = match (root, Path::new("/run/systemd/system").exists()) {
        (false, _) => "sudo",
        (true, false) => "not run by systemd",
        (true, true) => return,
    };
    let home = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap().display().to_string();
    let (code, _, error) = Program::new(home.path(), &["service", "install", "--program", &own, "up"]).run().await;
    assert!(code == 1 && error.contains(expected), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_reach_systemd() {
    let home = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
    let ports = ["--http", "0", "--https", "0", "--tunnel", "0", "--api", "0"];
    let words = [&["up", "--json"][..], &ports].concat();
    let process = Program::new(home.path(), &words)
        .env("NOTIFY_SOCKET", home.path().join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .start()
        .await;
    let mut buffer = [0; 64];
    for expected in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        let length = tokio::time::timeout(LIMIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
    }
    drop(process);
}
