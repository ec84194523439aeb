//! What the agent counts about itself: every metric declared once, counted per worker, added up at scrape.
//!
//! The promise: counting costs a load and a store on memory no other thread writes; labels come from closed sets, so
//! the number of series depends on the configuration at most, never on what arrives from the network; names of queries
//! and addresses of clients are never labels.
//!
//! ```text
//! worker 0 ─► Worker cells ─┐
//! worker 1 ─► Worker cells ─┼─► Collector ─► Registry ─► Metrics::render ─► /metrics
//! cache, upstreams ─► Gauges ┘   (adds up)
//! ```
//!
//! To add one: a line in `metrics!` below, and, if it has a new label, a set in `labels.rs`.

mod cells;
mod labels;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::{Registry, TextEncoder, proto};

pub use cells::{BOUNDS, By, Counter, Label, Latency, Level};
use cells::{Cells, gauge, pairs};
pub use labels::{
    Arrival, Closed, Drop, Exchange, Lookup, NotStored, Outcome, Refused, Reload, Reply, Snapshot, Stored,
};

/// Declares the metrics: help (the doc comment), field, cells, name. Once each.
macro_rules! metrics {
    (
        $(#[$about_cells:meta])*
        struct $worker:ident { $(#[doc = $help:literal] $field:ident: $cells:ty = $name:literal,)+ }

        $(#[$about_gauges:meta])*
        struct $gauges:ident { $(#[doc = $gauge_help:literal] $gauge:ident [$($label:literal),*] = $gauge_name:literal,)+ }
    ) => {
        $(#[$about_cells])*
        #[derive(Debug, Default)]
        // A line of its own, and that of the neighbour the prefetcher brings: no worker writes near another's cells.
        #[repr(align(128))]
        pub struct $worker { $(#[doc = $help] pub $field: $cells,)+ }

        $(#[$about_gauges])*
        #[derive(Default)]
        pub struct $gauges { $(#[doc = $gauge_help] pub $gauge: Reader,)+ }

        impl Everything {
            fn descriptions() -> Vec<Desc> {
                vec![
                    $(describe($name, $help, <$cells as Cells>::NAMES),)+
                    $(describe($gauge_name, $gauge_help, &[$($label),*]),)+
                ]
            }

            fn families(&self) -> Vec<proto::MetricFamily> {
                let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
                vec![
                    $({
                        let cells: Vec<&$cells> = workers.iter().map(|worker| &worker.$field).collect();
                        family($name, $help, <$cells as Cells>::TYPE, <$cells as Cells>::sum(&cells))
                    },)+
                    $(family($gauge_name, $gauge_help, proto::MetricType::GAUGE, self.gauges.$gauge.read(&[$($label),*])),)+
                ]
            }
        }
    };
}

metrics! {
    /// The cells of one worker. Written by its thread only; see [`Counter::add`].
    struct Worker {
        /// Queries read, by how they came.
        queries: By<Arrival, { Arrival::COUNT }> = "nodens_queries_total",
        /// Replies sent, by rcode.
        responses: By<Reply, { Reply::COUNT }> = "nodens_responses_total",
        /// Questions looked up, by what they found.
        lookups: By<Lookup, { Lookup::COUNT }> = "nodens_lookups_total",
        /// Queries left without a reply, by reason.
        drops: By<Drop, { Drop::COUNT }> = "nodens_dropped_total",
        /// Queries answered with an error at once, by reason.
        refused: By<Refused, { Refused::COUNT }> = "nodens_refused_total",
        /// Replies cut to fit UDP (TC=1).
        truncated: Counter = "nodens_responses_truncated_total",
        /// Time from query to reply.
        latency: Latency<Outcome, { Outcome::COUNT }> = "nodens_response_seconds",
        /// Answers sent past their lifetime (RFC 8767).
        stale_answers: Counter = "nodens_stale_answers_total",
        /// Answers renewed before they expired because they were in use.
        prefetches: Counter = "nodens_prefetches_total",
        /// Responses stored, by kind.
        stored: By<Stored, { Stored::COUNT }> = "nodens_cache_stored_total",
        /// Responses not stored, by reason.
        not_stored: By<NotStored, { NotStored::COUNT }> = "nodens_cache_not_stored_total",
        /// Questions that took off to an upstream.
        flights_launched: Counter = "nodens_flights_launched_total",
        /// Flights that came back with an answer.
        flights_landed: Counter = "nodens_flights_landed_total",
        /// Flights that ended without an answer.
        flights_lapsed: Counter = "nodens_flights_lapsed_total",
        /// Questions that were not let off because too many were under way.
        flights_shed: Counter = "nodens_flights_shed_total",
        /// Queries sent to servers, repetitions included.
        upstream_sends: Counter = "nodens_upstream_sends_total",
        /// Questions to servers, by how they ended.
        exchanges: By<Exchange, { Exchange::COUNT }> = "nodens_upstream_exchanges_total",
        /// Questions of ours that came back to us: an upstream forwards to this agent.
        loops: Counter = "nodens_forwarding_loops_total",
        /// TCP connections accepted.
        tcp_accepted: Counter = "nodens_tcp_connections_accepted_total",
        /// TCP connections closed, by reason.
        tcp_closed: By<Closed, { Closed::COUNT }> = "nodens_tcp_connections_closed_total",
        /// TCP connections open.
        tcp_open: Level = "nodens_tcp_connections_open",
        /// Datagrams the kernel discarded because we did not read them in time.
        kernel_drops: Counter = "nodens_kernel_receive_drops_total",
        /// Panics caught; each cost one query.
        panics: Counter = "nodens_panics_total",
        /// Changed configurations, by what became of them.
        reloads: By<Reload, { Reload::COUNT }> = "nodens_config_reloads_total",
        /// Snapshots of the cache, by what became of them.
        snapshots: By<Snapshot, { Snapshot::COUNT }> = "nodens_cache_snapshots_total",
    }

    /// What is not counted but looked at when somebody scrapes. A reader that is not set shows nothing.
    struct Gauges {
        /// Always 1; the version is the label.
        build_info ["version"] = "nodens_build_info",
        /// Bytes the cache holds, bookkeeping included.
        cache_bytes [] = "nodens_cache_bytes",
        /// Bytes the cache may hold.
        cache_limit_bytes [] = "nodens_cache_limit_bytes",
        /// Answers in the cache: positive, negative, failure.
        cache_entries ["kind"] = "nodens_cache_entries",
        /// Questions under way to upstreams.
        in_flight [] = "nodens_in_flight",
        /// 1 while the server answers, 0 while it is a suspect.
        upstream_up ["upstream", "server"] = "nodens_upstream_up",
        /// Questions a server has not answered yet.
        upstream_outstanding ["upstream", "server"] = "nodens_upstream_outstanding",
        /// Smoothed time a server takes to answer.
        upstream_rtt ["upstream", "server"] = "nodens_upstream_rtt_seconds",
        /// 1 while everything needed for serving is there.
        ready [] = "nodens_ready",
        /// 1 while the kernel hands us the traffic of this node.
        intercepting [] = "nodens_intercepting",
        /// 1 for each thing this host cannot do for us.
        degraded ["reason"] = "nodens_interception_degraded",
        /// Times something of ours on the host had been changed by others and was restored.
        repairs ["what"] = "nodens_node_repairs",
        /// Unix time of the start.
        start_time [] = "process_start_time_seconds",
        /// Bytes of memory in use by the process.
        resident_memory [] = "process_resident_memory_bytes",
        /// File descriptors in use.
        open_fds [] = "process_open_fds",
    }
}

/// All metrics of the process.
pub struct Metrics {
    control: Arc<Worker>,
    workers: Cast,
    registry: Registry,
}

/// The cells of all writers; new ones may be added while they are read.
type Cast = Arc<RwLock<Vec<Arc<Worker>>>>;

/// Looks at something when somebody scrapes.
#[derive(Default)]
pub struct Reader(Option<Box<Look>>);

/// Pushes the series of one gauge.
type Look = dyn Fn(&mut Samples) + Send + Sync;

/// The series a [`Reader`] shows.
pub struct Samples {
    labels: &'static [&'static str],
    series: Vec<proto::Metric>,
}

/// The one collector behind the registry.
struct Everything {
    workers: Cast,
    gauges: Gauges,
    descriptions: Vec<Desc>,
}

// === impl Worker ===

impl Worker {
    /// Counts a reply by the header's four bits of its rcode, and whether it was cut.
    pub fn count_reply(&self, reply: &[u8]) {
        if let [_, _, high, low, ..] = reply {
            self.responses.bump(Reply::of(u16::from(low & 0x0f)));
            if high & 0x02 != 0 {
                self.truncated.bump();
            }
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Cells for `workers` writers, one more for control, and readers for what is not counted.
    pub fn new(workers: usize, gauges: Gauges) -> Self {
        let all: Vec<Arc<Worker>> = (0..=workers).map(|_| Arc::default()).collect();
        let control = Arc::clone(&all[workers]);
        let workers = Arc::new(RwLock::new(all));
        let everything = Everything { workers: Arc::clone(&workers), gauges, descriptions: Everything::descriptions() };
        let registry = Registry::new();
        registry.register(Box::new(everything)).expect("names in the table are legal and different");
        Self { control, workers, registry }
    }

    /// The cells of the writer `index`, for its thread alone.
    ///
    /// # Panics
    /// If there is no such writer.
    pub fn worker(&self, index: usize) -> Arc<Worker> {
        Arc::clone(&self.workers.read().unwrap_or_else(PoisonError::into_inner)[index])
    }

    /// Cells for one more writer.
    pub fn add_worker(&self) -> Arc<Worker> {
        let cells = Arc::<Worker>::default();
        self.workers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&cells));
        cells
    }

    /// The cells for what is no worker's. Each counter in it has one writer at a time: whoever reloads, whoever writes
    /// snapshots.
    pub fn control(&self) -> &Worker {
        &self.control
    }

    /// The cells of all writers, for reading.
    pub fn workers(&self) -> Vec<Arc<Worker>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything in the Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("families without series are left out")
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("workers", &self.workers().len()).finish_non_exhaustive()
    }
}

// === impl Reader ===

impl Reader {
    /// A reader for one gauge without labels.
    pub fn value(read: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self::series(move |samples| samples.push(&[], read()))
    }

    /// A reader for any number of series, as many as the configuration names.
    pub fn series(read: impl Fn(&mut Samples) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(read)))
    }

    fn read(&self, labels: &'static [&'static str]) -> Vec<proto::Metric> {
        let mut samples = Samples { labels, series: Vec::new() };
        if let Some(read) = &self.0 {
            read(&mut samples);
        }
        samples.series
    }
}

// === impl Samples ===

impl Samples {
    /// Shows `value` under these label values, one for each label of the gauge, in the order of the table.
    pub fn push(&mut self, values: &[&str], value: f64) {
        let mut metric = gauge(value);
        metric.set_label(pairs(self.labels, values));
        self.series.push(metric);
    }
}

// === impl Everything ===

impl Collector for Everything {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut families = self.families();
        // The encoder refuses a family without series.
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

fn describe(name: &str, help: &str, labels: &[&str]) -> Desc {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help.trim().to_owned(), labels, HashMap::new()).expect("names in the table are legal")
}

fn family(name: &str, help: &str, kind: proto::MetricType, series: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.trim().to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;
    use crate::wire::{Refusal, Transport};

    #[test]
    fn cells_of_all_workers_are_added_up() {
        let metrics = Metrics::new(2, Gauges::default());
        metrics.worker(0).queries.add(Arrival::of(Transport::Udp, Ipv4Addr::LOCALHOST.into()), 3);
        metrics.worker(1).queries.bump(Arrival::of(Transport::Udp, Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()));
        metrics.worker(1).queries.bump(Arrival::of(Transport::Tcp, Ipv6Addr::LOCALHOST.into()));
        let text = metrics.render();
        assert!(text.contains("nodens_queries_total{transport=\"udp\",family=\"ipv4\"} 4\n"), "{text}");
        assert!(text.contains("nodens_queries_total{transport=\"tcp\",family=\"ipv6\"} 1\n"), "{text}");
        assert!(text.contains("nodens_queries_total{transport=\"udp\",family=\"ipv6\"} 0\n"), "{text}");
    }

    #[test]
    fn the_number_of_series_does_not_depend_on_what_was_counted() {
        let metrics = Metrics::new(1, Gauges::default());
        let before = metrics.render().lines().count();
        let worker = metrics.worker(0);
        for rcode in 0..4096 {
            worker.responses.bump(Reply::of(rcode));
        }
        for millis in 0..10_000 {
            worker.latency.record(Outcome::Miss, Duration::from_millis(millis));
        }
        assert_eq!(metrics.render().lines().count(), before);
    }

    #[test]
    fn an_rcode_is_shown_by_its_mnemonic() {
        let shown: Vec<&str> = [0, 2, 3, 5, 11, 16, 23].into_iter().map(|rcode| Reply::of(rcode).label()).collect();
        assert_eq!(shown, ["NOERROR", "SERVFAIL", "NXDOMAIN", "REFUSED", "DSOTYPENI", "BADVERS", "BADCOOKIE"]);
        assert!([12, 15, 24, 4095].into_iter().all(|rcode| Reply::of(rcode) == Reply::Other));
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_infinity() {
        let metrics = Metrics::new(1, Gauges::default());
        let worker = metrics.worker(0);
        for micros in [50, 51, 1_800_000, 60_000_000] {
            worker.latency.record(Outcome::Stale, Duration::from_micros(micros));
        }
        let text = metrics.render();
        for (bound, count) in [("0.00005", 1), ("0.0001", 2), ("1", 2), ("1.9", 3), ("8", 3), ("+Inf", 4)] {
            let line = format!("nodens_response_seconds_bucket{{outcome=\"stale\",le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(text.contains("nodens_response_seconds_count{outcome=\"stale\"} 4\n"), "{text}");
        assert!(text.contains("nodens_response_seconds_sum{outcome=\"stale\"} 61.800101\n"), "{text}");
    }

    #[test]
    fn a_batch_counts_as_its_members_one_by_one() {
        let (batch, single) = (Metrics::new(1, Gauges::default()), Metrics::new(1, Gauges::default()));
        batch.worker(0).latency.record_many(Outcome::Hit, Duration::from_micros(70), 3);
        for _ in 0..3 {
            single.worker(0).latency.record(Outcome::Hit, Duration::from_micros(70));
        }
        assert_eq!(batch.render(), single.render());
        assert!(batch.render().contains("nodens_response_seconds_count{outcome=\"hit\"} 3\n"));
    }

    #[test]
    fn every_refusal_of_the_wire_has_a_series() {
        for refusal in Refusal::ALL {
            let known = match refusal.rcode() {
                Some(_) => Refused::of_label(refusal.label()).is_some(),
                None => Drop::of_label(refusal.label()).is_some(),
            };
            assert!(known, "{refusal:?}");
        }
    }

    #[test]
    fn a_level_rises_and_falls_but_never_below_none() {
        let metrics = Metrics::new(1, Gauges::default());
        let open = &metrics.workers()[0].tcp_open;
        open.rise();
        open.fall();
        open.fall();
        assert!(metrics.render().contains("nodens_tcp_connections_open 0\n"));
        open.rise();
        assert!(metrics.render().contains("nodens_tcp_connections_open 1\n"));
    }

    #[test]
    fn a_gauge_is_read_at_each_scrape_and_absent_without_a_reader() {
        let level = Arc::new(Level::default());
        let seen = Arc::clone(&level);
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let gauges = Gauges { in_flight: Reader::value(move || seen.value() as f64), ..Gauges::default() };
        let metrics = Metrics::new(1, gauges);
        level.rise();
        assert!(metrics.render().contains("nodens_in_flight 1\n"));
        level.rise();
        assert!(metrics.render().contains("nodens_in_flight 2\n"));
        assert!(!metrics.render().contains("nodens_cache_bytes"));
    }

    #[test]
    fn label_values_of_the_configuration_are_escaped() {
        let up = Reader::series(|samples| samples.push(&["a\"b\nc\\", "10.96.0.10:53"], 1.0));
        let metrics = Metrics::new(1, Gauges { upstream_up: up, ..Gauges::default() });
        let line = "nodens_upstream_up{upstream=\"a\\\"b\\nc\\\\\",server=\"10.96.0.10:53\"} 1\n";
        assert!(metrics.render().contains(line), "{}", metrics.render());
    }

    #[test]
    fn names_follow_the_conventions_and_are_all_different() {
        let text = Metrics::new(1, Gauges::default()).render();
        let mut names = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(name.starts_with("nodens_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        }
        assert_eq!(text.matches("# HELP ").count(), names.len(), "each has a help text");
    }

    #[test]
    fn label_values_in_a_set_are_different() {
        fn all_different<L: Label>() -> bool {
            let values: BTreeSet<_> = L::ALL.iter().map(|label| label.values()).collect();
            values.len() == L::ALL.len() && L::ALL.iter().enumerate().all(|(at, label)| label.index() == at)
        }
        assert!(all_different::<Arrival>() && all_different::<Reply>() && all_different::<Lookup>());
        assert!(all_different::<Drop>() && all_different::<Refused>() && all_different::<Exchange>());
        assert!(all_different::<Stored>() && all_different::<NotStored>() && all_different::<Closed>());
        assert!(all_different::<Outcome>() && all_different::<Reload>());
        assert_eq!(Drop::of_label("bad_port"), Some(Drop::BadPort));
        assert_eq!(Drop::of_label("bad_luck"), None);
    }
}
