//! What is counted, as Prometheus sees it: our own metrics, and the incumbent's names for them.

use std::collections::BTreeSet;

use crate::support::agent::{Agent, Reload};
use crate::support::client::{Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, AAAA, MX, NXDOMAIN, SERVFAIL};
use crate::support::upstream::{Upstream, encoded, failing, nxdomain, silent};
use crate::support::{millis, until};

// Issue 4: each outcome has a latency of its own, over either transport.
#[test]
fn the_time_of_a_reply_counts_by_what_it_took() {
    let upstream = Upstream::new(encoded(1));
    let config = Config::new(&upstream).zone("pin.test", "{ answer: [192.0.2.1] }").metrics();
    let agent = Agent::start(&config.cache("failure_ttl: 1s, serve_stale: { client_timeout: 0s }"));
    let took = |outcome: &str| agent.count("nodens_response_seconds_count", &format!("outcome=\"{outcome}\""));
    let first = ask(agent.addr(), "a.test", A);
    ask(agent.addr(), "a.test", A);
    Ask::new("a.test", A).tcp().send(agent.addr());
    ask(agent.addr(), "pin.test", A);
    assert_eq!((took("miss"), took("hit"), took("local"), took("stale")), (1, 2, 1, 0));
    upstream.set(failing(SERVFAIL));
    until(first.at + millis(1500));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    ask(agent.addr(), "b.test", A).assert_rcode(SERVFAIL);
    ask(agent.addr(), "b.test", A).assert_rcode(SERVFAIL);
    assert_eq!((took("stale"), took("failure"), took("refused")), (1, 2, 0));
    Ask::new("c.test", A).no_recursion().send(agent.addr());
    assert_eq!(took("refused"), 1);
}

// Issue 4: what dashboards of the incumbent show of a query.
#[test]
fn a_query_counts_under_the_incumbents_labels() {
    let upstream =
        Upstream::new(|seen| if seen.is("no.lan.test", A) { nxdomain(seen).now() } else { encoded(60)(seen) });
    let config = Config::new(&upstream).zone("lan.test", "{ upstream: main }").metrics();
    let agent = Agent::start(&config);
    let place = format!("server=\"dns://{}\",zone=\"lan.test.\",view=\"\"", agent.addr());
    let cache = format!("server=\"dns://{}\",zones=\"lan.test.\",view=\"\"", agent.addr());
    ask(agent.addr(), "a.lan.test", A);
    ask(agent.addr(), "a.lan.test", A);
    Ask::new("a.lan.test", AAAA).tcp().dnssec_ok().send(agent.addr());
    ask(agent.addr(), "no.lan.test", A).assert_rcode(NXDOMAIN);
    ask(agent.addr(), "no.lan.test", A).assert_rcode(NXDOMAIN);
    ask(agent.addr(), "elsewhere.test", MX);

    let counts = |name: &str, labels: &str| agent.count(name, &format!("{{{labels}"));
    assert_eq!(counts("coredns_dns_requests_total", &format!("{place},proto=\"udp\",family=\"1\",type=\"A\"")), 4);
    assert_eq!(counts("coredns_dns_requests_total", &format!("{place},proto=\"tcp\",family=\"1\",type=\"AAAA\"")), 1);
    assert_eq!(counts("coredns_dns_do_requests_total", &place), 1);
    assert_eq!(counts("coredns_dns_responses_total", &format!("{place},rcode=\"NXDOMAIN\"")), 2);
    assert_eq!(counts("coredns_dns_responses_total", &format!("{place},rcode=\"NOERROR\"")), 3);
    assert_eq!(counts("coredns_dns_request_duration_seconds_count", &place), 5);
    assert_eq!(counts("coredns_dns_request_size_bytes_count", &place), 5);
    assert_eq!(counts("coredns_dns_response_size_bytes_count", &format!("{place},proto=\"tcp\"")), 1);
    assert_eq!(counts("coredns_cache_requests_total", &cache), 5);
    assert_eq!(counts("coredns_cache_misses_total", &cache), 3);
    assert_eq!(agent.count("coredns_cache_hits_total", "type=\"success\",zones=\"lan.test.\""), 1);
    assert_eq!(agent.count("coredns_cache_hits_total", "type=\"denial\",zones=\"lan.test.\""), 1);
    // MX is answered with NODATA and no SOA: not kept.
    assert_eq!(agent.count("coredns_cache_entries", "type=\"success\""), 2);
    assert_eq!(agent.count("coredns_dns_requests_total", "zone=\".\""), 1);

    let to = format!("to=\"{}\"", upstream.address());
    assert_eq!(agent.count("coredns_forward_requests_total", &to), 4);
    assert_eq!(agent.count("coredns_forward_responses_total", &format!("{to},rcode=\"NOERROR\"")), 3);
    assert_eq!(agent.count("coredns_forward_responses_total", &format!("{to},rcode=\"NXDOMAIN\"")), 1);
    assert_eq!(agent.count("coredns_forward_request_duration_seconds_count", &to), 4);
    assert_eq!(agent.count("coredns_proxy_request_duration_seconds_count", &to), 4);
}

// Issue 4: the number of series is the configuration's, whatever arrives.
#[test]
fn nothing_a_client_or_a_server_says_makes_a_series() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).zone("lan", "{ upstream: main }").metrics());
    let names = || -> BTreeSet<String> {
        let metrics = agent.metrics();
        metrics.lines().filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series.to_owned())).collect()
    };
    let before = names();
    for rtype in [1, 2, 28, 33, 64, 99, 255, 4711, 65_280] {
        Ask::new("odd\\010\\\"name.lan", rtype).send(agent.addr());
        Ask::new("other.test", rtype).tcp().send(agent.addr());
    }
    for rcode in 1..16 {
        upstream.set(failing(rcode));
        ask(agent.addr(), &format!("rcode{rcode}.lan"), A);
    }
    let after = names();
    // The hash and the rest are those of the same configuration.
    assert_eq!(before, after, "{:?}", after.symmetric_difference(&before).collect::<Vec<_>>());
}

