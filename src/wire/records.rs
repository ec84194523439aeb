//! The records of a message, found and checked on one walk.
//!
//! What [`walk`] returns is safe to follow: every record lies within the message, every name is legal, the names of
//! the types we know fill their place exactly. Types we do not know are opaque (RFC 3597 section 3). The work is
//! linear in the length of the message, whatever it says.
//!
//! Read first: RFC 1035 sections 3.2.1, 3.3 and 4.1.4, RFC 3597 section 4, RFC 9267.

use std::ops::Range;

use super::response::Unfit;
use super::{Class, HEADER, NAME_MAX, Type};

/// Octets from TYPE to RDLENGTH, both included (RFC 1035 section 3.2.1).
const FIXED: usize = 10;

/// Pointers followed within one name; a legal name has at most 127 labels.
const JUMPS_MAX: u8 = 128;

/// All records of a message but its OPT.
#[derive(Debug)]
pub(super) struct Walk {
    /// In the order of the message.
    pub(super) records: Vec<Record>,
    pub(super) opt: Option<Opt>,
    /// Every pointer leads to a label of an earlier name: no name borrows octets that may change, such as a TTL.
    pub(super) pointers_lead_to_names: bool,
}

/// One record: where it lies in its message, and what decides its fate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Offset of the owner name.
    pub(super) owner: u16,
    /// Offset of TYPE, where the owner name ends.
    fixed: u16,
    end: u16,
    pub(super) section: Section,
    pub(super) rtype: Type,
    pub(super) class: Class,
    /// As the message has it.
    pub(super) ttl: u32,
    /// Equal for equal names, letters of either case; seldom equal for others.
    pub(super) owner_hash: u32,
    /// To be part of the response. The walk keeps nothing.
    pub(super) kept: bool,
}

impl Record {
    /// Where the record lies, owner included.
    pub(super) fn range(&self) -> Range<usize> {
        self.owner.into()..self.end.into()
    }

    pub(super) fn ttl_offset(&self) -> u16 {
        self.fixed + 4
    }

    pub(super) fn rdata_range(&self) -> Range<usize> {
        usize::from(self.fixed) + FIXED..self.end.into()
    }

    pub(super) fn rdata<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        message.get(self.rdata_range()).unwrap_or_default()
    }

    /// Offset of the first name in RDATA; of the end for types without names.
    pub(super) fn rdata_name(&self, message: &[u8]) -> usize {
        let start = self.rdata_range().start;
        match Layout::of(self.rtype, self.rdata(message)) {
            Some(layout) if layout.names > 0 => start + layout.lead,
            _ => self.end.into(),
        }
    }

    /// The type an RRSIG speaks of (RFC 4034 section 3.1.1); a record's own type otherwise.
    pub(super) fn type_covered(&self, message: &[u8]) -> Type {
        match self.rdata(message) {
            &[high, low, ..] if self.rtype == Type::RRSIG => Type(u16::from_be_bytes([high, low])),
            _ => self.rtype,
        }
    }
}

/// The part of a message a record stands in (RFC 1035 section 4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// What we use of a server's OPT record (RFC 6891 section 6.1.3).
#[derive(Debug)]
pub(super) struct Opt {
    /// The upper eight bits of the rcode.
    pub(super) extended_rcode: u8,
}

/// Finds and checks the records that follow the question, which ends at `at`.
///
/// The octets from the header to `at` must be a question that was checked, or nothing.
///
/// # Errors
/// The first flaw found. A TSIG is one: we have no key, and its meaning ends at us (RFC 8945 section 5.5).
pub(super) fn walk(octets: &[u8], at: usize) -> Result<Walk, Unfit> {
    let mut reader =
        Reader { octets, labels: vec![0; octets.len() / 64 + 1], qname_hash: 0, pointers_lead_to_names: true };
    if at > HEADER {
        (_, reader.qname_hash) = reader.name(HEADER).ok_or(Unfit::BadName)?;
    }
    let mut at = at;
    let mut opt = None;
    let counts = [6, 8, 10].map(|field| usize::from(reader.u16(field).unwrap_or(0)));
    // A record is eleven octets at least; do not believe the counts.
    let mut records = Vec::with_capacity(counts.iter().sum::<usize>().min(octets.len() / 11));
    for (section, count) in [Section::Answer, Section::Authority, Section::Additional].into_iter().zip(counts) {
        for _ in 0..count {
            let record = reader.record(at, section)?;
            at = record.end.into();
            match record.rtype {
                Type::OPT => {
                    // RFC 6891 section 6.1.1: one, in the additional section, owned by the root.
                    let misplaced = section != Section::Additional || octets.get(usize::from(record.owner)) != Some(&0);
                    if misplaced || opt.is_some() {
                        return Err(Unfit::BadOpt);
                    }
                    opt = Some(Opt { extended_rcode: record.ttl.to_be_bytes()[0] });
                }
                Type::TSIG => return Err(Unfit::Signed),
                _ => records.push(record),
            }
        }
    }
    Ok(Walk { records, opt, pointers_lead_to_names: reader.pointers_lead_to_names })
}

