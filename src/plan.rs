//! The plan: what the agent is meant to do, in values that can only be legal.
//!
//! A front end (YAML, Corefile) fills a [`Draft`]; [`Plan::new`] is the only way from there to a [`Plan`], and it names
//! every flaw at once. Whoever holds a `Plan` needs no check of its own. Plans are immutable; a reload makes another.
//!
//! ```text
//! file ─► config ─► Draft ─► Plan::new ─► Plan ─► arc-swap ─► policy, upstream, cache, net
//!                               └► Vec<Flaw>, each with the path of the key it concerns
//! ```

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::Name;

mod defaults;
mod flaws;
mod lacks;
mod words;

pub use flaws::{MAX_SERVERS, MAX_UPSTREAMS};
pub use words::{human_bytes, human_duration};

/// A validated [`Draft`]. Read it as one; it cannot be changed.
#[derive(Clone, Debug)]
pub struct Plan(Draft);

/// Everything a configuration can say, defaults filled in.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where clients find us.
    pub listen: Listen,
    /// What we may do to the host; `None`: nothing.
    pub node: Option<Node>,
    /// At most [`MAX_UPSTREAMS`]. A [`Route`](Action::Route) names its upstream by the index here.
    pub upstreams: Vec<Upstream>,
    /// In any order; the root zone is one of them, and no name is there twice.
    pub zones: Vec<Zone>,
    /// Clients whose answers the zones' [`Aaaa`] modes concern; empty: all.
    pub aaaa_clients: Vec<Prefix>,
    /// The answer cache.
    pub cache: Cache,
    /// Bounds on what clients can make us hold.
    pub limits: Limits,
    /// Where the endpoints are.
    pub http: Http,
    /// What is logged, and how.
    pub log: Log,
    /// Also export the incumbent's metric names.
    pub coredns_names: bool,
    /// What a query with RD=0 that the cache cannot answer gets.
    pub non_recursive: NonRecursive,
}

/// Where clients find us: UDP and TCP on each address.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Unicast, no IPv4-mapped ones, each once.
    pub addresses: Vec<IpAddr>,
    /// The port on each address.
    pub port: u16,
    /// `None`: one per core.
    pub workers: Option<NonZeroUsize>,
}

/// What we may do to the host.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of the link that carries the addresses.
    pub interface: String,
    /// How traffic to the addresses is lent to us.
    pub interception: Interception,
    /// Lifetime of the kernel's permission to intercept.
    pub lease: Duration,
    /// Index of the upstream that answers for link-local addresses when we do not.
    pub fallback: Option<usize>,
}

/// The kernel's means of lending us traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interception {
    /// What the kernel offers, best first.
    Auto,
    /// The `iptables` program.
    Iptables,
    /// nftables over netlink.
    Nftables,
    /// None: whoever asks us was told our address.
    Off,
}

/// A group of servers that answer alike.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// What routes call it; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Where its servers come from.
    pub members: Members,
    /// Which of its servers is asked next.
    pub choice: Choice,
    /// How its servers are asked.
    pub protocol: Protocol,
    /// Name the certificate must carry; needed for [`Protocol::Tls`].
    pub tls_name: Option<String>,
    /// PEM file with the roots to trust; `None`: the public web's.
    pub tls_ca: Option<PathBuf>,
    /// How a suspected server proves that it is back.
    pub health_check: HealthCheck,
    /// Ask with letters of random case and want them back (draft-vixie-dnsext-dns0x20).
    pub random_case: bool,
}

/// Where the servers of a group come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Members {
    /// Follow the `nameserver` lines of this file.
    ResolvConf(PathBuf),
    /// These; at least one, at most [`MAX_SERVERS`], each once.
    Servers(Vec<Server>),
    /// Follow the endpoints of this Kubernetes Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its own name.
        name: String,
    },
}

/// One server as the configuration names it. A port left out is 53, or 853 for TLS: already filled in here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Server {
    /// Asked at this address.
    Address(SocketAddr),
    /// Asked at whatever addresses this name has, resolved again as they expire.
    Host {
        /// A legal host name, the final dot optional.
        name: String,
        /// The port on each of them.
        port: u16,
    },
}

/// How a group picks the server for the next question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Choice {
    /// The one with the fewest unanswered queries.
    LeastOutstanding,
    /// Any.
    Random,
    /// Each in turn.
    RoundRobin,
    /// The first that is not suspected.
    Sequential,
}

/// How we talk to the servers of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// UDP, TCP on truncation or suspicion.
    Udp,
    /// DNS over TCP from the start (RFC 7766).
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
}

/// How a suspected server proves that it is back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthCheck {
    /// Time between probes to a suspect; at least 500 ms.
    pub interval: Duration,
    /// Failures in a row that make a server a suspect; at least 1.
    pub max_fails: u32,
    /// Name asked for (type NS).
    pub name: Name,
}

/// A part of the name space and what happens to questions in it.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its apex; the longest match on label bounds wins.
    pub name: Name,
    /// What happens to a question here.
    pub action: Action,
    /// What becomes of IPv6 addresses.
    pub aaaa: Aaaa,
    /// Labels allowed in front of the zone's own; more is search-list noise, NXDOMAIN.
    pub max_labels: Option<u8>,
    /// How long answers live, what is general filled in.
    pub lifetimes: Lifetimes,
}

/// What happens to a question in a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Answer with these addresses, here.
    Addresses(Vec<IpAddr>),
    /// The name exists, the type does not (RFC 2308 section 2.2).
    Nodata,
    /// The name does not exist (RFC 2308 section 2.1).
    Nxdomain,
    /// This server does not answer for it (RFC 1035 section 4.1.1).
    Refused,
    /// Ask the upstream with this index.
    Route(usize),
}

