//! The API against what it says of itself: Schemathesis (PyPI) reads the document that a node serves, makes calls of all
//! kinds of it, right ones and wrong ones, and looks whether the answers are as described.

mod subjects;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::{Edge, Visitor, skip};
use serde_json::Value;
use subjects::Subjects;
use tokio::process::Command;
use tokio::time::timeout;

/// The same calls each time.
const SEED: u32 = 20_261_122;
/// Of each operation, right and wrong ones together.
const CALLS: u32 = 6;
/// A run takes half a minute; on a busy machine a good deal longer.
const RUN: Duration = Duration::from_secs(300);

/// What is looked at. Not that right data are taken: much of what must hold among several members no schema says. Not
/// `ignored_auth`, which wants 401 where the original answers 400: see below.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance,negative_data_rejection";

/// The paths of each run. A token has 1,200 calls in five minutes, so each has a token of its own.
const RUNS: [&str; 3] = ["^/client/v4/zones", "^/client/v4/accounts/", "^/(?!client/v4/(zones|accounts/))"];

/// Waits for a minute when it is asked rightly.
const WAITS: &str = "/{key}";

fn installed() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sdk/schemathesis/bin/schemathesis");
    if !path.exists() {
        skip("Schemathesis is not here; crates/snicket/tests/sdk/install gets it");
        return None;
    }
    Some(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_as_it_says() {
    let Some(schemathesis) = installed() else { return };
    let edge = Edge::start().await;
    let subjects = Subjects::make(&edge).await;
    let mut runs = Vec::new();
    for (index, paths) in RUNS.into_iter().enumerate() {
        let token = subjects.token(&edge).await;
        let place = edge.home().join(format!("fuzzer-{index}"));
        runs.push(run(&schemathesis, &edge, place, subjects.settings(), paths, token));
    }
    let failures: Vec<String> = futures_util::future::join_all(runs).await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What went wrong, if anything did.
async fn run(
    program: &Path,
    edge: &Edge,
    place: PathBuf,
    settings: String,
    paths: &str,
    token: String,
) -> Option<String> {
    std::fs::create_dir(&place).expect("a directory can be made");
    let file = place.join("schemathesis.toml");
    std::fs::write(&file, settings).expect("a file can be written");
    let mut command = Command::new(program);
    command
        .arg("--config-file")
        .arg(&file)
        .args(["run", &format!("http://{}/client/v4/openapi.json", edge.api())])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--include-path-regex", paths, "--exclude-path", WAITS])
        .args(["--checks", CHECKS, "--phases", "fuzzing", "--mode", "all"])
        .args(["--seed", &SEED.to_string(), "--max-examples", &CALLS.to_string()])
        .args(["--no-shrink", "--continue-on-failure", "--workers", "1", "--warnings", "off"])
        .env("NO_COLOR", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&place)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(RUN, command.output()).await.expect("the run ends in time").expect("the program runs");
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(said.contains(" generated, "), "no call was made: {said}");
    (!output.status.success()).then_some(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_that_wants_a_token_is_refused_without() {
    let edge = Edge::start().await;
    let visitor = Visitor::plain(edge.api());
    let document = edge.said(&["api", "GET", "/openapi.json"]).await;
    let document: Value = serde_json::from_str(&document).expect("the document is JSON");
    let subjects = Subjects::make(&edge).await;
    let mut guarded = 0;
    for (path, operations) in document["paths"].as_object().expect("the document has paths") {
        let operations = operations.as_object().expect("a path has operations").iter();
        for (method, _) in operations.filter(|(_, operation)| operation.get("security").is_some()) {
            let (method, path) = (method.to_uppercase(), subjects.filled(path));
            let verifies = path.ends_with("/tokens/verify");
            for (headers, status) in [
                (&[][..], 400),
                (&[("authorization", "Bearer nobody")], if verifies { 401 } else { 403 }),
                (&[("authorization", "Basic bm9ib2R5")], 400),
                (&[("x-auth-email", "a@b.test"), ("x-auth-key", "nobody")], 403),
            ] {
                let answer = visitor.request(&method, &path, headers, "").await;
                assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text());
            }
            guarded += 1;
        }
    }
    assert!(guarded > 150, "{guarded}");
}