/// A message being walked.
struct Reader<'a> {
    octets: &'a [u8],
    /// One bit an octet: a label of a name starts here.
    labels: Vec<u64>,
    qname_hash: u32,
    pointers_lead_to_names: bool,
}

impl Reader<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes([*self.octets.get(at)?, *self.octets.get(at + 1)?]))
    }

    fn record(&mut self, at: usize, section: Section) -> Result<Record, Unfit> {
        let (fixed, owner_hash) = self.name(at).ok_or(Unfit::BadName)?;
        let [t0, t1, c0, c1, ttl0, ttl1, ttl2, ttl3, l0, l1] =
            *self.octets.get(fixed..).and_then(<[u8]>::first_chunk::<FIXED>).ok_or(Unfit::Overrun)?;
        let end = fixed + FIXED + usize::from(u16::from_be_bytes([l0, l1]));
        let (rtype, class) = (Type(u16::from_be_bytes([t0, t1])), Class(u16::from_be_bytes([c0, c1])));
        if end > self.octets.len() {
            return Err(Unfit::Overrun);
        }
        // Another class gives the same type another form (RFC 1035 section 3.4); such records are never kept.
        if class == Class::IN {
            self.check_rdata(rtype, fixed + FIXED, end)?;
        }
        Ok(Record {
            owner: at as u16,
            fixed: fixed as u16,
            end: end as u16,
            section,
            rtype,
            class,
            ttl: u32::from_be_bytes([ttl0, ttl1, ttl2, ttl3]),
            owner_hash,
            kept: false,
        })
    }

    fn check_rdata(&mut self, rtype: Type, start: usize, end: usize) -> Result<(), Unfit> {
        let rdata = self.octets.get(start..end).ok_or(Unfit::Overrun)?;
        let layout = Layout::of(rtype, rdata).ok_or(Unfit::BadRdata)?;
        let mut at = start + layout.lead;
        for _ in 0..layout.names {
            if at >= end {
                return Err(Unfit::BadRdata);
            }
            at = self.name(at).ok_or(Unfit::BadName)?.0;
        }
        let fits = match layout.tail {
            Tail::Any => at <= end,
            Tail::Octets(count) => at + count == end,
        };
        if fits { Ok(()) } else { Err(Unfit::BadRdata) }
    }

    /// Checks the name at `at`; returns the offset behind it and the hash of the whole name.
    fn name(&mut self, at: usize) -> Option<(usize, u32)> {
        // Nearly every owner is the question's name.
        if self.octets.get(at..at + 2) == Some(&QNAME_POINTER) && at > HEADER {
            return Some((at + 2, self.qname_hash));
        }
        let mut hash = Hash::default();
        let (mut here, mut part, mut length, mut jumps) = (at, at, 0, 0);
        let mut next = None;
        loop {
            let first = *self.octets.get(here)?;
            if next.is_none() && first < 0xc0 {
                self.labels[here / 64] |= 1 << (here % 64);
            }
            match first {
                0 => return (length < NAME_MAX).then(|| (next.unwrap_or(here + 1), hash.finish())),
                1..=63 => {
                    let end = here + 1 + usize::from(first);
                    hash.add(self.octets.get(here..end)?);
                    length += end - here;
                    here = end;
                    if length >= NAME_MAX {
                        return None;
                    }
                }
                0xc0.. => {
                    let target = usize::from(self.u16(here)? & 0x3fff);
                    jumps += 1;
                    // RFC 1035 section 4.1.4: "a prior occurrence"; strictly backwards cannot loop.
                    if !(HEADER..part).contains(&target) || jumps > JUMPS_MAX {
                        return None;
                    }
                    if next.is_none() {
                        next = Some(here + 2);
                        // Behind the first jump all is part of a name that was checked before, if this is.
                        self.pointers_lead_to_names &= self.labels[target / 64] & (1 << (target % 64)) != 0;
                    }
                    here = target;
                    part = target;
                }
                _ => return None,
            }
        }
    }
}

/// How the question's name is written anywhere behind the question: a pointer to offset 12.
pub(super) const QNAME_POINTER: [u8; 2] = [0xc0, HEADER as u8];

// === names in RDATA ===

/// Where the names stand in the RDATA of a type.
pub(super) struct Layout {
    /// Octets before the first name.
    pub(super) lead: usize,
    /// Names, one after the other.
    pub(super) names: usize,
    pub(super) tail: Tail,
    /// The names may be written compressed (RFC 3597 section 4: only the types of RFC 1035).
    pub(super) compressible: bool,
}

