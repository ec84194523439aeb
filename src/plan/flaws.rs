//! What makes a draft illegal: every bound and every rule between keys, in the order of the keys.
//!
//! All checks are here and none in the front ends, so that a YAML file, a Corefile and a test obey the same rules. A check
//! costs at most n log n in the number of zones.
//!
//! Read first: RFC 2308 section 5, RFC 8767 sections 4 and 5, RFC 9520 section 3.2.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{
    Action, Cache, Draft, Flaw, Http, Lifetimes, Limits, Listen, Members, Node, Prefix, Protocol, QueryLog, Server,
    Upstream, Zone, human_bytes, human_duration,
};

/// Servers a group may have: the bound of `CoreDNS`, so that no Corefile loses one.
pub const MAX_SERVERS: usize = 15;
/// Groups of servers: each has its own metrics, sockets and health.
pub const MAX_UPSTREAMS: usize = 256;
/// Addresses to listen on: each costs two sockets for every worker.
const MAX_LISTEN: usize = 64;
/// Addresses of a pin: 64 AAAA records fit a TCP answer many times over, and no name needs more.
const MAX_PINNED: usize = 64;
/// Octets of a link's name (IFNAMSIZ, its NUL left out).
const MAX_INTERFACE: usize = 15;
const WEEK: u32 = 7 * 86_400;
/// Time in which every question is answered, one way or another; below the 5 s after which glibc gives up.
const RESOLVE_TIMER: Duration = Duration::from_secs(4);

/// Names every flaw of `draft`; none: it is a plan.
pub(super) fn of(draft: &Draft) -> Vec<Flaw> {
    let mut flaws = Flaws(Vec::new());
    flaws.listen(&draft.listen);
    if let Some(node) = &draft.node {
        flaws.node(node, draft);
    }
    if draft.upstreams.len() > MAX_UPSTREAMS {
        flaws.add(
            &["upstreams"],
            format!("more than {MAX_UPSTREAMS} upstreams"),
            "let zones with the same servers share one",
        );
    }
    for (index, upstream) in draft.upstreams.iter().take(MAX_UPSTREAMS).enumerate() {
        flaws.upstream(upstream, draft);
        if draft.upstreams.iter().take(index).any(|earlier| earlier.name == upstream.name) {
            flaws.add(&["upstreams", &upstream.name], "two upstreams have this name", "give one another name");
        }
    }
    flaws.zones(draft);
    flaws.prefixes(&["aaaa_clients"], &draft.aaaa_clients);
    flaws.cache(&draft.cache);
    flaws.limits(&draft.limits);
    flaws.http(&draft.http, &draft.listen);
    if draft.log.queries == QueryLog::OneIn(0) {
        flaws.add(&["log", "queries"], "one in 0 is no share", "write `off`, `all` or `1/1000`");
    }
    flaws.0
}

impl Lifetimes {
    /// What is wrong with these lifetimes; paths begin with `block`.
    pub fn flaws(&self, block: &[&str]) -> Vec<Flaw> {
        let mut flaws = Flaws(Vec::new());
        flaws.lifetimes(block, self);
        flaws.0
    }
}

struct Flaws(Vec<Flaw>);

impl Flaws {
    fn add(&mut self, path: &[&str], what: impl Into<String>, remedy: impl Into<String>) {
        let path = path.iter().map(|&key| key.to_owned()).collect();
        self.0.push(Flaw { path, what: what.into(), remedy: remedy.into() });
    }

    /// Wants the value of the path's last key within `range`.
    fn bound<T: PartialOrd + Copy>(
        &mut self,
        path: &[&str],
        value: T,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) {
        if !range.contains(&value) {
            let key = path.last().copied().unwrap_or_default();
            let what = format!("`{key}` is {}", show(value));
            self.add(path, what, format!("write a value from {} to {}", show(*range.start()), show(*range.end())));
        }
    }

