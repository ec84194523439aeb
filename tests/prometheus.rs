//! The metrics as a real Prometheus takes them: scraped once a second, linted by promtool, and with every alert of ours and
//! of somebody who watched the incumbent evaluated on what was scraped.
//!
//! Rates over minutes and hours would take as long; here each window is shortened to [`WINDOW`], nothing else is changed.
//! What depends on time alone is tested by `promtool test rules`, in simulated time.
#![allow(dead_code, reason = "only a part of the loopback tests' support is needed here")]

#[path = "loopback/peers/programs.rs"]
mod programs;
#[path = "loopback/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::agent::{Agent, Reload, http_get};
use support::client::{Ask, udp_socket};
use support::config::Config;
use support::octets::{A, SERVFAIL};
use support::upstream::{Upstream, encoded, failing, silent};

/// What `[5m]`, `[10m]` and `[1h]` become: some scrapes, so that a rate has points.
const WINDOW: &str = "[8s]";
/// Longest time from a trouble to the alert: the window, the agent's patience of 4 s, and slack.
const LIMIT: Duration = Duration::from_secs(60);

/// Issue 4: the format, names and help texts are as promtool wants them, with something counted everywhere.
#[test]
fn promtool_has_nothing_to_say_about_a_scrape() {
    if !programs::present(&["promtool"]) {
        return;
    }
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).zone("lan", "{ answer: nxdomain }").metrics());
    for name in ["a.test", "a.test", "a.lan"] {
        Ask::new(name, A).send(agent.addr());
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = directory.path().join("scrape");
    fs::write(&file, agent.metrics()).expect("the directory takes files");
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(fs::File::open(&file).expect("just written"))
        .output()
        .expect("promtool is there");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// Issue 4: our alerts fire when they should, also those that need hours, and not otherwise.
#[test]
fn our_rules_are_sound() {
    if !programs::present(&["promtool"]) {
        return;
    }
    let folder = repository().join("manifests/prometheus");
    programs::output_of("promtool", &["check", "rules", "rules.yaml"], &folder);
    programs::output_of("promtool", &["test", "rules", "rules_test.yaml"], &folder);
}

/// Every metric that an alert of ours speaks of is one that the agent has, or would have with a `node:` block.
#[test]
fn our_rules_speak_of_metrics_that_exist() {
    let rules = fs::read_to_string(repository().join("manifests/prometheus/rules.yaml")).expect("the rules are there");
    let table = fs::read_to_string(repository().join("src/metrics.rs")).expect("the table is there");
    let letters = |it: char| !(it.is_ascii_alphanumeric() || it == '_');
    let spoken_of: BTreeSet<&str> = rules.split(letters).filter(|word| word.starts_with("nodens_")).collect();
    assert!(spoken_of.len() > 10);
    for name in spoken_of {
        let family = name.trim_end_matches("_bucket").trim_end_matches("_count");
        assert!(table.contains(&format!("= \"{family}\",")), "{name}");
    }
}

/// Issue 4: each alert a user of the incumbent has still fires, and ours; on a healthy agent none does.
#[test]
fn alerts_fire_on_what_prometheus_scrapes() {
    if !programs::present(&["prometheus"]) {
        return;
    }
    let upstream = Upstream::new(encoded(60));
    // A failure is remembered for a second, so that upstream goes on being asked.
    let config = Config::new(&upstream).cache("failure_ttl: 1s").metrics();
    let agent = Agent::start(&config);
    let target = agent.config().metrics_address().expect("asked for");
    let prometheus = Prometheus::start(target);
    let clients = Clients::start(agent.addr());

    prometheus.wait_for("sum(rate(coredns_dns_requests_total[8s])) > 1");
    prometheus.wait_for("sum(rate(nodens_queries_total[8s])) > 1");
    prometheus.wait_for("sum(rate(coredns_forward_responses_total[8s])) > 1");
    assert_eq!(prometheus.fire(), BTreeSet::new(), "a healthy agent");
    // The alerts' own conditions, for all of what a dashboard asks for.
    for metric in dashboard_metrics() {
        assert!(!prometheus.query(metric).is_empty(), "no series of {metric}");
    }

    upstream.set(failing(SERVFAIL));
    prometheus.wait_for_alerts(&[
        "IncumbentServfail",
        "IncumbentForwardServfail",
        "NodensServfailHigh",
        "NodensUpstreamErrorsHigh",
    ]);

    upstream.set(support::upstream::delayed(Duration::from_millis(2500), encoded(60)));
    prometheus.wait_for_alerts(&[
        "IncumbentSlow",
        "IncumbentForwardSlow",
        "IncumbentProxySlow",
        "NodensLatencyHigh",
        "NodensUpstreamSlow",
    ]);

    upstream.set(silent);
    prometheus.wait_for_alerts(&[
        "IncumbentServfail",
        "IncumbentHealthcheckFailures",
        "IncumbentProxyHealthcheckFailures",
        "IncumbentHealthcheckBroken",
        "NodensServfailHigh",
        "NodensUpstreamServerDown",
        "NodensUpstreamDown",
    ]);

    assert_eq!(agent.reload_yaml("zones: 1\n"), Reload::Refused);
    prometheus.wait_for_alerts(&[
        "IncumbentReloadFailed",
        "IncumbentSetupErrors",
        "NodensReloadRefused",
        "NodensNotReady",
    ]);

    clients.stop();
    agent.stop();
    prometheus.wait_for_alerts(&["IncumbentGone", "NodensDown"]);
}

/// What the usual dashboards for the incumbent query.
fn dashboard_metrics() -> impl Iterator<Item = &'static str> {
    "coredns_build_info coredns_dns_requests_total coredns_dns_do_requests_total coredns_dns_responses_total
     coredns_dns_request_duration_seconds_bucket coredns_dns_request_size_bytes_bucket
     coredns_dns_response_size_bytes_bucket coredns_cache_entries coredns_cache_hits_total coredns_cache_misses_total
     coredns_cache_requests_total coredns_cache_evictions_total coredns_cache_prefetch_total coredns_cache_drops_total
     coredns_cache_served_stale_total coredns_forward_requests_total coredns_forward_responses_total
     coredns_forward_request_duration_seconds_bucket coredns_forward_healthcheck_failures_total
     coredns_forward_healthcheck_broken_total coredns_forward_max_concurrent_rejects_total
     coredns_proxy_request_duration_seconds_bucket coredns_proxy_healthcheck_failures_total
     coredns_proxy_conn_cache_hits_total coredns_proxy_conn_cache_misses_total
     coredns_health_request_duration_seconds_bucket coredns_health_request_failures_total coredns_panics_total
     coredns_reload_failed_total coredns_reload_version_info coredns_plugin_enabled
     coredns_nodecache_setup_errors_total process_resident_memory_bytes process_cpu_seconds_total process_open_fds"
        .split_ascii_whitespace()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Prometheus that scrapes one agent. Dropped, it ends.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    /// Name and condition of every alert.
    alerts: Vec<(String, String)>,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with all rules, and waits until it has scraped `target`.
    fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let rules: Vec<PathBuf> = ["manifests/prometheus/rules.yaml", "tests/data/prometheus/incumbent.yaml"]
            .iter()
            .map(|file| repository().join(file))
            .collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: {rules:?}\n\
             scrape_configs: [{{ job_name: nodens, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n"
        );
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config).expect("the directory takes files");
        let address = programs::free_address();
        let log = fs::File::create(directory.path().join("log")).expect("the directory takes files");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is there");
        let mut it = Self { child, address, alerts: Vec::new(), _directory: directory };
        it.alerts = poll(|| it.rules().ok_or_else(|| "no rules yet".to_owned()));
        it.wait_for("up == 1");
        it
    }

    /// Name and condition of every alert it has loaded.
    fn rules(&self) -> Option<Vec<(String, String)>> {
        std::net::TcpStream::connect(self.address).ok()?;
        let answer: Value = serde_json::from_str(&http_get(self.address, "/api/v1/rules").1).ok()?;
        let groups = answer["data"]["groups"].as_array().filter(|groups| !groups.is_empty())?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("a group has rules"));
        Some(rules.map(|rule| (text(&rule["name"]), text(&rule["query"]))).collect())
    }

    /// The series that an expression gives at this moment.
    fn query(&self, expression: &str) -> Vec<Value> {
        let mut encoded = String::new();
        for octet in expression.bytes() {
            write!(encoded, "%{octet:02x}").expect("a String takes all");
        }
        let (_, body) = http_get(self.address, &format!("/api/v1/query?query={encoded}"));
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(answer["status"], "success", "{expression}: {body}");
        answer["data"]["result"].as_array().expect("a vector").clone()
    }

    /// The alerts whose condition holds at this moment, with windows of [`WINDOW`].
    fn fire(&self) -> BTreeSet<&str> {
        let holds = |condition: &str| {
            let mut short = condition.to_owned();
            for window in ["[5m]", "[10m]", "[15m]", "[1h]"] {
                short = short.replace(window, WINDOW);
            }
            // There is no hour before, and what was 5 minutes ago is now.
            !self.query(&short.replace(" offset 5m", "")).is_empty()
        };
        self.alerts.iter().filter(|(_, condition)| holds(condition)).map(|(name, _)| &**name).collect()
    }

    fn wait_for(&self, expression: &str) {
        poll(|| (!self.query(expression).is_empty()).then_some(()).ok_or_else(|| format!("never: {expression}")));
    }

    /// Waits until all of `wanted` fire, if not at the same moment.
    fn wait_for_alerts(&self, wanted: &[&str]) {
        let mut missing: BTreeSet<&str> = wanted.iter().copied().collect();
        poll(|| {
            for fires in self.fire() {
                missing.remove(fires);
            }
            missing.is_empty().then_some(()).ok_or_else(|| format!("never fired: {missing:?}"))
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Looks until there is something; there is one new scrape a second.
fn poll<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        thread::sleep(Duration::from_millis(250));
    }
}

/// Clients that ask 50 new names a second and do not wait for answers.
struct Clients {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Clients {
    fn start(agent: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let socket = udp_socket(agent, None);
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // While the agent ends, nobody listens.
                let _ = socket.send(&Ask::new(&format!("a{number}.test"), A).octets());
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only sends");
    }
}
