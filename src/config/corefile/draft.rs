//! Server blocks as a draft: zones and their parts, upstreams each once, one set of everything else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::super::mistake::Spot;
use super::cache::uncached;
use super::forward;
use super::lexer::Token;
use super::reader::Reader;
use super::server::{Common, Server};
use super::template::{Effect, Template};
use crate::plan::{
    Aaaa, Action, Cache, Draft, Http, Lifetimes, Limits, Listen, Log, Node, Protocol, QueryLog, Upstream, Zone,
};
use crate::wire::Name;

/// Where in the file the keys of a draft come from, for flaws.
pub(super) struct Places {
    known: Vec<(Vec<String>, Place)>,
    whole: Place,
}

type Place = (Spot, Option<Rc<str>>);

impl Places {
    fn add(&mut self, path: &[&str], at: &Token) {
        self.known.push((path.iter().map(|&key| key.to_owned()).collect(), place(at)));
    }

    /// The place of the longest part of `path` that is known; the file's beginning else.
    pub(super) fn find(&self, path: &[String]) -> Place {
        let fitting = self.known.iter().filter(|(known, _)| path.starts_with(known));
        fitting.max_by_key(|(known, _)| known.len()).map_or_else(|| self.whole.clone(), |(_, place)| place.clone())
    }
}

fn place(at: &Token) -> Place {
    (at.spot, at.origin.clone())
}

