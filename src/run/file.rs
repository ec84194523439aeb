//! Files that are replaced as a whole: whoever reads sees the one before or the one after, also after a power cut.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

/// Replaces `path` by what `write` writes. Its folder is made if it is missing; only the owner may read it.
///
/// What is half done goes into a file beside it, which goes away on failure: a full disk gets its room back. That file
/// is locked, so that two agents with one path (an update without a gap) do not write into each other's.
///
/// # Errors
/// Those of the kernel and of `write`; [`io::ErrorKind::WouldBlock`]: another process is just writing it.
pub(crate) fn replace<T>(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let beside = beside(path, ".new");
    let file = match claim(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            claim(&beside)?
        }
        claimed => claimed?,
    };
    let outcome = (|| {
        file.set_len(0)?;
        let mut out = BufWriter::new(file);
        let written = write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()?;
        Ok(written)
    })();
    if outcome.is_err() {
        // The error says what there is to say.
        let _ = fs::remove_file(&beside);
    }
    outcome
}

/// `path` with `suffix` behind its last part.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens `path` for us alone.
fn claim(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Not truncated: it may be another's. A link or a pipe somebody put there is not followed, nor waited for.
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another process is writing it"),
    })?;
    let opened = file.metadata()?;
    // Between opening and locking, whoever held the lock may have renamed the file to its final name.
    match fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) => Ok(file),
        _ => Err(io::Error::new(io::ErrorKind::WouldBlock, "another process has just written it")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/for/it/file");
        replace(&path, |out| out.write_all(b"one")).expect("the folder is ours");
        assert_eq!(fs::read(&path).expect("it is there"), b"one");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        let failed = replace(&path, |out| out.write_all(b"two").and(Err::<(), _>(io::Error::other("no more"))));
        assert_eq!(failed.expect_err("it failed").to_string(), "no more");
        assert_eq!(fs::read(&path).expect("it is there"), b"one");
        assert_eq!(fs::read_dir(path.parent().expect("in a folder")).expect("ours").count(), 1, "nothing left over");
    }

    #[test]
    fn one_who_writes_keeps_the_other_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let inner = replace(&path, |_| {
            Ok(replace(&path, |out| out.write_all(b"other")).expect_err("the first is not done").kind())
        });
        assert_eq!(inner.expect("the folder is ours"), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, victim) = (folder.path().join("file"), folder.path().join("victim"));
        fs::write(&victim, "precious").expect("ours");
        std::os::unix::fs::symlink(&victim, beside(&path, ".new")).expect("ours");
        assert!(replace(&path, |out| out.write_all(b"x")).is_err());
        assert_eq!(fs::read(&victim).expect("it is there"), b"precious");
    }
}
