//! Domain names, in wire form: owned ones, and those that lie in a message.
//!
//! An owned [`Name`] is legal, uncompressed and in lower case, so two of them are equal if their octets are. The
//! functions take names as they come: uncompressed octets of any case, or an offset into a message with pointers. They
//! never panic and never loop, whatever the octets say.
//!
//! ```text
//! presentation   www.example.
//! wire           03 w w w  07 e x a m p l e  00        labels behind their lengths, the root last
//! compressed     03 w w w  c0 13                       the rest stands at offset 0x13
//! ```
//!
//! Read first: RFC 1035 sections 2.3.4, 3.1, 4.1.4 and 5.1, RFC 4343 section 3.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{HEADER, NAME_MAX};

/// Octets in the longest label (RFC 1035 section 2.3.4).
pub const LABEL_MAX: usize = 63;

/// Pointers followed within one name. A legal name has at most 127 labels, each behind a pointer at worst.
const JUMPS_MAX: usize = 128;

/// A legal domain name in uncompressed wire form, lower case.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The root: a name of no labels.
    pub fn root() -> Self {
        Self(Box::from([0]))
    }

    /// Takes over an uncompressed wire name that fills `wire` exactly, in lower case.
    ///
    /// `None` if the octets are anything else: a pointer, a label too long, no root label, something behind it.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let length = uncompressed_length(wire)?;
        (length == wire.len()).then(|| Self(wire.to_ascii_lowercase().into()))
    }

    /// The name's octets, root label included: 1 to 255.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The number of labels, the root's not counted.
    pub fn labels(&self) -> usize {
        label_count(&self.0)
    }

    /// Whether this is `ancestor` or a name below it.
    pub fn is_under(&self, ancestor: &Self) -> bool {
        is_under(&self.0, &ancestor.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads presentation format: `\.` and `\032` escapes, final dot optional, `.` for the root (RFC 1035 section 5.1).
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "" => return Err(NameError::Empty),
            "." => return Ok(Self::root()),
            _ => {}
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut octets = text.bytes();
        let mut start = open_label(&mut wire);
        while let Some(octet) = octets.next() {
            match octet {
                b'.' => {
                    close_label(&mut wire, start)?;
                    start = open_label(&mut wire);
                }
                b'\\' => wire.push(read_escape(&mut octets)?),
                0x21..=0x7e => wire.push(octet.to_ascii_lowercase()),
                0x80.. => return Err(NameError::NotAscii),
                _ => return Err(NameError::Unescaped),
            }
        }
        // Behind a final dot the open label is the root; otherwise it is the last one, and the root follows.
        if wire.len() > start + 1 {
            close_label(&mut wire, start)?;
            wire.push(0);
        }
        if wire.len() > NAME_MAX {
            return Err(NameError::NameTooLong);
        }
        Ok(Self(wire.into()))
    }
}

/// Reserves the length octet of a label and returns where it stands.
fn open_label(wire: &mut Vec<u8>) -> usize {
    wire.push(0);
    wire.len() - 1
}

/// Fills in the length of the label that was opened at `start`.
fn close_label(wire: &mut [u8], start: usize) -> Result<(), NameError> {
    match wire.len() - start - 1 {
        0 => Err(NameError::EmptyLabel),
        length @ 1..=LABEL_MAX => {
            wire[start] = length as u8;
            Ok(())
        }
        _ => Err(NameError::LabelTooLong),
    }
}

/// Reads what follows a backslash: three digits, or the octet itself.
fn read_escape(octets: &mut impl Iterator<Item = u8>) -> Result<u8, NameError> {
    match octets.next().ok_or(NameError::BadEscape)? {
        first @ b'0'..=b'9' => {
            let mut value = u16::from(first - b'0');
            for _ in 0..2 {
                let digit = octets.next().filter(u8::is_ascii_digit).ok_or(NameError::BadEscape)?;
                value = value * 10 + u16::from(digit - b'0');
            }
            u8::try_from(value).map(|octet| octet.to_ascii_lowercase()).map_err(|_| NameError::BadEscape)
        }
        octet @ 0x21..=0x7e => Ok(octet.to_ascii_lowercase()),
        _ => Err(NameError::BadEscape),
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&escape(&self.0), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&escape(&self.0), f)
    }
}

