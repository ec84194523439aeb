//! Servers given by name, resolved and resolved again.
//!
//! The promise: a name is resolved again when its TTL is over, no sooner than [`SOONEST`], no later than [`LATEST`]; a
//! name that fails keeps its last addresses and is tried again ever more slowly, never all names of all nodes at once.
//!
//! Read first: RFC 1035 section 3.2.1, RFC 2308 section 5.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rand::RngExt;
use tokio::time::{sleep_until, timeout};

use super::{DiscoverEvent, Outlet, resolv_conf};
use crate::plan::Server;

/// Least time between two resolutions of a name, 5 s: a TTL of 0 must not make us a load.
const SOONEST: Duration = Duration::from_secs(5);

/// Most time between two, 5 min: whoever moves a server leaves the old one up as long as that.
const LATEST: Duration = Duration::from_secs(300);

/// Time after the first failure until the next try; doubled each time.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Most time between two tries of a failing name.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// Time one resolution may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Port of the servers that resolve.
const DNS: u16 = 53;

/// A server of the set, and what is known of it.
struct Member<'a> {
    server: &'a Server,
    addresses: Vec<SocketAddr>,
    /// When to resolve; `None`: an address, nothing to resolve.
    due: Option<Instant>,
    failures: u32,
}

/// Follows `servers`, names among them resolved by the servers in the file `system`.
pub(super) async fn follow(servers: &[Server], system: &Path, outlet: &impl Outlet) {
    let now = Instant::now();
    let mut members: Vec<Member<'_>> = servers.iter().map(|server| Member::new(server, now)).collect();
    let mut resolver = Resolver::default();
    loop {
        let now = Instant::now();
        for member in members.iter_mut().filter(|member| member.due.is_some_and(|due| due <= now)) {
            let Server::Host { name, port } = member.server else { continue };
            let resolved = resolver.resolve(name, system, outlet).await;
            member.on_resolved(name, *port, resolved, outlet);
        }
        let known: Vec<SocketAddr> = members.iter().flat_map(|member| &member.addresses).copied().collect();
        // Before the first name is resolved there is nothing to say.
        if !known.is_empty() {
            outlet.offer(known);
        }
        match members.iter().filter_map(|member| member.due).min() {
            Some(due) => sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }
}

// === impl Member ===

impl<'a> Member<'a> {
    fn new(server: &'a Server, now: Instant) -> Self {
        let (addresses, due) = match server {
            Server::Address(address) => (vec![*address], None),
            Server::Host { .. } => (Vec::new(), Some(now)),
        };
        Self { server, addresses, due, failures: 0 }
    }

    fn on_resolved(&mut self, name: &str, port: u16, resolved: Result<Resolved, String>, outlet: &impl Outlet) {
        let wait = match resolved {
            Ok(Resolved { mut addresses, time_to_live }) => {
                // Servers rotate their records; that is no change.
                addresses.sort_unstable();
                self.addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                self.failures = 0;
                time_to_live.clamp(SOONEST, LATEST)
            }
            Err(why) => {
                outlet.report(DiscoverEvent::Unresolved { name: name.to_owned(), why });
                self.failures = self.failures.saturating_add(1);
                back_off(self.failures, rand::rng().random())
            }
        };
        self.due = Some(Instant::now() + wait);
    }
}

/// Time until the next try after so many `failures` in a row; `jitter` in 0..1 takes up to half of it away.
fn back_off(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (BACK_OFF * 2_u32.pow(doublings)).min(BACK_OFF_MAX).mul_f64(1.0 - jitter / 2.0)
}

struct Resolved {
    /// Never empty.
    addresses: Vec<IpAddr>,
    time_to_live: Duration,
}

/// hickory's resolver, made anew when the file it came from says something else.
#[derive(Default)]
struct Resolver {
    made: Option<(Vec<SocketAddr>, TokioResolver)>,
}

// === impl Resolver ===

impl Resolver {
    async fn resolve(&mut self, name: &str, system: &Path, outlet: &impl Outlet) -> Result<Resolved, String> {
        let servers = resolv_conf::read(system).await.map_err(|error| format!("{}: {error}", system.display()))?;
        let servers = servers.into_iter().map(|ip| SocketAddr::new(ip, DNS));
        let servers: Vec<SocketAddr> = servers.filter(|&server| !outlet.is_own(server)).collect();
        self.resolve_with(name, servers).await
    }

    async fn resolve_with(&mut self, name: &str, servers: Vec<SocketAddr>) -> Result<Resolved, String> {
        if servers.is_empty() {
            return Err("no name server to ask but ourselves".to_owned());
        }
        let resolver = match &mut self.made {
            Some((same, resolver)) if *same == servers => resolver,
            made => {
                let resolver = make(&servers).map_err(|error| error.to_string())?;
                &mut made.insert((servers, resolver)).1
            }
        };
        // Absolute: the node's search list is none of an upstream's business.
        let absolute = format!("{}.", name.trim_end_matches('.'));
        let looked_up = timeout(PATIENCE, resolver.lookup_ip(absolute)).await;
        let found = looked_up.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err("no address".to_owned());
        }
        let time_to_live = found.valid_until().saturating_duration_since(Instant::now());
        Ok(Resolved { addresses, time_to_live })
    }
}

fn make(servers: &[SocketAddr]) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let servers = servers.iter().map(|server| {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut config.connections {
            connection.port = server.port();
        }
        config
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // We come back when the TTL is over; a second memory would only make what we learn older.
    options.cache_size = 0;
    options.timeout = Duration::from_secs(1);
    options.os_port_selection = true;
    builder.build()
}

#[cfg(test)]
mod tests;
