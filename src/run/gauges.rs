//! What a scrape looks at: the readers behind every gauge.

use std::sync::{Arc, OnceLock};

use super::node;
use crate::metrics::{Gauges, Reader};
use crate::net::worker::Shared;
use crate::upstream::{Group, Health, Server};

/// A reader for each gauge whose source there is.
pub(super) fn gauges(shared: &Arc<Shared>, node: &Arc<OnceLock<node::Link>>) -> Gauges {
    let (intercepting, degraded, repairs) = (Arc::clone(node), Arc::clone(node), Arc::clone(node));
    let resolver = || Arc::clone(&shared.resolver);
    let (entries, bytes, flights) = (resolver(), resolver(), resolver());
    let active = || Arc::clone(shared);
    let (limit, up, outstanding, round_trip) = (active(), active(), active(), active());
    Gauges {
        build_info: Reader::series(|samples| samples.push(&[env!("CARGO_PKG_VERSION")], 1.0)),
        cache_bytes: Reader::value(move || bytes.cache.usage().bytes as f64),
        cache_limit_bytes: Reader::value(move || limit.active.load().plan.cache.memory as f64),
        cache_entries: Reader::series(move |samples| {
            let usage = entries.cache.usage();
            samples.push(&["positive"], usage.positive as f64);
            samples.push(&["negative"], usage.negative as f64);
            samples.push(&["failure"], usage.failures as f64);
        }),
        in_flight: Reader::value(move || flights.in_flight() as f64),
        upstream_up: Reader::series(move |samples| {
            each_server(&up, |group, server| {
                let healthy = group.health(server) == Health::Healthy;
                samples.push(&[&group.name, &server.address.to_string()], f64::from(u8::from(healthy)));
            });
        }),
        upstream_outstanding: Reader::series(move |samples| {
            each_server(&outstanding, |group, server| {
                samples.push(&[&group.name, &server.address.to_string()], server.outstanding().into());
            });
        }),
        upstream_rtt: Reader::series(move |samples| {
            each_server(&round_trip, |group, server| {
                let known = server.round_trip().map_or(f64::NAN, |time| time.as_secs_f64());
                samples.push(&[&group.name, &server.address.to_string()], known);
            });
        }),
        intercepting: Reader::series(move |samples| {
            if let Some(link) = intercepting.get() {
                samples.push(&[], f64::from(u8::from(link.status.borrow().intercepting)));
            }
        }),
        degraded: Reader::series(move |samples| {
            if let Some(link) = degraded.get() {
                link.status.borrow().degraded.iter().for_each(|it| samples.push(&[it.label.label()], 1.0));
            }
        }),
        repairs: Reader::series(move |samples| {
            if let Some(link) = repairs.get() {
                let repaired = link.status.borrow().repaired;
                samples.push(&["link"], repaired.link as f64);
                samples.push(&["tables"], repaired.tables as f64);
            }
        }),
        ..Gauges::default()
    }
}

fn each_server(shared: &Shared, mut show: impl FnMut(&Group, &Server)) {
    for group in shared.active.load().upstreams.iter() {
        for server in group.servers().iter() {
            show(group, server);
        }
    }
}
