//! What holds where a configuration says nothing.
//!
//! Every value here passes [`Plan::new`](super::Plan::new); each has its reason beside it.
//!
//! Read first: RFC 2308 section 5, RFC 8767 section 5, RFC 9520 section 3.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Aaaa, Action, Cache, Choice, Draft, HealthCheck, Http, Lifetimes, Limits, Listen, Log, LogFormat, Members,
    NonRecursive, Prefetch, Protocol, QueryLog, Upstream, Zone,
};
use crate::wire::Name;

/// Where the commands look for a running agent.
const CONTROL: &str = "/run/nodens/control.sock";

impl Draft {
    /// `zones`, routed to `upstreams`; the rest by default.
    pub fn new(upstreams: Vec<Upstream>, zones: Vec<Zone>) -> Self {
        Self {
            listen: Listen::default(),
            node: None,
            upstreams,
            zones,
            aaaa_clients: Vec::new(),
            cache: Cache::default(),
            limits: Limits::default(),
            http: Http::default(),
            log: Log::default(),
            coredns_names: true,
            non_recursive: NonRecursive::Refuse,
        }
    }
}

impl Upstream {
    /// A group of which only name and members are known.
    pub fn new(name: &str, members: Members) -> Self {
        Self {
            name: name.to_owned(),
            members,
            choice: Choice::LeastOutstanding,
            protocol: Protocol::Udp,
            tls_name: None,
            tls_ca: None,
            health_check: HealthCheck::default(),
            random_case: false,
        }
    }
}

impl Zone {
    /// A zone of which only name and action are known.
    pub fn new(name: Name, action: Action) -> Self {
        Self { name, action, aaaa: Aaaa::Keep, max_labels: None, lifetimes: Lifetimes::default() }
    }
}

impl Default for Listen {
    /// A place that needs no right: 127.0.0.1, port 1053.
    fn default() -> Self {
        Self { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], port: 1053, workers: None }
    }
}

impl Default for HealthCheck {
    /// One probe a second: a server that is back is used again within two.
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), max_fails: 2, name: Name::root() }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            // A day and an hour: what Unbound bounds answers to (RFC 2308 section 5 suggests one to three hours).
            max_ttl: 86_400,
            max_negative_ttl: 3_600,
            // The owner of a record knows best how long it lives.
            min_ttl: 0,
            failure_ttl: 5,
            // RFC 8767 section 5 suggests one to three days.
            max_stale: 86_400,
            stale_ttl: 30,
            // RFC 8767 section 5: an asker gives up after some seconds; 1.8 s leaves time to answer before that.
            client_timeout: Duration::from_millis(1800),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            prefetch: Some(Prefetch { hits: 2, at_percent: 10 }),
            recheck: Duration::from_secs(30),
            snapshot: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 8192,
            in_flight_per_client: 256,
            tcp_connections: 1024,
            tcp_connections_per_client: 64,
            allow: Vec::new(),
        }
    }
}

impl Default for Http {
    /// Nothing on TCP; the control socket, which only its owner can open.
    fn default() -> Self {
        Self { metrics: None, health: None, debug: None, control: Some(PathBuf::from(CONTROL)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: tracing::Level::INFO, format: LogFormat::Text, queries: QueryLog::Off }
    }
}
