//! What README.md and docs/ say of the program, compared with the program.

use std::collections::BTreeSet;

use harness::Program;

const PAGES: [&str; 10] = [
    "README.md",
    "docs/access.md",
    "docs/inspector.md",
    "docs/join-with-cloudflared.md",
    "docs/json-output.md",
    "docs/named-tunnels.md",
    "docs/run-an-edge.md",
    "docs/service.md",
    "docs/share-a-local-site.md",
    "docs/troubleshooting.md",
];

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
async fn every_documented_flag_is_known() {
    let commands = [
        "tunnel run",
        "tunnel create",
        "tunnel login",
        "tunnel",
        "up",
        "http",
        "try",
        "cloudflared",
        "health",
        "service install",
        "service uninstall",
    ];
    for flag in PAGES.into_iter().flat_map(|name| flags(&page(name))).collect::<BTreeSet<_>>() {
        let mut known = false;
        for command in commands {
            let words: Vec<_> = command.split(' ').chain([flag.as_str(), "--help"]).collect();
            // Whatever else is missing, a flag that is known is not called unexpected.
            let (_, _, error) = run(&words).await;
            known = !error.contains("unexpected argument");
            if known {
                break;
            }
        }
        assert!(known, "no command has {flag}");
    }
}

/// The long flags that a page names, but for those in command lines of other programs.
fn flags(page: &str) -> Vec<String> {
    let ours = page.lines().filter(|line| !line.contains("curl ") && !line.contains("cargo "));
    let words = ours.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    words
        .filter(|word| word.starts_with("--") && word.len() > 3 && !word.starts_with("---"))
        .map(str::to_owned)
        .collect()
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
