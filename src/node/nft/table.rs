//! A table as it is to be: sets, chains, rules; how it is made, and what of it is missing on the host.
//!
//! Each rule carries a comment with a checksum of its own contents. A rule found with that comment is the rule we would
//! write: a rule cannot be changed in place without giving it another comment, and nameless sets cannot be changed at all.

use std::time::Duration;

use super::batch::{Batch, SET_DYNAMIC, SET_TIMEOUT};
use super::expression::{Datatype, Expressions};
use super::{Family, Found, FoundSet};

/// Where in its way the kernel shows a packet to a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hook {
    Prerouting,
    Input,
    Output,
    Postrouting,
}

impl Hook {
    pub(crate) fn number(self, family: Family) -> u32 {
        match (self, family) {
            // arp knows input and output only
            (Self::Prerouting, _) | (Self::Input, Family::Arp) => 0,
            (Self::Input, _) | (Self::Output, Family::Arp) => 1,
            (Self::Output, _) => 3,
            (Self::Postrouting, _) => 4,
        }
    }
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Filter,
    Nat,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// What makes a chain a base chain. The policy is always to accept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Base {
    pub(crate) kind: Kind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

/// A set with a name, whose elements have a lifetime.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key: Datatype,
    /// `None`: the elements are ours to add and to delete.
    pub(crate) filled: Option<Filled>,
}

/// A set that packets fill by rules: what it holds is no part of what we made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Filled {
    /// How long an element lives.
    pub(crate) timeout: Duration,
    /// How many there can be.
    pub(crate) size: u32,
}

impl Set {
    /// `NFT_SET_*`.
    pub(crate) fn flags(&self) -> u32 {
        if self.filled.is_some() { SET_TIMEOUT | SET_DYNAMIC } else { SET_TIMEOUT }
    }

    /// Whether that set is this one, as we make it; what is in it is another matter.
    fn is(&self, there: &FoundSet) -> bool {
        let made = (self.key.number_and_length().0, self.flags(), self.filled.map(|it| (it.timeout, it.size)));
        there.name == self.name && (there.key, there.flags, there.filled) == made
    }
}

/// A rule: what it is for, in a few words, and what it does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Rule {
    about: String,
    pub(crate) expressions: Expressions,
}

/// What the comment of every rule of ours begins with.
pub(crate) const MARK: &str = "nodens: ";

impl Rule {
    pub(crate) fn new(about: impl Into<String>, expressions: Expressions) -> Self {
        Self { about: about.into(), expressions }
    }

    /// `nodens: replies udp [0123456789abcdef]`: at most 128 octets.
    pub(crate) fn comment(&self) -> String {
        format!("{MARK}{} [{:016x}]", self.about, self.checksum())
    }

    /// FNV-1a over everything the rule holds: the same in every build, which the standard library's hashes are not.
    fn checksum(&self) -> u64 {
        let mut sum = 0xCBF2_9CE4_8422_2325_u64;
        let mut add = |octets: &[u8]| {
            // the length first, so that no two lists run into each other
            for octet in (octets.len() as u64).to_be_bytes().iter().chain(octets) {
                sum = (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01B3);
            }
        };
        for expression in &self.expressions {
            add(expression.name.as_bytes());
            add(expression.data.as_slice());
            let Some(set) = &expression.set else { continue };
            add(&set.key.number_and_length().0.to_be_bytes());
            for (key, data) in &set.elements {
                add(key);
                add(data.as_deref().unwrap_or_default());
            }
        }
        sum
    }
}

/// A chain and its rules, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    /// `None`: a chain others jump to.
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

impl Chain {
    pub(crate) fn base(name: &str, kind: Kind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Self {
        Self { name: name.to_owned(), base: Some(Base { kind, hook, priority }), rules }
    }

    pub(crate) fn regular(name: &str, rules: Vec<Rule>) -> Self {
        Self { name: name.to_owned(), base: None, rules }
    }
}

/// A table of ours, complete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: &'static str,
    /// Whether the kernel removes it with our socket.
    pub(crate) owner: bool,
    pub(crate) sets: Vec<Set>,
    /// Those that are jumped to before those that jump.
    pub(crate) chains: Vec<Chain>,
}

impl Table {
    /// Puts the table there, in place of what has its name.
    pub(crate) fn replace(&self, batch: &mut Batch) {
        batch.delete_table(self.family, self.name);
        batch.table(self.family, self.name, self.owner);
        for set in &self.sets {
            batch.set(self.family, self.name, set);
        }
        for chain in &self.chains {
            batch.chain(self.family, self.name, chain);
            self.fill(chain, batch);
        }
    }

    fn fill(&self, chain: &Chain, batch: &mut Batch) {
        for rule in &chain.rules {
            batch.rule(self.family, self.name, &chain.name, rule);
        }
    }

