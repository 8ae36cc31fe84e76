//! Files that hold secrets, or that others must not see half-written.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;

use crate::problem::Problem;

/// Longest secret that is read from a file or standard input: tokens are well below a kilobyte, cert.pem below four.
const LONGEST_SECRET: u64 = 64 * 1024;

/// A token, never printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps a text, without white space around it.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The text, for the wire or a 0600 file.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file; `-` is standard input.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let (text, place) = if path == Path::new("-") {
            (read_stdin(), "standard input".to_owned())
        } else {
            (read_file(path), path.display().to_string())
        };
        let text = text.with_context(|| {
            Problem::usage(
                format!("cannot read the secret in {place}"),
                "check the path and that you may read the file; `-` reads standard input",
            )
        })?;
        let secret = Self::new(&text);
        if secret.0.is_empty() {
            return Err(Problem::usage(format!("{place} holds no secret"), "write the token into it").into());
        }
        Ok(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// Reads all of standard input, within [`LONGEST_SECRET`].
pub(crate) fn read_stdin() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(LONGEST_SECRET).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a file within [`LONGEST_SECRET`].
pub(crate) fn read_file(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST_SECRET).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file that only its owner may read, all of it or nothing: a reader never sees half, and a file that stood
/// there before is replaced. Directories that are missing are made, open to the owner only.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let attempt = || -> std::io::Result<()> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        make_private_dir(parent)?;
        let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?.to_string_lossy();
        let draft = parent.join(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&draft).and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()
        });
        let placed = written.and_then(|()| std::fs::rename(&draft, path));
        if placed.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        placed
    };
    attempt().with_context(|| {
        Problem::new(
            format!("cannot write {}", path.display()),
            "check that its directory is writable and the disk is not full",
        )
    })
}

/// Makes a directory and its parents; those it makes are open to the owner only.
pub(crate) fn make_private_dir(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Whether others than the owner may read the file. Where the system has no such notion: no.
pub(crate) fn is_exposed(path: &Path) -> std::io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    #[cfg(unix)]
    {
        Ok(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_whole_and_unreadable_by_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/token");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two\n").unwrap();
        assert!(!is_exposed(&path).unwrap());
        assert_eq!(Secret::read(&path).unwrap().reveal(), "two");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn an_empty_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "\n").unwrap();
        assert!(Secret::read(&path).unwrap_err().to_string().contains("holds no secret"));
    }

    #[test]
    fn debug_output_hides_the_text() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }
}
