//! What the agent counts about itself: every metric declared once, counted per worker, added up at scrape.
//!
//! The promise: counting costs a load and a store on memory no other thread writes; labels come from closed sets, so
//! the number of series depends on the configuration at most, never on what arrives from the network; names of queries
//! and addresses of clients are never labels.
//!
//! ```text
//! worker 0 ─► Worker cells ─┐
//! worker 1 ─► Worker cells ─┼─► Collector ─► Registry ─► Metrics::render ─► /metrics
//! cache, upstreams ─► Gauges ┘   (adds up)          Scene ─► incumbent ───┘ while the plan wants its names
//! ```
//!
//! How counting costs nothing: workers write cells of their own, a hit takes its time with the batch it is in (one look at
//! the clock for up to 32 replies, which counts for each what the last of them waited), and what is only known elsewhere
//! is looked at when somebody scrapes.
//!
//! To add one: a line in `metrics!` below, and, if it has a new label, a set in `labels.rs`.

mod cells;
mod incumbent;
mod labels;
mod served;
mod talks;
mod text;
pub mod top;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::{Registry, TextEncoder, proto};

pub use cells::{BOUNDS, By, Counter, Distribution, Label, Latency, Level};
use cells::{Cells, counter, gauge, histogram, pairs};
pub use incumbent::Scene;
pub use labels::{
    Arrival, Asked, Closed, Drop, Exchange, Lookup, NotStored, Outcome, Refused, Reload, Reply, Said, Sign, Snapshot,
    Socket, Stored,
};
use served::TIMES;
pub use served::{SLOTS, Served, Slot, Slots};
pub use talks::Talks;

use crate::wire::Transport;

