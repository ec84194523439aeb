//! A plan as the text of a `nodens.yaml`: reading it again gives the same plan.
//!
//! What the plan's defaults say is left out. One thing a plan can say and the text cannot: a `client_timeout` or a stale
//! TTL of a single zone.

use std::fmt::Write;
use std::time::Duration;

use crate::plan::{
    Aaaa, Action, Cache, Draft, HealthCheck, Http, Lifetimes, Limits, Log, LogFormat, Members, NonRecursive, Plan,
    QueryLog, Upstream, Zone, human_bytes, human_duration,
};

/// Writes `plan` as YAML, `comments` in front of it.
pub fn yaml(plan: &Plan, comments: &[String]) -> String {
    let mut out = Out(String::new());
    for comment in comments {
        // Whatever a comment says, it stays one.
        let clean: String = comment.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        out.line(0, format_args!("# {clean}"));
    }
    if !comments.is_empty() {
        out.0.push('\n');
    }
    out.listen(plan);
    out.node(plan);
    out.upstreams(plan);
    let general = general(plan);
    out.zones(plan, &general);
    if !plan.aaaa_clients.is_empty() {
        out.line(0, format_args!("aaaa_clients: {}", list(&plan.aaaa_clients)));
    }
    out.cache(&plan.cache, &general);
    out.limits(&plan.limits);
    out.http(&plan.http);
    out.log(plan.log);
    if !plan.coredns_names {
        out.line(0, format_args!("metrics: {{ coredns_names: false }}"));
    }
    if plan.non_recursive != NonRecursive::default() {
        out.line(0, format_args!("non_recursive: {}", plan.non_recursive));
    }
    out.0
}

/// The lifetimes to write for all zones: the root's, or those of the first zone that asks anybody.
fn general(plan: &Draft) -> Lifetimes {
    let routed = |zone: &&Zone| matches!(zone.action, Action::Route(_));
    let model = plan.zones.iter().filter(routed).find(|zone| zone.name.labels() == 0);
    let model = model.or_else(|| plan.zones.iter().find(routed)).or(plan.zones.first());
    let mut general = model.map_or_else(Lifetimes::default, |zone| zone.lifetimes);
    // What only the general block says must be that of a zone with stale answers, if there is one.
    if let Some(stale) = plan.zones.iter().find(|zone| zone.lifetimes.max_stale > 0) {
        general.client_timeout = stale.lifetimes.client_timeout;
        general.stale_ttl = stale.lifetimes.stale_ttl;
    }
    general
}

struct Out(String);

impl Out {
    fn line(&mut self, indent: usize, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{:indent$}{line}", "").expect("a String takes everything");
    }

    fn listen(&mut self, plan: &Draft) {
        self.line(0, format_args!("listen:"));
        self.line(2, format_args!("addresses: {}", list(&plan.listen.addresses)));
        self.line(2, format_args!("port: {}", plan.listen.port));
        if let Some(workers) = plan.listen.workers {
            self.line(2, format_args!("workers: {workers}"));
        }
        self.0.push('\n');
    }

    fn node(&mut self, plan: &Draft) {
        let Some(node) = &plan.node else { return };
        self.line(0, format_args!("node:"));
        self.line(2, format_args!("interface: {}", quoted(&node.interface)));
        self.line(2, format_args!("interception: \"{}\"", node.interception));
        self.line(2, format_args!("lease: {}", human_duration(node.lease)));
        if let Some(upstream) = node.fallback.and_then(|index| plan.upstreams.get(index)) {
            self.line(2, format_args!("fallback: {}", quoted(&upstream.name)));
        }
        self.0.push('\n');
    }

    fn upstreams(&mut self, plan: &Draft) {
        if plan.upstreams.is_empty() {
            return;
        }
        self.line(0, format_args!("upstreams:"));
        for upstream in &plan.upstreams {
            self.upstream(upstream);
        }
        self.0.push('\n');
    }

