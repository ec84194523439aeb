//! Server blocks, plugin by plugin.

use std::net::IpAddr;

use super::super::suggest::nearest;
use super::cache::{self, Cache};
use super::endpoints;
use super::forward::{self, Forward};
use super::hosts::{self, Hosts};
use super::keys;
use super::lexer::Token;
use super::reader::Reader;
use super::template::{self, Template};
use super::tree::{self, Line};
use super::{imports, lexer};
use crate::plan::QueryLog;
use crate::wire::Name;

/// What node-cache is built with, in its words; the rest of CoreDNS it does not know either.
pub const PLUGINS: [&str; 23] = [
    "bind",
    "bufsize",
    "cache",
    "debug",
    "dns64",
    "dnstap",
    "errors",
    "forward",
    "health",
    "hosts",
    "loadbalance",
    "log",
    "loop",
    "metadata",
    "pprof",
    "prometheus",
    "reload",
    "rewrite",
    "template",
    "timeouts",
    "trace",
    "whoami",
    "import",
];
/// Plugins of CoreDNS that node-cache is built without.
const ELSEWHERE: [&str; 30] = [
    "acl",
    "any",
    "auto",
    "autopath",
    "azure",
    "cancel",
    "chaos",
    "clouddns",
    "dnssec",
    "erratic",
    "etcd",
    "file",
    "geoip",
    "grpc",
    "grpc_server",
    "header",
    "k8s_external",
    "kubernetes",
    "local",
    "minimal",
    "multisocket",
    "nomad",
    "nsid",
    "ready",
    "root",
    "route53",
    "secondary",
    "sign",
    "tls",
    "view",
];

/// `forward`s and `template`s of a server block: each is asked about each of its zones.
const MAX_WAYS: usize = 256;

/// A server block.
pub(super) struct Server<'l> {
    pub at: &'l Token,
    pub zones: Vec<(Name, &'l Token)>,
    pub cache: Option<Cache<'l>>,
    pub forwards: Vec<Forward<'l>>,
    pub templates: Vec<Template<'l>>,
    pub hosts: Option<Hosts<'l>>,
    /// Added by the surroundings: gives way to what the file says.
    pub is_extra: bool,
}

/// What is the same for all blocks, from wherever it is written.
#[derive(Default)]
pub(super) struct Common<'l> {
    pub port: Option<(u16, &'l Token)>,
    pub bind: Option<(Vec<IpAddr>, &'l Token)>,
    pub health: endpoints::Place<'l>,
    pub metrics: endpoints::Place<'l>,
    pub debug: endpoints::Place<'l>,
    pub queries: Option<QueryLog>,
    pub is_debug: bool,
}

/// Reads all server blocks, those of `extra` last; what is wrong in one is left out of it.
pub(super) fn read<'l>(lines: &'l [Line], extra: &'l [Line], reader: &mut Reader<'_>) -> (Vec<Server<'l>>, Common<'l>) {
    let mut common = Common::default();
    let mut servers: Vec<Server<'l>> = Vec::new();
    let single = matches!(lines, [first, _, ..] if first.block.is_none());
    if let (true, Some((first, directives))) = (single, lines.split_first()) {
        // One server needs no braces: the first line are its zones, all others its plugins.
        servers.extend(server(first, directives, &mut common, reader));
    } else {
        for line in lines {
            if line.block.is_none() {
                let remedy = "write `{`, the plugins and `}` behind the zones";
                reader.wrong(line.name(), "a line between server blocks", remedy);
                continue;
            }
            servers.extend(server(line, line.lines(), &mut common, reader));
        }
    }
    if !servers.is_empty() {
        for line in extra {
            let added = server(line, line.lines(), &mut common, reader);
            servers.extend(added.map(|server| Server { is_extra: true, ..server }));
        }
    }
    (servers, common)
}