    /// Makes every chain anew, and the sets that are not as they are to be. What the others hold stays: leases and
    /// connections.
    fn rebuild(&self, found: &Found, batch: &mut Batch) {
        let here = |family: Family, table: &str| family == self.family && table == self.name;
        let sets: Vec<&FoundSet> = found.sets.iter().filter(|set| here(set.family, &set.table)).collect();
        batch.flush_table(self.family, self.name);
        // An element of somebody's map may lead to a chain.
        for set in sets.iter().filter(|there| !self.sets.iter().any(|set| set.is(there))) {
            batch.delete_set(self.family, self.name, &set.name);
        }
        for chain in found.chains.iter().filter(|chain| here(chain.family, &chain.table)) {
            batch.delete_chain(self.family, self.name, &chain.name);
        }
        for set in self.sets.iter().filter(|set| !sets.iter().any(|there| set.is(there))) {
            batch.set(self.family, self.name, set);
        }
        for chain in &self.chains {
            batch.chain(self.family, self.name, chain);
            self.fill(chain, batch);
        }
    }

    /// The least that makes the host's table this one: nothing, new rules for some chains, new chains, or a new table.
    /// Nothing, too, if the table is another socket's: the kernel would refuse the whole batch.
    pub(crate) fn repair(&self, found: &Found, batch: &mut Batch) {
        if self.is_anothers(found) {
            return;
        }
        if !self.flaws_of_table(found).is_empty() {
            return self.replace(batch);
        }
        if !self.flaws_of_frame(found).is_empty() {
            return self.rebuild(found, batch);
        }
        for chain in self.chains.iter().filter(|chain| !self.has_rules_of(chain, found)) {
            batch.flush_chain(self.family, self.name, &chain.name);
            self.fill(chain, batch);
        }
    }

    /// Whether a socket that is not ours owns the table.
    pub(crate) fn is_anothers(&self, found: &Found) -> bool {
        let mut owners = found.tables.iter().filter(|it| it.family == self.family && it.name == self.name);
        owners.any(|table| table.owner.is_some_and(|owner| owner != found.port))
    }

    /// What differs on the host, in words; empty if the table is there as we made it.
    pub(crate) fn differences(&self, found: &Found) -> Vec<String> {
        let frame = self.flaws_of_frame(found);
        if !frame.is_empty() {
            return frame;
        }
        let changed = self.chains.iter().filter(|chain| !self.has_rules_of(chain, found));
        changed.map(|chain| format!("rules of chain {} {} {}", self.family, self.name, chain.name)).collect()
    }

    /// What differs so that the table must go; empty if it may stay.
    fn flaws_of_table(&self, found: &Found) -> Vec<String> {
        let place = format!("{} {}", self.family, self.name);
        let Some(table) = found.tables.iter().find(|table| table.family == self.family && table.name == self.name)
        else {
            return vec![format!("table {place} is missing")];
        };
        let mut flaws = Vec::new();
        if table.dormant {
            flaws.push(format!("table {place} is dormant"));
        }
        if table.owner != self.owner.then_some(found.port) {
            flaws.push(format!("table {place} belongs to another socket"));
        }
        flaws
    }

    /// What differs besides rules.
    fn flaws_of_frame(&self, found: &Found) -> Vec<String> {
        let place = format!("{} {}", self.family, self.name);
        let mut flaws = self.flaws_of_table(found);
        if !found.tables.iter().any(|table| table.family == self.family && table.name == self.name) {
            return flaws;
        }
        let ours = |family: Family, name: &str| family == self.family && name == self.name;
        for chain in &self.chains {
            let there = found.chains.iter().find(|there| ours(there.family, &there.table) && there.name == chain.name);
            let base = chain
                .base
                .map(|base| (base.kind.word().to_owned(), base.hook.number(self.family), base.priority, true));
            match there {
                None => flaws.push(format!("chain {place} {} is missing", chain.name)),
                Some(there) if there.base_as_made() != base => {
                    flaws.push(format!("chain {place} {} is another", chain.name));
                }
                Some(_) => {}
            }
        }
        for set in &self.sets {
            let there = found.sets.iter().find(|there| ours(there.family, &there.table) && there.name == set.name);
            match there {
                None => flaws.push(format!("set {place} {} is missing", set.name)),
                Some(there) if !set.is(there) => flaws.push(format!("set {place} {} is another", set.name)),
                Some(_) => {}
            }
        }
        for there in found.chains.iter().filter(|there| ours(there.family, &there.table)) {
            if self.chains.iter().all(|chain| chain.name != there.name) {
                flaws.push(format!("chain {place} {} is not wanted", there.name));
            }
        }
        flaws
    }

    fn has_rules_of(&self, chain: &Chain, found: &Found) -> bool {
        let there = found
            .rules
            .iter()
            .filter(|rule| rule.family == self.family && rule.table == self.name && rule.chain == chain.name);
        there.map(|rule| rule.comment.clone()).eq(chain.rules.iter().map(|rule| Some(rule.comment())))
    }
}
