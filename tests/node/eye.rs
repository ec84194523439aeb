//! What is on the node, in the words of other people's tools: `nft`, `iptables-save`, `ip`, `conntrack`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use crate::stage::{CLUSTER_IPS, Namespace, OWN_IPS};

/// All there is of tables, rules, set elements, links and addresses, one line each, without what changes by itself.
#[derive(Clone, Eq, PartialEq)]
pub struct Sight {
    pub lines: Vec<String>,
}

// === impl Sight ===

impl Sight {
    pub fn of(node: &Namespace) -> Self {
        let mut lines = nft_lines(node);
        lines.extend(addresses(node).into_iter().map(|(link, address)| format!("address {address} on {link}")));
        lines.extend(links(node).into_iter().map(|link| format!("link {link}")));
        lines.sort();
        Self { lines }
    }

    /// What is here and not there, and the other way round, one line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut balance: BTreeMap<&str, i32> = BTreeMap::new();
        for line in &self.lines {
            *balance.entry(line).or_default() += 1;
        }
        for line in &other.lines {
            *balance.entry(line).or_default() -= 1;
        }
        let sign = |count: i32| if count > 0 { "- " } else { "+ " };
        balance
            .into_iter()
            .filter(|(_, count)| *count != 0)
            .map(|(line, count)| sign(count).to_owned() + line)
            .collect()
    }

    /// Panics unless `other` sees the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        let differences = self.differences(other);
        assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
    }
}

impl fmt::Debug for Sight {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.lines.join("\n"))
    }
}

/// The ruleset as `nft -j` shows it: its objects.
pub fn nft(node: &Namespace) -> Vec<Value> {
    let mut all: Value = serde_json::from_str(&node.tool("nft", &["-j", "list", "ruleset"], "")).expect("nft's JSON");
    match all["nftables"].take() {
        Value::Array(objects) => objects,
        _ => Vec::new(),
    }
}

/// The names of our tables: `inet nodens`, `arp nodens`, `inet nodens_host`.
pub fn our_tables(node: &Namespace) -> Vec<String> {
    let tables = nft(node);
    let tables = tables.iter().filter_map(|it| it.get("table"));
    let name = |it: &Value| format!("{} {}", text(&it["family"]), text(&it["name"]));
    tables.map(name).filter(|it| it.contains("nodens")).collect()
}

/// The addresses that are on lease in table `inet <table>`.
pub fn leased(node: &Namespace, table: &str) -> Vec<IpAddr> {
    let mut out = Vec::new();
    for object in nft(node) {
        let Some(set) = object.get("set") else { continue };
        if set["table"] != table || !text(&set["name"]).starts_with("leased") {
            continue;
        }
        for element in set["elem"].as_array().into_iter().flatten() {
            let value = element.get("elem").map_or(element, |it| &it["val"]);
            out.extend(text(value).parse::<IpAddr>().ok());
        }
    }
    out.sort();
    out
}

/// Every address of every link, with its link; once for each time it is there.
pub fn addresses(node: &Namespace) -> Vec<(String, IpAddr)> {
    let links: Value = serde_json::from_str(&node.tool("ip", &["-j", "addr"], "")).expect("ip's JSON");
    let mut out = Vec::new();
    for link in links.as_array().into_iter().flatten() {
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let ip: IpAddr = text(&address["local"]).parse().expect("an address");
            // The kernel's own, and late: its duplicate detection.
            if !matches!(ip, IpAddr::V6(it) if it.is_unicast_link_local()) {
                out.push((text(&link["ifname"]).to_owned(), ip));
            }
        }
    }
    out
}

fn links(node: &Namespace) -> Vec<String> {
    let links: Value = serde_json::from_str(&node.tool("ip", &["-j", "link"], "")).expect("ip's JSON");
    links.as_array().into_iter().flatten().map(|link| text(&link["ifname"]).to_owned()).collect()
}

/// How often each of the agent's addresses is on the node.
pub fn our_addresses(node: &Namespace) -> Vec<IpAddr> {
    let ours = |ip: &IpAddr| CLUSTER_IPS.contains(ip) || OWN_IPS.contains(ip);
    let mut out: Vec<IpAddr> = addresses(node).into_iter().map(|(_, ip)| ip).filter(ours).collect();
    out.sort();
    out
}

/// Both families' iptables rules, without counters.
pub fn iptables(node: &Namespace) -> Vec<String> {
    let mut out = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let mut table = String::new();
        for line in node.tool(program, &[], "").lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if line.starts_with("-A") {
                out.push(format!("{program} {table} {line}"));
            }
        }
    }
    out
}

/// Connection-tracking entries for DNS at the agent's addresses, either direction.
pub fn tracked(node: &Namespace) -> Vec<String> {
    let mut out = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let all = node.tool("conntrack", &["-L", "-f", family], "");
        let ours = |line: &&str| {
            let is_address = |word: &str| {
                let ip = word.strip_prefix("src=").or_else(|| word.strip_prefix("dst="));
                let ip = ip.and_then(|ip| ip.parse::<IpAddr>().ok());
                ip.is_some_and(|ip| CLUSTER_IPS.contains(&ip) || OWN_IPS.contains(&ip))
            };
            line.split_whitespace().any(is_address) && line.split_whitespace().any(|it| it.ends_with("port=53"))
        };
        out.extend(all.lines().filter(ours).map(str::to_owned));
    }
    out
}

/// The ruleset's objects in one line each; rules with their place in the chain.
fn nft_lines(node: &Namespace) -> Vec<String> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for mut object in nft(node) {
        if object.get("metainfo").is_some() {
            continue;
        }
        forget_changes(&mut object);
        if let Some(rule) = object.get("rule") {
            let chain = format!("{} {} {}", text(&rule["family"]), text(&rule["table"]), text(&rule["chain"]));
            let place = places.entry(chain).or_default();
            *place += 1;
            out.push(format!("rule {place} {object}"));
        } else {
            out.push(object.to_string());
        }
    }
    out
}

/// Removes handles, counts, times to live and what packets put into sets, and sorts what has no order.
fn forget_changes(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["handle", "expires", "packets", "bytes"] {
                map.remove(key);
            }
            // nft 1.0.6 prints the flag of an owned table wrongly: as any string that comes to its hand.
            if let Some(Value::Object(table)) = map.get_mut("table") {
                table.remove("flags");
            }
            // By name: nft 1.0.6 does not show the flag of sets that packets fill.
            if map.get("name").is_some_and(|name| text(name).starts_with("flows")) {
                map.remove("elem");
            }
            map.values_mut().for_each(forget_changes);
            if let Some(Value::Array(elements)) = map.get_mut("elem") {
                elements.sort_by_key(Value::to_string);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(forget_changes),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
