//! The plugin `forward`: who is asked, and how.
//!
//! Read first: <https://coredns.io/plugins/forward/>.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::upstreams::tls_name;
use super::super::values::{Wrong, name, path, server};
use super::cache::names;
use super::keys;
use super::lexer::Token;
use super::reader::Reader;
use super::tree::Line;
use super::{CLUSTER_DNS, UPSTREAM_SERVERS};
use crate::plan::{Choice, HealthCheck, Members, Protocol, Server, Upstream};
use crate::wire::Name;

const POLICIES: &[(&str, Choice)] =
    &[("random", Choice::Random), ("round_robin", Choice::RoundRobin), ("sequential", Choice::Sequential)];
/// Accepted: Nodens keeps its connections by rules of its own.
const CONNECTIONS: [&str; 5] = ["expire", "max_idle_conns", "max_age", "read_timeout", "max_connect_attempts"];
const OPTIONS: [&str; 17] = [
    "except",
    "force_tcp",
    "prefer_udp",
    "expire",
    "max_idle_conns",
    "max_age",
    "read_timeout",
    "max_connect_attempts",
    "max_fails",
    "tls",
    "tls_servername",
    "policy",
    "health_check",
    "max_concurrent",
    "failfast_all_unhealthy_upstreams",
    "next",
    "failover",
];

/// What a `forward` says.
pub(super) struct Forward<'l> {
    pub at: &'l Token,
    pub from: Name,
    pub except: Vec<Name>,
    /// Its name is not chosen yet.
    pub upstream: Upstream,
    pub max_concurrent: Option<u32>,
    /// Its servers are the cluster's DNS.
    pub is_cluster: bool,
}

impl Forward<'_> {
    /// Whether questions for `name` go this way.
    pub(super) fn takes(&self, name: &Name) -> bool {
        name.is_under(&self.from) && !self.except.iter().any(|except| name.is_under(except))
    }
}

/// `None` if it cannot be told where questions should go.
pub(super) fn read<'l>(line: &'l Line, reader: &mut Reader<'_>) -> Option<Forward<'l>> {
    let Some((from, to)) = line.arguments().split_first().filter(|(_, to)| !to.is_empty()) else {
        reader.wrong(line.name(), "`forward` does not say whom to ask", "write such as `forward . 10.96.0.53`");
        return None;
    };
    let from = match keys::zones(&from.text) {
        Ok(mut zones) => zones.swap_remove(0),
        Err(wrong) => {
            reader.wrong(from, wrong.what, wrong.remedy);
            return None;
        }
    };
    let mut upstream = Upstream::new("", Members::Servers(Vec::new()));
    // What holds of CoreDNS where nothing is written.
    upstream.choice = Choice::Random;
    upstream.health_check = HealthCheck { interval: Duration::from_millis(500), ..HealthCheck::default() };
    let mut forward = Forward {
        at: line.name(),
        from,
        except: Vec::new(),
        upstream,
        max_concurrent: None,
        is_cluster: to.iter().any(|token| token.variable == Some(CLUSTER_DNS)),
    };
    for option in line.lines() {
        forward.option(option, reader);
    }
    let plain = forward.upstream.protocol;
    // node-cache turns this one form around: servers of the user's own are asked over UDP.
    let chosen = reader.settings.chosen_upstreams && to.iter().any(|token| token.variable == Some(UPSTREAM_SERVERS));
    if chosen && plain == Protocol::Tcp && line.lines().len() == 1 {
        forward.upstream.protocol = Protocol::Udp;
    }
    forward.members(line.name(), to, reader)?;
    Some(forward)
}

/// One destination.
enum To {
    File(PathBuf),
    Server(Protocol, Server),
    Service(String, String),
}