/// What becomes of IPv6 addresses in answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Aaaa {
    /// They stay.
    #[default]
    Keep,
    /// They go.
    Strip,
    /// Strip where the name has an IPv4 address.
    StripIfA,
}

/// How long answers live. Whole seconds, but for `client_timeout`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lifetimes {
    /// Upper bound on every TTL shown and on the life of an answer.
    pub max_ttl: u32,
    /// Upper bound on the life of NXDOMAIN and NODATA (RFC 2308 section 5).
    pub max_negative_ttl: u32,
    /// Lower bound on the life of an answer; not above `max_ttl`.
    pub min_ttl: u32,
    /// Life of a failure, doubled each time it repeats, up to 30 s (RFC 9520 section 3.2: 1 s to 5 min).
    pub failure_ttl: u32,
    /// Time after expiry during which an answer may still be used (RFC 8767); 0: never.
    pub max_stale: u32,
    /// Upper bound on the TTLs of a stale answer (RFC 8767 section 4: above 0, 30 s recommended).
    pub stale_ttl: u32,
    /// Time an asker with a stale answer at hand waits for a fresh one; zero: not at all.
    pub client_timeout: Duration,
}

/// The answer cache.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cache {
    /// Bytes, bookkeeping included.
    pub memory: usize,
    /// `None`: names are refreshed when somebody asks.
    pub prefetch: Option<Prefetch>,
    /// Time during which a failed refresh is not tried again (RFC 8767 section 5: 30 s).
    pub recheck: Duration,
    /// The file that carries answers over a restart; `None`: they are forgotten. Beside it lies the last good configuration.
    pub snapshot: Option<PathBuf>,
}

/// When a name still in use is asked again before it expires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prefetch {
    /// Asked at least this often during the entry's life.
    pub hits: u8,
    /// Within the last this many percent of its life; 1 to 90.
    pub at_percent: u8,
}

/// Bounds on what clients can make us hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Queries that wait for an upstream.
    pub in_flight: usize,
    /// Of these, those of one source address.
    pub in_flight_per_client: usize,
    /// Connections from clients.
    pub tcp_connections: usize,
    /// Of these, those of one source address.
    pub tcp_connections_per_client: usize,
    /// Sources that may ask; empty: all that reach us.
    pub allow: Vec<Prefix>,
}

/// A network: all addresses that share its first `length` bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prefix {
    /// The network's first address, all bits behind `length` zero.
    pub address: IpAddr,
    /// At most 32 for IPv4, 128 for IPv6.
    pub length: u8,
}

/// Where the endpoints are; `None`: not served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Http {
    /// `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// `/healthz`, `/readyz`.
    pub health: Option<SocketAddr>,
    /// `/debug/…`, read only.
    pub debug: Option<SocketAddr>,
    /// The Unix socket for what changes state; an absolute path.
    pub control: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Log {
    /// The least important level that is written.
    pub level: tracing::Level,
    /// The shape of a line.
    pub format: LogFormat,
    /// Which queries get a line.
    pub queries: QueryLog,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// An object a line.
    Json,
    /// For people.
    Text,
}

/// Which queries are logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueryLog {
    /// None.
    Off,
    /// One in so many; 1 is all.
    OneIn(u32),
}

/// What a query with RD=0 that the cache cannot answer gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NonRecursive {
    /// Ask upstream, as if RD were set.
    Forward,
    /// REFUSED with EDE 20 (RFC 8914 section 4.21).
    #[default]
    Refuse,
}

// === impl Plan ===

impl Plan {
    /// Checks what no single key can show: every flaw, in the order of the keys.
    ///
    /// # Errors
    /// All flaws at once; the list is never empty.
    pub fn new(draft: Draft) -> Result<Self, Vec<Flaw>> {
        let flaws = flaws::of(&draft);
        if flaws.is_empty() { Ok(Self(draft)) } else { Err(flaws) }
    }

    /// The group a zone's questions go to; `None` if they are answered here.
    pub fn upstream_of(&self, zone: &Zone) -> Option<&Upstream> {
        match zone.action {
            Action::Route(index) => self.upstreams.get(index),
            Action::Addresses(_) | Action::Nodata | Action::Nxdomain | Action::Refused => None,
        }
    }

    /// The addresses clients ask, with the port.
    pub fn listen_sockets(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listen.addresses.iter().map(|&address| SocketAddr::new(address, self.listen.port))
    }
}

impl Deref for Plan {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.0
    }
}

/// Why a [`Draft`] is not a [`Plan`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flaw {
    /// The key concerned, in the words of the YAML front end; zones by their [`Name`], list items by their index:
    /// `["zones", "cluster.local.", "cache", "max_ttl"]`. A zone's lifetime may have come from the general block.
    pub path: Vec<String>,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub remedy: String,
}

// === impl Prefix ===

impl Prefix {
    /// Whether `address` lies in this network. An IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(it)) => {
                same_first_bits(net.to_bits().into(), it.to_bits().into(), 32, self.length)
            }
            (IpAddr::V6(net), IpAddr::V6(it)) => same_first_bits(net.to_bits(), it.to_bits(), 128, self.length),
            _ => false,
        }
    }
}

fn same_first_bits(one: u128, other: u128, width: u8, length: u8) -> bool {
    let differing = one ^ other;
    length == 0 || differing >> (width - length.min(width)) == 0
}
