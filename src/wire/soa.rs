//! The SOA record of negative answers we make ourselves.
//!
//! Without it stubs and caches would not keep the answer (RFC 2308 section 5). Its fields are those RFC 6303 section 3 gives
//! the zones that resolvers serve empty: the zone itself as MNAME, `nobody.invalid.` as RNAME, serial 1.
//!
//! Read first: RFC 1035 section 3.3.13, RFC 2308 section 3, RFC 6303 section 3.

use super::{Class, HEADER, NAME_MAX, Type, name};

/// Octets in the longest record: both names in full.
const MAX: usize = NAME_MAX + 10 + NAME_MAX + RNAME.len() + 20;

/// RNAME, the mailbox of a zone nobody answers for; uncompressed.
pub(super) const RNAME: &[u8] = b"\x06nobody\x07invalid\0";

/// SERIAL, REFRESH, RETRY, EXPIRE, MINIMUM. Only the last means something to those who read the answer.
pub(super) const fn numbers(ttl: u32) -> [u32; 5] {
    [1, 3600, 1200, 604_800, ttl]
}

/// Offsets a pointer can express (RFC 1035 section 4.1.4).
const POINTER_MAX: usize = 0x3fff;

/// One SOA record in wire form, for one place in one message.
pub(super) struct Soa {
    octets: [u8; MAX],
    length: usize,
}

impl Soa {
    /// Makes the record of the zone `owner`, an uncompressed name, to stand at offset `at` of a message about `qname`.
    ///
    /// `ttl`, in seconds, is the lifetime of the negative answer: both the record's TTL and MINIMUM.
    pub(super) fn new(qname: &[u8], owner: &[u8], at: usize, ttl: u32) -> Self {
        let mut soa = Self { octets: [0; MAX], length: 0 };
        let parent = qname.len().checked_sub(owner.len()).filter(|_| owner.len() > 2 && name::is_under(qname, owner));
        match parent {
            Some(above) => soa.push_pointer(HEADER + above),
            None => soa.push(owner),
        }
        soa.push(&Type::SOA.0.to_be_bytes());
        soa.push(&Class::IN.0.to_be_bytes());
        soa.push(&ttl.to_be_bytes());
        let rdlength = soa.length;
        soa.push(&[0, 0]);
        match parent {
            Some(above) => soa.push_pointer(HEADER + above),
            None if owner.len() > 2 && at <= POINTER_MAX => soa.push_pointer(at),
            None => soa.push(owner),
        }
        soa.push(RNAME);
        for field in numbers(ttl) {
            soa.push(&field.to_be_bytes());
        }
        let length = (soa.length - rdlength - 2) as u16;
        soa.octets[rdlength..rdlength + 2].copy_from_slice(&length.to_be_bytes());
        soa
    }

    /// The record, owner included.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    fn push_pointer(&mut self, target: usize) {
        self.push(&(0xc000 | target as u16).to_be_bytes());
    }

    fn push(&mut self, octets: &[u8]) {
        self.octets[self.length..self.length + octets.len()].copy_from_slice(octets);
        self.length += octets.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_above_the_question_is_a_pointer_into_it() {
        let soa = Soa::new(b"\x01a\x04test\0", b"\x04Test\0", 22, 30);
        assert_eq!(&soa.octets()[..2], [0xc0, 14]);
        assert_eq!(soa.octets()[6..10], 30_u32.to_be_bytes(), "TTL");
        assert_eq!(&soa.octets()[12..14], [0xc0, 14], "MNAME");
        assert_eq!(soa.octets().len(), 2 + 10 + 2 + 16 + 20);
    }

    #[test]
    fn owner_elsewhere_is_written_once() {
        let soa = Soa::new(b"\x01a\x04test\0", b"\x05other\0", 22, 30);
        assert_eq!(&soa.octets()[..7], b"\x05other\0");
        assert_eq!(&soa.octets()[17..19], [0xc0, 22]);
        let beyond_pointers = Soa::new(b"\x01a\x04test\0", b"\x05other\0", 0x4000, 30);
        assert_eq!(&beyond_pointers.octets()[17..24], b"\x05other\0");
    }

    #[test]
    fn longest_owner_has_room() {
        let mut owner = b"\x01a".repeat(127);
        owner.push(0);
        assert_eq!(Soa::new(b"\0", &owner, 0x4000, 30).octets().len(), MAX);
        assert_eq!(Soa::new(b"\0", b"\0", 17, 30).octets().len(), 1 + 10 + 1 + 16 + 20);
    }
}
