//! The plugin `template` in its common uses: no IPv6 addresses, a zone that does not exist, a zone with fixed addresses.
//!
//! A template is a program in two languages; what is recognised here are its idioms, by shape. Whatever else it says is a
//! mistake, not a guess.
//!
//! Read first: <https://coredns.io/plugins/template/>.

use std::net::IpAddr;

use super::super::values::either;
use super::cache::names;
use super::lexer::Token;
use super::reader::Reader;
use super::tree::Line;
use crate::plan::Action;
use crate::wire::Name;

const OPTIONS: [&str; 7] = ["match", "answer", "additional", "authority", "rcode", "ederror", "fallthrough"];

/// What a `template` comes to.
pub(super) struct Template<'l> {
    pub at: &'l Token,
    /// The parts it is for; empty: the whole block.
    zones: Vec<Name>,
    matches: Matches,
    pub effect: Effect,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// Every question gets this answer.
    Answer(Action),
    /// Questions for these addresses' types get them.
    Addresses(Vec<IpAddr>),
    /// There are no IPv6 addresses.
    StripAaaa,
}

/// The names a regular expression takes, where that can be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Matches {
    All,
    /// This name and all below it.
    Below(Name),
    /// Names with at least so many labels in front of this one.
    Deeper(Name, u8),
}

impl Template<'_> {
    /// Whether it answers for `name` and all below it.
    pub(super) fn covers(&self, name: &Name) -> bool {
        self.is_for(name)
            && match &self.matches {
                Matches::All => true,
                Matches::Below(zone) => name.is_under(zone),
                Matches::Deeper(zone, labels) => {
                    name.is_under(zone) && name.labels() >= zone.labels() + usize::from(*labels)
                }
            }
    }

    /// Labels that `name` may have in front of it before this template says that there is nothing.
    pub(super) fn max_labels(&self, name: &Name) -> Option<u8> {
        match (&self.matches, &self.effect) {
            (Matches::Deeper(zone, labels), Effect::Answer(Action::Nxdomain)) if zone == name && self.is_for(name) => {
                labels.checked_sub(1).filter(|most| *most > 0)
            }
            _ => None,
        }
    }

    fn is_for(&self, name: &Name) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| name.is_under(zone))
    }

    /// The parts of a block this plugin speaks of.
    pub(super) fn parts(&self) -> Vec<&Name> {
        let matched = match &self.matches {
            Matches::All => None,
            Matches::Below(zone) | Matches::Deeper(zone, _) => Some(zone),
        };
        self.zones.iter().chain(matched).collect()
    }
}

/// What the block of a template says.
#[derive(Default)]
struct Said<'l> {
    rcode: Option<&'l Token>,
    answers: Vec<&'l Token>,
    patterns: Vec<&'l Token>,
    falls_through: bool,
}

/// `None` if it is none of the common uses, which is noted.
pub(super) fn read<'l>(line: &'l Line, reader: &mut Reader<'_>) -> Option<Template<'l>> {
    let [class, kind, zones @ ..] = line.arguments() else {
        let remedy = "write such as `template IN AAAA { rcode NOERROR }`";
        reader.wrong(line.name(), "`template` takes a class and a type", remedy);
        return None;
    };
    if !["IN", "ANY"].iter().any(|it| class.text.eq_ignore_ascii_case(it)) {
        reader.wrong(class, format!("the class `{}`", class.text), "write `IN` or `ANY`");
        return None;
    }
    let said = said(line, reader);
    let zones = names(zones, reader);
    let effect = effect(&kind.text.to_ascii_uppercase(), &said, line.name(), reader)?;
    let matches = matches(&said, &effect, line.name(), reader)?;
    Some(Template { at: line.name(), zones, matches, effect })
}

fn said<'l>(line: &'l Line, reader: &mut Reader<'_>) -> Said<'l> {
    let mut said = Said::default();
    for option in line.lines() {
        reader.no_block(option);
        let arguments = option.arguments();
        match option.name().text.as_str() {
            "match" => said.patterns.extend(arguments),
            "answer" => said.answers.extend(arguments),
            // The SOA is ours, and what is additional need not be there.
            "authority" | "additional" => {}
            "ederror" => reader.remark(option.name(), "answers made here carry an error code of their own (RFC 8914)"),
            "rcode" => said.rcode = reader.only(option, "rcode NXDOMAIN"),
            "fallthrough" => said.falls_through = true,
            _ => reader.unknown(option, "template", &OPTIONS),
        }
    }
    said
}

