//! Which records of a response belong to the answer of its question. The rest is dropped, unseen by anyone.
//!
//! ```text
//! answer       QNAME ─CNAME► … ─CNAME► last name: records of QTYPE        (16 links at most; DNAMEs beside them)
//! authority    SOA, NS, DS of the last name or a parent of it; NSEC, NSEC3 of the zones that answered
//! additional   addresses of the names that kept records lead to
//! ```
//!
//! Signatures go with what they sign. If the query did not set DO, there are none, unless it asked for them by type.
//! Work is linear in the number of records: what would need more is looked at up to a fixed count, and what is behind
//! that count goes.
//!
//! Read first: RFC 2181 section 5.4.1, RFC 2308 section 2, RFC 4035 section 3.2.1, RFC 6672 section 3.

use super::records::{self, Record, Section};
use super::response::Unfit;
use super::{Class, HEADER, Type};

/// CNAMEs in one answer. Unbound stops at 11, no zone in order has more than a few.
const CNAME_MAX: usize = 16;

/// DNAMEs, and zones proving something, that are looked at in one response. Real ones hold a handful.
const UPPER_NAMES_MAX: usize = 64;

/// What the records that were kept say.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Findings {
    /// There is a record of QTYPE at the end of the chain.
    pub(super) answered: bool,
    /// Index of the SOA record in the authority section.
    pub(super) soa: Option<usize>,
    /// The answer section is not empty: there are CNAMEs at least.
    pub(super) redirected: bool,
    /// There is an NS record in the authority section.
    pub(super) delegated: bool,
}

/// Marks the records that belong to the answer of `qtype` for the name at the question's place.
///
/// `octets` are what `records` were found in.
///
/// # Errors
/// [`Unfit::ChainTooLong`].
pub(super) fn keep_relevant(
    octets: &[u8],
    records: &mut [Record],
    qtype: Type,
    dnssec_ok: bool,
) -> Result<Findings, Unfit> {
    let (answer, rest) = records.split_at_mut(section_length(records, Section::Answer));
    let (authority, additional) = rest.split_at_mut(section_length(rest, Section::Authority));
    let chain = Chain::follow(octets, answer, qtype)?;
    let mut findings = keep_answer(octets, answer, &chain, qtype, dnssec_ok);
    keep_authority(octets, authority, &chain, dnssec_ok, &mut findings);
    findings.soa = findings.soa.map(|index| answer.len() + index);
    if !additional.is_empty() {
        let named = NamedHosts::of(octets, answer.iter().chain(&*authority));
        for record in additional.iter_mut().filter(|record| record.class == Class::IN) {
            record.kept = (record.rtype != Type::RRSIG || dnssec_ok)
                && matches!(record.type_covered(octets), Type::A | Type::AAAA)
                && named.contain(octets, record);
        }
    }
    Ok(findings)
}

fn section_length(records: &[Record], section: Section) -> usize {
    records.iter().take_while(|record| record.section == section).count()
}

fn keep_answer(octets: &[u8], answer: &mut [Record], chain: &Chain, qtype: Type, dnssec_ok: bool) -> Findings {
    let mut findings = Findings::default();
    let mut upper_names = 0;
    let mut below_owner = |record: &Record| {
        upper_names += 1;
        upper_names <= UPPER_NAMES_MAX && chain.reaches_below(octets, record.owner.into())
    };
    for record in answer.iter_mut().filter(|record| record.class == Class::IN) {
        if (qtype == Type::ANY && is_data(record.rtype) || record.rtype == qtype)
            && chain.last().is_owner_of(octets, record)
        {
            record.kept = true;
            findings.answered = true;
            continue;
        }
        record.kept |= match record.rtype {
            Type::DNAME => below_owner(record),
            Type::RRSIG if dnssec_ok => match record.type_covered(octets) {
                Type::DNAME if qtype != Type::DNAME => below_owner(record),
                covered if covered == qtype => chain.last().is_owner_of(octets, record),
                Type::CNAME => chain.links.iter().any(|link| link.is_owner_of(octets, record)),
                _ => false,
            },
            // The CNAMEs of the chain were kept when it was followed.
            _ => false,
        };
    }
    findings.redirected = answer.iter().any(|record| record.kept);
    findings
}

