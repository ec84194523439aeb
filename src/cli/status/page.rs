//! What `nodens status` looks like: labels on the left, what belongs to them on the right, wrapped to the width.

use std::fmt::{self, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::super::agent::printable;
use crate::control::status::{Node, Queries, Server, Status};

const HEAD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const ODD: Style = AnsiColor::Yellow.on_default();
const PLAIN: Style = Style::new();

/// Column at which the right side starts.
const RIGHT: usize = 15;
/// Columns below which wrapping would only make it worse.
const NARROWEST: usize = 40;
/// Lines of a refused configuration's complaint that are shown; `nodens check` says all.
const COMPLAINT: usize = 4;
/// Names, and clients, and incidents that are shown; --json has more.
const FEW: usize = 3;

/// The screen. Its `Display` carries colours.
pub(super) struct Page<'a> {
    pub(super) status: &'a Status,
    /// How it stood, and how long ago, for what happens per second.
    pub(super) before: Option<(Duration, &'a Status)>,
    /// Columns to fill.
    pub(super) width: usize,
}

// === impl Page ===

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        let (style, word) = if status.ready { (GOOD, "ready") } else { (BAD, "not ready") };
        writeln!(
            f,
            "{HEAD}Nodens {}{HEAD:#}  {style}{word}{style:#}  {DIM}up {}, plan {}{DIM:#}",
            printable(&status.version),
            span(status.uptime_seconds),
            status.config.generation,
        )?;
        for missing in status.missing.iter().filter(|it| status.config.refused.is_none() || !is_refusal(it)) {
            self.row(f, "", BAD, missing)?;
        }
        self.row(f, "addresses", PLAIN, &list(&status.listen))?;
        if let Some(refused) = &status.config.refused {
            self.row(f, "refused", BAD, "the newest configuration; the plan before it stays in force:")?;
            for line in refused.lines().take(COMPLAINT) {
                self.row(f, "", PLAIN, line)?;
            }
        }
        match &status.node {
            Some(node) => self.node(f, node)?,
            None => {
                self.row(f, "interception", PLAIN, "none: there is no `node:` block, nothing is done to this host")?;
            }
        }
        self.upstreams(f)?;
        self.queries(f)?;
        self.cache(f)?;
        self.top(f)?;
        self.incidents(f)
    }
}

