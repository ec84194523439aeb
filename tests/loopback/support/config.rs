//! The agent's configuration, put together piece by piece.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::upstream::Upstream;

/// Where agents under test listen.
pub const PORT: u16 = 5300;

/// Where they serve metrics, if [`Config::metrics`] asked for it.
pub const METRICS_PORT: u16 = 5302;

/// A configuration. Starts as one upstream, `main`, for all names.
#[derive(Clone, Debug)]
pub struct Config {
    listen: Vec<IpAddr>,
    port: u16,
    workers: usize,
    upstreams: Vec<(String, String)>,
    zones: Vec<(String, String)>,
    top: Vec<(String, String)>,
    metrics: bool,
    /// More of the `http` block's flow map.
    http: Vec<String>,
    control: Option<PathBuf>,
}

// === impl Config ===

impl Config {
    /// All names go to `upstream`.
    pub fn new(upstream: &Upstream) -> Self {
        Self::with_servers(&[upstream.address()], "")
    }

    /// All names go to these servers, in this order. `extra` is more of the upstream's flow map: `protocol: tcp`.
    pub fn with_servers(servers: &[SocketAddr], extra: &str) -> Self {
        let empty = Self {
            listen: Vec::new(),
            port: PORT,
            workers: 2,
            upstreams: Vec::new(),
            zones: vec![(".".into(), "{ upstream: main }".into())],
            top: vec![("log".into(), "{ level: info, format: text }".into())],
            metrics: false,
            http: Vec::new(),
            control: None,
        };
        empty.upstream("main", servers, extra)
    }

    /// Adds an upstream group; `sequential` unless `extra` says otherwise.
    pub fn upstream(mut self, name: &str, servers: &[SocketAddr], extra: &str) -> Self {
        let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
        let policy = if extra.contains("policy:") { "" } else { "policy: sequential, " };
        let body = format!("{{ {policy}servers: [{}], {extra} }}", servers.join(", "));
        self.upstreams.push((name.into(), body.replace(",  }", " }")));
        self
    }

    /// Adds or replaces a zone; `body` is its flow map: `{ upstream: other }`.
    pub fn zone(mut self, name: &str, body: &str) -> Self {
        self.zones.retain(|(it, _)| it != name);
        self.zones.push((name.into(), body.into()));
        self
    }

    /// Adds or replaces a key at the top: `.top("aaaa", "strip")`.
    pub fn top(mut self, key: &str, body: &str) -> Self {
        self.top.retain(|(it, _)| it != key);
        self.top.push((key.into(), body.into()));
        self
    }

    /// The `cache` block's flow map, without braces.
    pub fn cache(self, body: &str) -> Self {
        self.top("cache", &format!("{{ {body} }}"))
    }

    /// The `limits` block's flow map, without braces.
    pub fn limits(self, body: &str) -> Self {
        self.top("limits", &format!("{{ {body} }}"))
    }

    /// Serves metrics at the agent's own address.
    pub fn metrics(mut self) -> Self {
        self.metrics = true;
        self
    }

    /// Adds an entry to the `http` block: `.endpoint("health: \"127.0.0.1:8080\"")`.
    pub fn endpoint(mut self, entry: &str) -> Self {
        self.http.push(entry.into());
        self
    }

    /// Puts the control socket there; each agent needs its own.
    pub fn control(mut self, socket: PathBuf) -> Self {
        self.control = Some(socket);
        self
    }

    /// Listens on these addresses instead of a fresh one.
    pub fn listen(mut self, addresses: &[IpAddr]) -> Self {
        self.listen = addresses.to_vec();
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Threads; 2 unless set.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The addresses that [`Config::listen`] set.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.listen
    }

    /// The file's text. A port that was not set is [`PORT`].
    pub fn yaml(&self) -> String {
        let quoted: Vec<String> = self.listen.iter().map(|address| format!("\"{address}\"")).collect();
        let mut out = format!(
            "listen: {{ addresses: [{}], port: {}, workers: {} }}\n",
            quoted.join(", "),
            self.port,
            self.workers
        );
        let mut block = |key: &str, entries: &[(String, String)]| {
            writeln!(out, "{key}:").expect("strings take all");
            for (name, body) in entries {
                writeln!(out, "  \"{name}\": {body}").expect("strings take all");
            }
        };
        block("upstreams", &self.upstreams);
        block("zones", &self.zones);
        let metrics = self.metrics_address().map(|address| format!("metrics: \"{address}\""));
        let control = self.control_socket().map(|socket| format!("control: \"{}\"", socket.display()));
        let http: Vec<String> = metrics.into_iter().chain(control).chain(self.http.clone()).collect();
        if !http.is_empty() {
            writeln!(out, "http: {{ {} }}", http.join(", ")).expect("strings take all");
        }
        for (key, body) in &self.top {
            writeln!(out, "{key}: {body}").expect("strings take all");
        }
        out
    }

    pub fn query_address(&self) -> SocketAddr {
        SocketAddr::new(self.listen[0], self.port)
    }

    pub fn control_socket(&self) -> Option<&Path> {
        self.control.as_deref()
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.then(|| SocketAddr::new(self.listen[0], METRICS_PORT))
    }
}