    fn listen(&mut self, listen: &Listen) {
        let at = ["listen", "addresses"];
        if listen.addresses.is_empty() {
            self.add(&at, "there is no address to listen on", "write at least one, such as [127.0.0.1]");
        }
        if listen.addresses.len() > MAX_LISTEN {
            let what = format!("{} addresses to listen on", listen.addresses.len());
            self.add(&at, what, format!("write at most {MAX_LISTEN}"));
            return;
        }
        let mut seen = HashSet::new();
        for (index, address) in listen.addresses.iter().enumerate() {
            let at = ["listen", "addresses", &index.to_string()];
            if address.is_unspecified() {
                let remedy =
                    "write the addresses themselves, so that each answer leaves from the address that was asked";
                self.add(&at, format!("`{address}` means every address of the host"), remedy);
            } else if address.is_multicast() || *address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
                self.add(&at, format!("`{address}` is no address of a host"), "write a unicast address");
            } else if matches!(address, IpAddr::V6(it) if it.is_unicast_link_local()) {
                let remedy = "write an address that needs no zone id, such as one from fd00::/8";
                self.add(&at, format!("`{address}` is link-local: it means nothing without an interface"), remedy);
            } else if *address != address.to_canonical() {
                let what = format!("`{address}` is an IPv4 address in IPv6 clothes");
                self.add(&at, what, format!("write {}", address.to_canonical()));
            } else if !seen.insert(address) {
                self.add(&at, format!("`{address}` is here twice"), "write it once");
            }
        }
        if let Some(workers) = listen.workers {
            self.bound(&["listen", "workers"], workers.get(), 1..=256, |it| it.to_string());
        }
    }

    fn node(&mut self, node: &Node, draft: &Draft) {
        let name = &node.interface;
        let legal = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'/' | b':' | b'%');
        if name.is_empty() || name.len() > MAX_INTERFACE || !name.bytes().all(legal) || matches!(&**name, "." | "..") {
            let remedy = format!("write 1 to {MAX_INTERFACE} letters, digits or `-`, such as nodens");
            self.add(&["node", "interface"], format!("`{}` is no name of a link", name.escape_debug()), remedy);
        }
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        self.bound(&["node", "lease"], node.lease, shortest..=longest, human_duration);
        match node.fallback.map(|index| draft.upstreams.get(index)) {
            Some(None) => self.no_such_upstream(&["node", "fallback"]),
            Some(Some(upstream)) if upstream.protocol == Protocol::Tls => {
                let what = format!("`{}` is asked over TLS, and the kernel hands on plain DNS only", upstream.name);
                self.add(&["node", "fallback"], what, "name an upstream with `protocol: udp` or `tcp`");
            }
            Some(Some(_)) | None => {}
        }
    }

    fn no_such_upstream(&mut self, path: &[&str]) {
        self.add(path, "there is no such upstream", "name one of `upstreams`");
    }

    fn upstream(&mut self, upstream: &Upstream, draft: &Draft) {
        let block = ["upstreams", &upstream.name];
        let under = |key| [block[0], block[1], key];
        // The name is a label of metrics and a word of messages.
        let legal = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
        if !(1..=63).contains(&upstream.name.len()) || !upstream.name.bytes().all(legal) {
            let what = format!("`{}` cannot name an upstream", upstream.name.escape_debug());
            self.add(&block, what, "write 1 to 63 letters, digits, `-`, `_` or `.`");
        }
        match &upstream.members {
            Members::Servers(servers) => self.servers(&under("servers"), servers, draft),
            Members::Service { namespace, name } => {
                for part in [namespace, name] {
                    if !is_kubernetes_name(part) {
                        let what = format!("`{}` is no name of a Kubernetes object", part.escape_debug());
                        let remedy =
                            "write NAMESPACE/NAME in lower-case letters, digits and `-`, such as kube-system/kube-dns";
                        self.add(&under("service"), what, remedy);
                    }
                }
            }
            Members::ResolvConf(_) => {}
        }
        match (upstream.protocol, &upstream.tls_name, &upstream.tls_ca) {
            (Protocol::Tls, None, _) => {
                let remedy = "add `tls_name:` with the name in the servers' certificate, such as dns.quad9.net";
                self.add(&under("protocol"), "TLS proves nothing without a name to check", remedy);
            }
            (Protocol::Udp | Protocol::Tcp, Some(_), _) => self.tls_without_tls(&under("tls_name")),
            (Protocol::Udp | Protocol::Tcp, None, Some(_)) => self.tls_without_tls(&under("tls_ca")),
            (Protocol::Tls, Some(_), _) | (Protocol::Udp | Protocol::Tcp, None, None) => {}
        }
        let check = &upstream.health_check;
        let within = |key| ["upstreams", &*upstream.name, "health_check", key];
        // At most two probes a second reach a server that is already in trouble.
        let (shortest, longest) = (Duration::from_millis(500), Duration::from_secs(300));
        self.bound(&within("interval"), check.interval, shortest..=longest, human_duration);
        self.bound(&within("max_fails"), check.max_fails, 1..=100, |it| it.to_string());
    }

    fn tls_without_tls(&mut self, path: &[&str]) {
        let key = path.last().copied().unwrap_or_default();
        self.add(path, format!("`{key}` has no meaning without TLS"), "add `protocol: tls`, or take this out");
    }

    fn servers(&mut self, path: &[&str; 3], servers: &[Server], draft: &Draft) {
        if servers.is_empty() {
            self.add(path, "there is no server", "write at least one, such as [10.96.0.53]");
        }
        if servers.len() > MAX_SERVERS {
            let what = format!("{} servers in one group", servers.len());
            self.add(
                path,
                what,
                format!("write at most {MAX_SERVERS}: more make no answer likelier, only slower to fail"),
            );
            return;
        }
        for (index, server) in servers.iter().enumerate() {
            let at = [path[0], path[1], path[2], &index.to_string()];
            if servers.iter().take(index).any(|earlier| same(earlier, server)) {
                let remedy = "write it once: `policy` and not repetition decides who is asked how often";
                self.add(&at, format!("`{server}` is here twice"), remedy);
                continue;
            }
            let Server::Address(address) = server else { continue };
            let ip = address.ip().to_canonical();
            if ip.is_unspecified() || ip.is_multicast() {
                self.add(&at, format!("`{address}` is no address of a server"), "write a unicast address");
            } else if is_own(&draft.listen, *address) {
                let what = format!("`{address}` is where Nodens itself listens: it would ask itself for ever");
                self.add(&at, what, "name the server behind it, or another port");
            }
        }
    }

    fn zones(&mut self, draft: &Draft) {
        if !draft.zones.iter().any(|zone| zone.name.labels() == 0) {
            let remedy = "add `\".\": { upstream: NAME }` for everything no other zone takes";
            self.add(&["zones"], "the zone \".\" is missing", remedy);
        }
        let mut seen = HashSet::new();
        for zone in &draft.zones {
            let name = zone.name.to_string();
            if !seen.insert(&zone.name) {
                self.add(&["zones", &name], format!("the zone `{name}` is here twice"), "keep one of them");
            }
            self.zone(zone, &name, draft);
        }
    }

    fn zone(&mut self, zone: &Zone, name: &str, draft: &Draft) {
        let under = |key| ["zones", name, key];
        match &zone.action {
            Action::Route(index) => {
                if *index >= draft.upstreams.len() {
                    self.no_such_upstream(&under("upstream"));
                }
            }
            Action::Addresses(addresses) => self.pinned(name, addresses),
            Action::Nodata | Action::Nxdomain | Action::Refused => {}
        }
        if let Some(labels) = zone.max_labels {
            // 126 labels of one octet each are all that a name can have in front of a zone (RFC 1035 section 2.3.4).
            self.bound(&under("max_labels"), labels, 1..=126, |it| it.to_string());
            if !matches!(zone.action, Action::Route(_)) {
                let remedy = "take it out, or give the zone an `upstream`";
                self.add(&under("max_labels"), "`max_labels` has no meaning where every name is answered here", remedy);
            }
        }
        self.lifetimes(&under("cache"), &zone.lifetimes);
    }

    fn pinned(&mut self, zone: &str, addresses: &[IpAddr]) {
        let at = ["zones", zone, "answer"];
        if addresses.is_empty() {
            self.add(&at, "there is no address to answer with", "write some, or `nodata` for an empty answer");
        }
        if addresses.len() > MAX_PINNED {
            self.add(
                &at,
                format!("{} addresses in one answer", addresses.len()),
                format!("write at most {MAX_PINNED}"),
            );
        }
        let mut seen = HashSet::new();
        for (index, address) in addresses.iter().enumerate() {
            if !seen.insert(address) {
                let at = [at[0], at[1], at[2], &index.to_string()];
                self.add(&at, format!("`{address}` is here twice"), "write it once");
            }
        }
    }

    fn lifetimes(&mut self, block: &[&str], lifetimes: &Lifetimes) {
        let mut seconds = |key, value, range: RangeInclusive<u32>| {
            let path = [block, &[key]].concat();
            self.bound(&path, value, range, |it| human_duration(Duration::from_secs(it.into())));
        };
        seconds("max_ttl", lifetimes.max_ttl, 1..=WEEK);
        // RFC 2308 section 5: values above a day have been found to be problematic.
        seconds("max_negative_ttl", lifetimes.max_negative_ttl, 0..=86_400);
        seconds("min_ttl", lifetimes.min_ttl, 0..=3_600);
        // RFC 9520 section 3.2: at least 1 s, at most 5 minutes.
        seconds("failure_ttl", lifetimes.failure_ttl, 1..=300);
        // RFC 8767 section 4: a bound of a week on what may be kept.
        seconds("max_stale", lifetimes.max_stale, 0..=WEEK);
        // RFC 8767 section 4: above 0, 30 s recommended.
        seconds("ttl", lifetimes.stale_ttl, 1..=3_600);
        if lifetimes.min_ttl > lifetimes.max_ttl {
            let [least, most] =
                [lifetimes.min_ttl, lifetimes.max_ttl].map(|it| human_duration(Duration::from_secs(it.into())));
            let zone = if let [_, zone, _] = block { format!(" of zone `{zone}`") } else { String::new() };
            let what = format!("`min_ttl` ({least}) is above `max_ttl` ({most}){zone}");
            self.add(&[block, &["min_ttl"]].concat(), what, "lower the one or raise the other");
        }
        if lifetimes.client_timeout >= RESOLVE_TIMER {
            let what = format!("`client_timeout` is {}", human_duration(lifetimes.client_timeout));
            let remedy = "write less than 4s: by then every question has its answer, and clients give up at 5s";
            self.add(&[block, &["client_timeout"]].concat(), what, remedy);
        }
    }

    fn cache(&mut self, cache: &Cache) {
        self.bound(&["cache", "memory"], cache.memory, 1 << 20..=1 << 40, human_bytes);
        // RFC 8767 section 5: 30 s; RFC 9520 section 3.2 names the outer bounds.
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(300));
        self.bound(&["cache", "serve_stale", "recheck"], cache.recheck, shortest..=longest, human_duration);
        if let Some(prefetch) = cache.prefetch {
            self.bound(&["cache", "prefetch", "hits"], prefetch.hits, 1..=u8::MAX, |it| it.to_string());
            self.bound(&["cache", "prefetch", "at"], prefetch.at_percent, 1..=90, |it| format!("{it}%"));
        }
    }

    fn limits(&mut self, limits: &Limits) {
        let mut pair = |[whole, part]: [&str; 2], most: usize, [all, each]: [usize; 2]| {
            self.bound(&["limits", whole], all, 1..=most, |it| it.to_string());
            self.bound(&["limits", part], each, 1..=most, |it| it.to_string());
            if each > all && (1..=most).contains(&all) && each <= most {
                let what = format!("`{part}` ({each}) is above `{whole}` ({all})");
                self.add(&["limits", part], what, "one client can never have more than all together");
            }
        };
        // Each query in flight costs about 1 KiB, each connection a file descriptor and its buffers.
        pair(["in_flight", "in_flight_per_client"], 1_000_000, [limits.in_flight, limits.in_flight_per_client]);
        let connections = [limits.tcp_connections, limits.tcp_connections_per_client];
        pair(["tcp_connections", "tcp_connections_per_client"], 65_535, connections);
        self.prefixes(&["limits", "allow"], &limits.allow);
    }

    fn prefixes(&mut self, block: &[&str], prefixes: &[Prefix]) {
        for (index, prefix) in prefixes.iter().enumerate() {
            let width = if prefix.address.is_ipv4() { 32 } else { 128 };
            if prefix.length > width {
                let what = format!("`{prefix}` has a length above {width}");
                self.add(&[block, &[&index.to_string()]].concat(), what, "write fewer bits, such as /24 or /64");
            }
        }
    }

    fn http(&mut self, http: &Http, listen: &Listen) {
        let mut taken: HashMap<SocketAddr, &str> = HashMap::new();
        for (key, endpoint) in [("metrics", http.metrics), ("health", http.health), ("debug", http.debug)] {
            let Some(address) = endpoint else { continue };
            let at = ["http", key];
            if is_own(listen, address) || (address.ip().is_unspecified() && address.port() == listen.port) {
                self.add(&at, format!("`{address}` is taken by DNS over TCP"), "write another port");
            } else if address.ip().is_multicast() {
                self.add(&at, format!("`{address}` is no address of a host"), "write a unicast address");
            } else if let Some(other) = taken.insert(address, key) {
                self.add(&at, format!("`{address}` is taken by `{other}`"), "write another port");
            }
        }
        if let Some(path) = &http.control {
            // sun_path: 108 octets with the NUL that ends it (unix(7)).
            let length = path.as_os_str().len();
            if !path.is_absolute() || length > 107 {
                let remedy = "write an absolute path of at most 107 octets, such as /run/nodens/control.sock, or `off`";
                self.add(&["http", "control"], format!("`{}` is no path for a socket", path.display()), remedy);
            }
        }
    }
}

