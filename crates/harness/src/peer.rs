use std::path::PathBuf;

/// Set by CI: a part that is missing fails the test instead of skipping it.
const REQUIRE: &str = "SNICKET_REQUIRE_PEERS";

/// Finds a real program, such as `curl`. When it is not there, says in one line what is skipped and how to get it, and
/// answers `None`.
///
/// # Panics
/// When it is not there and `SNICKET_REQUIRE_PEERS` is set.
pub fn peer(program: &str, install: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
    });
    if found.is_none() {
        skip(&format!("{program} is not here; {install}"));
    }
    found
}

/// Says that the rest of a test is skipped, and why. The test returns after it.
///
/// # Panics
/// When `SNICKET_REQUIRE_PEERS` is set.
pub fn skip(why: &str) {
    assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and {why}");
    eprintln!("skipped: {why}");
}