impl Borrow<[u8]> for Name {
    /// Lets a map of names be asked with the octets of a question, in lower case.
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Why a text is not a domain name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameError {
    /// A backslash without three digits up to 255 or a printable character.
    BadEscape,
    /// No text at all; the root is written `.`.
    Empty,
    /// Two dots in a row, or one at the start.
    EmptyLabel,
    /// A label of more than 63 octets.
    LabelTooLong,
    /// More than 255 octets on the wire.
    NameTooLong,
    /// A character outside ASCII: international names are written in their `xn--` form.
    NotAscii,
    /// A space or control character without a backslash.
    Unescaped,
}

impl NameError {
    /// The reason in a few words, without the text concerned.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadEscape => "backslash not followed by a printable character or by three digits up to 255",
            Self::Empty => "empty name; the root is written \".\"",
            Self::EmptyLabel => "empty label",
            Self::LabelTooLong => "label longer than 63 octets",
            Self::NameTooLong => "name longer than 255 octets",
            Self::NotAscii => "character outside ASCII; write the xn-- form",
            Self::Unescaped => "space or control character",
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for NameError {}

// === names as octets ===

/// Length of the uncompressed name that `octets` open with, 1 to 255; `None` if there is none.
#[inline]
pub fn uncompressed_length(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    // A label length above 63 is a pointer or a type nobody uses (RFC 6891 section 5).
    loop {
        match *octets.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
        // The root label must fit as well.
        if at >= NAME_MAX {
            return None;
        }
    }
}

/// Presentation format of an uncompressed wire name, final dot included; `.` for the root.
///
/// What is not printable or has a meaning in presentation format is escaped, so the text is safe in logs and JSON.
/// Octets that are no name end the text early.
pub fn escape(wire: &[u8]) -> impl fmt::Display {
    Escaped(wire)
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        let mut labels = labels(self.0).peekable();
        if labels.peek().is_none() {
            return f.write_char('.');
        }
        for label in labels {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => f.write_char(char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_char('.')?;
        }
        Ok(())
    }
}

/// The labels of an uncompressed name, leftmost first, without the root's. Ends at the first octet that is no label.
fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&length, behind) = rest.split_first()?;
        if length == 0 || usize::from(length) > LABEL_MAX {
            return None;
        }
        let (label, next) = behind.split_at_checked(length.into())?;
        rest = next;
        Some(label)
    })
}

/// An uncompressed name, then each of its parents, the root last. Ends early at octets that are no name.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(wire);
    std::iter::from_fn(move || {
        let this = rest?;
        let (&length, behind) = this.split_first()?;
        rest = match length {
            1..=63 => behind.get(length.into()..),
            _ => None,
        };
        Some(this)
    })
}

/// The number of labels of an uncompressed name, the root's not counted.
pub fn label_count(wire: &[u8]) -> usize {
    labels(wire).count()
}

/// Whether two uncompressed names are the same name: ASCII letters of either case are equal (RFC 4343 section 3).
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    // Lengths are below the letters, so they compare as they are.
    one.eq_ignore_ascii_case(other)
}

/// Whether the uncompressed `name` is `ancestor` or a name below it.
pub fn is_under(name: &[u8], ancestor: &[u8]) -> bool {
    suffixes(name).any(|suffix| equal(suffix, ancestor))
}

// === names in a message ===

/// The offset behind the name that stands at `at`, pointers not followed.
///
/// `None` if labels run off the message, are of an unknown type, or exceed 255 octets before the pointer.
pub fn skip(message: &[u8], at: usize) -> Option<usize> {
    let mut here = at;
    loop {
        match *message.get(here)? {
            0 => return Some(here + 1),
            length @ 1..=63 => here += 1 + usize::from(length),
            0xc0.. => {
                message.get(here + 1)?;
                return Some(here + 2);
            }
            _ => return None,
        }
        if here - at >= NAME_MAX {
            return None;
        }
    }
}

/// Writes the name that stands at `at` uncompressed into `out`, letters as they are; returns its length and the offset
/// behind its form in the message.
///
/// A pointer must lead to octets before the part of the name it ends, and behind the header. `None` if it does not, if
/// labels run off the message or are of an unknown type, after 128 pointers, or if the name exceeds 255 octets.
pub fn expand(message: &[u8], at: usize, out: &mut [u8; NAME_MAX]) -> Option<(usize, usize)> {
    let mut length = 0;
    let mut here = at;
    let mut part = at;
    let mut jumps = 0;
    let mut next = None;
    loop {
        match *message.get(here)? {
            0 => {
                *out.get_mut(length)? = 0;
                return Some((length + 1, next.unwrap_or(here + 1)));
            }
            octets @ 1..=63 => {
                let octets = 1 + usize::from(octets);
                let label = message.get(here..here + octets)?;
                out.get_mut(length..length + octets)?.copy_from_slice(label);
                length += octets;
                here += octets;
            }
            high @ 0xc0.. => {
                let low = *message.get(here + 1)?;
                let target = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                jumps += 1;
                // RFC 1035 section 4.1.4: "a prior occurrence"; strictly backwards cannot loop.
                if !(HEADER..part).contains(&target) || jumps > JUMPS_MAX {
                    return None;
                }
                next.get_or_insert(here + 2);
                here = target;
                part = target;
            }
            _ => return None,
        }
    }
}