impl Page<'_> {
    fn node(&self, f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
        let since = node.since_seconds.map_or_else(String::new, |time| format!(", for {}", span(time)));
        match (node.mode.as_str(), node.intercepting) {
            ("off", _) => self.row(f, "interception", PLAIN, "off: the addresses are on the link, and that is all")?,
            (mode, true) => {
                self.row(f, "interception", GOOD, &format!("by {mode}: the traffic is ours{since}"))?;
            }
            (mode, false) if node.waiting_for.is_some() => {
                let words = format!("by {mode}: another instance has the traffic; this one waits for it to go{since}");
                self.row(f, "interception", ODD, &words)?;
            }
            (mode, false) => {
                self.row(f, "interception", BAD, &format!("by {mode}: the traffic is NOT ours{since}; others answer"))?;
            }
        }
        for it in &node.degraded {
            self.row(f, "", ODD, &format!("{}: {}", it.reason, it.words))?;
        }
        if let Some(trouble) = &node.trouble {
            self.row(f, "trouble", BAD, trouble)?;
        }
        self.row(f, "lease", PLAIN, &lease(node))?;
        self.row(f, "link", PLAIN, &format!("{} with {}", node.link, list(&node.addresses)))?;
        if !node.tables.is_empty() {
            let tables = node.tables.iter().map(|it| format!("{} ({} rules)", it.name, it.rules));
            self.row(f, "tables", PLAIN, &tables.collect::<Vec<_>>().join(", "))?;
        }
        for it in &node.fallback {
            let servers = if it.servers.is_empty() { "nobody".to_owned() } else { list(&it.servers) };
            let style = if it.servers.is_empty() { BAD } else { PLAIN };
            self.row(f, "fallback", style, &format!("{} answered by {servers} while we do not", it.address))?;
        }
        let repaired = &node.repaired;
        match &repaired.last {
            None => self.row(f, "drift", PLAIN, "none: nobody has changed what is ours"),
            Some(last) => {
                let counts = format!("{} of the link, {} of the tables", repaired.link, repaired.tables);
                let ago = span(last.seconds_ago);
                self.row(f, "drift", ODD, &format!("repaired: {counts}; the last {ago} ago: {}", last.what))
            }
        }
    }

    fn upstreams(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{HEAD}Upstreams{HEAD:#}")?;
        let servers = self.status.upstreams.iter().flat_map(|it| &it.servers);
        let column = servers.map(|it| it.address.to_string().len()).max().unwrap_or_default();
        for upstream in &self.status.upstreams {
            if upstream.servers.is_empty() {
                self.row(f, &upstream.name, BAD, "no servers")?;
            }
            for (index, server) in upstream.servers.iter().enumerate() {
                let name = if index == 0 { &*upstream.name } else { "" };
                let (style, words) = standing(server);
                self.row(f, name, style, &format!("{:<column$}  {words}", server.address.to_string()))?;
            }
        }
        Ok(())
    }

    fn queries(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queries = &self.status.queries;
        writeln!(f, "\n{HEAD}Queries{HEAD:#}")?;
        self.row(f, "asked", PLAIN, &format!("{} ({} over TCP)", grouped(queries.total()), grouped(queries.tcp)))?;
        if let Some((elapsed, before)) = self.before {
            let new = queries.since(&before.queries);
            let rate = new.total() as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
            self.row(f, "this second", PLAIN, &format!("{rate:.0}/s, hit rate {}", percent(new.hit_rate)))?;
        }
        self.row(f, "hit rate", PLAIN, &percent(queries.hit_rate))?;
        self.row(f, "found", PLAIN, &found(queries))?;
        self.row(f, "turned away", PLAIN, &format!("{} refused, {} dropped", queries.refused, queries.dropped))
    }

    fn cache(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = &self.status.cache;
        writeln!(f, "\n{HEAD}Cache{HEAD:#}")?;
        let (positive, negative) = (grouped(cache.positive), grouped(cache.negative));
        let entries = format!("{positive} answers, {negative} negative, {} failures", grouped(cache.failures));
        self.row(f, "entries", PLAIN, &entries)?;
        self.row(f, "memory", PLAIN, &format!("{} of {}", size(cache.bytes), size(cache.limit_bytes)))
    }

    fn top(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let top = &self.status.top;
        if top.queries == 0 {
            return Ok(());
        }
        writeln!(f, "\n{HEAD}Most{HEAD:#}  {DIM}of the last {}{DIM:#}", span(top.seconds as f64))?;
        let share = |queries: u64| percent(Some(queries as f64 / top.queries as f64));
        let names = top.names.iter().take(FEW).map(|it| format!("{} {}", it.name, share(it.queries)));
        self.row(f, "names", PLAIN, &names.collect::<Vec<_>>().join(", "))?;
        let clients = top.clients.iter().take(FEW).map(|it| format!("{} {}", it.client, share(it.queries)));
        self.row(f, "clients", PLAIN, &clients.collect::<Vec<_>>().join(", "))
    }

    fn incidents(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status.incidents.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{HEAD}Incidents{HEAD:#}")?;
        for it in self.status.incidents.iter().take(FEW) {
            let first = it.words.lines().next().unwrap_or_default();
            self.row(f, &span(it.seconds_ago.floor()), PLAIN, &format!("ago, {}: {first}", it.what.replace('_', " ")))?;
        }
        Ok(())
    }

    /// `label` and what belongs to it, wrapped at spaces. Whatever is in it, a terminal acts on none of it.
    fn row(&self, f: &mut fmt::Formatter<'_>, label: &str, style: Style, text: &str) -> fmt::Result {
        let room = self.width.max(NARROWEST) - RIGHT - 2;
        let mut label = printable(label);
        for line in wrap(&printable(text), room) {
            writeln!(f, "  {label:<RIGHT$}{style}{line}{style:#}")?;
            label.clear();
        }
        Ok(())
    }
}

/// Whether a line of what is missing says what the row `refused` says better.
fn is_refusal(missing: &str) -> bool {
    missing.starts_with("the newest configuration is refused")
}

fn lease(node: &Node) -> String {
    let length = span(node.lease_seconds);
    let mut leased: Vec<_> = node.tables.iter().flat_map(|it| &it.leased).collect();
    leased.sort_unstable();
    leased.dedup();
    match (node.mode.as_str(), leased.is_empty()) {
        ("iptables" | "off", _) => "none: it needs nftables".to_owned(),
        (_, true) => format!("{length}, not held"),
        (_, false) => format!("{length}, held for {}", list(&leased)),
    }
}

fn standing(server: &Server) -> (Style, String) {
    let waiting = match server.outstanding {
        0 => String::new(),
        count => format!(", {count} under way"),
    };
    let time = server.round_trip_seconds.map(|it| format!("{:.1} ms", it * 1e3));
    let fails = match server.failures_in_a_row {
        1 => "1 failure".to_owned(),
        fails => format!("{fails} failures in a row"),
    };
    match (server.healthy, server.failures_in_a_row, time) {
        (true, 0, None) => (PLAIN, format!("not asked yet{waiting}")),
        (true, 0, Some(time)) => (GOOD, format!("answers, {time}{waiting}")),
        (true, _, None) => (ODD, format!("no answer yet, {fails}{waiting}")),
        (true, _, Some(time)) => (ODD, format!("{fails}, {time} before{waiting}")),
        (false, ..) => (BAD, format!("does not answer, {fails}{waiting}")),
    }
}

/// Shares of what was looked up, those that are there.
fn found(queries: &Queries) -> String {
    let kinds = [
        (queries.fresh, "fresh"),
        (queries.stale, "stale"),
        (queries.failure_cached, "known failure"),
        (queries.local, "answered here"),
        (queries.miss, "asked upstream"),
        (queries.parked, "waited for one under way"),
    ];
    let total: u64 = kinds.iter().map(|(count, _)| count).sum();
    let shares = kinds.iter().filter(|(count, _)| *count > 0);
    let shares: Vec<_> =
        shares.map(|(count, kind)| format!("{kind} {}", percent(Some(*count as f64 / total as f64)))).collect();
    if shares.is_empty() { "nothing yet".to_owned() } else { shares.join(", ") }
}

/// Lines of at most `room` columns; a word that is longer gets a line of its own.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if used > 0 && used + length > room {
            lines.push(String::new());
            used = 0;
        }
        lines.last_mut().expect("there is one at the start").push_str(word);
        used += word.chars().count();
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A time in its two largest units: `3 s`, `12 min 5 s`, `3 h 12 min`, `5 d 3 h`.
fn span(seconds: f64) -> String {
    if seconds.fract() > 0.0 && seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = units.iter().position(|(size, _)| seconds >= *size) else { return "0 s".to_owned() };
    let mut shown = format!("{} {}", seconds / units[first].0, units[first].1);
    if let Some((size, unit)) = units.get(first + 1) {
        let rest = seconds % units[first].0 / size;
        if rest > 0 {
            write!(shown, " {rest} {unit}").expect("a String takes every write");
        }
    }
    shown
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "none yet".to_owned(), |it| format!("{:.1} %", it * 100.0))
}