/// The draft of `servers`, at least one, and the places of its keys.
pub(super) fn of(servers: &[Server<'_>], common: &Common<'_>, reader: &mut Reader<'_>) -> (Draft, Places) {
    let mut places = Places { known: Vec::new(), whole: place(servers[0].at) };
    let listen = listen(servers, common, &mut places, reader);
    let mut groups = Groups::default();
    let zones = zones(servers, &listen, &mut groups, &mut places, reader);
    let node = reader.settings.node.clone().map(|node| Node {
        interface: node.interface,
        interception: node.interception,
        lease: std::time::Duration::from_secs(3),
        fallback: groups.cluster(servers, &zones),
    });
    let limits = limits(servers, reader);
    let http = Http {
        metrics: common.metrics.map(|(address, _)| address).or(reader.settings.metrics),
        health: common.health.map(|(address, _)| address),
        debug: common.debug.map(|(address, _)| address),
        ..Http::default()
    };
    for (key, found) in [("metrics", common.metrics), ("health", common.health), ("debug", common.debug)] {
        if let Some((_, at)) = found {
            places.add(&["http", key], at);
        }
    }
    let draft = Draft {
        listen,
        node,
        cache: Cache { prefetch: prefetch(servers, reader), ..Cache::default() },
        limits,
        http,
        log: Log {
            level: if common.is_debug { tracing::Level::DEBUG } else { tracing::Level::INFO },
            queries: common.queries.unwrap_or(QueryLog::Off),
            ..Log::default()
        },
        ..Draft::new(groups.upstreams, zones)
    };
    generally(reader);
    (draft, places)
}

/// What holds of every Corefile.
fn generally(reader: &mut Reader<'_>) {
    reader.remark_generally(
        "answers from the cache are not authoritative (AA=0), and each record keeps a TTL of its own",
    );
    reader.remark_generally("answers live as short as their owner says, not 5s at least, unless MINTTL is written");
    reader.remark_generally("servers are asked over UDP, TCP on truncation, whatever the client used, unless `force_tcp` or tls:// says otherwise");
}

fn listen(servers: &[Server<'_>], common: &Common<'_>, places: &mut Places, reader: &mut Reader<'_>) -> Listen {
    let settings = reader.settings;
    let mut written: Vec<IpAddr> = Vec::new();
    let mut everywhere = common.bind.is_none();
    let at = common.bind.as_ref().map_or(servers[0].at, |(_, at)| at);
    for address in common.bind.iter().flat_map(|(addresses, _)| addresses) {
        if address.is_unspecified() {
            everywhere = true;
        } else if written.contains(address) {
            reader.remark(at, format!("{address} is bound twice and counts once"));
        } else {
            written.push(*address);
        }
    }
    if everywhere {
        let mut addresses = settings.local.clone();
        if settings.node.as_ref().is_none_or(|node| node.interception == crate::plan::Interception::Off) {
            let usable = |address: &IpAddr| !matches!(address, IpAddr::V6(it) if it.is_unicast_link_local());
            addresses.extend((reader.around.addresses)(None).into_iter().filter(usable));
        }
        for address in addresses {
            if !written.contains(&address) {
                written.push(address);
            }
        }
        let shown: Vec<String> = written.iter().map(ToString::to_string).collect();
        if written.is_empty() {
            let remedy = "add `bind ADDRESS`, or say -localip ADDRESS";
            reader.wrong(at, "nothing says on which addresses to listen", remedy);
            // Breaks no rule, so that nothing else is said about it.
            written.push(std::net::Ipv4Addr::LOCALHOST.into());
        } else {
            let what = format!(
                "no address is bound, which is every one of the host; Nodens listens on {}, so that each answer leaves \
                 from the address that was asked",
                shown.join(", ")
            );
            reader.remark(at, what);
        }
    }
    for address in settings.local.iter().filter(|address| !written.contains(address)) {
        reader.remark(at, format!("-localip names {address}, and no block binds to it: it is not served"));
    }
    places.add(&["listen"], at);
    Listen { addresses: written, port: common.port.map_or(settings.port, |(port, _)| port), workers: None }
}

/// Upstreams, each once, under names people can tell apart.
#[derive(Default)]
struct Groups {
    upstreams: Vec<Upstream>,
    /// Which of them is the cluster's DNS.
    cluster: Option<usize>,
}

impl Groups {
    /// The index of a group like `wanted`; `zone` gives a new one its name.
    fn index(&mut self, wanted: &Upstream, zone: &Name, is_cluster: bool) -> usize {
        let like = |known: &Upstream| {
            (&known.members, known.choice, known.protocol, &known.tls_name, &known.tls_ca, &known.health_check)
                == (
                    &wanted.members,
                    wanted.choice,
                    wanted.protocol,
                    &wanted.tls_name,
                    &wanted.tls_ca,
                    &wanted.health_check,
                )
        };
        if let Some(index) = self.upstreams.iter().position(like) {
            return index;
        }
        let legal = |it: char| if it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.') { it } else { '_' };
        let mut base: String = zone.to_string().trim_end_matches('.').chars().map(legal).take(56).collect();
        if is_cluster {
            "cluster".clone_into(&mut base);
        } else if base.is_empty() {
            "default".clone_into(&mut base);
        }
        let taken = |name: &str| self.upstreams.iter().any(|known| known.name == name);
        let name = (1..).map(|count| if count == 1 { base.clone() } else { format!("{base}-{count}") });
        let name = name.into_iter().find(|name| !taken(name)).expect("there are more numbers than upstreams");
        self.upstreams.push(Upstream { name, ..wanted.clone() });
        self.upstreams.len() - 1
    }

    /// The group that answers for the link-local addresses when we do not: the cluster's DNS, which knows every name.
    fn cluster(&self, servers: &[Server<'_>], zones: &[Zone]) -> Option<usize> {
        let is_special = |name: &Name| name.labels() == 0 || name.to_string().ends_with("arpa.");
        let named =
            servers.iter().flat_map(|server| &server.zones).map(|(name, _)| name).find(|name| !is_special(name));
        let guess = || {
            let zone = zones.iter().find(|zone| Some(&zone.name) == named)?;
            if let Action::Route(index) = zone.action { Some(index) } else { None }
        };
        let found = self.cluster.or_else(guess)?;
        (self.upstreams.get(found)?.protocol != Protocol::Tls).then_some(found)
    }
}

fn zones(
    servers: &[Server<'_>],
    listen: &Listen,
    groups: &mut Groups,
    places: &mut Places,
    reader: &mut Reader<'_>,
) -> Vec<Zone> {
    let mut owners: HashMap<Name, usize> = HashMap::new();
    for (index, server) in servers.iter().enumerate() {
        for (name, at) in &server.zones {
            match owners.get(name) {
                None => {
                    owners.insert(name.clone(), index);
                }
                Some(_) if server.is_extra => {
                    reader.remark_generally(format!("the stub domain `{name}` has a server block already: left out"));
                }
                Some(first) => {
                    let line = servers[*first].at.spot.line;
                    let what = format!("the zone `{name}` is here twice: it stands at line {line} already");
                    reader.wrong(at, what, "keep one of them");
                }
            }
        }
    }
    let owner = |name: &Name| {
        crate::wire::name::suffixes(name.as_wire())
            .find_map(|suffix| Name::from_wire(suffix).and_then(|suffix| owners.get(&suffix).copied()))
    };
    let mut zones: Vec<Zone> = Vec::new();
    let mut done: HashMap<Name, usize> = HashMap::new();
    for (index, server) in servers.iter().enumerate() {
        for (name, at) in server.names() {
            if owner(name) != Some(index) || done.contains_key(name) {
                continue;
            }
            places.add(&["zones", &name.to_string()], at);
            done.insert(name.clone(), zones.len());
            let zone = server.zone(name, listen, groups, places, reader);
            zones.push(zone);
        }
    }
    for (index, server) in servers.iter().enumerate() {
        for (name, addresses) in server.hosts.iter().flat_map(|hosts| &hosts.pins) {
            if owner(name) != Some(index) {
                continue;
            }
            let pin = Zone::new(name.clone(), Action::Addresses(addresses.clone()));
            if let Some(&known) = done.get(name) {
                zones[known] = pin;
            } else {
                done.insert(name.clone(), zones.len());
                zones.push(pin);
            }
        }
    }
    if !done.contains_key(&Name::root()) {
        reader.remark_generally("what no server block is for is REFUSED, as it was");
        zones.push(Zone::new(Name::root(), Action::Refused));
    }
    settle(&mut zones, reader);
    zones
}

/// Gives zones that use no lifetime of their own those of the others, so that one general block can say it.
fn settle(zones: &mut [Zone], reader: &mut Reader<'_>) {
    let model = |zone: &&Zone| matches!(zone.action, Action::Route(_));
    let general = zones.iter().filter(model).find(|zone| zone.name.labels() == 0).or_else(|| zones.iter().find(model));
    let general = general.map_or_else(Lifetimes::default, |zone| zone.lifetimes);
    for zone in zones.iter_mut().filter(|zone| !matches!(zone.action, Action::Route(_))) {
        zone.lifetimes = general;
    }
    let mut patience =
        zones.iter().filter(|zone| zone.lifetimes.max_stale > 0).map(|zone| zone.lifetimes.client_timeout);
    let first = patience.next().unwrap_or(Lifetimes::default().client_timeout);
    if patience.any(|other| other != first) {
        let what = "some zones answer stale at once (`immediate`) and some wait (`verify`); nodens.yaml has one \
                    `client_timeout` for all";
        reader.remark_generally(what);
    }
    for zone in zones.iter_mut().filter(|zone| zone.lifetimes.max_stale == 0) {
        zone.lifetimes.client_timeout = first;
    }
}

impl Server<'_> {
    /// The block's zones, and the parts its plugins speak of; some of these may lie in other blocks' zones.
    fn names(&self) -> Vec<(&Name, &Token)> {
        let mut names: Vec<(&Name, &Token)> = self.zones.iter().map(|(name, at)| (name, *at)).collect();
        let mut add = |part, at| names.push((part, at));
        for forward in &self.forwards {
            add(&forward.from, forward.at);
            forward.except.iter().for_each(|part| add(part, forward.at));
        }
        for template in &self.templates {
            template.parts().into_iter().for_each(|part| add(part, template.at));
        }
        if let Some(cache) = &self.cache {
            cache.parts().for_each(|part| add(part, cache.at));
        }
        names
    }

    /// What happens to questions for `name` and below.
    fn zone(
        &self,
        name: &Name,
        listen: &Listen,
        groups: &mut Groups,
        places: &mut Places,
        reader: &mut Reader<'_>,
    ) -> Zone {
        let covering = || self.templates.iter().filter(|template| template.covers(name));
        let answer = covering().find_map(|template| match &template.effect {
            Effect::Answer(action) => Some(action.clone()),
            Effect::Addresses(_) | Effect::StripAaaa => None,
        });
        let mut addresses: Vec<IpAddr> = Vec::new();
        for template in covering() {
            if let Effect::Addresses(more) = &template.effect {
                let new: Vec<IpAddr> = more.iter().filter(|address| !addresses.contains(address)).copied().collect();
                addresses.extend(new);
            }
        }
        let action = match answer {
            Some(action) => action,
            None if !addresses.is_empty() => Action::Addresses(addresses),
            None => self.route(name, listen, groups, places, reader),
        };
        let is_routed = matches!(action, Action::Route(_));
        let strips = |template: &Template<'_>| template.effect == Effect::StripAaaa;
        let cache = self.cache.as_ref().filter(|cache| cache.covers(name));
        if cache.is_none() && is_routed {
            let what = "no `cache` here: Nodens keeps answers for as long as their TTL says";
            reader.remark(self.at, what);
        }
        Zone {
            aaaa: if is_routed && covering().any(strips) { Aaaa::Strip } else { Aaaa::Keep },
            max_labels: self.templates.iter().filter(|_| is_routed).find_map(|template| template.max_labels(name)),
            lifetimes: cache.map_or_else(uncached, |cache| cache.lifetimes(name)),
            ..Zone::new(name.clone(), action)
        }
    }

    fn route(
        &self,
        name: &Name,
        listen: &Listen,
        groups: &mut Groups,
        places: &mut Places,
        reader: &mut Reader<'_>,
    ) -> Action {
        // Without `fallthrough`, `hosts` lets nothing past it.
        let stops = self.hosts.as_ref().filter(|hosts| !hosts.falls_through);
        let Some(forward) = self.forwards.iter().find(|forward| forward.takes(name)).filter(|_| stops.is_none()) else {
            let why = match stops {
                Some(_) => "`hosts` has no `fallthrough`",
                None => "there is no `forward` for it",
            };
            reader.remark(self.at, format!("`{name}` is REFUSED: {why}"));
            return Action::Refused;
        };
        if forward::asks_ourselves(&forward.upstream.members, &listen.addresses, listen.port) {
            let remedy = "name the server behind it; as node-cache, -upstreamsvc must be another Service than the one \
                          whose address we take";
            reader.wrong(
                forward.at,
                "a server here is where Nodens itself listens: it would ask itself for ever",
                remedy,
            );
        }
        let before = groups.upstreams.len();
        let index = groups.index(&forward.upstream, name, forward.is_cluster);
        if index == before {
            places.add(&["upstreams", &groups.upstreams[index].name], forward.at);
        }
        if forward.is_cluster {
            groups.cluster = Some(index);
        }
        Action::Route(index)
    }
}

/// One rule for all zones: that of the first block that has one.
fn prefetch(servers: &[Server<'_>], reader: &mut Reader<'_>) -> Option<crate::plan::Prefetch> {
    let caches = || servers.iter().filter_map(|server| server.cache.as_ref());
    let first = caches().find(|cache| cache.prefetch.is_some())?;
    if let Some(other) = caches().find(|cache| cache.prefetch != first.prefetch) {
        let what = format!("`prefetch` is the same for all zones: what line {} says", first.at.spot.line);
        reader.remark(other.at, what);
    }
    first.prefetch
}

/// `max_concurrent` of all ways together, if each has one.
fn limits(servers: &[Server<'_>], reader: &mut Reader<'_>) -> Limits {
    let mut limits = Limits::default();
    let mut total: usize = 0;
    let mut first = None;
    let mut complete = true;
    for forward in servers.iter().flat_map(|server| &server.forwards) {
        match forward.max_concurrent {
            Some(most) => {
                total += most as usize;
                first.get_or_insert(forward.at);
            }
            None => complete = false,
        }
    }
    let Some(at) = first else { return limits };
    if complete {
        limits.in_flight = total.clamp(1, 1_000_000);
        limits.in_flight_per_client = limits.in_flight_per_client.min(limits.in_flight);
        reader.remark(at, format!("`max_concurrent` bounds all zones together: {}", limits.in_flight));
    } else {
        reader.remark(at, format!("`max_concurrent` has no effect: {} bound all zones together", limits.in_flight));
    }
    limits
}
