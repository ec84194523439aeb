//! `nodens.yaml` as a draft of the plan: the file as a whole, and the blocks that are not lists of their own.
//!
//! A wrong value is noted and its default stands in for it, so that reading goes on and finds the rest. The draft then
//! goes to [`Plan::new`], whose flaws are shown at the keys they name, unless something is wrong there already.
//!
//! Read first: `config.md` of the design.

use std::collections::HashMap;

use crate::plan::{
    Aaaa, Cache, Draft, Flaw, Http, Interception, Lifetimes, Limits, Listen, Log, LogFormat, Node as NodePlan,
    NonRecursive, Plan, Prefetch, Prefix,
};
use crate::wire::Name;

use super::block::{Block, Switch};
use super::mistake::{ConfigErrors, Notes, Spot};
use super::suggest::nearest;
use super::tree::{self, Key, Located, Node, Value};
use super::units::{bytes, duration, patience, percent, seconds};
use super::values::{Wrong, boolean, either, ip, number, path, port, prefix, query_log, socket, word, workers};
use super::{upstreams, zones};

/// Reads the text of a `nodens.yaml`.
///
/// # Errors
/// Every mistake in it.
pub(super) fn read(text: &str, file_name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, ConfigErrors> {
    let mut notes = Notes::new(text);
    let Some(root) = tree::read(text, env, &mut notes) else {
        notes.finish(file_name)?;
        return Err(empty(file_name));
    };
    let first_key = match &root.value {
        Value::Map(entries) => entries.first().map_or(root.spot, |(key, _)| key.spot),
        Value::Null => {
            notes.finish(file_name)?;
            return Err(empty(file_name));
        }
        Value::Broken | Value::List(_) | Value::Text(_) => {
            let what = format!("a configuration is a block of keys; found {}", root.kind());
            notes.add(root.spot, what, "begin with a line such as `listen:`; is it the right file?");
            notes.finish(file_name)?;
            return Err(empty(file_name));
        }
    };
    let Some(block) = Block::open("", first_key, &root, &mut notes) else { return Err(empty(file_name)) };
    let (draft, general) = document(block, &mut notes);
    // What is written for all zones must be right even where each has lifetimes of its own.
    let mut flaws = general.flaws(&["cache"]);
    let plan = Plan::new(draft).map_err(|more| flaws.extend(more));
    note_flaws(&flaws, &root, first_key, &mut notes);
    notes.finish(file_name)?;
    Ok(plan.expect("a flaw is noted, unless there is a mistake at its place; so there would be an error"))
}

fn empty(file_name: &str) -> ConfigErrors {
    let remedy = "begin with one of manifests/examples; with no -c at all, Nodens runs without a file";
    ConfigErrors::whole(file_name, "this file is empty", remedy)
}

/// The draft, and the lifetimes its zones inherit.
fn document(mut root: Block<'_>, notes: &mut Notes<'_>) -> (Draft, Lifetimes) {
    let listen = root.block("listen", notes).map_or_else(Listen::default, |block| listen(block, notes));
    let upstreams = root.block("upstreams", notes).map(|block| upstreams::read(&block, notes)).unwrap_or_default();
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let node = match root.switch_block("node", notes) {
        Switch::LeftOut | Switch::Off => None,
        Switch::On(block) => Some(node(block, &names, notes)),
    };
    let (cache, lifetimes) = root.block("cache", notes).map_or_else(Default::default, |block| cache(block, notes));
    let aaaa = root.value("aaaa", notes, |text| word(text, Aaaa::WORDS)).unwrap_or_default();
    let general = zones::General { aaaa, lifetimes, upstreams: &names };
    let zones = root.block("zones", notes).map(|block| zones::read(&block, &general, notes)).unwrap_or_default();
    let aaaa_clients = root.list("aaaa_clients", notes, prefix, everybody).unwrap_or_default();
    let limits = root.block("limits", notes).map_or_else(Limits::default, |block| limits(block, notes));
    let http = root.block("http", notes).map_or_else(Http::default, |block| http(block, notes));
    let log = root.block("log", notes).map_or_else(Log::default, |block| log(block, notes));
    let coredns_names = root.block("metrics", notes).is_none_or(|mut block| {
        let names = block.value("coredns_names", notes, boolean).unwrap_or(true);
        block.close(notes);
        names
    });
    let non_recursive = root.value("non_recursive", notes, |text| word(text, NonRecursive::WORDS)).unwrap_or_default();
    root.close(notes);
    let draft =
        Draft { listen, node, upstreams, zones, aaaa_clients, cache, limits, http, log, coredns_names, non_recursive };
    (draft, lifetimes)
}

fn listen(mut block: Block<'_>, notes: &mut Notes<'_>) -> Listen {
    // Stands in for an address that could not be read; each index gives another one, from the documentation prefix.
    let filler = |index| std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(index)).into();
    let addresses = block.list("addresses", notes, ip, filler);
    if addresses.is_none() && block.find("addresses").is_none() && block.misspelt("addresses").is_none() {
        notes.add(
            block.spot,
            "`listen` names no addresses",
            "add `addresses: [127.0.0.1]`, or leave `listen` out for 127.0.0.1:1053",
        );
    }
    let listen = Listen {
        addresses: addresses.unwrap_or_else(|| Listen::default().addresses),
        port: block.value("port", notes, port).unwrap_or(53),
        workers: block.value("workers", notes, workers).flatten(),
    };
    block.close(notes);
    listen
}

