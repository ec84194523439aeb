//! A message written anew from records of another: fewer of them, the question's name as the pointer `c00c`, names
//! compressed.
//!
//! The work for one name does not depend on how many came before: labels are looked up in a table of fixed size with
//! four places each, and a name stops looking after two places that were not what they seemed. What the table has
//! forgotten is written out (RFC 1035 section 4.1.4 allows it).
//!
//! Read first: RFC 1035 section 4.1.4, RFC 3597 section 4.

use super::records::{self, Labels, Layout, Record, Section};
use super::{Class, HEADER, MESSAGE_MAX, NAME_MAX, Type, name, soa};

/// The highest offset a pointer can name.
const POINTER_MAX: usize = 0x3fff;

/// A message in the making: header, question, then records in the order of their sections.
pub(super) struct Writer<'a> {
    source: &'a [u8],
    out: Vec<u8>,
    ttl_offsets: Vec<u16>,
    counts: [u16; 3],
    suffixes: Suffixes,
}

/// The message would exceed 65,535 octets. What was written before the record concerned stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl<'a> Writer<'a> {
    /// Opens a message with the header and question of `source`, where the question ends at `question_end`.
    pub(super) fn new(source: &'a [u8], question_end: usize, records: usize) -> Self {
        let mut out = Vec::with_capacity(source.len().min(question_end + 64 * records));
        out.extend_from_slice(source.get(..question_end).unwrap_or_default());
        let ttl_offsets = Vec::with_capacity(records);
        let mut writer = Self { source, out, ttl_offsets, counts: [0; 3], suffixes: Suffixes::new(records) };
        let mut qname = [0; NAME_MAX];
        if let Some((length, _)) = name::expand(source, HEADER, &mut qname) {
            let (starts, hashes) = suffixes_of(&qname[..length]);
            for (start, hash) in starts.into_iter().zip(hashes) {
                writer.suffixes.insert(hash, HEADER + start);
            }
        }
        writer
    }

    /// Appends a record of the source. Sections must not go back.
    pub(super) fn copy(&mut self, record: &Record) -> Result<(), Full> {
        let layout = Layout::of(record.rtype, record.rdata(self.source)).filter(|_| record.class == Class::IN);
        self.copy_parts(record, layout.as_ref(), None)
    }

    /// Appends a record of the source with other octets behind the last name of its RDATA.
    pub(super) fn copy_with_tail(&mut self, record: &Record, tail: &[u8]) -> Result<(), Full> {
        let layout = Layout::of(record.rtype, record.rdata(self.source));
        self.copy_parts(record, layout.as_ref(), Some(tail))
    }

    fn copy_parts(&mut self, record: &Record, layout: Option<&Layout>, tail: Option<&[u8]>) -> Result<(), Full> {
        let start = self.out.len();
        self.source_name(record.owner.into(), true);
        self.fixed(record.rtype, record.class, record.ttl);
        let rdata = record.rdata_range();
        let mut at = rdata.start;
        if let Some(layout) = layout.filter(|layout| layout.names > 0) {
            self.out.extend_from_slice(self.source.get(at..at + layout.lead).unwrap_or_default());
            at += layout.lead;
            for _ in 0..layout.names {
                at = self.source_name(at, layout.compressible);
            }
        }
        self.out.extend_from_slice(tail.or(self.source.get(at..rdata.end)).unwrap_or_default());
        self.close(record.section, start)
    }

    /// Appends the SOA record of a negative answer of our own to the authority section.
    pub(super) fn soa(&mut self, owner: &[u8], ttl: u32) -> Result<(), Full> {
        let start = self.out.len();
        self.name(owner, true);
        self.fixed(Type::SOA, Class::IN, ttl);
        self.name(owner, true);
        self.name(soa::RNAME, true);
        for field in soa::numbers(ttl) {
            self.out.extend_from_slice(&field.to_be_bytes());
        }
        self.close(Section::Authority, start)
    }

    /// The message and the offsets of its TTLs.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<u16>) {
        for (field, count) in self.counts.into_iter().enumerate() {
            let at = 6 + 2 * field;
            if let Some(octets) = self.out.get_mut(at..at + 2) {
                octets.copy_from_slice(&count.to_be_bytes());
            }
        }
        (self.out, self.ttl_offsets)
    }

    fn fixed(&mut self, rtype: Type, class: Class, ttl: u32) {
        self.out.extend_from_slice(&rtype.0.to_be_bytes());
        self.out.extend_from_slice(&class.0.to_be_bytes());
        self.ttl_offsets.push(self.out.len() as u16);
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
    }

    /// Fills in RDLENGTH and counts the record that began at `start`, or takes it back.
    fn close(&mut self, section: Section, start: usize) -> Result<(), Full> {
        let ttl = usize::from(*self.ttl_offsets.last().expect("fixed() pushed the offset of this record"));
        if self.out.len() > MESSAGE_MAX {
            self.out.truncate(start);
            self.ttl_offsets.pop();
            self.suffixes.forget_from(start);
            return Err(Full);
        }
        let rdata = ttl + 6;
        let length = (self.out.len() - rdata) as u16;
        self.out[rdata - 2..rdata].copy_from_slice(&length.to_be_bytes());
        self.counts[section as usize] += 1;
        Ok(())
    }

    /// Writes the name at `at` of the source; returns the offset behind it there.
    fn source_name(&mut self, at: usize, compress: bool) -> usize {
        let mut expanded = [0; NAME_MAX];
        let Some((length, next)) = name::expand(self.source, at, &mut expanded) else {
            // Only names that were checked come here; the root keeps the record well-formed all the same.
            self.out.push(0);
            return at + 1;
        };
        self.name(&expanded[..length], compress);
        next
    }

    fn name(&mut self, wire: &[u8], compress: bool) {
        let here = self.out.len();
        let (starts, hashes) = suffixes_of(wire);
        let known = if compress { self.suffixes.find(&self.out, wire, &starts, &hashes) } else { None };
        let literal = known.map_or(starts.len(), |(label, _)| label);
        for (start, hash) in starts.iter().zip(&hashes).take(literal) {
            self.suffixes.insert(*hash, here + start);
        }
        match known {
            Some((label, target)) => {
                self.out.extend_from_slice(&wire[..starts[label]]);
                self.out.extend_from_slice(&(0xc000 | target).to_be_bytes());
            }
            None => self.out.extend_from_slice(wire),
        }
    }
}

