//! How an agent stands, in one document: what `nodens status --json` prints, and `/debug/node` a part of.
//!
//! The names of the fields are promised. New ones may come; none changes its meaning or goes. Times are seconds, rates
//! are fractions of 1, counts begin with the process, `null` is "there is none".

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How an agent stands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Time since it started.
    pub uptime_seconds: f64,
    /// Whether `/readyz` says 200.
    pub ready: bool,
    /// What keeps it from that, one line each.
    pub missing: Vec<String>,
    /// Where clients ask, UDP and TCP on each.
    pub listen: Vec<SocketAddr>,
    pub config: Config,
    /// What it is on this host; `null`: the plan has no `node:` block.
    pub node: Option<Node>,
    pub upstreams: Vec<Upstream>,
    pub zones: Vec<Zone>,
    pub queries: Queries,
    /// Time from query to reply.
    pub latency: Latency,
    pub cache: Cache,
    /// Who asks most, and for what.
    pub top: Top,
    /// What went other than planned, newest first.
    pub incidents: Vec<Incident>,
}

/// The plan in force.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Config {
    /// 1 at the start, one more with each reload.
    pub generation: u64,
    /// Why the newest configuration is not in force.
    pub refused: Option<String>,
}

/// What the agent is on this host.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Node {
    /// Whether the kernel hands us the traffic.
    pub intercepting: bool,
    /// Time since it began to, or ceased.
    pub since_seconds: Option<f64>,
    /// The netlink port of the other instance on this node that holds the traffic, while ours waits for it to go.
    pub waiting_for: Option<u32>,
    /// `nftables`, `lease-only`, `iptables` or `off`.
    pub mode: String,
    /// What this host cannot do for us.
    pub degraded: Vec<Degraded>,
    /// How long the kernel goes on handing us the traffic when we no longer ask for it.
    pub lease_seconds: f64,
    /// The link that carries the addresses.
    pub link: String,
    /// The addresses on it.
    pub addresses: Vec<IpAddr>,
    /// Our tables as the kernel had them at the last renewal.
    pub tables: Vec<Table>,
    /// Who answers for an address while we do not.
    pub fallback: Vec<Fallback>,
    /// Times something of ours had been changed by others and was restored.
    pub repaired: Repaired,
    /// What went wrong last, until something goes right.
    pub trouble: Option<String>,
}

/// Something that is not as good as it could be.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Degraded {
    /// The label of `nodens_interception_degraded`.
    pub reason: String,
    /// What is so, what is lost by it, what helps.
    pub words: String,
}

/// A table of ours.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Table {
    /// Family and name, as in `inet nodens`.
    pub name: String,
    pub rules: usize,
    /// Addresses under lease in it.
    pub leased: Vec<IpAddr>,
}

/// An address that nobody else answers for, and who does while we do not.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fallback {
    pub address: IpAddr,
    pub servers: Vec<SocketAddr>,
}

/// Repairs, by what was changed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Repaired {
    pub link: u64,
    pub tables: u64,
    pub last: Option<Repair>,
}

/// The last repair.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Repair {
    /// Time since then.
    pub seconds_ago: f64,
    /// What was not as we had made it, in words.
    pub what: String,
}

/// A group of servers that answer alike.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Upstream {
    pub name: String,
    pub servers: Vec<Server>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Server {
    pub address: SocketAddr,
    /// False: it failed too often in a row and is probed.
    pub healthy: bool,
    pub failures_in_a_row: u32,
    /// Questions it has not answered yet.
    pub outstanding: u32,
    /// Smoothed; `null`: nothing measured yet.
    pub round_trip_seconds: Option<f64>,
}

/// A zone and its way.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Zone {
    /// Absolute, with the final dot.
    pub name: String,
    /// The upstream's name; `null`: answered here.
    pub upstream: Option<String>,
}

