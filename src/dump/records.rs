//! The records of a stored answer, written as people write them.
//!
//! `A 10.0.0.1`; where the owner is not that of the line before (of the question, for the first), it stands in front:
//! `alias.test. A 10.0.0.1`. Types without a form here get that of RFC 3597 section 5: `\# 2 0a0b`. Classes and TTLs are
//! left out: the class is IN, and a dump shows the lifetime of the answer. Nothing panics on octets that are no message;
//! the list ends where they stop making sense.
//!
//! Read first: RFC 1035 sections 3.3 and 5.1, RFC 3597 section 5.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::name::{equal, escape, expand, skip};
use crate::wire::{HEADER, NAME_MAX, Type};

/// Octets behind a question's name (RFC 1035 section 4.1.2).
const QUESTION_TAIL: usize = 4;
/// Octets between a record's name and its RDATA (RFC 1035 section 4.1.3).
const RECORD_MIDDLE: usize = 10;

/// The records of `message`, all sections, in their order.
pub fn records(message: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let _ = collect(message, &mut lines);
    lines
}

/// `None` where the message ends early.
fn collect(message: &[u8], lines: &mut Vec<String>) -> Option<()> {
    let counts = message.get(4..HEADER)?;
    let count = |at: usize| usize::from(u16::from_be_bytes([counts[at], counts[at + 1]]));
    let mut at = HEADER;
    let mut owner = Vec::new();
    for _ in 0..count(0) {
        owner = name(message, at)?;
        at = skip(message, at)? + QUESTION_TAIL;
    }
    for _ in 0..count(2) + count(4) + count(6) {
        let this = name(message, at)?;
        let middle = skip(message, at)?;
        let rdata = middle + RECORD_MIDDLE;
        let fixed = message.get(middle..rdata)?;
        at = rdata + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        message.get(rdata..at)?;
        let mut line = String::new();
        if !equal(&this, &owner) {
            write!(line, "{} ", escape(&this)).expect("a String takes every write");
            owner = this;
        }
        let rtype = Type(u16::from_be_bytes([fixed[0], fixed[1]]));
        let shown = form(message, rtype, rdata, at).unwrap_or_else(|| unknown(&message[rdata..at]));
        write!(line, "{rtype} {shown}").expect("a String takes every write");
        lines.push(line);
    }
    Some(())
}

/// RDATA of a known type in its own form; `None`: unknown, or not as its type demands.
fn form(message: &[u8], rtype: Type, at: usize, end: usize) -> Option<String> {
    let rdata = &message[at..end];
    let number = |offset: usize| Some(u16::from_be_bytes([*rdata.get(offset)?, *rdata.get(offset + 1)?]));
    // A name that ends where the RDATA does.
    let last_name = |offset: usize| {
        (skip(message, at + offset)? == end).then_some(())?;
        Some(escape(&name(message, at + offset)?).to_string())
    };
    match rtype {
        Type::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(rdata).ok()?).to_string()),
        Type::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(rdata).ok()?).to_string()),
        Type::CNAME | Type::DNAME | Type::NS | Type::PTR => last_name(0),
        Type::MX => Some(format!("{} {}", number(0)?, last_name(2)?)),
        Type::SOA => {
            let mailbox = skip(message, at)?;
            let numbers = skip(message, mailbox)?;
            let rest = message.get(numbers..end).filter(|rest| rest.len() == 20)?;
            let mut shown = format!("{} {}", escape(&name(message, at)?), escape(&name(message, mailbox)?));
            for number in rest.chunks_exact(4) {
                let number = u32::from_be_bytes(number.try_into().expect("chunks of four octets"));
                write!(shown, " {number}").expect("a String takes every write");
            }
            Some(shown)
        }
        Type::SRV => Some(format!("{} {} {} {}", number(0)?, number(2)?, number(4)?, last_name(6)?)),
        Type::TXT => strings(rdata),
        _ => None,
    }
}

/// Character strings in quotes (RFC 1035 section 3.3.14).
fn strings(mut rdata: &[u8]) -> Option<String> {
    let mut shown = Vec::new();
    while let Some((&length, rest)) = rdata.split_first() {
        let (string, rest) = rest.split_at_checked(length.into())?;
        let mut quoted = String::from("\"");
        for &octet in string {
            match octet {
                b'"' | b'\\' => quoted.extend(['\\', char::from(octet)]),
                b' '..=b'~' => quoted.push(char::from(octet)),
                _ => write!(quoted, "\\{octet:03}").expect("a String takes every write"),
            }
        }
        quoted.push('"');
        shown.push(quoted);
        rdata = rest;
    }
    (!shown.is_empty()).then(|| shown.join(" "))
}

