//! The cache, and what is asked most, in words. Off every query's path.

use std::time::Instant;

use crate::cache::{self, Cache, Entry};
use crate::control::status;
use crate::dump::{self, DumpRow, Filter};
use crate::metrics::Metrics;
use crate::metrics::top::Top;
use crate::wire::{Key, Rcode, name};

/// The rows that `filter` means. The entries are collected first, by reference: no lock outlives a step, and a slow
/// reader holds on to old entries at most.
pub(super) fn rows(cache: &Cache, filter: &Filter) -> impl Iterator<Item = DumpRow> + Send + use<> {
    let (epoch, now) = (cache.epoch(), Instant::now());
    let qtype = filter.qtype;
    let chosen: Vec<_> = cache
        .entries(chosen(filter))
        .filter(|(key, _)| qtype.is_none_or(|it| it == key.qtype()))
        .take(filter.limit.unwrap_or(usize::MAX))
        .collect();
    chosen.into_iter().map(move |(key, entry)| row(&key, &entry, epoch, now))
}

/// Removes what `filter` means and says how many entries went.
pub(super) fn flush(cache: &Cache, filter: &Filter) -> usize {
    cache.flush(&chosen(filter))
}

/// The first `limit` names and clients, and how many queries there were in that time.
pub(super) fn top(metrics: &Metrics, limit: usize) -> status::Top {
    let top = Top::of(&metrics.workers(), limit, Instant::now());
    let names = top.names.iter().map(|row| status::TopName {
        name: name::escape(&row.what).to_string(),
        queries: row.queries,
        at_most_too_many: row.too_many,
    });
    let clients = top.clients.iter().map(|row| status::TopClient {
        client: row.what,
        queries: row.queries,
        at_most_too_many: row.too_many,
    });
    status::Top {
        seconds: top.lately.as_secs(),
        queries: top.queries,
        names: names.collect(),
        clients: clients.collect(),
    }
}

fn chosen(filter: &Filter) -> cache::Filter {
    cache::Filter { zone: filter.zone.clone(), name: filter.name.clone() }
}

fn row(key: &Key, entry: &Entry, epoch: Instant, now: Instant) -> DumpRow {
    let (ttl_left, stale_left) = entry.remaining(epoch, now);
    let kind = match (entry.rcode(), entry.is_negative()) {
        (Rcode::NXDOMAIN, _) => "nxdomain",
        (_, true) => "nodata",
        (_, false) => "answer",
    };
    DumpRow {
        name: name::escape(key.qname()).to_string(),
        qtype: key.qtype().to_string(),
        dnssec_ok: key.dnssec_ok(),
        checking_disabled: key.checking_disabled(),
        rcode: entry.rcode().to_string(),
        kind: kind.to_owned(),
        ttl_left: ttl_left as u32,
        stale_left: stale_left as u32,
        hits: entry.hits().into(),
        bytes: entry.cost() as u64,
        records: dump::records(entry.stored().octets()),
    }
}