/// What was asked, and what came of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Queries {
    /// Read over UDP.
    pub udp: u64,
    /// Read over TCP.
    pub tcp: u64,
    /// Answered from the cache, within the lifetime.
    pub fresh: u64,
    /// Answered from the cache, past the lifetime (RFC 8767).
    pub stale: u64,
    /// Answered by a remembered failure (RFC 9520).
    pub failure_cached: u64,
    /// Answered by a zone of ours.
    pub local: u64,
    /// Asked upstream.
    pub miss: u64,
    /// Waited for a question that was under way already.
    pub parked: u64,
    /// Answered with an error at once.
    pub refused: u64,
    /// Left without a reply.
    pub dropped: u64,
    /// Of the questions the cache was asked for, those that did not have to wait for an upstream; `null`: none yet.
    pub hit_rate: Option<f64>,
}

/// Replies by the time they took.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Latency {
    /// Upper bounds of the buckets, ascending.
    pub bounds_seconds: Vec<f64>,
    pub outcomes: Vec<Took>,
}

/// Replies that came about in one way.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Took {
    /// The label of `nodens_response_seconds`.
    pub outcome: String,
    /// How many took at most the bound of the same index, those of smaller bounds included.
    pub at_most: Vec<u64>,
    /// All of them.
    pub count: u64,
    /// The time of all together.
    pub sum_seconds: f64,
}

/// What comes up most, most queries first; counts are estimates.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Top {
    /// How far back it goes, at most.
    pub seconds: u64,
    /// All queries in that time.
    pub queries: u64,
    pub names: Vec<TopName>,
    pub clients: Vec<TopClient>,
}

/// A name that is asked for a lot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TopName {
    /// In presentation format, with the final dot.
    pub name: String,
    pub queries: u64,
    /// What `queries` may be too high by.
    pub at_most_too_many: u64,
}

/// A client that asks a lot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TopClient {
    pub client: IpAddr,
    pub queries: u64,
    /// What `queries` may be too high by.
    pub at_most_too_many: u64,
}

/// Something that went other than planned.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Incident {
    /// Time since then.
    pub seconds_ago: f64,
    /// `intercepting`, `given_back`, `lease_lapsed`, `node_trouble`, `reload_refused` or `repaired`.
    pub what: String,
    pub words: String,
}

/// The cache.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Cache {
    /// Answers with records.
    pub positive: u64,
    /// NXDOMAIN and NODATA.
    pub negative: u64,
    /// Failures remembered.
    pub failures: u64,
    /// Memory in use.
    pub bytes: u64,
    /// Memory it may use.
    pub limit_bytes: u64,
}

// === impl Queries ===

impl Queries {
    /// All that were read.
    pub fn total(&self) -> u64 {
        self.udp + self.tcp
    }

    /// These with their hit rate, which follows from the others.
    #[must_use]
    pub fn with_hit_rate(mut self) -> Self {
        let hits = self.fresh + self.stale + self.failure_cached;
        let asked = hits + self.miss + self.parked;
        self.hit_rate = (asked > 0).then(|| hits as f64 / asked as f64);
        self
    }

    /// What came since `before`, which is of the same process.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let less = |field: fn(&Self) -> u64| field(self).saturating_sub(field(before));
        Self {
            udp: less(|it| it.udp),
            tcp: less(|it| it.tcp),
            fresh: less(|it| it.fresh),
            stale: less(|it| it.stale),
            failure_cached: less(|it| it.failure_cached),
            local: less(|it| it.local),
            miss: less(|it| it.miss),
            parked: less(|it| it.parked),
            refused: less(|it| it.refused),
            dropped: less(|it| it.dropped),
            hit_rate: None,
        }
        .with_hit_rate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_what_did_not_wait_for_an_upstream() {
        let queries =
            Queries { fresh: 5, stale: 1, failure_cached: 2, miss: 1, parked: 1, local: 90, ..Queries::default() };
        assert_eq!(queries.with_hit_rate().hit_rate, Some(0.8));
        assert_eq!(Queries { local: 3, ..Queries::default() }.with_hit_rate().hit_rate, None, "nothing was looked up");
    }

    #[test]
    fn a_difference_has_the_hit_rate_of_what_came_in_between() {
        let before = Queries { udp: 10, miss: 10, ..Queries::default() };
        let after = Queries { udp: 14, miss: 11, fresh: 3, ..Queries::default() };
        let between = after.since(&before);
        assert_eq!((between.total(), between.hit_rate), (4, Some(0.75)));
    }
}