/// Whether clients reach us at `address`; an IPv4-mapped address is its IPv4 address.
fn is_own(listen: &Listen, address: SocketAddr) -> bool {
    address.port() == listen.port
        && listen.addresses.iter().any(|own| own.to_canonical() == address.ip().to_canonical())
}

fn same(one: &Server, other: &Server) -> bool {
    match (one, other) {
        (Server::Address(one), Server::Address(other)) => {
            (one.ip().to_canonical(), one.port()) == (other.ip().to_canonical(), other.port())
        }
        (Server::Host { name: one, port }, Server::Host { name: other, port: other_port }) => {
            port == other_port && one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
        }
        _ => false,
    }
}

/// Whether `name` is a label as Kubernetes wants it (RFC 1123 section 2.1, lower case).
fn is_kubernetes_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Members, Plan};
    use super::*;
    use crate::wire::Name;

    #[test]
    fn a_draft_of_defaults_is_a_plan() {
        assert!(Plan::new(draft()).is_ok());
    }

    #[test]
    fn a_route_or_fallback_beyond_the_upstreams_is_a_flaw() {
        let mut draft = draft();
        draft.zones[0].action = Action::Route(1);
        draft.node = Some(Node {
            interface: "nodens".to_owned(),
            interception: super::super::Interception::Auto,
            lease: Duration::from_secs(3),
            fallback: Some(1),
        });
        assert_eq!(paths(draft), ["node.fallback", "zones...upstream"]);
    }

    #[test]
    fn all_flaws_are_named_at_once_in_the_order_of_the_keys() {
        let mut draft = draft();
        draft.listen.addresses.clear();
        draft.upstreams.push(draft.upstreams[0].clone());
        draft.zones.push(draft.zones[0].clone());
        draft.cache.memory = 0;
        draft.limits = Limits { in_flight: 10, in_flight_per_client: 11, ..Limits::default() };
        draft.log.queries = QueryLog::OneIn(0);
        let expected = [
            "listen.addresses",
            "upstreams.a",
            "zones..",
            "cache.memory",
            "limits.in_flight_per_client",
            "log.queries",
        ];
        assert_eq!(paths(draft), expected);
    }

    // RFC 9520 section 3.2, RFC 8767 sections 4 and 5
    #[test]
    fn lifetimes_at_their_bounds_are_legal_and_beyond_them_are_not() {
        let legal = Lifetimes { failure_ttl: 1, max_stale: WEEK, stale_ttl: 1, ..Lifetimes::default() };
        let legal = [legal, Lifetimes { failure_ttl: 300, max_stale: 0, client_timeout: Duration::ZERO, ..legal }];
        assert!(legal.iter().all(|lifetimes| lifetimes.flaws(&["cache"]).is_empty()));
        for broken in [
            Lifetimes { failure_ttl: 0, ..Lifetimes::default() },
            Lifetimes { failure_ttl: 301, ..Lifetimes::default() },
            Lifetimes { max_stale: WEEK + 1, ..Lifetimes::default() },
            Lifetimes { stale_ttl: 0, ..Lifetimes::default() },
            Lifetimes { client_timeout: RESOLVE_TIMER, ..Lifetimes::default() },
            Lifetimes { max_ttl: 9, min_ttl: 10, ..Lifetimes::default() },
        ] {
            assert_eq!(broken.flaws(&["cache"]).len(), 1, "{broken:?}");
        }
    }

    // H14
    #[test]
    fn an_upstream_that_is_one_of_our_own_addresses_is_a_flaw() {
        for (own, asked, flawed) in [
            ("127.0.0.1", "127.0.0.1:1053", true),
            ("127.0.0.1", "[::ffff:127.0.0.1]:1053", true),
            ("::1", "[::1]:1053", true),
            ("127.0.0.1", "127.0.0.1:53", false),
            ("127.0.0.1", "127.0.0.2:1053", false),
        ] {
            let mut draft = draft();
            draft.listen.addresses = vec![own.parse().expect("an address")];
            draft.upstreams[0].members = Members::Servers(vec![Server::Address(asked.parse().expect("an address"))]);
            assert_eq!(Plan::new(draft).is_err(), flawed, "{asked} behind {own}");
        }
    }

    fn paths(draft: Draft) -> Vec<String> {
        let flaws = Plan::new(draft).expect_err("the draft has flaws");
        flaws.iter().map(|flaw| flaw.path.join(".")).collect()
    }

    fn draft() -> Draft {
        let upstream = Upstream::new("a", Members::ResolvConf("/etc/resolv.conf".into()));
        Draft::new(vec![upstream], vec![Zone::new(Name::root(), Action::Route(0))])
    }
}
