use std::path::PathBuf;

use tokio::process::Command;

use crate::{LIMIT, Visitor, peer};

/// The program curl.
#[derive(Debug)]
pub struct Curl(PathBuf);

impl Curl {
    /// Finds it; without it on this machine, says so by way of [`peer`] and answers `None`.
    pub fn find() -> Option<Self> {
        peer("curl", "apt-get install curl brings it").map(Self)
    }

    /// Asks an edge for a URL as this visitor would, with more arguments; what it prints.
    ///
    /// # Panics
    /// It fails, or takes longer than [`LIMIT`].
    pub async fn ask(&self, visitor: &Visitor, url: &str, words: &[&str]) -> String {
        let (works, out, error) = self.run(visitor, url, words).await;
        assert!(works, "curl {words:?} {url}: {out}{error}");
        out
    }

    /// The same, be it that it fails: whether it worked, standard output, standard error.
    ///
    /// # Panics
    /// It takes longer than [`LIMIT`].
    pub async fn run(&self, visitor: &Visitor, url: &str, words: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(&self.0);
        command.args(["--silent", "--show-error"]).args(words);
        let (https, ca) = visitor.https();
        if let Some(ca) = ca {
            command.arg("--cacert").arg(ca);
        }
        // Whatever the name in the URL, the edge under test is asked.
        command.args(["--connect-to", &format!("::{}:", https.ip())]).arg(url).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.expect("curl ends").expect("curl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }
}