/// The name under which the PTR records of `address` stand (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reverse(address: IpAddr) -> Name {
    const HEX: &[u8; 16] = b"0123456789abcdef";

    let mut wire = Vec::with_capacity(74);
    match address {
        IpAddr::V4(address) => {
            for octet in address.octets().into_iter().rev() {
                let digits = octet.to_string();
                wire.push(digits.len() as u8);
                wire.extend_from_slice(digits.as_bytes());
            }
            wire.extend_from_slice(b"\x07in-addr\x04arpa\0");
        }
        IpAddr::V6(address) => {
            for octet in address.octets().into_iter().rev() {
                wire.extend_from_slice(&[1, HEX[usize::from(octet & 0x0f)], 1, HEX[usize::from(octet >> 4)]]);
            }
            wire.extend_from_slice(b"\x03ip6\x04arpa\0");
        }
    }
    Name(wire.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn presentation_format_becomes_lower_case_wire_form() {
        assert_eq!(name("Www.Example").as_wire(), b"\x03www\x07example\0");
        assert_eq!(name("www.example."), name("WWW.EXAMPLE"));
        assert_eq!(name("."), Name::root());
        assert_eq!(name(r"a\.b.\099\032\000").as_wire(), b"\x03a.b\x03c \0\0");
        assert_eq!(name(r"\065").as_wire(), b"\x01a\0", "an escaped letter is a letter");
    }

    #[test]
    fn text_that_is_no_name_is_rejected_with_the_reason() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        for (text, reason) in [
            ("", NameError::Empty),
            ("..", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a..", NameError::EmptyLabel),
            (long_label.as_str(), NameError::LabelTooLong),
            (long_name.as_str(), NameError::NameTooLong),
            (r"a\", NameError::BadEscape),
            (r"a\25", NameError::BadEscape),
            (r"a\256", NameError::BadEscape),
            (r"a\1x2", NameError::BadEscape),
            ("a b", NameError::Unescaped),
            ("a\n", NameError::Unescaped),
            ("bücher.example", NameError::NotAscii),
        ] {
            assert_eq!(text.parse::<Name>(), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn name_of_255_octets_is_the_longest() {
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        assert_eq!(name(&longest).as_wire().len(), NAME_MAX);
        assert_eq!(name(&format!("{longest}.")), name(&longest));
    }

    #[test]
    fn wire_form_must_be_one_uncompressed_name() {
        assert_eq!(Name::from_wire(b"\x01A\x04Test\0"), Some(name("a.test")));
        for wire in [&b""[..], b"\x01a", b"\x01a\0\0", b"\x01a\xc0\x0c", b"\x81a\0", b"\x3faaa"] {
            assert_eq!(Name::from_wire(wire), None, "{wire:x?}");
        }
        let mut too_long = b"\x01a".repeat(127);
        too_long.push(0);
        assert!(Name::from_wire(&too_long).is_some());
        too_long.insert(0, 0x01);
        too_long.insert(1, b'a');
        assert_eq!(Name::from_wire(&too_long), None);
    }

    // MC53
    #[test]
    fn octets_with_a_meaning_in_text_are_escaped() {
        let wire = b"\x07\0.\n\x1b\"\xff\\\x02a;\0";
        assert_eq!(escape(wire).to_string(), r#"\000\.\010\027\"\255\\.a\;."#);
        assert_eq!(escape(b"\0").to_string(), ".");
    }

    #[test]
    fn ancestors_end_at_label_bounds() {
        assert!(name("a.b.test").is_under(&name("b.test")));
        assert!(name("b.test").is_under(&name("b.test")));
        assert!(name("b.test").is_under(&Name::root()));
        assert!(!name("ab.test").is_under(&name("b.test")));
        assert!(!name("test").is_under(&name("b.test")));
        // An octet within a label that looks like a length.
        assert!(!Name::from_wire(b"\x03x\x01b\0").expect("legal").is_under(&name("b")));
    }

    #[test]
    fn suffixes_run_from_the_name_to_the_root() {
        let octets = name("a.b.test");
        let all: Vec<_> = suffixes(octets.as_wire()).map(|suffix| escape(suffix).to_string()).collect();
        assert_eq!(all, ["a.b.test.", "b.test.", "test.", "."]);
        assert_eq!(octets.labels(), 3);
        assert_eq!(Name::root().labels(), 0);
    }

    #[test]
    fn pointer_leads_backwards_only() {
        let mut message = vec![0; HEADER];
        message.extend_from_slice(b"\x04test\0\x01a\xc0\x0c\x01b\xc0\x12");
        let mut out = [0; NAME_MAX];
        let (length, next) = expand(&message, 22, &mut out).expect("legal");
        assert_eq!((&out[..length], next), (&b"\x01b\x01a\x04test\0"[..], 26));
        assert_eq!(skip(&message, 22), Some(26));
        assert_eq!(skip(&message, 12), Some(18));

        for forward in [b"\x01a\xc0\x0c", b"\x01a\xc0\x0e", b"\x01a\xc0\x10", b"\x01a\xc0\x00"] {
            let mut message = vec![0; HEADER];
            message.extend_from_slice(forward);
            message.push(0);
            assert_eq!(expand(&message, HEADER, &mut out), None, "{forward:x?}");
        }
    }

    #[test]
    fn chain_of_pointers_is_cut() {
        let mut message = vec![0; HEADER];
        message.push(0);
        message.push(0);
        let mut out = [0; NAME_MAX];
        for jumps in 1..=JUMPS_MAX + 1 {
            let at = message.len();
            let target = if jumps == 1 { HEADER } else { at - 2 };
            message.extend_from_slice(&(0xc000 | target as u16).to_be_bytes());
            assert_eq!(expand(&message, at, &mut out).is_some(), jumps <= JUMPS_MAX, "{jumps}");
        }
    }

    #[test]
    fn addresses_have_their_reverse_names() {
        assert_eq!(reverse([192, 0, 2, 1].into()), name("1.2.0.192.in-addr.arpa"));
        let expected = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(reverse("2001:db8::1".parse().expect("legal")), name(expected));
    }

    #[test]
    fn case_of_letters_does_not_matter_and_other_octets_do() {
        assert!(equal(b"\x01A\0", b"\x01a\0"));
        assert!(!equal(b"\x01@\0", b"\x01`\0"));
        assert!(!equal(b"\x01a\0", b"\x01a\x01b\0"));
    }

    proptest! {
        #[test]
        fn every_name_reads_back_as_printed(labels in labels_strategy()) {
            let wire = wire_of(&labels);
            prop_assume!(wire.len() <= NAME_MAX);
            let name = Name::from_wire(&wire).expect("legal by construction");
            let printed = name.to_string();
            prop_assert_eq!(printed.parse::<Name>(), Ok(name));
            prop_assert!(printed.bytes().all(|octet| octet.is_ascii_graphic()));
        }

        #[test]
        fn no_octets_make_the_readers_panic(octets: Vec<u8>, at in 0usize..300) {
            let mut out = [0; NAME_MAX];
            if let Some((length, next)) = expand(&octets, at, &mut out) {
                prop_assert_eq!(uncompressed_length(&out[..length]), Some(length));
                prop_assert_eq!(skip(&octets, at), Some(next));
                prop_assert!(next <= octets.len());
            }
            let _ = skip(&octets, at).map(|next| assert!(next > at && next <= octets.len()));
            prop_assert!(suffixes(&octets).count() <= octets.len());
            prop_assert!(label_count(&octets) <= octets.len());
            let _ = escape(&octets).to_string();
        }

        #[test]
        fn hickory_reads_the_same_name(labels in labels_strategy()) {
            let wire = wire_of(&labels);
            prop_assume!(wire.len() <= NAME_MAX);
            let ours = Name::from_wire(&wire).expect("legal by construction");
            let theirs = hickory_proto::rr::Name::from_labels(labels.iter().map(Vec::as_slice)).expect("legal");
            prop_assert_eq!(theirs.iter().count(), ours.labels());
            prop_assert_eq!(theirs.to_lowercase().iter().map(<[u8]>::to_vec).collect::<Vec<_>>(),
                super::labels(ours.as_wire()).map(<[u8]>::to_vec).collect::<Vec<_>>());
        }
    }

    fn name(text: &str) -> Name {
        text.parse().expect("legal")
    }

    fn labels_strategy() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=LABEL_MAX), 0..8)
    }

    fn wire_of(labels: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(label.len() as u8);
            wire.extend_from_slice(label);
        }
        wire.push(0);
        wire
    }
}