fn effect(kind: &str, said: &Said<'_>, at: &Token, reader: &mut Reader<'_>) -> Option<Effect> {
    let rcode = said.rcode.map_or("NOERROR".to_owned(), |token| token.text.to_ascii_uppercase());
    let uncommon = |reader: &mut Reader<'_>, at: &Token, what: String| {
        let remedy = "known here: `AAAA` without answers, `ANY` with `rcode` NXDOMAIN, NOERROR or REFUSED, and `answer` \
                      \"{{ .Name }} 60 IN A 10.0.0.1\"; the cluster's CoreDNS can do the rest";
        reader.wrong(at, what, remedy);
    };
    if !said.answers.is_empty() {
        if rcode != "NOERROR" {
            uncommon(reader, at, format!("answers with {rcode}"));
            return None;
        }
        let mut addresses = Vec::new();
        for answer in &said.answers {
            match address(&answer.text) {
                Some(address) if !addresses.contains(&address) => addresses.push(address),
                Some(_) => {}
                None => {
                    uncommon(reader, answer, "this answer is not a fixed address of the name asked for".to_owned());
                    return None;
                }
            }
        }
        let fits = |address: &IpAddr| match kind {
            "A" => address.is_ipv4(),
            "AAAA" => address.is_ipv6(),
            _ => kind == "ANY",
        };
        if !addresses.iter().all(fits) {
            uncommon(reader, at, format!("answers of another type than `{kind}`"));
            return None;
        }
        reader.remark(at, "these names have the given addresses, with a TTL of 60s, and no records of other types");
        return Some(Effect::Addresses(addresses));
    }
    match (kind, rcode.as_str()) {
        ("AAAA", "NOERROR" | "NXDOMAIN") => {
            let what = "an AAAA question is answered from the name's A: no address and a SOA if the name exists, NXDOMAIN \
                        if not";
            reader.remark(at, what);
            Some(Effect::StripAaaa)
        }
        ("ANY", "NXDOMAIN") => Some(Effect::Answer(Action::Nxdomain)),
        ("ANY", "NOERROR") => Some(Effect::Answer(Action::Nodata)),
        ("ANY", "REFUSED") => Some(Effect::Answer(Action::Refused)),
        _ => {
            uncommon(reader, at, format!("`{rcode}` for the type `{kind}`"));
            None
        }
    }
}

/// The address in `{{ .Name }} [TTL] [IN] A|AAAA ADDRESS`.
fn address(record: &str) -> Option<IpAddr> {
    let behind = record.trim().strip_prefix("{{")?;
    let (name, rest) = behind.split_once("}}")?;
    if name.trim() != ".Name" {
        return None;
    }
    let mut words = rest.split_whitespace().peekable();
    words.next_if(|word| word.bytes().all(|it| it.is_ascii_digit()));
    words.next_if(|word| word.eq_ignore_ascii_case("IN"));
    let kind = words.next()?;
    let address: IpAddr = words.next()?.parse().ok()?;
    let right = kind.eq_ignore_ascii_case(if address.is_ipv4() { "A" } else { "AAAA" });
    (right && words.next().is_none()).then_some(address)
}

fn matches(said: &Said<'_>, effect: &Effect, at: &Token, reader: &mut Reader<'_>) -> Option<Matches> {
    let found: Vec<Option<Matches>> = said.patterns.iter().map(|pattern| shape(&pattern.text)).collect();
    let matches = match found.as_slice() {
        [] => return Some(Matches::All),
        [Some(only)] => only.clone(),
        all if all.contains(&Some(Matches::All)) => Matches::All,
        _ => {
            let known = [r".*", r"(.*\.)?corp\.lan\.$", r".*\..*\.corp\.lan\.$"];
            let remedy =
                format!("known here: {}; several expressions go into several templates", either(known.into_iter()));
            reader.wrong(said.patterns[0], "this expression cannot be told to mean a zone", remedy);
            return None;
        }
    };
    let matches = match (matches, effect) {
        (Matches::Deeper(zone, 1), _) => {
            reader.remark(at, format!("what holds of the names below `{zone}` holds of itself too"));
            Matches::Below(zone)
        }
        (Matches::Deeper(zone, labels), Effect::Answer(Action::Nxdomain)) => Matches::Deeper(zone, labels),
        (Matches::Deeper(..), _) => {
            let remedy = "write an expression for the zone and all below it, such as `(.*\\.)?corp\\.lan\\.$`";
            reader.wrong(said.patterns[0], "only NXDOMAIN can depend on the number of labels", remedy);
            return None;
        }
        (matches, _) => matches,
    };
    if matches == Matches::All || said.falls_through {
        return Some(matches);
    }
    // Without `fallthrough` what does not match does not exist.
    if *effect == Effect::Answer(Action::Nxdomain) {
        return Some(Matches::All);
    }
    let remedy = "add `fallthrough`, or take `match` out";
    reader.wrong(at, "without `fallthrough`, names that do not match would be NXDOMAIN", remedy);
    None
}

