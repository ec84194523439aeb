//! Where the servers of an upstream are: as written, as a file says, as the DNS says; followed for ever.
//!
//! The promise: once known, a set is replaced only by another one that is not empty; what cannot be read or resolved
//! leaves it alone. Our own listen addresses are never in it, so no file and no name can make us ask ourselves.
//!
//! ```text
//! addresses ──────────────────────────────┐
//! resolv.conf ─► inotify ─► nameserver … ─┼─► not our own ─► set
//! host name, Service ─► names (by TTL) ───┘
//! ```
//!
//! Read first: resolv.conf(5), RFC 1035 section 3.2.1 (TTL).

mod names;
mod resolv_conf;
mod watch;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use resolv_conf::read as read_resolv_conf;
pub use watch::FileWatcher;

use crate::plan::{Members, Protocol, Server, Upstream};

/// Zone in which a Kubernetes Service has its name. Clusters may choose another; nearly none does.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Follows the servers of `upstream` for ever: `set` is told the first set and every other one after it.
///
/// `system` is the resolv.conf whose servers resolve names, for upstreams that have names. `own` are the addresses we
/// listen on; they are dropped wherever they turn up, also as resolvers. A set is never empty; an upstream of which
/// nothing is known is never set. Runs on the control runtime, with I/O and time enabled.
pub async fn follow(
    upstream: &Upstream,
    system: &Path,
    own: &[SocketAddr],
    set: impl Fn(Vec<SocketAddr>),
    on_event: impl Fn(DiscoverEvent),
) {
    let sieve = Sieve { own, known: RefCell::default(), empty: Cell::new(false), set, on_event };
    let port = match upstream.protocol {
        Protocol::Tcp | Protocol::Udp => 53,
        Protocol::Tls => 853,
    };
    match &upstream.members {
        Members::ResolvConf(path) => resolv_conf::follow(path, port, &sieve).await,
        Members::Servers(servers) => names::follow(servers, system, &sieve).await,
        Members::Service { namespace, name } => {
            let name = format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}.");
            names::follow(&[Server::Host { name, port }], system, &sieve).await;
        }
    }
}

/// What happened to a set, for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiscoverEvent {
    /// There is no server left to use; the last set, if any, stays.
    Empty,
    /// One of our own listen addresses was named as a server, and dropped.
    Own(SocketAddr),
    /// A file of servers cannot be read; the last set, if any, stays.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// A name could not be resolved; its last addresses, if any, stay.
    Unresolved {
        /// The name.
        name: String,
        /// Why, in words.
        why: String,
    },
    /// The kernel does not report changes of a file; it is read every few seconds all the same.
    Unwatched {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
}

// === impl DiscoverEvent ===

impl DiscoverEvent {
    /// A name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Own(_) => "own",
            Self::Unreadable { .. } => "unreadable",
            Self::Unresolved { .. } => "unresolved",
            Self::Unwatched { .. } => "unwatched",
        }
    }
}

impl fmt::Display for DiscoverEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no server is left; the last ones known stay"),
            Self::Own(address) => write!(f, "{address} is our own listen address and no server"),
            Self::Unreadable { path, kind } => write!(f, "{} cannot be read: {kind}", path.display()),
            Self::Unresolved { name, why } => write!(f, "{name} cannot be resolved: {why}"),
            Self::Unwatched { path, kind } => {
                write!(f, "changes of {} are seen only every few seconds: {kind}", path.display())
            }
        }
    }
}

/// What every set goes through on its way out.
struct Sieve<'a, S, E> {
    own: &'a [SocketAddr],
    known: RefCell<Vec<SocketAddr>>,
    /// Whether the last set offered was empty; said once, not every few seconds.
    empty: Cell<bool>,
    set: S,
    on_event: E,
}

/// The outward side of a [`Sieve`], as the sources see it.
trait Outlet {
    /// Passes `servers` on if they are new, in their order, each once, our own addresses left out.
    fn offer(&self, servers: Vec<SocketAddr>);

    /// Whether `server` is one of our own listen addresses.
    fn is_own(&self, server: SocketAddr) -> bool;

    fn report(&self, event: DiscoverEvent);
}

// === impl Sieve ===

impl<S: Fn(Vec<SocketAddr>), E: Fn(DiscoverEvent)> Outlet for Sieve<'_, S, E> {
    fn offer(&self, servers: Vec<SocketAddr>) {
        let mut fit: Vec<SocketAddr> = Vec::new();
        let mut own = Vec::new();
        for server in servers {
            let list = if self.is_own(server) { &mut own } else { &mut fit };
            if !list.contains(&server) {
                list.push(server);
            }
        }
        // What was said of this set before is not said again.
        let was_empty = self.empty.replace(fit.is_empty());
        let is_known = if fit.is_empty() { was_empty } else { *self.known.borrow() == fit };
        if is_known {
            return;
        }
        for server in own {
            self.report(DiscoverEvent::Own(server));
        }
        if fit.is_empty() {
            self.report(DiscoverEvent::Empty);
        } else {
            self.known.replace(fit.clone());
            (self.set)(fit);
        }
    }

    fn is_own(&self, server: SocketAddr) -> bool {
        let ip = server.ip().to_canonical();
        self.own.iter().any(|own| {
            let own_ip = own.ip().to_canonical();
            own.port() == server.port() && (own_ip == ip || (own_ip.is_unspecified() && is_local(ip)))
        })
    }

    fn report(&self, event: DiscoverEvent) {
        (self.on_event)(event);
    }
}

/// Whether whoever listens on all addresses is known to listen on this one.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
