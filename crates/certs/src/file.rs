//! Files that are written whole or not at all.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::CertsError;

/// PEM files are a few kB; whatever is larger is something else.
const MAX_BYTES: u64 = 1 << 20;

pub(crate) fn problem(path: &Path, problem: impl Into<String>) -> CertsError {
    CertsError::File { path: path.to_owned(), problem: problem.into() }
}

fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CertsError {
    let path = path.to_owned();
    move |source| CertsError::Io { action, path, source }
}

pub(crate) fn read(path: &Path) -> Result<String, CertsError> {
    let mut text = String::new();
    // Not by the length that is told beforehand: that of a device or a pipe is 0.
    let taken = fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    if taken.map_err(cannot("cannot read", path))? as u64 > MAX_BYTES {
        return Err(problem(path, "too large for a certificate or key in PEM form (1 MiB at most)"));
    }
    Ok(text)
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, CertsError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(CertsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the directory, for its owner only, unless it is there.
pub(crate) fn make_directory(path: &Path) -> Result<(), CertsError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(cannot("cannot make the directory", path))
}

/// Writes beside the file, then puts it in its place, so that a crash leaves no half of it.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let beside = beside(path);
    write_new(&beside, text, mode)
        .and_then(|()| fs::rename(&beside, path))
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .map_err(cannot("cannot write", path))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let large = directory.path().join("large");
        fs::write(&large, vec![b'x'; (1 << 20) + 1]).unwrap();
        let mut files = vec![large];
        files.extend(cfg!(target_os = "linux").then(|| "/dev/zero".into()));
        for path in files {
            assert!(read(&path).unwrap_err().to_string().contains("too large"));
        }
    }
}
