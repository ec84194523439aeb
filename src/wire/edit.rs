//! Stored messages with their IPv6 addresses taken out, for clients that must not learn them.
//!
//! The stored message is never touched: other clients see it whole. What is edited is written anew, so counts, names
//! and TTL offsets are right, and vouches for nothing: AD goes, and so does every signature over what was changed.
//! This allocates; it is not on the way of an ordinary answer.
//!
//! Read first: RFC 2308 section 2.2, RFC 4035 section 3.2.3, RFC 9460 section 7.3.

use super::header::{AD, Header, TC};
use super::rebuild::{Full, Writer};
use super::records::{self, Record, Section};
use super::response::Stored;
use super::{HEADER, Rcode, Type, name, svcb};

/// A message that was edited, in the form of a stored one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edited {
    octets: Box<[u8]>,
    ttl_offsets: Box<[u16]>,
}

impl Edited {
    /// The message as composing takes it.
    pub fn stored(&self) -> Stored<'_> {
        Stored::new(&self.octets, &self.ttl_offsets)
    }

    /// The octets and the TTL offsets, to be stored.
    pub fn into_parts(self) -> (Box<[u8]>, Box<[u16]>) {
        (self.octets, self.ttl_offsets)
    }

    fn copy_of(stored: Stored<'_>) -> Self {
        Self { octets: stored.octets.into(), ttl_offsets: stored.ttl_offsets.into() }
    }
}

/// The message without AAAA records and without `ipv6hint` in SVCB and HTTPS records, in every section.
///
/// Everything else stays, the rcode included: a response to a query for AAAA is left without answer and SOA. Use
/// [`nodata_for_aaaa`] for those. Where nothing is to be taken out, the message is copied as it is.
pub fn without_aaaa(stored: Stored<'_>) -> Edited {
    let Some(message) = Message::of(stored) else {
        return Edited::copy_of(stored);
    };
    let octets = stored.octets;
    let shortened: Vec<Option<Vec<u8>>> = message.records.iter().map(|record| without_hint(octets, record)).collect();
    let changed = |rtype: Type| {
        rtype == Type::AAAA
            || message.records.iter().zip(&shortened).any(|(record, tail)| record.rtype == rtype && tail.is_some())
    };
    let goes = |record: &Record| match record.rtype {
        Type::AAAA => true,
        Type::RRSIG => changed(record.type_covered(octets)),
        _ => false,
    };
    if shortened.iter().all(Option::is_none) && !message.records.iter().any(goes) {
        return Edited::copy_of(stored);
    }
    message.rewrite(octets, None, |writer| {
        for (record, tail) in message.records.iter().zip(&shortened).filter(|(record, _)| !goes(record)) {
            match tail {
                Some(tail) => writer.copy_with_tail(record, tail)?,
                None => writer.copy(record)?,
            }
        }
        Ok(())
    })
}

/// The parameters without `ipv6hint`, if the record has one.
fn without_hint(octets: &[u8], record: &Record) -> Option<Vec<u8>> {
    match record.rtype {
        Type::SVCB | Type::HTTPS => svcb::without_ipv6hint(svcb::parameters(octets, record)?),
        _ => None,
    }
}

/// What a query for AAAA gets instead, made from the response to the query for A of the same name.
///
/// If that has addresses, they go, the CNAMEs before them stay, and an SOA record of `soa_owner` (wire form,
/// uncompressed, the last name of the chain or above it) lets clients keep the answer for `ttl` seconds. If it is
/// negative, its rcode and SOA stand: a stub takes the name for missing only if both types say so.
pub fn nodata_for_aaaa(stored_a: Stored<'_>, soa_owner: &[u8], ttl: u32) -> Edited {
    let Some(message) = Message::of(stored_a) else {
        return Edited::copy_of(stored_a);
    };
    let octets = stored_a.octets;
    let holds =
        |section, rtype| message.records.iter().any(|record| (record.section, record.rtype) == (section, rtype));
    // Some servers add their SOA to addresses as well.
    let negative = holds(Section::Authority, Type::SOA) && !holds(Section::Answer, Type::A);
    let nxdomain = message.rcode == Rcode::NXDOMAIN;
    let stays = |record: &Record| match record.rtype {
        // What proves that there is no A may prove that there is an AAAA.
        Type::RRSIG | Type::NSEC | Type::NSEC3 | Type::DS => nxdomain,
        Type::CNAME | Type::DNAME => true,
        _ => negative || nxdomain,
    };
    message.rewrite(octets, Some(Type::AAAA), |writer| {
        for record in message.records.iter().filter(|record| stays(record)) {
            writer.copy(record)?;
        }
        if negative || nxdomain { Ok(()) } else { writer.soa(soa_owner, ttl) }
    })
}

/// A stored message, read again.
struct Message {
    rcode: Rcode,
    question_end: usize,
    records: Vec<Record>,
}

impl Message {
    /// `None` only for octets that never were a response.
    fn of(stored: Stored<'_>) -> Option<Self> {
        let header = Header::read(stored.octets)?;
        let question_end = HEADER + name::uncompressed_length(stored.octets.get(HEADER..)?)? + 4;
        let records = records::walk(stored.octets, question_end).ok()?.records;
        Some(Self { rcode: header.rcode(), question_end, records })
    }

    /// Writes the message anew: its header without AD, its question with `qtype` if given, and what `fill` puts in.
    fn rewrite(
        &self,
        octets: &[u8],
        qtype: Option<Type>,
        fill: impl FnOnce(&mut Writer<'_>) -> Result<(), Full>,
    ) -> Edited {
        // One more: the SOA.
        let mut writer = Writer::new(octets, self.question_end, self.records.len() + 1);
        let filled = fill(&mut writer);
        let (mut octets, ttl_offsets) = writer.finish();
        if let Some(mut header) = Header::read(&octets) {
            header.flags &= !AD;
            if filled.is_err() {
                header.flags |= TC;
            }
            octets[..HEADER].copy_from_slice(&header.octets());
        }
        if let Some(qtype) = qtype {
            octets[self.question_end - 4..self.question_end - 2].copy_from_slice(&qtype.0.to_be_bytes());
        }
        Edited { octets: octets.into(), ttl_offsets: ttl_offsets.into() }
    }
}

#[cfg(test)]
mod tests;