// config.md: `metrics: { coredns_names: false }`; the names come and go with a reload, and count on.
#[test]
fn the_incumbents_names_are_there_while_they_are_wanted() {
    let upstream = Upstream::new(encoded(60));
    let config = Config::new(&upstream).metrics();
    let mut agent = Agent::start(&config.clone().top("metrics", "{ coredns_names: false }"));
    ask(agent.addr(), "a.test", A);
    assert!(!agent.metrics().contains("coredns_"));
    assert_eq!(agent.reload(&config), Reload::Done);
    ask(agent.addr(), "a.test", A);
    assert_eq!(agent.count("coredns_dns_requests_total", ""), 1, "those asked before were not counted");
    assert_eq!(agent.reload(&config.clone().zone("lan", "{ answer: nxdomain }")), Reload::Done);
    ask(agent.addr(), "a.lan", A);
    assert_eq!(agent.count("coredns_dns_requests_total", "zone=\".\""), 1);
    assert_eq!(agent.count("coredns_dns_requests_total", "zone=\"lan.\""), 1);
}

// Issue 4: generation, and what became of the last configurations.
#[test]
fn a_reload_shows_in_generation_time_and_verdict() {
    let upstream = Upstream::new(encoded(60));
    let config = Config::new(&upstream).metrics();
    let mut agent = Agent::start(&config);
    let at = |result: &str| agent.metric("nodens_config_last_reload_timestamp_seconds", result);
    assert_eq!((agent.count("nodens_config_generation", ""), at("rejected") > 0.0), (1, false));
    let started = at("accepted");
    assert!(started > 1_700_000_000.0);
    let hash = hash_of(&agent);
    assert_eq!(agent.reload_yaml("zones: 1\n"), Reload::Refused);
    assert_eq!((agent.count("nodens_config_generation", ""), agent.count("nodens_config_refused", "")), (1, 1));
    let at = |result: &str| agent.metric("nodens_config_last_reload_timestamp_seconds", result);
    assert!(at("rejected") >= started);
    // The watch may have been quicker than the signal, which is heeded all the same.
    assert!((1..=2).contains(&agent.count("coredns_reload_failed_total", "")));
    assert_eq!(hash_of(&agent), hash);
    assert_eq!(agent.reload(&config.top("aaaa", "strip")), Reload::Done);
    assert_eq!((agent.count("nodens_config_generation", ""), agent.count("nodens_config_refused", "")), (2, 0));
    assert_ne!(hash_of(&agent), hash);
}

fn hash_of(agent: &Agent) -> String {
    let metrics = agent.metrics();
    let line = metrics.lines().find(|line| line.starts_with("nodens_config_info"));
    line.expect("there is always a plan").to_owned()
}

// H14's neighbour: a dead upstream shows before anybody complains.
#[test]
fn a_dead_server_shows_in_health_probes_and_questions() {
    let upstream = Upstream::new(silent);
    let agent = Agent::start(&Config::new(&upstream).metrics());
    for number in 0..4 {
        ask(agent.addr(), &format!("a{number}.test"), A).assert_rcode(SERVFAIL);
        if agent.count("nodens_upstream_probe_failures_total", "") > 0 {
            break;
        }
    }
    assert_eq!(agent.count("nodens_upstream_up", ""), 0);
    ask(agent.addr(), "b.test", A);
    assert!(agent.count("nodens_upstream_all_suspect_total", "upstream=\"main\"") > 0);
    assert!(agent.count("coredns_forward_healthcheck_broken_total", "") > 0);
    assert!(agent.count("coredns_forward_healthcheck_failures_total", "") > 0);
    assert!(agent.count("coredns_proxy_healthcheck_failures_total", "proxy_name=\"forward\"") > 0);
}

// Issue 4: eviction by reason.
#[test]
fn what_leaves_the_cache_before_its_time_counts_by_reason() {
    let upstream = Upstream::new(encoded(600));
    let agent = Agent::start(&Config::new(&upstream).cache("memory: 1MiB").metrics());
    let gone =
        |reason: &str| agent.count("nodens_cache_evictions_total", &format!("kind=\"positive\",reason=\"{reason}\""));
    for number in 0..10_000 {
        ask(agent.addr(), &format!("a{number}.test"), A);
        if number % 500 == 0 && gone("room") > 0 {
            break;
        }
    }
    assert!(gone("room") > 0);
    assert_eq!(gone("flushed"), 0);
    agent.command(&["cache", "flush"]);
    assert!(gone("flushed") > 100);
    assert_eq!(agent.count("nodens_cache_entries", ""), 0);
}

// Issue 4: what the process costs.
#[test]
fn the_process_shows_what_it_uses() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).metrics());
    let metric = |name: &str| agent.metric(name, "");
    let rss = metric("process_resident_memory_bytes");
    assert!((rss / agent.rss() as f64 - 1.0).abs() < 0.2, "{rss} against {}", agent.rss());
    assert!(metric("process_virtual_memory_bytes") > rss);
    assert!((metric("process_open_fds") - agent.descriptors() as f64).abs() < 4.0);
    assert!(metric("process_max_fds") > metric("process_open_fds"));
    assert!(metric("process_cpu_seconds_total") > 0.0);
    assert!(metric("process_start_time_seconds") > 1_700_000_000.0);
    assert!(metric("process_threads") >= 3.0);
    assert_eq!(agent.count("nodens_kernel_receive_drops_total", "address="), 0);
}
