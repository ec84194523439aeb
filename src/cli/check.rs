//! `nodens check`: says whether a configuration is right, and what it means.
//!
//! Right: the plan in words on standard output, 0. Wrong: every mistake on standard error, 1.

use std::fmt::{self, Write};
use std::time::Duration;

use anstyle::Style;

use super::{Exit, FileOrOption};
use crate::config::{self, ConfigErrors};
use crate::plan::{
    Aaaa, Action, Interception, Lifetimes, NonRecursive, Plan, Protocol, QueryLog, Upstream, Zone, human_bytes,
    human_duration,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens check nodens.yaml
  nodens check -c -               what comes from standard input
  nodens check                    what `nodens run` does without a file

Exit codes:
  0  the configuration is right; the plan is on standard output
  1  it is not; every mistake is on standard error, with line, column and remedy")]
pub(super) struct Args {
    #[command(flatten)]
    config: FileOrOption,
}

/// Reads the configuration, from standard input if it is called `-`.
fn load(args: &Args) -> Result<Plan, ConfigErrors> {
    let file = args.config.choose();
    if file.config.as_deref().is_some_and(|path| path.as_os_str() == "-") {
        return config::read(std::io::stdin().lock(), "standard input", &|name| std::env::var(name).ok());
    }
    file.load()
}

pub(super) fn execute(args: &Args) -> Exit {
    match load(args) {
        Ok(plan) => {
            super::print(InWords(&plan));
            Exit::Done
        }
        Err(errors) => {
            anstream::eprintln!("{errors}");
            Exit::Failed
        }
    }
}

/// Prints a plan so that somebody who never saw its file knows what will happen.
struct InWords<'a>(&'a Plan);

/// Width of the column of headings.
const HEADING: usize = 11;
const BOLD: Style = Style::new().bold();

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        lines(f, "listen", &listen(plan))?;
        lines(f, "node", &[node(plan)])?;
        lines(f, "zones", &zones(plan))?;
        lines(f, "upstreams", &upstreams(plan))?;
        lines(f, "cache", &cache(plan))?;
        lines(f, "limits", &limits(plan))?;
        lines(f, "endpoints", &endpoints(plan))?;
        lines(f, "log", &[log(plan)])?;
        for lack in plan.not_yet() {
            writeln!(f, "not in this version: {lack}")?;
        }
        Ok(())
    }
}

/// A heading, its lines beside and below it, and an empty line.
fn lines(f: &mut fmt::Formatter<'_>, heading: &str, lines: &[String]) -> fmt::Result {
    for (index, line) in lines.iter().enumerate() {
        let heading = if index == 0 { heading } else { "" };
        writeln!(f, "{BOLD}{heading:HEADING$}{BOLD:#}{}", line.trim_end())?;
    }
    f.write_char('\n')
}

/// Rows with their columns below each other; the last column is as wide as it likes.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

fn listen(plan: &Plan) -> Vec<String> {
    let sockets: Vec<String> = plan.listen_sockets().map(|socket| socket.to_string()).collect();
    let workers = match plan.listen.workers {
        None => "one worker per core".to_owned(),
        Some(count) => format!("{count} {}", if count.get() == 1 { "worker" } else { "workers" }),
    };
    vec![sockets.join("  "), format!("UDP and TCP, {workers}")]
}

fn node(plan: &Plan) -> String {
    let Some(node) = &plan.node else { return "nothing on this host is touched".to_owned() };
    let link = match node.interface.as_str() {
        "lo" => "the loopback carries the addresses".to_owned(),
        name => format!("link {name} carries the addresses"),
    };
    let interception = match node.interception {
        Interception::Off => "no interception".to_owned(),
        Interception::Auto => "interception by what the kernel offers".to_owned(),
        by @ (Interception::Iptables | Interception::Nftables) => format!("interception by {by}"),
    };
    let fallback = match node.fallback.and_then(|index| plan.upstreams.get(index)) {
        Some(upstream) => format!("; `{}` answers for link-local addresses when Nodens does not", upstream.name),
        None => String::new(),
    };
    format!("{link}; {interception}, on a lease of {}{fallback}", human_duration(node.lease))
}