/// Declares the metrics: help (the doc comment), field, cells, name. Once each.
macro_rules! metrics {
    (
        $(#[$about_cells:meta])*
        struct $worker:ident { $(#[doc = $help:literal] $field:ident: $cells:ty = $name:literal,)+ }

        $(#[$about_gauges:meta])*
        struct $gauges:ident { $(#[doc = $gauge_help:literal] $gauge:ident: $kind:ident [$($label:literal),*] = $gauge_name:literal,)+ }
    ) => {
        $(#[$about_cells])*
        #[derive(Debug, Default)]
        // A line of its own, and that of the neighbour the prefetcher brings: no worker writes near another's cells.
        #[repr(align(128))]
        pub struct $worker {
            $(#[doc = $help] pub $field: $cells,)+
            /// What the incumbent's names need beyond that.
            pub served: Served,
            /// Who asks for what, sampled.
            pub top: top::Sampled,
        }

        $(#[$about_gauges])*
        #[derive(Default)]
        pub struct $gauges {
            $(#[doc = $gauge_help] pub $gauge: Reader,)+
            /// The rest of what the incumbent's metrics show; nothing while they are not wanted.
            pub incumbent: Option<Box<Look<Option<Scene>>>>,
        }

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
                    $({
                        const KIND: proto::MetricType = proto::MetricType::$kind;
                        family($gauge_name, $gauge_help, KIND, self.gauges.$gauge.read(KIND, &[$($label),*]))
                    },)+
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
        /// Questions to servers, by what carried them; brought up to date once a second.
        upstream_sockets: By<Socket, { Socket::COUNT }> = "nodens_upstream_sockets_total",
        /// Questions of ours that came back to us: an upstream forwards to this agent.
        loops: Counter = "nodens_forwarding_loops_total",
        /// TCP connections accepted.
        tcp_accepted: Counter = "nodens_tcp_connections_accepted_total",
        /// TCP connections closed, by reason.
        tcp_closed: By<Closed, { Closed::COUNT }> = "nodens_tcp_connections_closed_total",
        /// TCP connections open.
        tcp_open: Level = "nodens_tcp_connections_open",
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
        build_info: GAUGE ["version"] = "nodens_build_info",
        /// Bytes the cache holds, bookkeeping included.
        cache_bytes: GAUGE [] = "nodens_cache_bytes",
        /// Bytes the cache may hold.
        cache_limit_bytes: GAUGE [] = "nodens_cache_limit_bytes",
        /// Answers in the cache: positive, negative, failure.
        cache_entries: GAUGE ["kind"] = "nodens_cache_entries",
        /// Entries that left the cache before their time: for want of room, or flushed.
        cache_evictions: COUNTER ["kind", "reason"] = "nodens_cache_evictions_total",
        /// Plans that came into force since the start, the first included.
        config_generation: GAUGE [] = "nodens_config_generation",
        /// Always 1; the hash identifies the configuration in force.
        config_info: GAUGE ["hash"] = "nodens_config_info",
        /// 1 while the newest configuration is refused and the plan before it runs on.
        config_refused: GAUGE [] = "nodens_config_refused",
        /// Unix time of the last changed configuration, by what became of it; 0: none.
        config_reloaded: GAUGE ["result"] = "nodens_config_last_reload_timestamp_seconds",
        /// Questions under way to upstreams.
        in_flight: GAUGE [] = "nodens_in_flight",
        /// Datagrams the kernel discarded because we did not read them in time.
        kernel_drops: COUNTER ["address"] = "nodens_kernel_receive_drops_total",
        /// 1 while the server answers, 0 while it is a suspect.
        upstream_up: GAUGE ["upstream", "server"] = "nodens_upstream_up",
        /// Questions a server has not answered yet.
        upstream_outstanding: GAUGE ["upstream", "server"] = "nodens_upstream_outstanding",
        /// Smoothed time a server takes to answer.
        upstream_rtt: GAUGE ["upstream", "server"] = "nodens_upstream_rtt_seconds",
        /// Questions a server was asked, probes not included.
        upstream_asked: COUNTER ["upstream", "server"] = "nodens_upstream_questions_total",
        /// Time a server took to reply, by what it said.
        upstream_replies: HISTOGRAM ["upstream", "server", "rcode"] = "nodens_upstream_reply_seconds",
        /// Probes a suspected server did not answer.
        upstream_probe_failures: COUNTER ["upstream", "server"] = "nodens_upstream_probe_failures_total",
        /// Questions asked while every server of the upstream was a suspect.
        upstream_all_suspect: COUNTER ["upstream"] = "nodens_upstream_all_suspect_total",
        /// 1 while everything needed for serving is there.
        ready: GAUGE [] = "nodens_ready",
        /// Time we took to answer our own probe.
        probes: HISTOGRAM [] = "nodens_probe_seconds",
        /// Own probes that we did not answer.
        probe_failures: COUNTER [] = "nodens_probe_failures_total",
        /// 1 while the kernel hands us the traffic of this node.
        intercepting: GAUGE [] = "nodens_intercepting",
        /// 1 while the cluster DNS answers on this node because we do not hold the lease.
        fallback_active: GAUGE [] = "nodens_fallback_active",
        /// Lifetime of the kernel's permission to intercept.
        lease: GAUGE [] = "nodens_lease_seconds",
        /// Always 1; how traffic becomes ours.
        interception_mode: GAUGE ["mode"] = "nodens_interception_mode",
        /// 1 for each thing this host cannot do for us.
        degraded: GAUGE ["reason"] = "nodens_interception_degraded",
        /// Times something of ours on the host had been changed by others and was restored.
        repairs: GAUGE ["what"] = "nodens_node_repairs",
        /// Times the host refused what we had to do there.
        node_failures: COUNTER [] = "nodens_node_failures_total",
        /// 1 while the last thing we had to do on the host failed.
        node_trouble: GAUGE [] = "nodens_node_trouble",
        /// Time on the CPU, user and system.
        cpu: COUNTER [] = "process_cpu_seconds_total",
        /// Unix time of the start.
        start_time: GAUGE [] = "process_start_time_seconds",
        /// Bytes of memory in use by the process.
        resident_memory: GAUGE [] = "process_resident_memory_bytes",
        /// Bytes of address space.
        virtual_memory: GAUGE [] = "process_virtual_memory_bytes",
        /// Threads.
        threads: GAUGE [] = "process_threads",
        /// File descriptors in use.
        open_fds: GAUGE [] = "process_open_fds",
        /// File descriptors the process may use.
        max_fds: GAUGE [] = "process_max_fds",
    }
}

/// All metrics of the process.
pub struct Metrics {
    control: Arc<Worker>,
    workers: Cast,
    registry: Registry,
    incumbent: Option<Box<Look<Option<Scene>>>>,
}

/// The cells of all writers; new ones may be added while they are read.
type Cast = Arc<RwLock<Vec<Arc<Worker>>>>;

/// Looks at something when somebody scrapes.
#[derive(Default)]
pub struct Reader(Option<Box<Push>>);

/// Pushes the series of one metric.
type Push = dyn Fn(&mut Samples) + Send + Sync;

/// Sees how something stands.
pub type Look<T> = dyn Fn() -> T + Send + Sync;

/// The series a [`Reader`] shows.
pub struct Samples {
    kind: proto::MetricType,
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
    /// Counts a reply about to be sent: by the header's four bits of its rcode, whether it was cut, and what it took.
    pub fn count_sent(&self, reply: &[u8], transport: Transport, outcome: Outcome, slot: Slot, took: Duration) {
        if let [_, _, high, low, ..] = reply {
            let rcode = Reply::of(u16::from(low & 0x0f));
            self.responses.bump(rcode);
            if high & 0x02 != 0 {
                self.truncated.bump();
            }
            self.latency.record(outcome, took);
            self.served.sent(slot, transport, rcode, reply.len(), took);
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Cells for `workers` writers, one more for control, and readers for what is not counted.
    pub fn new(workers: usize, mut gauges: Gauges) -> Self {
        let all: Vec<Arc<Worker>> = (0..=workers).map(|_| Arc::default()).collect();
        let control = Arc::clone(&all[workers]);
        let workers = Arc::new(RwLock::new(all));
        let incumbent = gauges.incumbent.take();
        let everything = Everything { workers: Arc::clone(&workers), gauges, descriptions: Everything::descriptions() };
        let registry = Registry::new();
        registry.register(Box::new(everything)).expect("names in the table are legal and different");
        Self { control, workers, registry, incumbent }
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
        let own = TextEncoder::new().encode_to_string(&self.registry.gather());
        let mut text = own.expect("families without series are left out");
        if let Some(scene) = self.incumbent.as_ref().and_then(|look| look()) {
            text += &incumbent::render(&scene, &self.workers());
        }
        text
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

    fn read(&self, kind: proto::MetricType, labels: &'static [&'static str]) -> Vec<proto::Metric> {
        let mut samples = Samples { kind, labels, series: Vec::new() };
        if let Some(read) = &self.0 {
            read(&mut samples);
        }
        samples.series
    }
}

// === impl Samples ===

impl Samples {
    /// Shows `value` under these label values, one for each label of the metric, in the order of the table.
    pub fn push(&mut self, values: &[&str], value: f64) {
        let metric = if self.kind == proto::MetricType::COUNTER { counter(value) } else { gauge(value) };
        self.add(values, metric);
    }

    /// Shows how long servers, or we, took.
    pub fn push_times(&mut self, values: &[&str], times: &Distribution) {
        self.add(values, histogram(&TIMES, times));
    }

    fn add(&mut self, values: &[&str], mut metric: proto::Metric) {
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

    use super::*;
    use crate::wire::Refusal;

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
        assert!(all_different::<Outcome>() && all_different::<Reload>() && all_different::<Asked>());
        assert!(all_different::<Said>() && all_different::<Sign>() && all_different::<Socket>());
        assert_eq!(Drop::of_label("bad_port"), Some(Drop::BadPort));
        assert_eq!(Drop::of_label("bad_luck"), None);
    }
}