/// RDATA of any type (RFC 3597 section 5).
fn unknown(rdata: &[u8]) -> String {
    let mut shown = format!("\\# {}", rdata.len());
    for (at, octet) in rdata.iter().enumerate() {
        let gap = if at == 0 { " " } else { "" };
        write!(shown, "{gap}{octet:02x}").expect("a String takes every write");
    }
    shown
}

/// The uncompressed name that stands at `at`.
fn name(message: &[u8], at: usize) -> Option<Vec<u8>> {
    let mut out = [0; NAME_MAX];
    let (length, _) = expand(message, at, &mut out)?;
    Some(out[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_as_people_write_them() {
        let mut message = question();
        put(&mut message, b"\xc0\x0c", Type::CNAME, b"\x05alias\xc0\x10");
        put(&mut message, b"\xc0\x26", Type::A, &[10, 0, 0, 1]);
        put(&mut message, b"\xc0\x26", Type::AAAA, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        put(&mut message, b"\xc0\x10", Type::MX, b"\x00\x0a\x04mail\xc0\x10");
        put(&mut message, b"\xc0\x10", Type::SRV, b"\x00\x01\x00\x02\x14\xe9\xc0\x0c");
        put(&mut message, b"\xc0\x10", Type::TXT, b"\x06a\"b\\\n\xff\x00");
        let numbers = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 255, 255, 255, 255];
        put(&mut message, b"\x00", Type::SOA, &[b"\xc0\x10\x01h\x00".as_slice(), &numbers].concat());
        put(&mut message, b"\x00", Type(65_280), &[0xab, 0xcd]);
        put(&mut message, b"\x00", Type(65_280), &[]);
        let expected = [
            r"CNAME alias.test.",
            r"alias.test. A 10.0.0.1",
            r"AAAA 2001:db8::1",
            r"test. MX 10 mail.test.",
            r"SRV 1 2 5353 www.test.",
            r#"TXT "a\"b\\\010\255" """#,
            r". SOA test. h. 1 2 3 4 4294967295",
            r"TYPE65280 \# 2 abcd",
            r"TYPE65280 \# 0",
        ];
        assert_eq!(records(&message), expected);
    }

    #[test]
    fn rdata_that_its_type_does_not_allow_is_shown_in_octets() {
        let mut message = question();
        put(&mut message, b"\xc0\x0c", Type::A, &[10, 0, 0]);
        put(&mut message, b"\xc0\x0c", Type::CNAME, b"\xc0\x10\x00");
        put(&mut message, b"\xc0\x0c", Type::MX, b"\x00");
        put(&mut message, b"\xc0\x0c", Type::TXT, b"\x05a");
        put(&mut message, b"\xc0\x0c", Type::SOA, b"\x00\x00\x01");
        let expected = [r"A \# 3 0a0000", r"CNAME \# 3 c01000", r"MX \# 1 00", r"TXT \# 2 0561", r"SOA \# 3 000001"];
        assert_eq!(records(&message), expected);
    }

    /// Names of clients and servers reach the terminal escaped (MC53).
    #[test]
    fn a_message_cut_anywhere_gives_the_records_before_the_cut() {
        let mut message = question();
        put(&mut message, b"\x03\x1b.\n\x00", Type::A, &[10, 0, 0, 1]);
        put(&mut message, b"\xc0\x0c", Type::CNAME, b"\xc0\x0c");
        let whole = records(&message);
        assert_eq!(whole, [r"\027\.\010. A 10.0.0.1", "www.test. CNAME www.test."]);
        for cut in 0..message.len() {
            let some = records(&message[..cut]);
            assert!(some.len() < whole.len() && whole.starts_with(&some), "{cut}: {some:?}");
        }
    }

    /// The header and the question `www.test. A IN`: `www` at 12, `test` at 16.
    fn question() -> Vec<u8> {
        b"\0\0\x81\x80\0\x01\0\0\0\0\0\0\x03www\x04test\0\0\x01\0\x01".to_vec()
    }

    /// Adds a record and counts it as an answer. The first starts at 26, its RDATA, behind a pointer, at 38.
    fn put(message: &mut Vec<u8>, owner: &[u8], rtype: Type, rdata: &[u8]) {
        message[7] += 1;
        message.extend_from_slice(owner);
        message.extend_from_slice(&rtype.0.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 30]);
        message.extend_from_slice(&u16::try_from(rdata.len()).expect("short").to_be_bytes());
        message.extend_from_slice(rdata);
    }
}