fn zones(plan: &Plan) -> Vec<String> {
    let heads = ["zone", "what happens", "AAAA", "answers", "negative", "stale"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for zone in &plan.zones {
        let mut row = vec![zone.name.to_string(), action(plan, zone)];
        if plan.upstream_of(zone).is_some() {
            let lifetimes = &zone.lifetimes;
            row.push(zone.aaaa.to_string());
            row.push(ttl_range(lifetimes));
            row.push(up_to(lifetimes.max_negative_ttl));
            row.push(up_to(lifetimes.max_stale));
        }
        rows.push(row);
    }
    let mut lines = table(&rows);
    if !plan.aaaa_clients.is_empty() && plan.zones.iter().any(|zone| zone.aaaa != Aaaa::Keep) {
        lines.push(format!("AAAA is stripped for clients in {} only", list(&plan.aaaa_clients)));
    }
    lines
}

fn action(plan: &Plan, zone: &Zone) -> String {
    match &zone.action {
        Action::Route(_) => {
            let name = plan.upstream_of(zone).map_or("", |upstream| upstream.name.as_str());
            match zone.max_labels {
                None => format!("ask {name}"),
                Some(1) => format!("ask {name}; NXDOMAIN below its children"),
                Some(labels) => format!("ask {name}; NXDOMAIN more than {labels} labels down"),
            }
        }
        Action::Addresses(addresses) => format!("answer {}", list(addresses)),
        Action::Nodata => "answer NODATA".to_owned(),
        Action::Nxdomain => "answer NXDOMAIN".to_owned(),
        Action::Refused => "answer REFUSED".to_owned(),
    }
}

fn ttl_range(lifetimes: &Lifetimes) -> String {
    match lifetimes.min_ttl {
        0 => up_to(lifetimes.max_ttl),
        least => format!("{} to {}", in_seconds(least), in_seconds(lifetimes.max_ttl)),
    }
}

fn up_to(seconds: u32) -> String {
    if seconds == 0 { "never".to_owned() } else { format!("≤ {}", in_seconds(seconds)) }
}

fn in_seconds(seconds: u32) -> String {
    human_duration(Duration::from_secs(seconds.into()))
}

fn upstreams(plan: &Plan) -> Vec<String> {
    if plan.upstreams.is_empty() {
        return vec!["none: every zone is answered here".to_owned()];
    }
    let heads = ["upstream", "asked over", "policy", "suspect after", "then probed", "servers"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(plan.upstreams.iter().map(|upstream| {
        let check = &upstream.health_check;
        let failures = if check.max_fails == 1 { "failure" } else { "failures" };
        vec![
            upstream.name.clone(),
            transport(upstream),
            upstream.choice.to_string(),
            format!("{} {failures}", check.max_fails),
            format!("{} NS every {}", check.name, human_duration(check.interval)),
            upstream.members.to_string(),
        ]
    }));
    let mut lines = table(&rows);
    let shuffled: Vec<&str> =
        plan.upstreams.iter().filter(|it| it.random_case).map(|upstream| upstream.name.as_str()).collect();
    if !shuffled.is_empty() {
        lines.push(format!("asked with letters in random case: {}", list(&shuffled)));
    }
    lines
}

fn transport(upstream: &Upstream) -> String {
    match (upstream.protocol, &upstream.tls_name, &upstream.tls_ca) {
        (Protocol::Tls, Some(name), None) => format!("TLS as {name}"),
        (Protocol::Tls, Some(name), Some(roots)) => format!("TLS as {name}, roots {}", roots.display()),
        (Protocol::Tcp, ..) => "TCP".to_owned(),
        (Protocol::Udp | Protocol::Tls, ..) => "UDP, else TCP".to_owned(),
    }
}

fn cache(plan: &Plan) -> Vec<String> {
    let cache = &plan.cache;
    // What no zone can change is the same in all of them.
    let general = plan.zones.first().map_or_else(Lifetimes::default, |zone| zone.lifetimes);
    let mut lines = vec![format!("at most {}", human_bytes(cache.memory))];
    if plan.zones.iter().any(|zone| zone.lifetimes.max_stale > 0) {
        let patience = if general.client_timeout.is_zero() {
            "at once".to_owned()
        } else {
            format!("after {} without a fresh one", human_duration(general.client_timeout))
        };
        lines.push(format!(
            "stale answers {patience}, with a TTL of {}; a failed refresh waits {}",
            in_seconds(general.stale_ttl),
            human_duration(cache.recheck),
        ));
    } else {
        lines.push("no stale answers".to_owned());
    }
    lines.push(match cache.prefetch {
        Some(prefetch) => format!(
            "names asked {} times are refreshed in the last {}% of their life",
            prefetch.hits, prefetch.at_percent
        ),
        None => "nothing is refreshed ahead of time".to_owned(),
    });
    lines.push(match &cache.snapshot {
        Some(file) => {
            format!("kept in {}, every minute and at exit; the last good configuration beside it", file.display())
        }
        None => "forgotten at exit".to_owned(),
    });
    lines
}

fn limits(plan: &Plan) -> Vec<String> {
    let limits = &plan.limits;
    let who = if limits.allow.is_empty() {
        "anyone that reaches it may ask".to_owned()
    } else {
        format!("only {} may ask", list(&limits.allow))
    };
    let shy = match plan.non_recursive {
        NonRecursive::Forward => "asked on",
        NonRecursive::Refuse => "answered from the cache or REFUSED",
    };
    vec![
        format!("{} queries waiting, {} for one client", limits.in_flight, limits.in_flight_per_client),
        format!("{} TCP connections, {} for one client", limits.tcp_connections, limits.tcp_connections_per_client),
        format!("{who}; without RD: {shy}"),
    ]
}

fn endpoints(plan: &Plan) -> Vec<String> {
    let http = &plan.http;
    let url = |address: std::net::SocketAddr, path: &str| format!("http://{address}{path}");
    let mut rows = Vec::new();
    if let Some(address) = http.metrics {
        let names = if plan.coredns_names { "nodens_* and coredns_*" } else { "nodens_*" };
        rows.push(vec!["metrics".to_owned(), url(address, "/metrics"), names.to_owned()]);
    }
    if let Some(address) = http.health {
        rows.push(vec!["health".to_owned(), url(address, "/healthz"), "/readyz too".to_owned()]);
    }
    if let Some(address) = http.debug {
        rows.push(vec!["debug".to_owned(), url(address, "/"), "read only".to_owned()]);
    }
    if let Some(path) = &http.control {
        rows.push(vec!["control".to_owned(), path.display().to_string(), "flush, reload, log level".to_owned()]);
    }
    if rows.is_empty() { vec!["none".to_owned()] } else { table(&rows) }
}

fn log(plan: &Plan) -> String {
    let queries = match plan.log.queries {
        QueryLog::Off => "no queries".to_owned(),
        QueryLog::OneIn(1) => "every query".to_owned(),
        QueryLog::OneIn(many) => format!("one query in {many}"),
    };
    format!("{} and above, as {}; {queries}", plan.log.level, plan.log.format)
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn words(yaml: &str) -> String {
        let plan = config::parse(yaml, "nodens.yaml", &|_| None).expect("the example is right");
        anstream::adapter::strip_str(&InWords(&plan).to_string()).to_string()
    }

    #[test]
    fn the_home_lab_plan_reads_as_words() {
        insta::assert_snapshot!(words(include_str!("../../manifests/examples/home-lab.yaml")));
    }

    #[test]
    fn the_plan_without_a_file_reads_as_words() {
        let plan = config::without_a_file(Path::new("/etc/resolv.conf"));
        insta::assert_snapshot!(anstream::adapter::strip_str(&InWords(&plan).to_string()).to_string());
    }
}