/// The tokens of server blocks that come from elsewhere, as if they stood at the file's beginning.
pub(super) fn extra(text: &str, origin: &str) -> Vec<Line> {
    let (mut tokens, _) = lexer::tokens(text);
    tokens.truncate(imports::MAX_WORDS);
    for token in &mut tokens {
        token.spot = super::super::mistake::Spot { line: 1, column: 0, width: 1 };
        token.origin = Some(origin.into());
    }
    tree::lines(tokens).0
}

fn server<'l>(
    keys: &'l Line,
    directives: &'l [Line],
    common: &mut Common<'l>,
    reader: &mut Reader<'_>,
) -> Option<Server<'l>> {
    let mut server = Server {
        at: keys.name(),
        zones: Vec::new(),
        cache: None,
        forwards: Vec::new(),
        templates: Vec::new(),
        hosts: None,
        is_extra: false,
    };
    for token in &keys.words {
        let text = token.text.strip_suffix(',').unwrap_or(&token.text);
        if text.is_empty() {
            continue;
        }
        let key = match keys::key(text) {
            Ok(key) => key,
            Err(wrong) if PLUGINS.contains(&text) => {
                reader.wrong(
                    token,
                    format!("`{text}` outside of a server block: {}", wrong.what),
                    "write `.:53 {` first",
                );
                continue;
            }
            Err(wrong) => {
                reader.wrong(token, wrong.what, wrong.remedy);
                continue;
            }
        };
        let port = key.port.unwrap_or(reader.settings.port);
        match common.port {
            None => common.port = Some((port, token)),
            Some((known, _)) if known == port => {}
            Some((known, at)) => {
                let what = format!("port {port}, and line {} says {known}", at.spot.line);
                reader.wrong(
                    token,
                    what,
                    "Nodens listens on one port: run a second one, with a configuration of its own",
                );
            }
        }
        server.zones.extend(key.zones.into_iter().map(|zone| (zone, token)));
    }
    for line in directives {
        server.plugin(line, common, reader);
    }
    (!server.zones.is_empty()).then_some(server)
}