impl Forward<'_> {
    fn members(&mut self, at: &Token, to: &[Token], reader: &mut Reader<'_>) -> Option<()> {
        let mut servers: Vec<Server> = Vec::new();
        let mut followed: Vec<(&Token, Members)> = Vec::new();
        let mut tls = None;
        let mut failed = false;
        for token in to {
            let (text, certificate) = certificate_name(&token.text);
            match destination(text) {
                Err(wrong) => {
                    reader.wrong(token, wrong.what, wrong.remedy);
                    failed = true;
                }
                Ok(To::File(path)) => {
                    reader.remark(token, format!("{} is followed: its changes hold at once", path.display()));
                    followed.push((token, Members::ResolvConf(path)));
                }
                Ok(To::Service(namespace, name)) => followed.push((token, Members::Service { namespace, name })),
                Ok(To::Server(protocol, server)) => {
                    let is_tls = protocol == Protocol::Tls;
                    if tls.is_some_and(|tls| tls != is_tls) {
                        let remedy = "give each its own zone, or write tls:// before all of them";
                        reader.wrong(token, "some of these servers are asked over TLS and some are not", remedy);
                        failed = true;
                    }
                    tls = Some(is_tls);
                    if let Some(name) = certificate {
                        self.certificate(token, name, reader);
                    }
                    if servers.contains(&server) {
                        reader.remark(token, format!("`{server}` is here twice and counts once"));
                    } else {
                        servers.push(server);
                    }
                }
            }
        }
        followed.dedup_by(|one, other| one.1 == other.1);
        if let Some((token, _)) = followed.get(usize::from(servers.is_empty())) {
            let remedy = "keep either one file or Service, or addresses";
            reader.wrong(token, format!("`{}` beside other servers", token.text), remedy);
            return None;
        }
        if failed {
            return None;
        }
        if tls == Some(true) {
            self.upstream.protocol = Protocol::Tls;
            if self.upstream.tls_name.is_none() {
                // Go checks the certificate for the address it called.
                let [Server::Address(only)] = servers.as_slice() else {
                    let remedy =
                        "add `tls_servername` with the name in the servers' certificate, such as dns.quad9.net";
                    reader.wrong(at, "TLS to several servers, and no name to check", remedy);
                    return None;
                };
                self.upstream.tls_name = Some(only.ip().to_string());
            }
        } else {
            // CoreDNS ignores them then, too.
            (self.upstream.tls_name, self.upstream.tls_ca) = (None, None);
        }
        self.upstream.members = followed.pop().map_or(Members::Servers(servers), |(_, members)| members);
        Some(())
    }

    /// The name the servers' certificate must carry, said at `at`; the first one said counts.
    fn certificate(&mut self, at: &Token, name: &str, reader: &mut Reader<'_>) {
        match tls_name(name) {
            Ok(name) => {
                self.upstream.tls_name.get_or_insert(name);
            }
            Err(wrong) => reader.wrong(at, wrong.what, wrong.remedy),
        }
    }

    fn option(&mut self, line: &Line, reader: &mut Reader<'_>) {
        reader.no_block(line);
        let upstream = &mut self.upstream;
        match line.name().text.as_str() {
            "except" if line.arguments().is_empty() => {
                reader.wrong(line.name(), "`except` of nothing", "write the zones that are not forwarded");
            }
            "except" => self.except.extend(names(line.arguments(), reader)),
            "force_tcp" => {
                reader.bare(line);
                upstream.protocol = Protocol::Tcp;
            }
            // What Nodens does anyway.
            "prefer_udp" => reader.bare(line),
            option if CONNECTIONS.contains(&option) => {
                if reader.only(line, &format!("{option} 10s")).is_some() {
                    reader.remark(
                        line.name(),
                        format!("connections and times to servers are Nodens's own affair: `{option}` has no effect"),
                    );
                }
            }
            "max_fails" => {
                let Some(fails) = reader.only(line, "max_fails 2").and_then(|it| reader.number(it, 0)) else { return };
                if fails == 0 {
                    reader.remark(
                        line.name(),
                        "a server that fails 100 times in a row is suspected even with `max_fails 0`",
                    );
                }
                upstream.health_check.max_fails = if fails == 0 { 100 } else { fails.min(100) };
            }
            "health_check" => health_check(line, &mut upstream.health_check, reader),
            "policy" => {
                let Some(word) = reader.only(line, "policy sequential") else { return };
                match super::super::values::word(&word.text, POLICIES) {
                    Ok(choice) => upstream.choice = choice,
                    Err(wrong) => reader.wrong(word, wrong.what, wrong.remedy),
                }
            }
            "tls" => match line.arguments() {
                [] => {}
                [ca] => match path(&ca.text) {
                    Ok(path) => upstream.tls_ca = Some(path),
                    Err(wrong) => reader.wrong(ca, wrong.what, wrong.remedy),
                },
                [certificate, ..] => {
                    let remedy = "take the certificate out, or ask this server through one that holds it";
                    reader.wrong(certificate, "Nodens does not show servers a certificate of its own", remedy);
                }
            },
            "tls_servername" => {
                let Some(name) = reader.only(line, "tls_servername dns.quad9.net") else { return };
                self.certificate(name, &name.text, reader);
            }
            "max_concurrent" => {
                let Some(most) = reader.only(line, "max_concurrent 1000").and_then(|it| reader.number(it, 0)) else {
                    return;
                };
                self.max_concurrent = Some(most).filter(|most| *most > 0);
            }
            "failfast_all_unhealthy_upstreams" => {
                reader.remark(
                    line.name(),
                    "with all servers suspected, a stale answer goes out at once, else they are tried",
                );
            }
            "next" | "failover" => {
                let what = format!(
                    "Nodens takes the first answer of a server as it is: `{}` cannot be done",
                    line.name().text
                );
                reader.wrong(line.name(), what, "take it out; a server that is silent is passed over anyway");
            }
            _ => reader.unknown(line, "forward", &OPTIONS),
        }
    }
}