/// `1,234,567`
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A size with one decimal, in the largest unit that leaves at least 1.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1_u32 << shift)),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::control::status::{
        Cache, Config, Degraded, Fallback, Incident, Repair, Repaired, Table, Top, TopClient, TopName, Upstream,
    };

    fn node() -> Node {
        let cluster_ip = "10.96.0.10".parse().expect("an address");
        let own = "169.254.20.10".parse().expect("an address");
        let degraded = Degraded {
            reason: "no-dummy".to_owned(),
            words: "the kernel has no dummy driver: the addresses are on `lo`, which every other program that listens on all addresses shares".to_owned(),
        };
        let table = |name: &str, rules| Table { name: name.to_owned(), rules, leased: vec![cluster_ip, own] };
        Node {
            intercepting: true,
            since_seconds: Some(11_538.7),
            waiting_for: None,
            mode: "nftables".to_owned(),
            degraded: vec![degraded],
            lease_seconds: 3.0,
            link: "nodens".to_owned(),
            addresses: vec![own, cluster_ip],
            tables: vec![table("inet nodens", 31), table("inet nodens_host", 4)],
            fallback: vec![Fallback { address: own, servers: vec![server(7), server(9)] }],
            repaired: Repaired {
                link: 1,
                tables: 2,
                last: Some(Repair { seconds_ago: 312.0, what: "chain inet nodens prerouting is missing".to_owned() }),
            },
            trouble: None,
        }
    }

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, last], 53))
    }

    fn status() -> Status {
        let one = |last, healthy, fails, time| Server {
            address: server(last),
            healthy,
            failures_in_a_row: fails,
            outstanding: 2,
            round_trip_seconds: time,
        };
        Status {
            version: "0.1.0".to_owned(),
            uptime_seconds: 11_540.2,
            ready: true,
            listen: vec![SocketAddr::from(([169, 254, 20, 10], 53)), SocketAddr::from(([10, 96, 0, 10], 53))],
            config: Config { generation: 4, refused: None },
            node: Some(node()),
            upstreams: vec![
                Upstream {
                    name: "cluster".to_owned(),
                    servers: vec![one(7, true, 0, Some(0.0008)), one(9, false, 4, None), one(12, true, 1, None)],
                },
                Upstream { name: "technitium".to_owned(), servers: Vec::new() },
            ],
            queries: Queries {
                udp: 1_234_567,
                tcp: 33,
                fresh: 934,
                miss: 50,
                parked: 15,
                stale: 1,
                ..Queries::default()
            }
            .with_hit_rate(),
            cache: Cache { positive: 12_345, negative: 678, failures: 9, bytes: 3_355_443, limit_bytes: 64 << 20 },
            top: Top {
                seconds: 431,
                queries: 2_000,
                names: vec![TopName {
                    name: "api.default.svc.cluster.local.".to_owned(),
                    queries: 900,
                    at_most_too_many: 0,
                }],
                clients: vec![TopClient { client: [10, 1, 0, 77].into(), queries: 1_500, at_most_too_many: 3 }],
            },
            incidents: vec![Incident {
                seconds_ago: 312.4,
                what: "repaired".to_owned(),
                words: "chain inet nodens prerouting is missing\nand more".to_owned(),
            }],
            ..Status::default()
        }
    }

    fn shown(status: &Status, before: Option<(Duration, &Status)>, width: usize) -> String {
        anstream::adapter::strip_str(&Page { status, before, width }.to_string()).to_string()
    }

    #[test]
    fn everything_is_on_one_screen() {
        insta::assert_snapshot!(shown(&status(), None, 80));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut status = status();
        status.ready = false;
        status.missing =
            vec!["the newest configuration is refused: 1".to_owned(), "the lease is not held: EPERM".to_owned()];
        status.config.refused = Some("nodens.yaml:3:1: unknown key\n  zone: 1\n\u{1b}[31m".to_owned());
        let node = status.node.as_mut().expect("there is one");
        (node.intercepting, node.trouble) = (false, Some("nftables: add table inet nodens: EPERM".to_owned()));
        node.tables.clear();
        node.fallback[0].servers.clear();
        node.degraded.clear();
        insta::assert_snapshot!(shown(&status, None, 80));
    }

    #[test]
    fn an_instance_that_waits_for_another_is_not_in_trouble() {
        let mut status = status();
        let node = status.node.as_mut().expect("there is one");
        (node.intercepting, node.waiting_for) = (false, Some(4711));
        let page = shown(&status, None, 100);
        assert!(page.contains("by nftables: another instance has the traffic") && !page.contains("NOT ours"), "{page}");
    }

    #[test]
    fn watched_it_says_what_this_second_brought() {
        let before = status();
        let mut after = status();
        after.queries.udp += 1_500;
        after.queries.fresh += 90;
        after.queries.miss += 10;
        let page = shown(&after, Some((Duration::from_secs(1), &before)), 80);
        assert!(page.contains("this second    1500/s, hit rate 90.0 %"), "{page}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_unless_a_word_is() {
        for width in [60, 80, 132] {
            let page = shown(&status(), None, width);
            assert!(page.lines().all(|line| line.chars().count() <= width), "{width}:\n{page}");
        }
    }

    #[test]
    fn times_have_their_two_largest_units() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (2.54, "2.5 s"),
            (3.0, "3 s"),
            (725.0, "12 min 5 s"),
            (7_200.0, "2 h"),
            (443_000.0, "5 d 3 h"),
            (f64::NAN, "0 s"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn counts_and_sizes_can_be_read() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([512, 3_355_443, 64 << 20].map(size), ["512 B", "3.2 MiB", "64.0 MiB"]);
    }
}
