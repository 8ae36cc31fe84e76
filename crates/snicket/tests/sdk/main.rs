//! Other people's clients of the API against a node, with only the base URL and the token changed: the Python SDK, the npm SDK,
//! octoDNS and curl. Over https, they are told of the edge's authority as well.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::{Edge, Origin, peer, skip};
use tokio::process::Command;
use tokio::time::timeout;

/// A client of the SDKs takes seconds to begin, and the walk makes thousands of records; on a busy machine, a good deal longer.
const WALK: Duration = Duration::from_secs(300);

/// What `sdk/install` has put here; tells what is skipped if it has not.
fn installed(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sdk").join(part);
    if !path.exists() {
        skip("the SDKs are not here; crates/snicket/tests/sdk/install gets them");
        return None;
    }
    Some(path)
}

/// A program of other people's that runs one of the scripts beside this file.
struct Walk {
    program: PathBuf,
    script: &'static str,
    /// How it is told of authorities that the system does not know.
    ca: &'static str,
    variables: Vec<(&'static str, OsString)>,
}

impl Walk {
    fn python() -> Option<Self> {
        let program = installed("python/bin/python")?;
        Some(Self { program, script: "walk.py", ca: "SSL_CERT_FILE", variables: Vec::new() })
    }

    fn octodns() -> Option<Self> {
        let program = installed("octodns/bin/python")?;
        Some(Self { program, script: "octodns.py", ca: "REQUESTS_CA_BUNDLE", variables: Vec::new() })
    }

    fn npm() -> Option<Self> {
        let modules = installed("npm/node_modules")?;
        let program = peer("node", "apt-get install nodejs brings it")?;
        Some(Self {
            program,
            script: "walk.mjs",
            ca: "NODE_EXTRA_CA_CERTS",
            variables: vec![("NODE_PATH", modules.into())],
        })
    }

    fn curl(edge: &Edge, origin: &Origin) -> Option<Self> {
        for program in ["curl", "jq"] {
            peer(program, &format!("apt-get install {program} brings it"))?;
        }
        let variables = vec![
            ("SNICKET", env!("CARGO_BIN_EXE_snicket").into()),
            ("TUNNEL", edge.tunnel().to_string().into()),
            ("HTTPS", edge.https().to_string().into()),
            ("CA", edge.ca().into()),
            ("ORIGIN", origin.service().into()),
        ];
        Some(Self { program: "bash".into(), script: "walk.sh", ca: "CURL_CA_BUNDLE", variables })
    }

    /// To its end, against the API at this address: whether it went well, and what was said.
    async fn run(&self, edge: &Edge, api: &str, ca: Option<&Path>) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(self.script);
        let mut command = Command::new(&self.program);
        command
            .arg(&script)
            .env("CLOUDFLARE_BASE_URL", format!("{api}/client/v4"))
            .env("CLOUDFLARE_API_TOKEN", edge.token())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove(self.ca)
            .envs(ca.map(|ca| (self.ca, ca)))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(WALK, command.output()).await.expect("the walk ends in time").expect("the program runs");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        (output.status.success(), said)
    }

    async fn over_http(&self, edge: &Edge) {
        let (went_well, said) = self.run(edge, &format!("http://{}", edge.api()), None).await;
        assert!(went_well, "{}: {said}", self.script);
        println!("{said}");
    }

    /// The same port takes both; on other addresses than loopback, TLS alone.
    async fn over_https(&self, edge: &Edge) {
        let api = format!("https://localhost:{}", edge.api().port());
        let (went_well, said) = self.run(edge, &api, None).await;
        assert!(!went_well && said.to_lowercase().contains("certificate"), "{}: {said}", self.script);
        let (went_well, said) = self.run(edge, &api, Some(&edge.ca())).await;
        assert!(went_well, "{}: {said}", self.script);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_walks() {
    let Some(walk) = Walk::python() else { return };
    walk.over_http(&Edge::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn octodns_carries_zones_over() {
    let (edge, files) = (Edge::start().await, tempfile::tempdir().expect("a directory can be made"));
    let Some(mut walk) = Walk::octodns() else { return };
    walk.variables.push(("TMPDIR", files.path().into()));
    walk.over_http(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_npm_sdk_walks() {
    let Some(walk) = Walk::npm() else { return };
    walk.over_http(&Edge::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_walks() {
    let (edge, origin) = (Edge::start().await, Origin::start().await);
    let Some(walk) = Walk::curl(&edge, &origin) else { return };
    walk.over_http(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_walks_over_https_with_the_edge_s_authority() {
    let Some(walk) = Walk::python() else { return };
    walk.over_https(&Edge::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_npm_sdk_walks_over_https_with_the_edge_s_authority() {
    let Some(walk) = Walk::npm() else { return };
    walk.over_https(&Edge::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_walks_over_https_with_the_edge_s_authority() {
    let (edge, origin) = (Edge::start().await, Origin::start().await);
    let Some(walk) = Walk::curl(&edge, &origin) else { return };
    walk.over_https(&edge).await;
}