/// Where each label of an uncompressed name starts, and the hash of the name from there on. Without the root's.
fn suffixes_of(wire: &[u8]) -> (Vec<usize>, Vec<u32>) {
    let starts: Vec<usize> = name::suffixes(wire)
        .map(|suffix| wire.len() - suffix.len())
        .filter(|&start| wire.get(start).is_some_and(|&length| length != 0))
        .collect();
    let mut hash = records::Hash::default();
    let mut end = wire.len();
    let mut hashes = vec![0; starts.len()];
    for (start, suffix) in starts.iter().zip(&mut hashes).rev() {
        hash.add(&wire[*start..end]);
        end = *start;
        *suffix = hash.finish();
    }
    (starts, hashes)
}

/// Where names stand that a pointer can lead to.
struct Suffixes {
    /// Hash and offset; offset 0 is a free place.
    places: Vec<(u32, u16)>,
    /// Names compared, so that a test can count the work.
    #[cfg(test)]
    comparisons: usize,
}

/// Places one suffix can be in.
const WAYS: usize = 4;
/// Comparisons that may fail before a name is written without looking further.
const MISTAKES_MAX: usize = 2;

impl Suffixes {
    fn new(records: usize) -> Self {
        let places = vec![(0, 0); (8 * records).next_power_of_two().clamp(256, 4096)];
        Self {
            places,
            #[cfg(test)]
            comparisons: 0,
        }
    }

    fn ways(&self, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let size = self.places.len();
        (0..WAYS).map(move |step| (hash as usize + step) & (size - 1))
    }

    /// The longest suffix of `wire` that stands in `out`: its label's index and its offset there.
    fn find(&mut self, out: &[u8], wire: &[u8], starts: &[usize], hashes: &[u32]) -> Option<(usize, u16)> {
        let mut mistakes = 0;
        for (label, (start, hash)) in starts.iter().zip(hashes).enumerate() {
            for place in self.ways(*hash) {
                let (known, at) = self.places[place];
                if known != *hash || at == 0 {
                    continue;
                }
                #[cfg(test)]
                {
                    self.comparisons += 1;
                }
                if records::same_labels(Labels::new(out, at.into()), Labels::new(wire, *start)) {
                    return Some((label, at));
                }
                mistakes += 1;
                if mistakes == MISTAKES_MAX {
                    return None;
                }
            }
        }
        None
    }

    fn insert(&mut self, hash: u32, at: usize) {
        if at > POINTER_MAX {
            return;
        }
        let free = self.ways(hash).find(|&place| self.places[place].1 == 0);
        if let Some(place) = free {
            self.places[place] = (hash, at as u16);
        }
    }

    fn forget_from(&mut self, start: usize) {
        if start <= POINTER_MAX {
            self.places.iter_mut().filter(|(_, at)| usize::from(*at) >= start).for_each(|place| *place = (0, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::response::fixture::{Reply, V4};

    // E20, RUSTSEC-2026-0119
    #[test]
    fn work_for_a_name_does_not_grow_with_the_names_before_it() {
        let owner = |n: usize| format!("{n:x}.t");
        let reply = (0..2900).fold(Reply::to("t", Type::A), |reply, n| reply.answer(&owner(n), 60, Type::A, &V4));
        let question_end = HEADER + 3 + 4;
        let records = records::walk(&reply.octets, question_end).expect("well-formed").records;
        let mut writer = Writer::new(&reply.octets, question_end, records.len());
        for record in &records {
            writer.copy(record).expect("shorter than it was");
        }
        assert!(writer.suffixes.comparisons <= (1 + MISTAKES_MAX) * records.len());
        assert_eq!(writer.suffixes.places.len(), 4096);
        let (octets, ttl_offsets) = writer.finish();
        assert_eq!(ttl_offsets.len(), 2900);
        let written = records::walk(&octets, question_end).expect("well-formed").records;
        for (before, after) in records.iter().zip(&written) {
            let labels = Labels::new(&reply.octets, before.owner.into());
            assert!(records::same_labels(labels, Labels::new(&octets, after.owner.into())));
        }
        assert!(octets.len() < reply.octets.len());
    }

    #[test]
    fn record_that_does_not_fit_is_taken_back() {
        let reply = Reply::to("a.test", Type::TXT).answer("a.test", 60, Type::TXT, &vec![0; 40_000]);
        let record = records::walk(&reply.octets, 24).expect("well-formed").records[0];
        let mut writer = Writer::new(&reply.octets, 24, 2);
        assert_eq!(writer.copy(&record), Ok(()));
        assert_eq!(writer.copy(&record), Err(Full));
        let (octets, ttl_offsets) = writer.finish();
        assert_eq!((octets, ttl_offsets), (reply.octets, vec![30]));
    }
}
