//! The block `zones`: what happens where in the name space.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use crate::plan::{Aaaa, Action, Lifetimes, Zone};
use crate::wire::Name;

use super::block::{self, Block};
use super::mistake::Notes;
use super::tree::{Key, Node, Value};
use super::units::seconds;
use super::values::{ip, name, number, word};
use super::yaml::{reference, set};

/// What a zone inherits.
pub(super) struct General<'a> {
    pub aaaa: Aaaa,
    pub lifetimes: Lifetimes,
    /// The names of the upstreams, by index.
    pub upstreams: &'a [&'a str],
}

/// The answers that are words.
const ANSWERS: &[(&str, Answer)] =
    &[("nxdomain", Answer::Nxdomain), ("nodata", Answer::Nodata), ("refused", Answer::Refused)];

#[derive(Clone, Copy)]
enum Answer {
    Nodata,
    Nxdomain,
    Refused,
}

/// Reads all zones; of two with one name, the first.
pub(super) fn read(block: &Block<'_>, general: &General<'_>, notes: &mut Notes<'_>) -> Vec<Zone> {
    let mut lines: HashMap<Name, usize> = HashMap::new();
    let mut zones = Vec::with_capacity(block.entries().len());
    for (key, node) in block.entries() {
        if let Some(covered) = key.text.strip_prefix('*') {
            let covered = Some(covered.trim_start_matches('.')).filter(|it| !it.is_empty()).unwrap_or("\".\"");
            let remedy = format!("a zone covers all names below it: write {covered}");
            notes.add(key.spot, "`*` is no wildcard here", remedy);
            continue;
        }
        let apex = match name(&key.text) {
            Ok(apex) => apex,
            Err(wrong) => {
                notes.add(key.spot, wrong.what, wrong.remedy);
                continue;
            }
        };
        if let Some(line) = lines.get(&apex) {
            let what = format!("the zone `{apex}` is here twice: it stands at line {line} already");
            notes.add(key.spot, what, "keep one of them; letter case and a final dot make no difference");
            continue;
        }
        lines.insert(apex.clone(), key.spot.line);
        zones.push(zone(block, key, node, apex, general, notes));
    }
    zones
}

fn zone(parent: &Block<'_>, key: &Key, node: &Node, apex: Name, general: &General<'_>, notes: &mut Notes<'_>) -> Zone {
    // The action stands in for one that cannot be read: it breaks no rule.
    let mut zone = Zone {
        name: apex,
        action: Action::Refused,
        aaaa: general.aaaa,
        max_labels: None,
        lifetimes: general.lifetimes,
    };
    let path = parent.path(if key.text == "." { "\".\"" } else { &key.text });
    if let Value::Text(text) = &node.value {
        let what = format!("`{path}` must be a block of keys; found {}", node.kind());
        let remedy = match word(text, ANSWERS) {
            Ok(_) => format!("write {{ answer: {text} }}"),
            Err(_) if text.parse::<Ipv6Addr>().is_ok() => format!("write {{ answer: [\"{text}\"] }}"),
            Err(_) if ip(text).is_ok() => format!("write {{ answer: [{text}] }}"),
            Err(_) => format!("write {{ upstream: {text} }}"),
        };
        notes.add(node.spot, what, remedy);
        return zone;
    }
    let Some(mut block) = Block::open(path, key.spot, node, notes) else { return zone };
    let action = action(&mut block, general, notes);
    set(&mut zone.aaaa, block.value("aaaa", notes, |text| word(text, Aaaa::WORDS)));
    // Whether a bound on labels has a meaning depends on the action; without one it is not judged.
    zone.max_labels = block.value("max_labels", notes, number).filter(|_| action.is_some());
    set(&mut zone.action, action);
    if let Some(mut cache) = block.block("cache", notes) {
        set(&mut zone.lifetimes.max_ttl, cache.value("max_ttl", notes, seconds));
        set(&mut zone.lifetimes.max_negative_ttl, cache.value("max_negative_ttl", notes, seconds));
        set(&mut zone.lifetimes.min_ttl, cache.value("min_ttl", notes, seconds));
        set(&mut zone.lifetimes.failure_ttl, cache.value("failure_ttl", notes, seconds));
        set(&mut zone.lifetimes.max_stale, cache.value("max_stale", notes, seconds));
        cache.close(notes);
    }
    block.close(notes);
    zone
}

/// What the zone does; `None` if that was noted as wrong.
fn action(block: &mut Block<'_>, general: &General<'_>, notes: &mut Notes<'_>) -> Option<Action> {
    let (route, answer) = (block.find("upstream"), block.find("answer"));
    let name = block.name().to_owned();
    match (route, answer) {
        (Some(_), None) => block.value("upstream", notes, |text| reference(text, general.upstreams)).map(Action::Route),
        (None, Some((key, node))) => answer_here(&block.path(&key.text), key, node, notes),
        (Some((key, _)), Some(_)) => {
            let what = format!("`{name}` has both `upstream` and `answer`");
            notes.add(key.spot, what, "keep one: ask somebody, or answer here");
            None
        }
        (None, None) if block.misspelt("upstream").or(block.misspelt("answer")).is_some() => None,
        (None, None) => {
            let what = format!("`{name}` does not say what to do");
            notes.add(
                block.spot,
                what,
                "add `upstream: NAME`, or `answer:` with nxdomain, nodata, refused or addresses",
            );
            None
        }
    }
}

fn answer_here(path: &str, key: &Key, node: &Node, notes: &mut Notes<'_>) -> Option<Action> {
    let Value::Text(text) = &node.value else {
        let filler = |index: u32| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(index)).into();
        return block::list(path, key, node, notes, ip, filler).map(Action::Addresses);
    };
    if text.parse::<std::net::IpAddr>().is_ok() {
        notes.add(node.spot, format!("`{path}`: addresses are a list"), format!("put it into brackets: [\"{text}\"]"));
        return None;
    }
    match word(text, ANSWERS) {
        Ok(Answer::Nodata) => Some(Action::Nodata),
        Ok(Answer::Nxdomain) => Some(Action::Nxdomain),
        Ok(Answer::Refused) => Some(Action::Refused),
        Err(wrong) => {
            let remedy = match wrong.remedy.strip_prefix("write ") {
                Some(words) => format!("write {words}, or a list of addresses"),
                None => wrong.remedy,
            };
            notes.add(node.spot, format!("`{path}`: {}", wrong.what), remedy);
            None
        }
    }
}