fn node(mut block: Block<'_>, upstreams: &[&str], notes: &mut Notes<'_>) -> NodePlan {
    let interception =
        |text: &str| if super::values::is_off(text) { Ok(Interception::Off) } else { word(text, Interception::WORDS) };
    let node = NodePlan {
        interface: block.value("interface", notes, |text| Ok(text.to_owned())).unwrap_or_else(|| "nodens".to_owned()),
        interception: block.value("interception", notes, interception).unwrap_or(Interception::Auto),
        lease: block.value("lease", notes, duration).unwrap_or(std::time::Duration::from_secs(3)),
        fallback: block.value("fallback", notes, |text| reference(text, upstreams)),
    };
    block.close(notes);
    node
}

/// Reads the name of an upstream as its index.
pub(super) fn reference(text: &str, upstreams: &[&str]) -> Result<usize, Wrong> {
    upstreams.iter().position(|name| *name == text).ok_or_else(|| {
        let all = || upstreams.iter().copied();
        let remedy = match nearest(text, all()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if upstreams.is_empty() => format!("add an `upstreams:` block with `{text}:` in it"),
            None => format!("write {}, or add `{text}:` to `upstreams`", either(all())),
        };
        Wrong::new(format!("there is no upstream `{text}`"), remedy)
    })
}

fn cache(mut block: Block<'_>, notes: &mut Notes<'_>) -> (Cache, Lifetimes) {
    let mut cache = Cache::default();
    let mut lifetimes = Lifetimes::default();
    set(&mut cache.memory, block.value("memory", notes, bytes));
    set(&mut lifetimes.max_ttl, block.value("max_ttl", notes, seconds));
    set(&mut lifetimes.max_negative_ttl, block.value("max_negative_ttl", notes, seconds));
    set(&mut lifetimes.min_ttl, block.value("min_ttl", notes, seconds));
    set(&mut lifetimes.failure_ttl, block.value("failure_ttl", notes, seconds));
    match block.switch_block("serve_stale", notes) {
        Switch::LeftOut => {}
        Switch::Off => lifetimes.max_stale = 0,
        Switch::On(mut stale) => {
            set(&mut lifetimes.max_stale, stale.value("max_stale", notes, seconds));
            set(&mut lifetimes.stale_ttl, stale.value("ttl", notes, seconds));
            set(&mut lifetimes.client_timeout, stale.value("client_timeout", notes, patience));
            set(&mut cache.recheck, stale.value("recheck", notes, duration));
            stale.close(notes);
        }
    }
    match block.switch_block("prefetch", notes) {
        Switch::LeftOut => {}
        Switch::Off => cache.prefetch = None,
        Switch::On(mut block) => {
            let mut prefetch = Prefetch { hits: 2, at_percent: 10 };
            set(&mut prefetch.hits, block.value("hits", notes, number));
            set(&mut prefetch.at_percent, block.value("at", notes, percent));
            cache.prefetch = Some(prefetch);
            block.close(notes);
        }
    }
    match block.switch("snapshot", notes, path) {
        Switch::LeftOut | Switch::Off => {}
        Switch::On(path) => cache.snapshot = Some(path),
    }
    block.close(notes);
    (cache, lifetimes)
}

/// Takes over what was read; what was not leaves the default.
pub(super) fn set<T>(field: &mut T, read: Option<T>) {
    if let Some(value) = read {
        *field = value;
    }
}

fn limits(mut block: Block<'_>, notes: &mut Notes<'_>) -> Limits {
    let mut limits = Limits::default();
    // Whoever lowers the whole alone does not mean one client's part to stay above it.
    if let Some(all) = block.value("in_flight", notes, number) {
        limits.in_flight = all;
        limits.in_flight_per_client = limits.in_flight_per_client.min(all.max(1));
    }
    set(&mut limits.in_flight_per_client, block.value("in_flight_per_client", notes, number));
    if let Some(all) = block.value("tcp_connections", notes, number) {
        limits.tcp_connections = all;
        limits.tcp_connections_per_client = limits.tcp_connections_per_client.min(all.max(1));
    }
    set(&mut limits.tcp_connections_per_client, block.value("tcp_connections_per_client", notes, number));
    set(&mut limits.allow, block.list("allow", notes, prefix, everybody));
    block.close(notes);
    limits
}