/// Whether records of this type are data, not the means of one transaction (RFC 6895 section 3.1).
fn is_data(rtype: Type) -> bool {
    !matches!(rtype.0, 0 | 128..=255)
}

fn keep_authority(octets: &[u8], authority: &mut [Record], chain: &Chain, dnssec_ok: bool, findings: &mut Findings) {
    let last = chain.last().name.into();
    let zones = if dnssec_ok { Zones::of(octets, authority, chain) } else { Zones::default() };
    for (index, record) in authority.iter_mut().enumerate().filter(|(_, record)| record.class == Class::IN) {
        if record.rtype == Type::RRSIG && !dnssec_ok {
            continue;
        }
        record.kept = match record.type_covered(octets) {
            Type::SOA | Type::NS => records::is_under(octets, last, record.owner.into()),
            Type::DS => dnssec_ok && records::is_under(octets, last, record.owner.into()),
            // An NSEC3's owner is a hash, an NSEC's any name that sorts before: only their zone can be judged.
            Type::NSEC | Type::NSEC3 => dnssec_ok && zones.contain(octets, record.owner.into()),
            _ => false,
        };
        match record.rtype {
            // RFC 1035 section 3.3.13 means one SOA; the first counts.
            Type::SOA if findings.soa.is_some() => record.kept = false,
            Type::SOA if record.kept => findings.soa = Some(index),
            Type::NS => findings.delegated |= record.kept,
            _ => {}
        }
    }
}

// === the chain of names ===

/// The names from QNAME to where the answer is, at least one.
struct Chain {
    links: Vec<Link>,
}

/// A name of the chain: where it stands in the message.
#[derive(Clone, Copy)]
struct Link {
    name: u16,
    hash: u32,
}

impl Link {
    fn is_owner_of(self, octets: &[u8], record: &Record) -> bool {
        record.owner_hash == self.hash && records::same_name(octets, record.owner.into(), self.name.into())
    }
}

impl Chain {
    /// Follows the CNAMEs in `answer`, in whatever order they stand, and keeps them.
    fn follow(octets: &[u8], answer: &mut [Record], qtype: Type) -> Result<Self, Unfit> {
        let mut last = Link { name: HEADER as u16, hash: records::hash_of(octets, HEADER) };
        let mut links = vec![last];
        // RFC 1034 section 3.6.2: a query for the CNAME itself is not redirected; ANY matches it as well.
        if matches!(qtype, Type::CNAME | Type::ANY) {
            return Ok(Self { links });
        }
        while let Some(cname) = next_cname(octets, answer, last, qtype) {
            answer[cname].kept = true;
            let target = answer[cname].rdata_name(octets);
            last = Link { name: target as u16, hash: records::hash_of(octets, target) };
            let seen =
                |link: &Link| link.hash == last.hash && records::same_name(octets, link.name.into(), last.name.into());
            if links.iter().any(seen) {
                // A circle: relayed as far as it goes. Without data and SOA nobody will store it.
                break;
            }
            if links.len() > CNAME_MAX {
                return Err(Unfit::ChainTooLong);
            }
            links.push(last);
        }
        Ok(Self { links })
    }

    fn last(&self) -> Link {
        self.links[self.links.len() - 1]
    }

    /// Whether a name of the chain lies below `ancestor`, not at it.
    fn reaches_below(&self, octets: &[u8], ancestor: usize) -> bool {
        self.links.iter().any(|link| {
            let name = link.name.into();
            records::is_under(octets, name, ancestor) && !records::same_name(octets, name, ancestor)
        })
    }
}

