//! The `nameserver` lines of a resolv.conf, followed.
//!
//! The promise: a changed file is read within a moment where the kernel tells us, within [`REREAD`] where it cannot
//! (the middle of a chain of symlinks, a network file system); the swap of `..data` by which Kubernetes updates a
//! mounted file is one such change. An unreadable or empty file changes nothing.
//!
//! Read first: resolv.conf(5).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::time::{sleep, timeout};

use super::{DiscoverEvent, FileWatcher, Outlet};

/// Time after which the file is read even if nothing has been heard of it.
const REREAD: Duration = Duration::from_secs(5);

/// Least time between two readings, so that a directory in turmoil costs next to nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Follows the servers in `path`, each on `port`.
pub(super) async fn follow(path: &Path, port: u16, outlet: &impl Outlet) {
    let mut watch = match FileWatcher::new(path) {
        Ok(watch) => Some(watch),
        Err(error) => {
            outlet.report(DiscoverEvent::Unwatched { path: path.into(), kind: error.kind() });
            None
        }
    };
    let mut failed = None;
    loop {
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
pub async fn read(path: &Path) -> io::Result<Vec<IpAddr>> {
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

#[cfg(test)]
mod tests;
