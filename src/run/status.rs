//! How the agent stands: gathered from everywhere when somebody asks, off every query's path.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Inner, rows};
use crate::control::status::{
    Cache, Config, Incident, Latency as Times, Queries, Server, Status, Took, Upstream, Zone,
};
use crate::metrics::{Arrival, BOUNDS, Label, Latency, Lookup, Metrics, Outcome, Reload, Worker};
use crate::plan::{Action, Plan};
use crate::resolve::Active;
use crate::upstream::Health;

/// Names and clients shown of those that come up most.
const TOP: usize = 10;

/// How `inner` stands, which listens at `listen`.
pub(super) fn of(inner: &Inner, listen: &[SocketAddr]) -> Status {
    let active = inner.shared.active.load();
    let cache = &inner.shared.resolver.cache;
    let usage = cache.usage();
    let missing = inner.missing();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: cache.epoch().elapsed().as_secs_f64(),
        ready: missing.is_empty(),
        missing,
        listen: listen.to_vec(),
        config: Config {
            generation: 1 + sum(&inner.metrics, |worker| worker.reloads.value(Reload::Accepted)),
            refused: inner.refused().clone(),
        },
        node: inner.node.get().map(|link| link.show(&active)),
        upstreams: upstreams(&active),
        zones: zones(&active.plan),
        queries: queries(&inner.metrics),
        latency: latency(&inner.metrics),
        cache: Cache {
            positive: usage.positive as u64,
            negative: usage.negative as u64,
            failures: usage.failures as u64,
            bytes: usage.bytes,
            limit_bytes: active.plan.cache.memory as u64,
        },
        top: rows::top(&inner.metrics, TOP),
        incidents: incidents(inner),
    }
}

/// Those of the plane and those about configurations, newest first.
fn incidents(inner: &Inner) -> Vec<Incident> {
    let seen = inner.node.get().map(|link| link.status.borrow().incidents.clone());
    let all = inner.incidents().with(seen.as_ref()).into_iter();
    all.map(|it| Incident {
        seconds_ago: it.at.elapsed().as_secs_f64(),
        what: it.what.label().to_owned(),
        words: it.words,
    })
    .collect()
}

fn latency(metrics: &Metrics) -> Times {
    let outcomes = Outcome::ALL.iter().map(|outcome| {
        let all = Latency::distribution(metrics.workers().iter().map(|worker| &worker.latency), *outcome);
        Took {
            outcome: outcome.label().to_owned(),
            at_most: all.cumulative,
            count: all.count,
            sum_seconds: seconds(all.sum),
        }
    });
    Times { bounds_seconds: BOUNDS.iter().map(|bound| seconds(*bound)).collect(), outcomes: outcomes.collect() }
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// The groups of the plan in force, and their servers.
pub(super) fn upstreams(active: &Active) -> Vec<Upstream> {
    let groups = active.upstreams.iter().map(|group| {
        let servers = group.servers();
        let servers = servers.iter().map(|server| Server {
            address: server.address,
            healthy: group.health(server) == Health::Healthy,
            failures_in_a_row: server.fails(),
            outstanding: server.outstanding(),
            round_trip_seconds: server.round_trip().map(|time| time.as_secs_f64()),
        });
        Upstream { name: group.name.clone(), servers: servers.collect() }
    });
    groups.collect()
}

fn zones(plan: &Plan) -> Vec<Zone> {
    let upstream = |action: &Action| match action {
        Action::Route(index) => Some(plan.upstreams[*index].name.clone()),
        Action::Addresses(_) | Action::Nodata | Action::Nxdomain | Action::Refused => None,
    };
    plan.zones.iter().map(|zone| Zone { name: zone.name.to_string(), upstream: upstream(&zone.action) }).collect()
}

fn queries(metrics: &Metrics) -> Queries {
    let looked_up = |what| sum(metrics, |worker| worker.lookups.value(what));
    let arrived =
        |ways: [Arrival; 2]| sum(metrics, |worker| ways.map(|way| worker.queries.value(way)).iter().sum::<u64>());
    Queries {
        udp: arrived([Arrival::UdpIpv4, Arrival::UdpIpv6]),
        tcp: arrived([Arrival::TcpIpv4, Arrival::TcpIpv6]),
        fresh: looked_up(Lookup::Fresh),
        stale: looked_up(Lookup::Stale),
        failure_cached: looked_up(Lookup::FailureCached),
        local: looked_up(Lookup::Local),
        miss: looked_up(Lookup::Miss),
        parked: looked_up(Lookup::Parked),
        refused: sum(metrics, |worker| all(|it| worker.refused.value(it))),
        dropped: sum(metrics, |worker| all(|it| worker.drops.value(it))),
        hit_rate: None,
    }
    .with_hit_rate()
}

/// One figure of all writers.
fn sum(metrics: &Metrics, figure: impl Fn(&Worker) -> u64) -> u64 {
    metrics.workers().iter().map(|worker| figure(worker)).sum()
}

/// One figure of all labels.
fn all<L: Label>(figure: impl Fn(L) -> u64) -> u64 {
    L::ALL.iter().map(|label| figure(*label)).sum()
}
