//! What an answer is stored under.
//!
//! A key is plain octets of bounded length: no allocation to make one, one comparison of memory to tell two apart, and
//! nothing in it that could not be mirrored into another table.
//!
//! Read first: RFC 4343 section 3, RFC 6840 section 5.7.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::{NAME_MAX, Type, name};

/// What an answer is stored under: lower-case QNAME, QTYPE, and one octet of bits. Plain octets, no allocation.
///
/// ```text
/// 03 w w w 07 e x a m p l e 00 │ 00 1c │ 01        www.example. AAAA, DO
/// ```
///
/// AD is no part of it: upstreams are always asked with AD=1 (RFC 6840 section 5.7), so one answer serves all.
#[derive(Clone)]
pub struct Key {
    octets: [u8; KEY_MAX],
    length: u16,
}

/// Octets in the longest key.
const KEY_MAX: usize = NAME_MAX + SUFFIX;
/// Octets of a key behind the name: QTYPE and the bits.
const SUFFIX: usize = 3;
/// Bit of DO in a key's last octet.
const DO: u8 = 1;
/// Bit of CD in a key's last octet.
const CD: u8 = 2;

impl Key {
    /// Makes the key of a question; `qname` is an uncompressed wire name of any case, `None` if it is not.
    pub fn new(qname: &[u8], qtype: Type, dnssec_ok: bool, checking_disabled: bool) -> Option<Self> {
        let legal = name::uncompressed_length(qname) == Some(qname.len());
        legal.then(|| Self::copy(qname, qtype, dnssec_ok, checking_disabled))
    }

    /// Takes over what [`as_octets`](Self::as_octets) gave; `None` if the octets are no key.
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let (qname, suffix) = octets.split_at_checked(octets.len().checked_sub(SUFFIX)?)?;
        let [high, low, bits] = *suffix.first_chunk()?;
        if bits & !(DO | CD) != 0 || qname.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        Self::new(qname, Type(u16::from_be_bytes([high, low])), bits & DO != 0, bits & CD != 0)
    }

    /// Makes a key of a name known to be legal.
    #[inline]
    pub(super) fn copy(qname: &[u8], qtype: Type, dnssec_ok: bool, checking_disabled: bool) -> Self {
        let mut octets = [0; KEY_MAX];
        let end = qname.len();
        octets[..end].copy_from_slice(qname);
        // Lengths of labels are below the letters, so the whole name can be treated alike.
        octets[..end].make_ascii_lowercase();
        let [high, low] = qtype.0.to_be_bytes();
        let bits = if dnssec_ok { DO } else { 0 } | if checking_disabled { CD } else { 0 };
        octets[end..end + SUFFIX].copy_from_slice(&[high, low, bits]);
        Self { octets, length: (end + SUFFIX) as u16 }
    }

    /// The key's octets: 4 to 258.
    #[inline]
    pub fn as_octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }

    /// QNAME, uncompressed, lower case.
    #[inline]
    pub fn qname(&self) -> &[u8] {
        &self.octets[..usize::from(self.length) - SUFFIX]
    }

    /// QTYPE.
    pub fn qtype(&self) -> Type {
        let [high, low, _] = self.suffix();
        Type(u16::from_be_bytes([high, low]))
    }

    /// DO: answers under this key hold DNSSEC records.
    pub fn dnssec_ok(&self) -> bool {
        self.suffix()[2] & DO != 0
    }

    /// CD: answers under this key may be bogus.
    pub fn checking_disabled(&self) -> bool {
        self.suffix()[2] & CD != 0
    }

    /// The key of the same question with another type.
    #[must_use]
    pub fn with_type(&self, qtype: Type) -> Self {
        let mut other = self.clone();
        let end = self.qname().len();
        other.octets[end..end + 2].copy_from_slice(&qtype.0.to_be_bytes());
        other
    }

    fn suffix(&self) -> [u8; SUFFIX] {
        *self.as_octets().last_chunk().expect("a key is longer than its suffix")
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_octets() == other.as_octets()
    }
}

