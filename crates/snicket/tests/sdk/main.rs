//! Other people's clients of the API against a node, with only the base URL and the token changed: the Python SDK, the npm SDK,
//! and curl.

use std::ffi::OsStr;
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

/// Runs one of the scripts beside this file to its end.
async fn walk(edge: &Edge, program: &Path, script: &str, variables: &[(&str, &OsStr)]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script);
    let mut command = Command::new(program);
    command
        .arg(&script)
        .env("CLOUDFLARE_BASE_URL", format!("http://{}/client/v4", edge.api()))
        .env("CLOUDFLARE_API_TOKEN", edge.token())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(WALK, command.output()).await.expect("the walk ends in time").expect("the program runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{said}", script.display(), output.status);
    println!("{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_walks() {
    let Some(python) = installed("python/bin/python") else { return };
    walk(&Edge::start().await, &python, "walk.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_npm_sdk_walks() {
    let Some(modules) = installed("npm/node_modules") else { return };
    let Some(node) = peer("node", "apt-get install nodejs brings it") else { return };
    walk(&Edge::start().await, &node, "walk.mjs", &[("NODE_PATH", modules.as_ref())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_walks() {
    for (program, install) in [("curl", "apt-get install curl brings it"), ("jq", "apt-get install jq brings it")] {
        if peer(program, install).is_none() {
            return;
        }
    }
    let (edge, origin) = (Edge::start().await, Origin::start().await);
    let (tunnel, https) = (edge.tunnel().to_string(), edge.https().to_string());
    let (ca, service) = (edge.ca(), origin.service());
    let variables = [
        ("SNICKET", OsStr::new(env!("CARGO_BIN_EXE_snicket"))),
        ("TUNNEL", tunnel.as_ref()),
        ("HTTPS", https.as_ref()),
        ("CA", ca.as_ref()),
        ("ORIGIN", service.as_ref()),
    ];
    walk(&edge, Path::new("bash"), "walk.sh", &variables).await;
}