    fn upstream(&mut self, upstream: &Upstream) {
        let standard = Upstream::new("", upstream.members.clone());
        self.line(2, format_args!("{}:", quoted(&upstream.name)));
        match &upstream.members {
            Members::ResolvConf(path) => {
                self.line(4, format_args!("resolv_conf: {}", quoted(&path.to_string_lossy())));
            }
            Members::Servers(servers) => self.line(4, format_args!("servers: {}", list(servers))),
            Members::Service { namespace, name } => {
                self.line(4, format_args!("service: {}", quoted(&format!("{namespace}/{name}"))));
            }
        }
        if upstream.choice != standard.choice {
            self.line(4, format_args!("policy: {}", upstream.choice));
        }
        if upstream.protocol != standard.protocol {
            self.line(4, format_args!("protocol: {}", upstream.protocol));
        }
        if let Some(name) = &upstream.tls_name {
            self.line(4, format_args!("tls_name: {}", quoted(name)));
        }
        if let Some(path) = &upstream.tls_ca {
            self.line(4, format_args!("tls_ca: {}", quoted(&path.to_string_lossy())));
        }
        if upstream.health_check != standard.health_check {
            let HealthCheck { interval, max_fails, name } = &upstream.health_check;
            let (interval, name) = (human_duration(*interval), quoted(&name.to_string()));
            self.line(
                4,
                format_args!("health_check: {{ interval: {interval}, max_fails: {max_fails}, name: {name} }}"),
            );
        }
        if upstream.random_case {
            self.line(4, format_args!("random_case: true"));
        }
    }

    fn zones(&mut self, plan: &Draft, general: &Lifetimes) {
        self.line(0, format_args!("zones:"));
        for zone in &plan.zones {
            let name = zone.name.to_string();
            // The root is its dot.
            let bare = name.strip_suffix('.').filter(|bare| !bare.is_empty()).unwrap_or(&name);
            self.line(2, format_args!("{}:", key(bare)));
            match &zone.action {
                Action::Addresses(addresses) => self.line(4, format_args!("answer: {}", list(addresses))),
                Action::Nodata => self.line(4, format_args!("answer: nodata")),
                Action::Nxdomain => self.line(4, format_args!("answer: nxdomain")),
                Action::Refused => self.line(4, format_args!("answer: refused")),
                Action::Route(index) => {
                    let name = plan.upstreams.get(*index).map_or("", |upstream| upstream.name.as_str());
                    self.line(4, format_args!("upstream: {}", quoted(name)));
                }
            }
            if zone.aaaa != Aaaa::Keep {
                self.line(4, format_args!("aaaa: {}", zone.aaaa));
            }
            if let Some(labels) = zone.max_labels {
                self.line(4, format_args!("max_labels: {labels}"));
            }
            let fields = LIFETIMES.iter().filter(|(_, field)| field(&zone.lifetimes) != field(general));
            let said: Vec<String> =
                fields.map(|(key, field)| format!("{key}: {}", seconds(field(&zone.lifetimes)))).collect();
            if !said.is_empty() {
                self.line(4, format_args!("cache: {{ {} }}", said.join(", ")));
            }
        }
        self.0.push('\n');
    }

    fn cache(&mut self, cache: &Cache, general: &Lifetimes) {
        let standard = Cache::default();
        self.line(0, format_args!("cache:"));
        self.line(2, format_args!("memory: {}", human_bytes(cache.memory)));
        for (key, field) in LIFETIMES.iter().filter(|(key, _)| *key != "max_stale") {
            if field(general) != field(&Lifetimes::default()) {
                self.line(2, format_args!("{key}: {}", seconds(field(general))));
            }
        }
        let off = Lifetimes { max_stale: 0, ..Lifetimes::default() };
        let says = |it: &Lifetimes| (it.max_stale, it.stale_ttl, it.client_timeout);
        if says(general) == says(&off) && cache.recheck == standard.recheck {
            self.line(2, format_args!("serve_stale: off"));
        } else {
            self.serve_stale(general, cache);
        }
        match cache.prefetch {
            None => self.line(2, format_args!("prefetch: off")),
            same if same == standard.prefetch => {}
            Some(prefetch) => {
                self.line(2, format_args!("prefetch: {{ hits: {}, at: {}% }}", prefetch.hits, prefetch.at_percent));
            }
        }
        if let Some(path) = &cache.snapshot {
            self.line(2, format_args!("snapshot: {}", quoted(&path.to_string_lossy())));
        }
        self.0.push('\n');
    }

