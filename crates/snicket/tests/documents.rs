//! What README.md and docs/ say of the program, compared with the program. Command lines and flags are compared beside
//! the parser.

use std::collections::BTreeSet;
use std::path::Path;

use harness::Program;

fn page(name: &str) -> String {
    let path = format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The first block of this language on a page that contains this text.
fn block(page: &str, language: &str, holding: &str) -> String {
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix(language));
    blocks.filter(|block| block.contains(holding)).map(str::to_owned).next().expect("the page has the example")
}

async fn run(words: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().expect("a directory can be made");
    Program::new(home.path(), words).run().await
}

#[tokio::test]
async fn the_codes_are_those_of_explain() {
    let page = page("docs/troubleshooting.md");
    let documented = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (cells.len() == 5 && cells[1].parse::<u16>().is_ok())
            .then(|| (cells[1].to_owned(), cells[2].to_owned(), cells[3].to_owned()))
    });
    let (_, out, _) = run(&["explain", "--json"]).await;
    let known = out.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        (event["code"].to_string(), event["status"].to_string(), event["title"].as_str().unwrap().to_owned())
    });
    assert_eq!(documented.collect::<Vec<_>>(), known.collect::<Vec<_>>());
}

#[tokio::test]
async fn every_code_has_a_test_that_brings_it_about() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut named = BTreeSet::new();
    for tests in ["edge/tests/edge", "snicket/tests/visitor", "snicket/tests/balance"] {
        for file in std::fs::read_dir(crates.join(tests)).expect("tests are there") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("a test can be read");
            named.extend(text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned));
        }
    }
    let (_, out, _) = run(&["explain", "--json"]).await;
    for line in out.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(named.contains(&event["code"].to_string()), "no test of the edge, visitors or balancing has {event}");
    }
}

#[tokio::test]
async fn the_example_of_rules_is_valid() {
    let example = block(&page("docs/named-tunnels.md"), "yaml", "ingress:");
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.yml"), example).unwrap();
    let words = ["tunnel", "--config", "config.yml", "ingress", "validate"];
    let (code, out, error) = Program::new(home.path(), &words).run().await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn the_example_of_an_edge_is_read() {
    let example = block(&page("docs/run-an-edge.md"), "yaml", "domain:");
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("edge.yml"), format!("{example}\nno-such-key: 1\n")).unwrap();
    let (code, _, error) = Program::new(home.path(), &["up", "--config", "edge.yml"]).run().await;
    assert_eq!(code, 2, "{error}");
    // All mistakes are told at once, so this one is the only one.
    assert_eq!(error.matches("edge.yml:").count(), 1, "{error}");
    assert!(error.contains("no-such-key"), "{error}");
}