impl<'l> Server<'l> {
    fn plugin(&mut self, line: &'l Line, common: &mut Common<'l>, reader: &mut Reader<'_>) {
        let name = line.name();
        match name.text.as_str() {
            "bind" => {
                let addresses = endpoints::bind(line, reader);
                match &mut common.bind {
                    None => common.bind = Some((addresses, name)),
                    Some((known, at)) => {
                        let same = |one: &[IpAddr], other: &[IpAddr]| one.iter().all(|it| other.contains(it));
                        if !same(&addresses, known) || !same(known, &addresses) {
                            let what = format!("other addresses than line {} binds to", at.spot.line);
                            let remedy = "Nodens serves all zones on all its addresses: write the same ones";
                            reader.wrong(name, what, remedy);
                        }
                    }
                }
            }
            "cache" if self.cache.is_some() => twice(name, reader),
            "cache" => self.cache = Some(cache::read(line, reader)),
            "forward" if self.forwards.len() == MAX_WAYS => {
                reader.wrong(
                    name,
                    format!("more than {MAX_WAYS} `forward`s in one server block"),
                    "share it among several",
                );
            }
            "forward" => self.forwards.extend(forward::read(line, reader)),
            "template" if self.templates.len() == MAX_WAYS => {
                reader.wrong(
                    name,
                    format!("more than {MAX_WAYS} `template`s in one server block"),
                    "share it among several",
                );
            }
            "template" => self.templates.extend(template::read(line, reader)),
            "hosts" if self.hosts.is_some() => twice(name, reader),
            "hosts" => self.hosts = Some(hosts::read(line, reader)),
            "health" => endpoints::health(line, &mut common.health, reader),
            "prometheus" => endpoints::plain(line, "localhost:9153", &mut common.metrics, reader),
            "pprof" => {
                reader.remark(name, "Nodens has no profiles of Go; its debug pages are at this place");
                endpoints::plain(line, "localhost:6053", &mut common.debug, reader);
            }
            "log" => {
                common.queries = Some(QueryLog::OneIn(1));
                if !line.arguments().is_empty() || !line.lines().is_empty() {
                    reader
                        .remark(name, "all queries are logged, in a format of our own: what `log` says has no effect");
                }
            }
            "debug" => {
                reader.bare(line);
                common.is_debug = true;
            }
            "errors" => errors(line, reader),
            "loadbalance" => match line.arguments() {
                [] => reader.remark(name, "records keep the order their server gave them: `loadbalance` has no effect"),
                [policy] if policy.text == "round_robin" => {
                    reader.remark(name, "records keep the order their server gave them: `loadbalance` has no effect");
                }
                [policy, ..] => {
                    let remedy = "take it out, or let the server that holds the records order them";
                    reader.wrong(policy, format!("`loadbalance {}` is not in this version", policy.text), remedy);
                }
            },
            "bufsize" => {
                if let Some(size) = line.arguments().first()
                    && reader.number(size, 512).is_some_and(|size| size != 1232)
                {
                    reader.remark(name, "UDP answers are offered up to 1232 octets: `bufsize` has no effect");
                }
            }
            "timeouts" => {
                let known = ["read", "write", "idle", "maxtcpqueries"];
                for option in line.lines().iter().filter(|option| !known.contains(&option.name().text.as_str())) {
                    reader.unknown(option, "timeouts", &known);
                }
                reader.remark(name, "connections of clients have bounds of our own: `timeouts` has no effect");
            }
            "reload" => {
                for token in line.arguments() {
                    let _ = token.text == "off" || reader.duration(token).is_some();
                }
            }
            // What Nodens does by itself, or what has no effect of its own.
            "loop" | "metadata" => {}
            "dns64" => refuse(name, "ask an upstream that does DNS64, or leave IPv6-only pods to one", reader),
            "rewrite" => {
                refuse(
                    name,
                    "do this in the cluster's CoreDNS, which Nodens asks; a name with fixed addresses goes into `hosts`",
                    reader,
                );
            }
            "dnstap" | "trace" => refuse(name, "take it out; /metrics counts, and `log` logs queries", reader),
            "whoami" => {
                refuse(name, "take it out; a zone with fixed addresses goes into `hosts` or `template`", reader);
            }
            other => unknown(other, name, reader),
        }
    }
}

fn twice(name: &Token, reader: &mut Reader<'_>) {
    reader.wrong(name, format!("a second `{}` in one server block", name.text), "keep one of them");
}

fn refuse(name: &Token, remedy: &str, reader: &mut Reader<'_>) {
    reader.wrong(name, format!("the plugin `{}` is not in this version of Nodens", name.text), remedy);
}

fn unknown(text: &str, name: &Token, reader: &mut Reader<'_>) {
    if text == "ready" {
        reader.wrong(name, "the plugin `ready` is not in node-cache", "take it out: /readyz is where `health` is");
    } else if ELSEWHERE.contains(&text) {
        let remedy = "take it out; the cluster's CoreDNS is the place for it";
        reader.wrong(name, format!("the plugin `{text}` is neither in node-cache nor in Nodens"), remedy);
    } else {
        let remedy = match nearest(text, PLUGINS) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "take it out, or is a `}` or `{` missing above?".to_owned(),
        };
        reader.wrong(name, format!("`{text}` is no plugin"), remedy);
    }
}

/// `errors { consolidate DURATION REGEXP [LEVEL] [show_first]; stacktrace }`: failures are logged as changes, not one by one.
fn errors(line: &Line, reader: &mut Reader<'_>) {
    for option in line.lines() {
        match option.name().text.as_str() {
            "stacktrace" => reader.bare(option),
            "consolidate" => {
                let [duration, _expression, ..] = option.arguments() else {
                    let remedy = "write such as `consolidate 30s \".* i/o timeout$\"`";
                    reader.wrong(option.name(), "`consolidate` takes a duration and an expression", remedy);
                    continue;
                };
                let _ = reader.duration(duration);
            }
            _ => reader.unknown(option, "errors", &["consolidate", "stacktrace"]),
        }
    }
}