/// Index of the first CNAME of a name that has no record of `qtype`.
fn next_cname(octets: &[u8], answer: &[Record], link: Link, qtype: Type) -> Option<usize> {
    let mut found = None;
    for (index, record) in answer.iter().enumerate() {
        let wanted = record.rtype == qtype || record.rtype == Type::CNAME && found.is_none();
        if wanted && record.class == Class::IN && link.is_owner_of(octets, record) {
            if record.rtype == qtype {
                return None;
            }
            found = Some(index);
        }
    }
    found
}

// === zones that prove something ===

/// For each name of the chain, the highest zone above it that the authority section speaks for.
#[derive(Default)]
struct Zones {
    /// Offset of the zone's name, and its labels.
    above: Vec<Option<(usize, usize)>>,
}

impl Zones {
    fn of(octets: &[u8], authority: &[Record], chain: &Chain) -> Self {
        let mut above = vec![None; chain.links.len()];
        let speakers = authority.iter().filter(|record| record.class == Class::IN).filter_map(|record| {
            match record.rtype {
                Type::SOA | Type::NS => Some(usize::from(record.owner)),
                // The signer is the zone (RFC 4034 section 3.1.7).
                Type::RRSIG => Some(record.rdata_name(octets)),
                _ => None,
            }
        });
        for zone in speakers.take(UPPER_NAMES_MAX) {
            let labels = records::Labels::new(octets, zone).count();
            for (link, above) in chain.links.iter().zip(&mut above) {
                let higher = above.is_none_or(|(_, highest)| labels < highest);
                if higher && records::is_under(octets, link.name.into(), zone) {
                    *above = Some((zone, labels));
                }
            }
        }
        Self { above }
    }

    fn contain(&self, octets: &[u8], owner: usize) -> bool {
        self.above.iter().flatten().any(|&(zone, _)| records::is_under(octets, owner, zone))
    }
}

// === hosts that are named ===

/// The hosts that kept records lead to: a hash table with open addressing and short probes.
struct NamedHosts {
    /// Hash and offset; offset 0 is a free place.
    places: Vec<(u32, u16)>,
}

/// Places tried for one name. A table at most a quarter full does not need more by chance; what does, goes: it is
/// optional.
const PROBES: usize = 16;

impl NamedHosts {
    fn of<'a>(octets: &[u8], records: impl Iterator<Item = &'a Record> + Clone) -> Self {
        let hosts = records.filter(|record| record.kept).filter_map(|record| match record.rtype {
            Type::NS | Type::MX | Type::SRV => Some(record.rdata_name(octets)),
            Type::SVCB | Type::HTTPS => {
                let target = record.rdata_name(octets);
                // RFC 9460 section 2.5: the root stands for the owner itself.
                Some(if octets.get(target) == Some(&0) { record.owner.into() } else { target })
            }
            _ => None,
        });
        let count = hosts.clone().count();
        let mut named = Self { places: vec![(0, 0); if count == 0 { 0 } else { (4 * count).next_power_of_two() }] };
        for host in hosts {
            let hash = records::hash_of(octets, host);
            for place in named.probe(hash) {
                let (known, at) = named.places[place];
                if at == 0 {
                    named.places[place] = (hash, host as u16);
                }
                if at == 0 || known == hash && records::same_name(octets, at.into(), host) {
                    break;
                }
            }
        }
        named
    }

    fn contain(&self, octets: &[u8], record: &Record) -> bool {
        self.probe(record.owner_hash)
            .map(|place| self.places[place])
            .take_while(|&(_, at)| at != 0)
            .any(|(hash, at)| hash == record.owner_hash && records::same_name(octets, at.into(), record.owner.into()))
    }

    fn probe(&self, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let size = self.places.len();
        (0..PROBES.min(size)).map(move |step| (hash as usize + step) & (size - 1))
    }
}
