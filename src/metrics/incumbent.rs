//! The incumbent's metrics, under its names and labels, made of our own cells at each scrape: dashboards and alerts that
//! watched CoreDNS or node-cache go on working.
//!
//! Its labels, where we cannot know a value or it means nothing here:
//!
//! - `view` is always empty: there are no views. `plugin` (of responses) is always empty: there are no plugins.
//! - `server` and `zone` are those the query came to. What cannot be read as a question is in no zone and is not counted.
//! - The cache is one for all addresses and zones, so its entries, evictions and drops appear once, under the first
//!   address and the root zone; hits, misses and the rest are where they happened. An answer in the cache that was sent
//!   past its lifetime is a hit too, as it is there.
//! - Sockets and connections to servers are counted for all of them together: `to` is `all`.
//! - `rcode` of what servers said knows NOERROR, NXDOMAIN, REFUSED, SERVFAIL and `other`.
//! - `coredns_forward_requests_total` counts questions asked, with or without a reply.
//! - `coredns_health_request_…` are our probes of ourselves, at every address and CPU.
//! - `coredns_nodecache_setup_errors_total`: `iptables` is whatever went wrong on the host, `configmap` a refused reload;
//!   the other types never count.
//! - `coredns_plugin_enabled` knows `cache`, `errors`, `forward` and `prometheus`, wherever there is a zone.
//!
//! Read first: incumbent.md of the design, section 2.9.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Worker;
use super::cells::{Buckets, By, Counter, Distribution, Label};
use super::labels::{Asked, Exchange, Reload, Reply, Said, Sign, Socket};
use super::served::{Cells, SIZES, TIMES, TRANSPORTS};
use super::talks::Talks;
use super::text::Text;
use crate::wire::Name;

/// What the cells cannot tell: how it stands at the moment of the scrape.
#[derive(Debug, Default)]
pub struct Scene {
    /// What each slot stands for; see [`Slots::pairs`](super::Slots::pairs).
    pub pairs: Vec<(SocketAddr, Name)>,
    /// Every server of every upstream; one that is in two of them comes twice.
    pub servers: Vec<(SocketAddr, Arc<Talks>)>,
    /// Our probes of ourselves.
    pub probes: Arc<Talks>,
    /// Answers in the cache, with records and without.
    pub positive: u64,
    pub negative: u64,
    /// Answers that left the cache for want of room.
    pub positive_evicted: u64,
    pub negative_evicted: u64,
    /// Questions asked while every server of the group was a suspect.
    pub all_suspect: u64,
    /// What went wrong on the host.
    pub node_failures: u64,
    /// Identifies the configuration in force.
    pub config: String,
}

/// Where a series belongs.
struct Place {
    server: String,
    zone: String,
}

/// One pair of address and zone, and the cells all workers have for it.
struct Corner<'a> {
    place: Place,
    cells: Vec<&'a Cells>,
}

/// Picks some of the cells.
type Of<T> = fn(&Cells) -> &T;

/// The labels that many of the families share.
const VIEW: (&str, &str) = ("view", "");
const PROXY: (&str, &str) = ("proxy_name", "forward");

/// All families of the incumbent.
pub(super) fn render(scene: &Scene, workers: &[Arc<Worker>]) -> String {
    let mut text = Text::default();
    let corners: Vec<Corner<'_>> = scene.pairs.iter().enumerate().map(|(at, pair)| corner(at, pair, workers)).collect();
    queries(&mut text, &corners);
    replies(&mut text, &corners);
    cache(&mut text, &corners, scene, workers);
    forward(&mut text, scene, workers);
    process(&mut text, &corners, scene, workers);
    text.into_string()
}

fn corner<'a>(at: usize, (server, zone): &(SocketAddr, Name), workers: &'a [Arc<Worker>]) -> Corner<'a> {
    let place = Place { server: format!("dns://{server}"), zone: zone.to_string() };
    Corner { place, cells: workers.iter().filter_map(|worker| worker.served.at(at)).collect() }
}

