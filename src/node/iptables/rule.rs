//! The rules as data: which there are, how they are said to the program, how they are read back.

use std::fmt;
use std::net::IpAddr;

use super::COMMENT;

/// Where queries and health checks arrive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ports {
    pub dns: u16,
    /// TCP, on any of our addresses.
    pub health: Vec<u16>,
}

/// A chain of the kernel's own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chain {
    FilterInput,
    FilterOutput,
    RawOutput,
    RawPrerouting,
}

impl Chain {
    /// Those we put rules in; the one that draws the pods' queries last.
    pub(super) const ALL: [Self; 4] = [Self::FilterInput, Self::FilterOutput, Self::RawOutput, Self::RawPrerouting];

    pub(super) fn table(self) -> &'static str {
        match self {
            Self::FilterInput | Self::FilterOutput => "filter",
            Self::RawOutput | Self::RawPrerouting => "raw",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FilterInput => "INPUT",
            Self::FilterOutput | Self::RawOutput => "OUTPUT",
            Self::RawPrerouting => "PREROUTING",
        }
    }

    /// What our rules in it do: let pass, or keep away from connection tracking.
    fn target(self) -> &'static str {
        match self {
            Self::FilterInput | Self::FilterOutput => "ACCEPT",
            Self::RawOutput | Self::RawPrerouting => "NOTRACK",
        }
    }
}

/// One rule. `Display` is what follows the chain on the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    pub chain: Chain,
    pub address: IpAddr,
    pub port: u16,
    side: Side,
    transport: Transport,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    /// Packets to our address and port.
    Query,
    /// Packets from them.
    Reply,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Transport {
    Tcp,
    Udp,
}

impl Rule {
    /// All rules for `addresses` in the order in which they are put there: twelve each with one health port.
    pub(super) fn order(addresses: &[IpAddr], ports: &Ports) -> Vec<Self> {
        use Chain::{FilterInput, FilterOutput, RawOutput, RawPrerouting};
        use Side::{Query, Reply};
        use Transport::{Tcp, Udp};
        let mut rules = Vec::new();
        let dns = [
            (RawOutput, Reply),
            (FilterOutput, Reply),
            (FilterInput, Query),
            (RawOutput, Query),
            (RawPrerouting, Query),
        ];
        for &address in addresses {
            for &port in &ports.health {
                for side in [Reply, Query] {
                    rules.push(Self { chain: RawOutput, address, port, side, transport: Tcp });
                }
            }
        }
        for (chain, side) in dns {
            for &address in addresses {
                for transport in [Tcp, Udp] {
                    rules.push(Self { chain, address, port: ports.dns, side, transport });
                }
            }
        }
        rules
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, side) = match self.side {
            Side::Query => ("-d", "--dport"),
            Side::Reply => ("-s", "--sport"),
        };
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        write!(
            f,
            "{host} {}/{bits} -p {transport} -m {transport} {side} {} -m comment --comment {COMMENT} -j {}",
            self.address,
            self.port,
            self.chain.target()
        )
    }
}

/// A line of `iptables -S` with our comment.
pub(super) struct Line(String);

impl Line {
    /// The line if it is a rule with our comment.
    pub(super) fn of_ours(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let commented = words.windows(2).any(|it| it[0] == "--comment" && it[1].trim_matches('"') == COMMENT);
        (words.first() == Some(&"-A") && commented).then(|| Self(line.to_owned()))
    }

    /// The command that removes one rule that reads like this.
    pub(super) fn to_delete(&self) -> String {
        format!("-D{}", &self.0["-A".len()..])
    }

    /// The rule it is; `None` if it is none that we would write today.
    pub(super) fn rule(&self, table_of: Chain) -> Option<Rule> {
        let mut words = self.0.split_whitespace().skip(2);
        let (mut side, mut address, mut port, mut transport) = (None, None, None, None);
        while let Some(word) = words.next() {
            match (word, words.next()?) {
                ("-d", to) => (side, address) = (Some(Side::Query), Some(to)),
                ("-s", from) => (side, address) = (Some(Side::Reply), Some(from)),
                ("-p", "tcp") => transport = Some(Transport::Tcp),
                ("-p", "udp") => transport = Some(Transport::Udp),
                ("--dport" | "--sport", number) => port = number.parse().ok(),
                // What newer programs make of NOTRACK.
                ("-j", "CT") if table_of.target() == "NOTRACK" && words.next() == Some("--notrack") => {}
                ("-j", target) if target == table_of.target() => {}
                ("-m", "tcp" | "udp" | "comment") | ("--comment", _) => {}
                _ => return None,
            }
        }
        let address = address?;
        let address = address.split_once('/').map_or(address, |it| it.0).parse().ok()?;
        Some(Rule { chain: table_of, address, port: port?, side: side?, transport: transport? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<Rule> {
        let addresses = ["169.254.20.10", "fd00::10"].map(|it| it.parse().expect("an address"));
        Rule::order(&addresses, &Ports { dns: 53, health: vec![8080] })
    }

    #[test]
    fn there_are_twelve_rules_an_address_and_what_draws_queries_comes_last() {
        let rules = rules();
        assert_eq!(rules.len(), 24);
        assert!(rules[20..].iter().all(|it| it.chain == Chain::RawPrerouting));
    }

    #[test]
    fn a_rule_is_read_back_as_it_was_said() {
        for rule in rules() {
            let line = Line::of_ours(&format!("-A {} {rule}", rule.chain.name())).expect("ours");
            assert_eq!(line.rule(rule.chain), Some(rule));
            assert_eq!(line.to_delete(), format!("-D {} {rule}", rule.chain.name()));
        }
    }

    #[test]
    fn the_other_spellings_of_programs_are_understood() {
        let line =
            "-A OUTPUT -s 10.96.0.10/32 -p udp -m udp --sport 53 -m comment --comment \"nodens\" -j CT --notrack";
        let rule = Line::of_ours(line).expect("ours").rule(Chain::RawOutput).expect("a rule");
        assert_eq!(
            rule.to_string(),
            "-s 10.96.0.10/32 -p udp -m udp --sport 53 -m comment --comment nodens -j NOTRACK"
        );
    }

    #[test]
    fn rules_of_others_are_not_ours() {
        for line in [
            "-P INPUT ACCEPT",
            "-A INPUT -j ACCEPT",
            "-A INPUT -m comment --comment \"NodeLocal DNS Cache: allow DNS traffic\" -j ACCEPT",
            "-A INPUT -m comment --comment nodens-like -j ACCEPT",
        ] {
            assert!(Line::of_ours(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_rule_with_our_comment_that_somebody_narrowed_is_not_taken_for_ours() {
        let line = "-A INPUT -d 10.96.0.10/32 -i eth0 -p udp -m udp --dport 53 -m comment --comment nodens -j ACCEPT";
        assert_eq!(Line::of_ours(line).expect("our comment").rule(Chain::FilterInput), None);
    }
}