    fn serve_stale(&mut self, general: &Lifetimes, cache: &Cache) {
        let Lifetimes { max_stale, stale_ttl, client_timeout, .. } = general;
        let (max_stale, ttl) = (seconds(*max_stale), seconds(*stale_ttl));
        let (timeout, recheck) = (human_duration(*client_timeout), human_duration(cache.recheck));
        self.line(
            2,
            format_args!(
                "serve_stale: {{ max_stale: {max_stale}, ttl: {ttl}, client_timeout: {timeout}, recheck: {recheck} }}"
            ),
        );
    }

    fn limits(&mut self, limits: &Limits) {
        if *limits == Limits::default() {
            return;
        }
        self.line(0, format_args!("limits:"));
        self.line(2, format_args!("in_flight: {}", limits.in_flight));
        self.line(2, format_args!("in_flight_per_client: {}", limits.in_flight_per_client));
        self.line(2, format_args!("tcp_connections: {}", limits.tcp_connections));
        self.line(2, format_args!("tcp_connections_per_client: {}", limits.tcp_connections_per_client));
        if !limits.allow.is_empty() {
            self.line(2, format_args!("allow: {}", list(&limits.allow)));
        }
        self.0.push('\n');
    }

    fn http(&mut self, http: &Http) {
        if *http == Http::default() {
            return;
        }
        self.line(0, format_args!("http:"));
        for (key, address) in [("metrics", http.metrics), ("health", http.health), ("debug", http.debug)] {
            if let Some(address) = address {
                self.line(2, format_args!("{key}: \"{address}\""));
            }
        }
        if http.control != Http::default().control {
            let path = http.control.as_ref().map_or("off".to_owned(), |path| quoted(&path.to_string_lossy()));
            self.line(2, format_args!("control: {path}"));
        }
        self.0.push('\n');
    }

    fn log(&mut self, log: Log) {
        if log == Log::default() {
            return;
        }
        let level = log.level.as_str().to_ascii_lowercase();
        self.line(0, format_args!("log:"));
        self.line(2, format_args!("level: {level}"));
        if log.format != LogFormat::Text {
            self.line(2, format_args!("format: {}", log.format));
        }
        if log.queries != QueryLog::Off {
            self.line(2, format_args!("queries: {}", log.queries));
        }
    }
}

/// The lifetimes a zone can have of its own.
type Lifetime = fn(&Lifetimes) -> u32;
const LIFETIMES: [(&str, Lifetime); 5] = [
    ("max_ttl", |it| it.max_ttl),
    ("max_negative_ttl", |it| it.max_negative_ttl),
    ("min_ttl", |it| it.min_ttl),
    ("failure_ttl", |it| it.failure_ttl),
    ("max_stale", |it| it.max_stale),
];

fn seconds(seconds: u32) -> String {
    human_duration(Duration::from_secs(seconds.into()))
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// A value; quoted unless it is plainly a word or an IPv4 address, its dollars doubled, since `${…}` is a reference.
fn quoted(text: &str) -> String {
    key(&text.replace('$', "$$"))
}

/// A key, which has no references in it.
fn key(text: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_' | '/');
    // Words such as `off` or `1e3` mean something else to YAML; those are short, or numbers.
    let is_word = text.len() > 5 && !text.starts_with(['.', '-']) && text.parse::<f64>().is_err();
    if is_word && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            it if it.is_control() || it == '\u{feff}' => {
                let _ = write!(out, "\\U{:08X}", u32::from(it));
            }
            it => out.push(it),
        }
    }
    out.push('"');
    out
}