/// What follows the last name.
pub(super) enum Tail {
    /// Anything, or nothing.
    Any,
    Octets(usize),
}

impl Layout {
    /// The layout of a record of class IN; opaque for types we do not know. `None` if RDATA contradicts its type.
    pub(super) fn of(rtype: Type, rdata: &[u8]) -> Option<Self> {
        let layout = |lead, names, tail, compressible| Some(Self { lead, names, tail, compressible });
        match rtype {
            Type::A => layout(4, 0, Tail::Octets(0), false),
            Type::AAAA => layout(16, 0, Tail::Octets(0), false),
            Type::NS | Type::MD | Type::MF | Type::CNAME | Type::MB | Type::MG | Type::MR | Type::PTR => {
                layout(0, 1, Tail::Octets(0), true)
            }
            Type::SOA => layout(0, 2, Tail::Octets(20), true),
            Type::MINFO => layout(0, 2, Tail::Octets(0), true),
            Type::MX => layout(2, 1, Tail::Octets(0), true),
            Type::DNAME => layout(0, 1, Tail::Octets(0), false),
            Type::RP => layout(0, 2, Tail::Octets(0), false),
            Type::AFSDB | Type::RT | Type::KX => layout(2, 1, Tail::Octets(0), false),
            Type::PX => layout(2, 2, Tail::Octets(0), false),
            Type::SRV => layout(6, 1, Tail::Octets(0), false),
            Type::NAPTR => layout(naptr_lead(rdata)?, 1, Tail::Octets(0), false),
            Type::SVCB | Type::HTTPS => layout(2, 1, Tail::Any, false),
            Type::RRSIG | Type::SIG => layout(18, 1, Tail::Any, false),
            Type::NSEC | Type::NXT => layout(0, 1, Tail::Any, false),
            _ => layout(0, 0, Tail::Any, false),
        }
    }
}

/// Octets before the name of a NAPTR: order, preference, three character strings (RFC 3403 section 4.1).
fn naptr_lead(rdata: &[u8]) -> Option<usize> {
    let mut at = 4;
    for _ in 0..3 {
        at += 1 + usize::from(*rdata.get(at)?);
    }
    Some(at)
}

// === checked names ===

/// The labels of a name at an offset, leftmost first, without the root's.
///
/// Meant for names [`walk`] checked; on others it ends early, but it ends.
#[derive(Clone)]
pub(super) struct Labels<'a> {
    octets: &'a [u8],
    at: usize,
    jumps: u8,
}

impl<'a> Labels<'a> {
    pub(super) fn new(octets: &'a [u8], at: usize) -> Self {
        Self { octets, at, jumps: 0 }
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            match *self.octets.get(self.at)? {
                length @ 1..=63 => {
                    let start = self.at + 1;
                    self.at = start + usize::from(length);
                    return self.octets.get(start..self.at);
                }
                high @ 0xc0.. if self.jumps < JUMPS_MAX => {
                    self.jumps += 1;
                    self.at = u16::from_be_bytes([high & 0x3f, *self.octets.get(self.at + 1)?]).into();
                }
                // The root, or what no name holds.
                _ => return None,
            }
        }
    }
}

/// Whether the same name stands at both offsets, letters of either case being equal.
pub(super) fn same_name(octets: &[u8], one: usize, other: usize) -> bool {
    one == other || same_labels(Labels::new(octets, one), Labels::new(octets, other))
}

pub(super) fn same_labels(mut one: Labels<'_>, mut other: Labels<'_>) -> bool {
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one.eq_ignore_ascii_case(other) => {}
            _ => return false,
        }
    }
}

/// Whether the name at `name` is the one at `ancestor` or below it.
pub(super) fn is_under(octets: &[u8], name: usize, ancestor: usize) -> bool {
    let (mut name, ancestor) = (Labels::new(octets, name), Labels::new(octets, ancestor));
    let (labels, wanted) = (name.clone().count(), ancestor.clone().count());
    for _ in wanted..labels {
        name.next();
    }
    labels >= wanted && same_labels(name, ancestor)
}

/// The hash of the name at an offset, as [`Record::owner_hash`] has it.
pub(super) fn hash_of(octets: &[u8], at: usize) -> u32 {
    let mut hash = Hash::default();
    for label in Labels::new(octets, at) {
        hash.add(&[label.len() as u8]);
        hash.add(label);
    }
    hash.finish()
}

/// FNV-1a over octets in lower case. Not keyed: where it decides, collisions only cost what is bounded elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub(super) fn add(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn finish(self) -> u32 {
        (self.0 ^ (self.0 >> 32)) as u32
    }
}