impl Eq for Key {}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_octets().hash(state);
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_octets()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", name::escape(self.qname()), self.qtype())?;
        f.write_str(if self.dnssec_ok() { " DO" } else { "" })?;
        f.write_str(if self.checking_disabled() { " CD" } else { "" })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    // C14
    #[test]
    fn case_of_letters_makes_no_other_key() {
        assert_eq!(key(b"\x03WwW\x01a\0", Type::A), key(b"\x03www\x01A\0", Type::A));
    }

    // C10, C11, C09
    #[test]
    fn type_do_and_cd_each_make_another_key() {
        let keys: Vec<_> =
            [(Type::A, false, false), (Type::AAAA, false, false), (Type::A, true, false), (Type::A, false, true)]
                .into_iter()
                .map(|(qtype, dnssec_ok, cd)| Key::new(b"\x01a\0", qtype, dnssec_ok, cd).expect("legal"))
                .collect();
        for (at, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| other != one), "{one}");
        }
    }

    // V02
    #[test]
    fn sibling_differs_in_the_type_alone() {
        let aaaa = Key::new(b"\x01a\0", Type::AAAA, true, true).expect("legal");
        let a = aaaa.with_type(Type::A);
        assert_eq!(a, Key::new(b"\x01a\0", Type::A, true, true).expect("legal"));
        assert_eq!(a.with_type(Type::AAAA), aaaa);
    }

    #[test]
    fn octets_that_are_no_key_are_rejected() {
        for octets in [
            &b""[..],
            b"\0",
            b"\0\0\x01",
            b"\x01A\0\0\x01\0",
            b"\x01a\0\0\x01\x04",
            b"\x01a\0\0\0\x01\0",
            b"\x01a\0\x01\0",
        ] {
            assert!(Key::from_octets(octets).is_none(), "{octets:x?}");
        }
        assert!(Key::new(b"\x01a", Type::A, false, false).is_none());
        assert!(Key::new(b"\x01a\0\0", Type::A, false, false).is_none());
    }

    #[test]
    fn map_of_keys_can_be_asked_with_octets() {
        let map = HashMap::from([(key(b"\x01a\0", Type::A), 7)]);
        assert_eq!(map.get(&b"\x01a\0\0\x01\0"[..]), Some(&7));
    }

    #[test]
    fn key_prints_as_the_question_it_stands_for() {
        let key = Key::new(b"\x01a\0", Type::HTTPS, true, true).expect("legal");
        assert_eq!(key.to_string(), "a. HTTPS DO CD");
    }

    proptest! {
        #[test]
        fn every_key_survives_its_octets(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=63), 0..4),
            qtype: u16, dnssec_ok: bool, checking_disabled: bool,
        ) {
            let mut qname: Vec<u8> = labels.iter().flat_map(|label| [&[label.len() as u8][..], label].concat()).collect();
            qname.push(0);
            prop_assume!(qname.len() <= NAME_MAX);
            let key = Key::new(&qname, Type(qtype), dnssec_ok, checking_disabled).expect("legal by construction");
            prop_assert!(name::equal(key.qname(), &qname));
            prop_assert_eq!((key.qtype(), key.dnssec_ok(), key.checking_disabled()), (Type(qtype), dnssec_ok, checking_disabled));
            prop_assert_eq!(Key::from_octets(key.as_octets()), Some(key));
        }

        #[test]
        fn no_octets_make_reading_a_key_panic(octets: Vec<u8>) {
            if let Some(key) = Key::from_octets(&octets) {
                prop_assert_eq!(key.as_octets(), &octets);
            }
        }
    }

    fn key(qname: &[u8], qtype: Type) -> Key {
        Key::new(qname, qtype, false, false).expect("legal")
    }
}
