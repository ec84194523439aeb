//! The plugin `hosts`, as far as its lines are written in the Corefile: each name is pinned to its addresses.
//!
//! Read first: <https://coredns.io/plugins/hosts/>.

use std::net::IpAddr;

use super::cache::names;
use super::keys;
use super::lexer::Token;
use super::reader::Reader;
use super::tree::Line;
use crate::wire::Name;

/// What a `hosts` says.
pub(super) struct Hosts<'l> {
    pub at: &'l Token,
    /// Names with their addresses, in the order of the file, each name once.
    pub pins: Vec<(Name, Vec<IpAddr>)>,
    /// Whether other names go on to the next plugin.
    pub falls_through: bool,
}

pub(super) fn read<'l>(line: &'l Line, reader: &mut Reader<'_>) -> Hosts<'l> {
    let mut hosts = Hosts { at: line.name(), pins: Vec::new(), falls_through: false };
    let mut zones = line.arguments();
    if let Some((file, rest)) = zones.split_first()
        && (file.text.contains('/') || line.lines().is_empty())
    {
        zones = rest;
        let remedy = "write its lines into the block; nodens.yaml pins names with `zones: { NAME: { answer: [IP] } }`";
        reader.wrong(file, "`hosts` from a file is not in this version", remedy);
    } else if line.lines().is_empty() {
        let remedy = "write its lines into a block, or take `hosts` out";
        reader.wrong(line.name(), "`hosts` without lines of its own reads /etc/hosts: not in this version", remedy);
    }
    let zones = names(zones, reader);
    for line in line.lines() {
        let first = line.name();
        if let Ok(address) = first.text.parse::<IpAddr>() {
            hosts.pin(address, line, &zones, reader);
            continue;
        }
        match first.text.as_str() {
            "fallthrough" => hosts.falls_through = true,
            "ttl" => {
                if reader.only(line, "ttl 60").and_then(|it| reader.number(it, 1)).is_some() {
                    reader.remark(first, "pinned names have a TTL of 60s: `ttl` has no effect");
                }
            }
            "no_reverse" => {
                reader.bare(line);
                reader.remark(first, "pinned addresses answer for their names (PTR): `no_reverse` has no effect");
            }
            "reload" => {
                let _ = reader.only(line, "reload 5s").map(|it| reader.duration(it));
            }
            _ => {
                let remedy = "write an IP address and its names, or `fallthrough`, `ttl`, `no_reverse`, `reload`";
                reader.wrong(first, format!("`{}` is no line of `hosts`", first.text), remedy);
            }
        }
    }
    if !hosts.pins.is_empty() {
        let what = "`hosts` pins its names for all below them too, with a TTL of 60s; /etc/hosts is not read";
        reader.remark(hosts.at, what);
    }
    hosts
}

impl Hosts<'_> {
    fn pin(&mut self, address: IpAddr, line: &Line, zones: &[Name], reader: &mut Reader<'_>) {
        if line.arguments().is_empty() {
            reader.wrong(line.name(), format!("{address} has no name"), "write its names behind it");
        }
        for token in line.arguments() {
            let host = match keys::plain_name(&token.text) {
                Ok(host) => host,
                Err(wrong) => {
                    reader.wrong(token, wrong.what, wrong.remedy);
                    continue;
                }
            };
            // CoreDNS leaves out what is in no zone of the plugin.
            if !zones.is_empty() && !zones.iter().any(|zone| host.is_under(zone)) {
                reader.remark(token, format!("`{host}` is in no zone of this `hosts`: left out"));
                continue;
            }
            match self.pins.iter_mut().find(|(known, _)| *known == host) {
                Some((_, addresses)) if addresses.contains(&address) => {}
                Some((_, addresses)) => addresses.push(address),
                None => self.pins.push((host, vec![address])),
            }
        }
    }
}
