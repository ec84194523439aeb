//! The block `upstreams`: groups of servers.

use crate::plan::{Choice, HealthCheck, MAX_UPSTREAMS, Members, Protocol, Server, Upstream};

use super::block::Block;
use super::mistake::Notes;
use super::tree::{Key, Node};
use super::units::duration;
use super::values::{Wrong, boolean, is_host_name, name, number, path, server, word};
use super::yaml::set;

/// The keys that say where a group's servers come from; a group has one of them.
const SOURCES: [&str; 3] = ["servers", "service", "resolv_conf"];

/// Reads all groups, up to the first that is one too many. One with mistakes is there too, so that what refers to it is not wrong as well.
pub(super) fn read(block: &Block<'_>, notes: &mut Notes<'_>) -> Vec<Upstream> {
    block.entries().iter().take(MAX_UPSTREAMS + 1).map(|(key, node)| upstream(block, key, node, notes)).collect()
}

fn upstream(parent: &Block<'_>, key: &Key, node: &Node, notes: &mut Notes<'_>) -> Upstream {
    let mut upstream = Upstream::new(&key.text, stand_in());
    let Some(mut block) = Block::open(parent.path(&key.text), key.spot, node, notes) else { return upstream };
    set(&mut upstream.choice, block.value("policy", notes, |text| word(text, Choice::WORDS)));
    let protocol = block.value("protocol", notes, |text| word(text, Protocol::WORDS));
    set(&mut upstream.protocol, protocol);
    // RFC 7858 section 3.1: 853 for DNS over TLS.
    let port = if upstream.protocol == Protocol::Tls { 853 } else { 53 };
    set(&mut upstream.members, members(&mut block, port, notes));
    upstream.tls_name = block.value("tls_name", notes, tls_name);
    upstream.tls_ca = block.value("tls_ca", notes, path);
    // What could not be read was meant for something: a stand-in keeps the rules between keys quiet.
    if protocol.is_none()
        && block.find("protocol").is_some()
        && (upstream.tls_name.is_some() || upstream.tls_ca.is_some())
    {
        upstream.protocol = Protocol::Tls;
    }
    if upstream.protocol == Protocol::Tls && upstream.tls_name.is_none() && block.find("tls_name").is_some() {
        upstream.tls_name = Some(String::new());
    }
    if let Some(check) = block.block("health_check", notes) {
        upstream.health_check = health_check(check, notes);
    }
    set(&mut upstream.random_case, block.value("random_case", notes, boolean));
    block.close(notes);
    upstream
}

/// Where the servers come from; `None` if that was noted as wrong.
fn members(block: &mut Block<'_>, port: u16, notes: &mut Notes<'_>) -> Option<Members> {
    let written: Vec<&str> = SOURCES.into_iter().filter(|key| block.find(key).is_some()).collect();
    // Stands in for a server that could not be read: another one for each index, and no legal host name.
    let filler = |index: u32| Server::Host { name: format!("?{index}"), port };
    let servers = block.list("servers", notes, |text| server(text, port), filler).map(Members::Servers);
    let service = block.value("service", notes, service);
    let resolv_conf = block.value("resolv_conf", notes, path).map(Members::ResolvConf);
    match written.as_slice() {
        [] if SOURCES.into_iter().any(|key| block.misspelt(key).is_some()) => None,
        [] => {
            let what = format!("`{}` does not say which servers it has", block.name());
            notes.add(block.spot, what, "add `servers: [IP]`, `service: NAMESPACE/NAME` or `resolv_conf: FILE`");
            None
        }
        [_] => servers.or(service).or(resolv_conf),
        [first, second, ..] => {
            let what = format!("`{}` has both `{first}` and `{second}`", block.name());
            notes.add(block.spot, what, "keep one of them; two groups can serve two sources");
            None
        }
    }
}

/// Members that break no rule, for a group whose own could not be read.
fn stand_in() -> Members {
    Members::ResolvConf("/etc/resolv.conf".into())
}

fn service(text: &str) -> Result<Members, Wrong> {
    match text.split_once('/') {
        Some((namespace, name)) => Ok(Members::Service { namespace: namespace.to_owned(), name: name.to_owned() }),
        None => Err(Wrong::new(
            format!("`{text}` names no namespace"),
            format!("write NAMESPACE/NAME, such as kube-system/{text}"),
        )),
    }
}

/// A certificate's name is a host's (RFC 8310 section 8.1); the final dot is no part of it.
pub(super) fn tls_name(text: &str) -> Result<String, Wrong> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if is_host_name(bare) || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    Err(Wrong::new(
        format!("`{text}` is no name a certificate can have"),
        "write the servers' host name, such as dns.quad9.net",
    ))
}

fn health_check(mut block: Block<'_>, notes: &mut Notes<'_>) -> HealthCheck {
    let mut check = HealthCheck::default();
    set(&mut check.interval, block.value("interval", notes, duration));
    set(&mut check.max_fails, block.value("max_fails", notes, number));
    set(&mut check.name, block.value("name", notes, name));
    block.close(notes);
    check
}