fn queries(text: &mut Text, corners: &[Corner<'_>]) {
    let mut requests = text.counter("coredns_dns_requests_total", "Queries, by how they came and what they ask for.");
    for it in corners {
        // Clients and the address they ask are of one family.
        let family = if it.place.server.starts_with("dns://[") { "2" } else { "1" };
        for (at, (_, proto)) in TRANSPORTS.iter().enumerate() {
            for asked in Asked::ALL {
                let labels = [
                    ("server", &*it.place.server),
                    ("zone", &*it.place.zone),
                    VIEW,
                    ("proto", *proto),
                    ("family", family),
                    ("type", asked.label()),
                ];
                requests.value(&labels, by(it, *asked, |cells| &cells.requests[at]));
            }
        }
    }
    let mut dnssec = text.counter("coredns_dns_do_requests_total", "Queries with the DO bit.");
    for it in corners {
        dnssec.value(&it.place.labels(), it.sum(|cells| &cells.dnssec_ok));
    }
    sizes(text, corners, "coredns_dns_request_size_bytes", "Octets of a query.", |cells, at| &cells.request_sizes[at]);
}

fn replies(text: &mut Text, corners: &[Corner<'_>]) {
    let mut responses = text.counter("coredns_dns_responses_total", "Replies, by rcode.");
    for it in corners {
        for rcode in Reply::ALL {
            let labels = [
                ("server", &*it.place.server),
                ("zone", &*it.place.zone),
                VIEW,
                ("rcode", rcode.label()),
                ("plugin", ""),
            ];
            responses.value(&labels, by(it, *rcode, |cells| &cells.responses));
        }
    }
    let mut times = text.histogram("coredns_dns_request_duration_seconds", "Time from query to reply.");
    for it in corners {
        let all = Buckets::sum(it.cells.iter().map(|cells| &cells.times));
        times.distribution(&it.place.labels(), &TIMES, &all, 1e9);
    }
    sizes(text, corners, "coredns_dns_response_size_bytes", "Octets of a reply.", |cells, at| {
        &cells.response_sizes[at]
    });
}

fn sizes<'a>(
    text: &mut Text,
    corners: &[Corner<'a>],
    name: &'static str,
    help: &str,
    of: impl Fn(&'a Cells, usize) -> &'a Buckets<{ SIZES.len() }>,
) {
    let mut family = text.histogram(name, help);
    for it in corners {
        for (at, (_, proto)) in TRANSPORTS.iter().enumerate() {
            let [server, zone, view] = it.place.labels();
            let all = Buckets::sum(it.cells.iter().map(|cells| of(cells, at)));
            family.distribution(&[server, zone, view, ("proto", *proto)], &SIZES, &all, 1.0);
        }
    }
}

fn cache(text: &mut Text, corners: &[Corner<'_>], scene: &Scene, workers: &[Arc<Worker>]) {
    let Some(first) = corners.first() else { return };
    let whole = Place { server: first.place.server.clone(), zone: ".".to_owned() };
    let mut entries = text.gauge("coredns_cache_entries", "Answers in the cache.");
    entries.value(&whole.of_type(Sign::Success), scene.positive);
    entries.value(&whole.of_type(Sign::Denial), scene.negative);
    let mut evictions = text.counter("coredns_cache_evictions_total", "Answers that left the cache for want of room.");
    evictions.value(&whole.of_type(Sign::Success), scene.positive_evicted);
    evictions.value(&whole.of_type(Sign::Denial), scene.negative_evicted);
    let mut hits = text.counter("coredns_cache_hits_total", "Questions the cache had an answer to.");
    for it in corners {
        for sign in Sign::ALL {
            hits.value(&it.place.of_type(*sign), it.hits(*sign));
        }
    }
    let mut requests = text.counter("coredns_cache_requests_total", "Questions the cache was asked.");
    for it in corners {
        let hits: u64 = Sign::ALL.iter().map(|sign| it.hits(*sign)).sum();
        requests.value(&it.place.cache_labels(), hits + it.sum(|cells| &cells.misses));
    }
    let counters: [(_, _, Of<Counter>); 3] = [
        ("coredns_cache_misses_total", "Questions the cache had no answer to.", |cells| &cells.misses),
        ("coredns_cache_prefetch_total", "Answers renewed ahead of their end.", |cells| &cells.prefetches),
        ("coredns_cache_served_stale_total", "Answers sent past their lifetime.", |cells| &cells.stale),
    ];
    for (name, help, of) in counters {
        let mut family = text.counter(name, help);
        for it in corners {
            family.value(&it.place.cache_labels(), it.sum(of));
        }
    }
    let unfit: u64 = workers.iter().map(|it| it.exchanges.value(Exchange::Malformed)).sum();
    text.counter("coredns_cache_drops_total", "Responses that were of no use.").value(&whole.cache_labels(), unfit);
}

fn forward(text: &mut Text, scene: &Scene, workers: &[Arc<Worker>]) {
    let mut servers: BTreeMap<SocketAddr, Vec<&Talks>> = BTreeMap::new();
    for (address, talks) in &scene.servers {
        servers.entry(*address).or_default().push(talks);
    }
    let servers: Vec<(String, Vec<&Talks>)> = servers.into_iter().map(|(at, it)| (at.to_string(), it)).collect();
    let said = |talks: &[&Talks], what: Said| {
        talks.iter().map(|it| it.said(what)).reduce(Distribution::plus).expect("every server is there once")
    };
    let mut requests = text.counter("coredns_forward_requests_total", "Questions to a server.");
    for (to, talks) in &servers {
        requests.value(&[("to", to)], talks.iter().map(|it| it.asked()).sum::<u64>());
    }
    let mut responses = text.counter("coredns_forward_responses_total", "Replies of a server.");
    for (to, talks) in &servers {
        for what in Said::ALL {
            responses.value(&[("to", to), ("rcode", what.label())], said(talks, *what).count);
        }
    }
    for (name, proxy) in
        [("coredns_forward_request_duration_seconds", None), ("coredns_proxy_request_duration_seconds", Some(PROXY))]
    {
        let mut times = text.histogram(name, "Time a server took to reply.");
        for (to, talks) in &servers {
            for what in Said::ALL {
                let labels: Vec<_> = proxy.into_iter().chain([("to", &**to), ("rcode", what.label())]).collect();
                times.distribution(&labels, &TIMES, &said(talks, *what), 1e9);
            }
        }
    }
    for (name, proxy) in [
        ("coredns_forward_healthcheck_failures_total", None),
        ("coredns_proxy_healthcheck_failures_total", Some(PROXY)),
    ] {
        let mut failures = text.counter(name, "Probes that a server did not answer.");
        for (to, talks) in &servers {
            let labels: Vec<_> = proxy.into_iter().chain([("to", &**to)]).collect();
            failures.value(&labels, talks.iter().map(|it| it.failed_probes()).sum::<u64>());
        }
    }
    for (name, help, [udp, tcp]) in [
        (
            "coredns_proxy_conn_cache_hits_total",
            "Questions sent over a socket or connection used before.",
            [Socket::UdpReused, Socket::TcpReused],
        ),
        (
            "coredns_proxy_conn_cache_misses_total",
            "Questions that needed a new socket or connection.",
            [Socket::UdpOpened, Socket::TcpOpened],
        ),
    ] {
        let mut family = text.counter(name, help);
        for (proto, which) in [("udp", udp), ("tcp", tcp)] {
            let count: u64 = workers.iter().map(|it| it.upstream_sockets.value(which)).sum();
            family.value(&[PROXY, ("to", "all"), ("proto", proto)], count);
        }
    }
    text.counter("coredns_forward_healthcheck_broken_total", "Questions asked while every server was down.")
        .value(&[], scene.all_suspect);
    let shed: u64 = workers.iter().map(|it| it.flights_shed.value()).sum();
    text.counter(
        "coredns_forward_max_concurrent_rejects_total",
        "Questions not asked because too many were under way.",
    )
    .value(&[], shed);
}

fn process(text: &mut Text, corners: &[Corner<'_>], scene: &Scene, workers: &[Arc<Worker>]) {
    let probes = scene.probes.said(Said::NoError);
    text.histogram("coredns_health_request_duration_seconds", "Time we took to answer our own probe.").distribution(
        &[],
        &TIMES,
        &probes,
        1e9,
    );
    text.counter("coredns_health_request_failures_total", "Own probes that we did not answer.")
        .value(&[], scene.probes.failed_probes());
    let sum = |of: fn(&Worker) -> u64| workers.iter().map(|worker| of(worker)).sum::<u64>();
    text.counter("coredns_panics_total", "Panics caught.").value(&[], sum(|it| it.panics.value()));
    let refused = sum(|it| it.reloads.value(Reload::Rejected));
    text.counter("coredns_reload_failed_total", "Refused configurations.").value(&[], refused);
    text.gauge("coredns_reload_version_info", "Always 1; `value` identifies the configuration in force.")
        .value(&[("hash", "siphash"), ("value", &scene.config)], 1);
    let mut enabled =
        text.gauge("coredns_plugin_enabled", "Always 1; what works for the zone, by the incumbent's name.");
    for it in corners {
        for name in ["cache", "errors", "forward", "prometheus"] {
            let [server, zone, view] = it.place.labels();
            enabled.value(&[server, zone, view, ("name", name)], 1);
        }
    }
    let mut setup =
        text.counter("coredns_nodecache_setup_errors_total", "What went wrong on the host or with a reload.");
    for (kind, count) in [
        ("configmap", refused),
        ("interface_add", 0),
        ("interface_check", 0),
        ("iptables", scene.node_failures),
        ("iptables_lock", 0),
    ] {
        setup.value(&[("errortype", kind)], count);
    }
    text.gauge("coredns_build_info", "Always 1; the version of Nodens.")
        .value(&[("version", env!("CARGO_PKG_VERSION")), ("revision", ""), ("goversion", "")], 1);
}

fn by<'a, L: Label, const N: usize>(it: &Corner<'a>, label: L, of: impl Fn(&'a Cells) -> &'a By<L, N>) -> u64 {
    it.cells.iter().map(|cells| of(cells).value(label)).sum()
}

// === impl Place ===

impl Place {
    fn labels(&self) -> [(&'static str, &str); 3] {
        [("server", &self.server), ("zone", &self.zone), VIEW]
    }

    /// The cache calls the zone `zones`.
    fn cache_labels(&self) -> [(&'static str, &str); 3] {
        [("server", &self.server), ("zones", &self.zone), VIEW]
    }

    fn of_type(&self, sign: Sign) -> [(&'static str, &str); 4] {
        [("server", &self.server), ("type", sign.label()), ("zones", &self.zone), VIEW]
    }
}

// === impl Corner ===

impl<'a> Corner<'a> {
    fn sum(&self, of: impl Fn(&'a Cells) -> &'a Counter) -> u64 {
        self.cells.iter().map(|cells| of(cells).value()).sum()
    }

    fn hits(&self, sign: Sign) -> u64 {
        by(self, sign, |cells| &cells.hits)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use super::super::{Gauges, Metrics, Outcome, Slot, Slots};
    use super::*;
    use crate::wire::{Key, Query, Transport, Type, compose};

    fn query(qtype: Type, dnssec_ok: bool) -> Vec<u8> {
        let key = Key::new(b"\x01a\x03lan\0", qtype, dnssec_ok, false).expect("legal");
        let mut octets = [0; compose::QUERY_MAX];
        let length = compose::upstream_query(&key, 7, None, true, &mut octets).expect("it fits");
        octets[..length].to_vec()
    }

    fn scene(slots: &Slots) -> Scene {
        Scene { pairs: slots.pairs().to_vec(), ..Scene::default() }
    }

    fn slots() -> Slots {
        let addresses = [SocketAddr::from(([169, 254, 20, 10], 53)), SocketAddr::from((Ipv6Addr::LOCALHOST, 53))];
        Slots::new(&addresses, &[&"lan".parse().expect("legal"), &Name::root()], None)
    }

    fn text_of(count: impl Fn(&Worker, Slot)) -> String {
        let (metrics, slots) = (Metrics::new(2, Gauges::default()), slots());
        count(&metrics.worker(0), slots.slot(0, 0));
        count(&metrics.worker(1), slots.slot(0, 0));
        render(&scene(&slots), &metrics.workers())
    }

    #[test]
    fn a_query_counts_under_its_address_zone_transport_and_type() {
        let text = text_of(|worker, slot| {
            let octets = query(Type::AAAA, true);
            worker.served.asked(slot, &Query::parse(&octets, Transport::Tcp).expect("legal"));
        });
        let place = "server=\"dns://169.254.20.10:53\",zone=\"lan.\",view=\"\"";
        let requests = format!("coredns_dns_requests_total{{{place},proto=\"tcp\",family=\"1\",type=\"AAAA\"}} 2\n");
        assert!(text.contains(&requests), "{text}");
        assert!(text.contains(&format!("coredns_dns_do_requests_total{{{place}}} 2\n")));
        assert!(
            text.contains(&format!("coredns_dns_request_size_bytes_bucket{{{place},proto=\"tcp\",le=\"100\"}} 2\n"))
        );
        assert!(text.contains(
            "coredns_dns_requests_total{server=\"dns://[::1]:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"2\",type=\"A\"} 0\n"
        ));
    }

    #[test]
    fn a_reply_counts_by_rcode_and_time() {
        let text = text_of(|worker, slot| {
            let reply = [0, 7, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
            worker.count_sent(&reply, Transport::Udp, Outcome::Failure, slot, Duration::from_millis(3));
        });
        let place = "server=\"dns://169.254.20.10:53\",zone=\"lan.\",view=\"\"";
        assert!(text.contains(&format!("coredns_dns_responses_total{{{place},rcode=\"SERVFAIL\",plugin=\"\"}} 2\n")));
        let bucket = |le: &str| format!("coredns_dns_request_duration_seconds_bucket{{{place},le=\"{le}\"}}");
        assert!(text.contains(&format!("{} 0\n", bucket("0.002"))), "{text}");
        assert!(text.contains(&format!("{} 2\n", bucket("0.004"))));
        assert!(text.contains(&format!("coredns_dns_request_duration_seconds_sum{{{place}}} 0.006\n")));
    }

    #[test]
    fn hits_and_misses_are_all_the_cache_was_asked() {
        let text = text_of(|worker, slot| {
            worker.served.hit(slot, Sign::Success);
            worker.served.hit(slot, Sign::Denial);
            worker.served.missed(slot);
        });
        let place = "server=\"dns://169.254.20.10:53\"";
        let hits = format!("coredns_cache_hits_total{{{place},type=\"denial\",zones=\"lan.\",view=\"\"}} 2\n");
        assert!(text.contains(&hits), "{text}");
        assert!(text.contains(&format!("coredns_cache_requests_total{{{place},zones=\"lan.\",view=\"\"}} 6\n")));
        assert!(text.contains(&format!("coredns_cache_misses_total{{{place},zones=\"lan.\",view=\"\"}} 2\n")));
    }

    #[test]
    fn a_server_of_two_groups_is_shown_once() {
        let talks = [Arc::new(Talks::default()), Arc::new(Talks::default())];
        for it in &talks {
            it.ask();
            it.say(Said::ServFail, Duration::from_millis(1));
        }
        let address = SocketAddr::from(([10, 96, 0, 10], 53));
        let servers = talks.iter().map(|it| (address, Arc::clone(it))).collect();
        let text = render(&Scene { servers, ..scene(&slots()) }, &[]);
        assert!(text.contains("coredns_forward_requests_total{to=\"10.96.0.10:53\"} 2\n"), "{text}");
        assert!(text.contains("coredns_forward_responses_total{to=\"10.96.0.10:53\",rcode=\"SERVFAIL\"} 2\n"));
        let seconds = "coredns_proxy_request_duration_seconds_count{proxy_name=\"forward\",to=\"10.96.0.10:53\"";
        assert_eq!(text.matches(seconds).count(), Said::COUNT);
    }

    #[test]
    fn the_number_of_series_does_not_depend_on_what_was_counted() {
        let quiet = text_of(|_, _| ());
        let busy = text_of(|worker, slot| {
            for qtype in 0..u16::MAX {
                let octets = query(Type(qtype), qtype % 2 == 0);
                if let Ok(query) = Query::parse(&octets, Transport::Udp) {
                    worker.served.asked(slot, &query);
                }
            }
            for rcode in 0..16 {
                let reply = [0, 7, 0x81, 0x80 | rcode];
                worker.count_sent(&reply, Transport::Tcp, Outcome::Miss, slot, Duration::from_millis(rcode.into()));
            }
        });
        assert_eq!(quiet.lines().count(), busy.lines().count());
    }
}