fn health_check(line: &Line, check: &mut HealthCheck, reader: &mut Reader<'_>) {
    const SHORTEST: Duration = Duration::from_millis(500);
    let Some((interval, mut words)) = line.arguments().split_first() else {
        reader.wrong(line.name(), "`health_check` does not say how often", "write such as `health_check 1s`");
        return;
    };
    if let Some(duration) = reader.duration(interval) {
        if duration < SHORTEST {
            reader.remark(interval, "a suspected server is probed every 500ms at most");
        }
        check.interval = duration.clamp(SHORTEST, Duration::from_secs(300));
    }
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        match word.text.as_str() {
            "no_rec" => reader.remark(word, "probes ask for recursion: any answer counts, so `no_rec` has no effect"),
            "domain" => {
                let Some((domain, rest)) = words.split_first() else {
                    reader.wrong(word, "`domain` of nothing", "write a domain name behind it");
                    return;
                };
                words = rest;
                match name(&domain.text) {
                    Ok(name) => check.name = name,
                    Err(wrong) => reader.wrong(domain, wrong.what, wrong.remedy),
                }
            }
            _ => {
                reader.wrong(
                    word,
                    format!("`{}` is no option of `health_check`", word.text),
                    "known here: `no_rec`, `domain NAME`",
                );
                return;
            }
        }
    }
}

/// `tls://9.9.9.9%dns.quad9.net`: the name in the certificate, behind the address.
fn certificate_name(text: &str) -> (&str, Option<&str>) {
    match text.split_once('%') {
        Some((host, name)) if text.starts_with("tls://") && !name.is_empty() => (host, Some(name)),
        _ => (text, None),
    }
}

fn destination(text: &str) -> Result<To, Wrong> {
    if text.contains("__PILLAR__") || text == "<nil>" {
        let what = format!("`{text}` was left unfilled");
        return Err(Wrong::new(what, "write the servers' addresses, or run this as node-cache with -upstreamsvc"));
    }
    // What stands for an address in a template may be a Service.
    let text = text.strip_prefix("dns://").filter(|rest| rest.starts_with("service://")).unwrap_or(text);
    let (protocol, port, host) = match text.split_once("://") {
        None => (Protocol::Udp, 53, text),
        Some(("dns", host)) => (Protocol::Udp, 53, host),
        Some(("tls", host)) => (Protocol::Tls, 853, host),
        Some(("service", path)) => {
            let (namespace, name) = path
                .split_once('/')
                .ok_or_else(|| Wrong::new(format!("`{text}` names no Service"), "write service://NAMESPACE/NAME"))?;
            return Ok(To::Service(namespace.to_owned(), name.to_owned()));
        }
        Some((scheme, _)) => {
            let what = format!("`{scheme}://`: servers are asked over UDP, TCP or TLS");
            return Err(Wrong::new(what, "write the address alone, or tls://ADDRESS"));
        }
    };
    if host.starts_with('/') || host.starts_with("./") {
        return Ok(To::File(path(host)?));
    }
    match server(host, port)? {
        Server::Address(address) => Ok(To::Server(protocol, Server::Address(address))),
        Server::Host { name, .. } => {
            let what = format!("`{name}` is neither an IP address nor a file");
            Err(Wrong::new(what, "write its address, or a resolv.conf; nodens.yaml takes names too (`servers:`)"))
        }
    }
}

/// The addresses among `members`.
pub(super) fn addresses(members: &Members) -> impl Iterator<Item = SocketAddr> + '_ {
    let servers: &[Server] = if let Members::Servers(servers) = members { servers } else { &[] };
    servers.iter().filter_map(|server| match server {
        Server::Address(address) => Some(*address),
        Server::Host { .. } => None,
    })
}

/// Whether a server of `members` is at one of `own`.
pub(super) fn asks_ourselves(members: &Members, own: &[IpAddr], port: u16) -> bool {
    addresses(members).any(|address| address.port() == port && own.contains(&address.ip()))
}
