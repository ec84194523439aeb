//! The `nameserver` lines of a resolv.conf, followed.
//!
//! The promise: a changed file is read within a moment where the kernel tells us, within [`REREAD`] where it cannot
//! (a symlink's far end, a network file system); the swap of `..data` by which Kubernetes updates a ConfigMap is one
//! such change. An unreadable or empty file changes nothing.
//!
//! Read first: resolv.conf(5), inotify(7).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_resolver::system_conf::parse_resolv_conf;
use inotify::{Inotify, WatchMask};
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};

use super::{DiscoverEvent, Outlet};

/// Time after which the file is read even if nothing has been heard of it.
const REREAD: Duration = Duration::from_secs(5);

/// Least time between two readings, so that a directory in turmoil costs next to nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Follows the servers in `path`, each on `port`.
pub(super) async fn follow(path: &Path, port: u16, outlet: &impl Outlet) {
    let mut watch = match Watch::new(path) {
        Ok(watch) => Some(watch),
        Err(error) => {
            outlet.report(DiscoverEvent::Unwatched { path: path.into(), kind: error.kind() });
            None
        }
    };
    let mut failed = None;
    loop {
        // Watched anew before it is read: what changes after the reading is seen.
        if let Some(watch) = &mut watch {
            watch.renew();
        }
        match read(path).await {
            Ok(servers) => {
                failed = None;
                outlet.offer(servers.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
            }
            Err(error) => {
                if failed.replace(error.kind()) != Some(error.kind()) {
                    outlet.report(DiscoverEvent::Unreadable { path: path.into(), kind: error.kind() });
                }
            }
        }
        sleep(PAUSE).await;
        match &mut watch {
            Some(watch) => {
                if let Ok(Err(error)) = timeout(REREAD, watch.changed()).await {
                    outlet.report(DiscoverEvent::Unwatched { path: path.into(), kind: error.kind() });
                    sleep(REREAD).await;
                }
            }
            None => sleep(REREAD).await,
        }
    }
}

/// Reads the addresses in `path`; none if there is no usable `nameserver` line.
///
/// # Errors
/// What the kernel says about the file.
pub(super) async fn read(path: &Path) -> io::Result<Vec<IpAddr>> {
    Ok(parse(&tokio::fs::read(path).await?))
}

fn parse(octets: &[u8]) -> Vec<IpAddr> {
    // The servers only: an odd search list is no reason to be without them.
    let is_server = |line: &&[u8]| line.split(u8::is_ascii_whitespace).next() == Some(b"nameserver");
    let lines: Vec<&[u8]> = octets.split(|&octet| octet == b'\n').filter(is_server).collect();
    // An error here says that there is no server.
    let (config, _) = parse_resolv_conf(lines.join(&b'\n')).unwrap_or_default();
    config.name_servers().iter().map(|server| server.ip).collect()
}

/// The directories in which a change may concern a file: its own, and that of what it points to.
struct Watch {
    path: PathBuf,
    inotify: Inotify,
    /// The same open file; all that matters of an event is that it comes.
    events: pipe::Receiver,
}

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let events = pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        let mut watch = Self { path: path.into(), inotify, events };
        watch.add(path)?;
        Ok(watch)
    }

    /// Follows the symlink to where it points by now. Watching a directory again is free.
    fn renew(&mut self) {
        // Where that fails, and for links on the way, there is the reading every few seconds.
        let path = self.path.clone();
        let _ = self.add(&path);
        if let Ok(target) = path.canonicalize() {
            let _ = self.add(&target);
        }
    }

    fn add(&mut self, file: &Path) -> io::Result<()> {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let changes = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        self.inotify.watches().add(directory, changes | WatchMask::ONLYDIR).map(drop)
    }

    /// Waits until something has changed, and forgets what.
    async fn changed(&mut self) -> io::Result<()> {
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut [0; 4096]) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        while self.events.try_read(&mut [0; 4096]).is_ok() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests;
