//! Keeps the generated code in `src/schema` equal to what the compiler makes of `schema/*.capnp`.
//!
//! To generate it anew after a change: `SNICKET_REGENERATE=1 cargo test -p snicket-wire --test schema`.

use std::path::Path;
use std::process::Command;

const FILES: [&str; 2] = ["connect", "tunnel"];

#[test]
fn generated_code_is_current() {
    if Command::new("capnp").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("SNICKET_REQUIRE_PEERS").is_none(),
            "no Cap'n Proto compiler here, and SNICKET_REQUIRE_PEERS demands it: apt-get install capnproto"
        );
        eprintln!("skipped: no Cap'n Proto compiler here; get it with: apt-get install capnproto");
        return;
    }
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = tempfile::tempdir().expect("a directory for the generated code");
    let mut compiler = capnpc::CompilerCommand::new();
    compiler
        .src_prefix(crate_root.join("schema"))
        .output_path(output.path())
        .default_parent_module(vec!["schema".into()]);
    for name in FILES {
        compiler.file(crate_root.join(format!("schema/{name}.capnp")));
    }
    compiler.run().expect("the schema compiles");

    for name in FILES {
        let generated = output.path().join(format!("{name}_capnp.rs"));
        let checked_in = crate_root.join(format!("src/schema/{name}_capnp.rs"));
        if std::env::var_os("SNICKET_REGENERATE").is_some() {
            std::fs::copy(&generated, &checked_in).expect("the generated code is written");
            continue;
        }
        let same = std::fs::read(&generated).expect("was generated") == std::fs::read(&checked_in).unwrap_or_default();
        assert!(same, "{} is stale: run this test with SNICKET_REGENERATE=1", checked_in.display());
    }
}
