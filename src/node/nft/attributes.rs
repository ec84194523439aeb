//! Netlink attributes: written into a buffer, read from one.
//!
//! `nf_tables` wants every number in network byte order; lengths and types are the host's.
//!
//! Read first: Linux `include/uapi/linux/netlink.h` (`struct nlattr`).

use netlink_packet_core::{NLA_F_NESTED, NlaBuffer, NlasIterator};

/// Attributes of one level, in the order they were put.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any value. At most 64 KiB less the header, as everything we write is.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("an attribute of ours is far below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A string, ended by a NUL.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut octets = value.as_bytes().to_vec();
        octets.push(0);
        self.bytes(kind, &octets)
    }

    pub(crate) fn nest(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes of a buffer as (type, value); ends at the first that is malformed.
pub(crate) fn each(buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(buffer).map_while(Result::ok).map(|found| (found.kind(), value_of(found)))
}

/// The value, borrowed from the buffer and not from the view of it.
fn value_of(found: NlaBuffer<&[u8]>) -> &[u8] {
    let length = found.value_length();
    &found.into_inner()[4..4 + length]
}

/// The first attribute of that type.
pub(crate) fn find(buffer: &[u8], kind: u16) -> Option<&[u8]> {
    each(buffer).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

pub(crate) fn long_number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let inner = Attributes::new().u8(1, 7).u64(2, 0x0102_0304_0506_0708);
        let outer = Attributes::new().text(1, "nodens").u32(2, 300).nest(3, &inner);
        assert_eq!(outer.as_slice().len() % 4, 0);
        assert_eq!(find(outer.as_slice(), 1).map(text), Some("nodens".to_owned()));
        assert_eq!(find(outer.as_slice(), 2).and_then(number), Some(300));
        let nested = find(outer.as_slice(), 3).expect("it was put there");
        assert_eq!(find(nested, 1), Some([7].as_slice()));
        assert_eq!(find(nested, 2).and_then(long_number), Some(0x0102_0304_0506_0708));
        assert_eq!(find(nested, 3), None);
    }

    #[test]
    fn truncated_attributes_end_the_reading_without_a_panic() {
        let whole = Attributes::new().text(1, "nodens").u32(2, 300);
        for length in 0..whole.as_slice().len() {
            let seen = each(&whole.as_slice()[..length]).count();
            assert!(seen <= 1, "{length} octets hold {seen}");
        }
        assert_eq!(each(&[0, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
    }

    #[test]
    fn numbers_are_big_endian_and_padded() {
        assert_eq!(Attributes::new().u32(2, 1).as_slice()[4..], [0, 0, 0, 1]);
        assert_eq!(Attributes::new().u8(2, 1).as_slice()[4..], [1, 0, 0, 0]);
    }
}
