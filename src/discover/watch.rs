//! Whether a file may have changed, as the kernel tells it.
//!
//! The promise: a change made after [`FileWatcher::new`] or [`FileWatcher::changed`] has returned ends the next wait,
//! whether the file is written, replaced, or reached through a symlink that is swapped, as `..data` is where
//! Kubernetes mounts files. What cannot be seen is a link in the middle of a chain, in a directory neither the file nor
//! its final target is in, and what a network file system does not report: read the file now and then all the same.
//!
//! Read first: inotify(7).

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use inotify::{Inotify, WatchMask};
use tokio::net::unix::pipe;

/// Watches the directories in which a change may concern a file: its own, and that of what it points to.
pub struct FileWatcher {
    path: PathBuf,
    inotify: Inotify,
    /// The same open file; all that matters of an event is that it comes.
    events: pipe::Receiver,
}

// === impl FileWatcher ===

impl FileWatcher {
    /// Begins to watch `path`, which need not exist; its directory must. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says: no such directory, or too many watchers already.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let events = pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        let watcher = Self { path: path.into(), inotify, events };
        watcher.add(path)?;
        watcher.add_target();
        Ok(watcher)
    }

    /// Waits until something has happened where the file is. The file itself may be the same as before.
    ///
    /// # Errors
    /// The kernel's, if it stops telling; the watcher is of no use then.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut scratch = [0; 4096];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut scratch) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // As many as one wake-up brought; a busy directory must not keep us here.
        for _ in 0..16 {
            if self.events.try_read(&mut scratch).is_err() {
                break;
            }
        }
        // A directory that was replaced has lost its watch; watching one again is free.
        let _ = self.add(&self.path);
        self.add_target();
        Ok(())
    }

    /// Watches where the file, if a symlink, ends by now. Where it ends nowhere, its own directory will tell.
    fn add_target(&self) {
        if let Ok(target) = self.path.canonicalize() {
            let _ = self.add(&target);
        }
    }

    fn add(&self, file: &Path) -> io::Result<()> {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let changes = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        self.inotify.watches().add(directory, changes | WatchMask::ONLYDIR).map(drop)
    }
}

#[cfg(test)]
mod tests;