/// What a regular expression takes, if its shape is a common one.
pub(super) fn shape(pattern: &str) -> Option<Matches> {
    let pattern = pattern.strip_prefix("(?i)").unwrap_or(pattern);
    if matches!(pattern, "" | "." | ".*" | ".+" | "^.*$" | "^.+$" | "^" | "$" | ".*$") {
        return Some(Matches::All);
    }
    let (anchored, mut rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut open = false;
    let below = [
        r"(.*\.)?",
        r"(.+\.)?",
        r"(.*[.])?",
        r"(?:.*\.)?",
        r"(?:.+\.)?",
        r"([^.]+\.)*",
        r"(|.*\.)",
        r"(^|\.)",
        r"(^|[.])",
        r"(.*\.|)",
    ];
    if let Some(behind) = below.into_iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = behind;
        open = true;
    }
    let mut labels: u8 = 0;
    if !open {
        let any = [r".*\.", r".+\.", r"[^.]+\.", r"[^.]*\.", r"(.*)\.", r"(.+)\.", r"([^.]+)\.", r".*[.]"];
        while let Some(behind) = any.into_iter().find_map(|prefix| rest.strip_prefix(prefix)) {
            rest = behind;
            labels = labels.checked_add(1)?;
        }
        // `.*\.a` without an anchor and `\.a` take the same names.
        if labels == 0 && !anchored {
            for dot in [r"\.", "[.]"] {
                if let Some(behind) = rest.strip_prefix(dot) {
                    rest = behind;
                    labels = 1;
                }
            }
        }
    }
    let literal = rest.strip_suffix('$')?;
    let name = literal.replace(r"\.", ".").replace("[.]", ".").replace(r"\-", "-");
    let legal = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
    if name.is_empty() || !name.chars().all(legal) {
        return None;
    }
    let name: Name = name.parse().ok()?;
    Some(if labels > 0 { Matches::Deeper(name, labels) } else { Matches::Below(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_expressions_are_recognised() {
        let name = |text: &str| -> Name { text.parse().expect("legal") };
        for (pattern, meant) in [
            (".*", Some(Matches::All)),
            (r"(.*\.)?corp\.lan\.$", Some(Matches::Below(name("corp.lan")))),
            (r"^(.*\.)?corp\.lan[.]$", Some(Matches::Below(name("corp.lan")))),
            (r"corp\.lan\.$", Some(Matches::Below(name("corp.lan")))),
            (r".*\..*\.viktorbarzin\.lan\.$", Some(Matches::Deeper(name("viktorbarzin.lan"), 2))),
            (r"^[^.]+\.[^.]+\.[^.]+\.a\.$", Some(Matches::Deeper(name("a"), 3))),
            (r"\.cluster\.local\.corp\.lan\.$", Some(Matches::Deeper(name("cluster.local.corp.lan"), 1))),
            (r"^pod-([0-9]+)\.a\.$", None),
            (r"corp\.lan", None),
            ("(a|b)$", None),
        ] {
            assert_eq!(shape(pattern), meant, "{pattern}");
        }
    }

    #[test]
    fn only_fixed_addresses_are_answers() {
        for (record, read) in [
            ("{{ .Name }} 60 IN A 10.0.0.1", Some("10.0.0.1")),
            ("{{.Name}} A 10.0.0.1", Some("10.0.0.1")),
            ("{{ .Name }} IN AAAA fd00::1", Some("fd00::1")),
            ("{{ .Name }} 60 IN AAAA 10.0.0.1", None),
            ("{{ .Name }} 60 IN CNAME a.", None),
            ("{{ .Name }} 60 IN A {{ .Group.a }}.1", None),
            ("{{ .Zone }} 60 IN A 10.0.0.1", None),
            ("a. 60 IN A 10.0.0.1", None),
        ] {
            assert_eq!(address(record), read.map(|it| it.parse().expect("legal")), "{record}");
        }
    }
}