/// Stands in for a network that could not be read.
fn everybody(_index: u32) -> Prefix {
    Prefix { address: std::net::Ipv4Addr::UNSPECIFIED.into(), length: 0 }
}

fn http(mut block: Block<'_>, notes: &mut Notes<'_>) -> Http {
    let endpoint = |switch| match switch {
        Switch::LeftOut | Switch::Off => None,
        Switch::On(address) => Some(address),
    };
    let http = Http {
        metrics: endpoint(block.switch("metrics", notes, socket)),
        health: endpoint(block.switch("health", notes, socket)),
        debug: endpoint(block.switch("debug", notes, socket)),
        control: match block.switch("control", notes, path) {
            Switch::LeftOut => Http::default().control,
            Switch::Off => None,
            Switch::On(path) => Some(path),
        },
    };
    block.close(notes);
    http
}

fn log(mut block: Block<'_>, notes: &mut Notes<'_>) -> Log {
    const LEVELS: &[(&str, tracing::Level)] = &[
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let mut log = Log::default();
    set(&mut log.level, block.value("level", notes, |text| word(text, LEVELS)));
    set(&mut log.format, block.value("format", notes, |text| word(text, LogFormat::WORDS)));
    set(&mut log.queries, block.value("queries", notes, query_log));
    block.close(notes);
    log
}

/// Shows flaws at the keys they name.
fn note_flaws(flaws: &[Flaw], root: &Node, first_key: Spot, notes: &mut Notes<'_>) {
    let places = Places::new(root, first_key);
    // What one bad general value makes of every zone is told once.
    let mut told = Vec::new();
    for flaw in flaws {
        // What a misspelt block lacks, it may have once it is spelt right.
        if flaw.path.first().is_some_and(|block| is_misspelt(block, root, notes)) {
            continue;
        }
        let spot = places.find(&flaw.path);
        let again = told.contains(&(spot, &flaw.what));
        // Of two flaws at one place both count; of a mistake and a flaw, the flaw may be the mistake's consequence.
        if again || (notes.has(spot) && !told.iter().any(|(other, _)| *other == spot)) {
            continue;
        }
        notes.add(spot, &flaw.what, &flaw.remedy);
        told.push((spot, &flaw.what));
        if notes.is_full() {
            return;
        }
    }
}

/// Whether `block` is not written at all, but something close to it is, and was noted.
fn is_misspelt(block: &str, root: &Node, notes: &Notes<'_>) -> bool {
    let Value::Map(entries) = &root.value else { return false };
    !entries.iter().any(|(key, _)| key.text == *block)
        && entries.iter().any(|(key, _)| nearest(&key.text, [block]).is_some() && notes.has(key.spot))
}

/// Where the plan's keys stand in a file.
struct Places<'n> {
    root: &'n Node,
    first_key: Spot,
    /// The zones as written, by their names as the plan prints them.
    zones: HashMap<String, &'n (Key, Node)>,
}

impl<'n> Places<'n> {
    fn new(root: &'n Node, first_key: Spot) -> Self {
        let mut zones = HashMap::new();
        if let Value::Map(blocks) = &root.value
            && let Some((_, Node { value: Value::Map(entries), .. })) =
                blocks.iter().find(|(key, _)| key.text == "zones")
        {
            for entry in entries {
                if let Ok(name) = entry.0.text.parse::<Name>() {
                    zones.entry(name.to_string()).or_insert(entry);
                }
            }
        }
        Self { root, first_key, zones }
    }

    fn find(&self, path: &[String]) -> Spot {
        let located = match path {
            [block, zone, rest @ ..] if block == "zones" => match self.zones.get(zone) {
                None => self.root.locate(path),
                Some((key, _)) if rest.is_empty() => Located::Whole(key.spot),
                Some((key, node)) => match node.locate(rest) {
                    Located::Nearest(None) => Located::Nearest(Some(key.spot)),
                    located => located,
                },
            },
            path => self.root.locate(path),
        };
        let nearest = match located {
            Located::Whole(spot) => return spot,
            Located::Nearest(spot) => spot.unwrap_or(self.first_key),
        };
        // A lifetime of a zone may come from the general block, where it is written in one of two places.
        if let [zones, _, cache, key] = path
            && (zones.as_str(), cache.as_str()) == ("zones", "cache")
        {
            return self.lifetime(key).unwrap_or(nearest);
        }
        if let [cache, key] = path
            && cache == "cache"
        {
            return self.lifetime(key).unwrap_or(nearest);
        }
        nearest
    }

    /// Where the general block says `key`.
    fn lifetime(&self, key: &str) -> Option<Spot> {
        let paths: [&[&str]; 2] = [&["cache", key], &["cache", "serve_stale", key]];
        paths.into_iter().find_map(|path| {
            let path: Vec<String> = path.iter().map(|&key| key.to_owned()).collect();
            match self.root.locate(&path) {
                Located::Whole(spot) => Some(spot),
                Located::Nearest(_) => None,
            }
        })
    }
}
