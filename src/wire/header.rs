//! The header of a message: six fields of 16 bits.
//!
//! ```text
//! octet 0  1 │ 2                      │ 3                     │ 4 to 11
//! ID         │ QR OPCODE(4) AA TC RD  │ RA Z AD CD RCODE(4)   │ QDCOUNT ANCOUNT NSCOUNT ARCOUNT
//! ```
//!
//! Read first: RFC 1035 section 4.1.1, RFC 4035 section 3.

use super::{HEADER, Opcode, Rcode};

/// A header's fields, as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) id: u16,
    /// Octets 2 and 3.
    pub(super) flags: u16,
    pub(super) questions: u16,
    pub(super) answers: u16,
    pub(super) authorities: u16,
    pub(super) additionals: u16,
}

/// The message is a response.
pub(super) const QR: u16 = 0x8000;
/// The message is cut.
pub(super) const TC: u16 = 0x0200;
/// The client wants the server to ask others.
pub(super) const RD: u16 = 0x0100;
/// The server asks others.
pub(super) const RA: u16 = 0x0080;
/// The data are authentic, or the client would like to know.
pub(super) const AD: u16 = 0x0020;
/// The client checks signatures itself.
pub(super) const CD: u16 = 0x0010;
/// The lower four bits of the response code.
pub(super) const RCODE: u16 = 0x000f;
/// The four bits of the opcode.
pub(super) const OPCODE: u16 = 0x7800;

impl Header {
    /// Reads the header a message opens with; `None` if the message is shorter than one.
    #[inline]
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let [i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, r0, r1] = *octets.first_chunk::<HEADER>()?;
        Some(Self {
            id: u16::from_be_bytes([i0, i1]),
            flags: u16::from_be_bytes([f0, f1]),
            questions: u16::from_be_bytes([q0, q1]),
            answers: u16::from_be_bytes([a0, a1]),
            authorities: u16::from_be_bytes([n0, n1]),
            additionals: u16::from_be_bytes([r0, r1]),
        })
    }

    /// The header in wire form.
    #[inline]
    pub(super) fn octets(&self) -> [u8; HEADER] {
        let [i0, i1] = self.id.to_be_bytes();
        let [f0, f1] = self.flags.to_be_bytes();
        let [q0, q1] = self.questions.to_be_bytes();
        let [a0, a1] = self.answers.to_be_bytes();
        let [n0, n1] = self.authorities.to_be_bytes();
        let [r0, r1] = self.additionals.to_be_bytes();
        [i0, i1, f0, f1, q0, q1, a0, a1, n0, n1, r0, r1]
    }

    /// Whether one of the given bits is set.
    #[inline]
    pub(super) fn has(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    /// The four bits of the response code that stand in the header.
    #[inline]
    pub(super) fn rcode(&self) -> Rcode {
        Rcode(self.flags & RCODE)
    }

    /// Counts only the first `records` records of all sections, in the order of the message.
    pub(super) fn keep_first(&mut self, records: usize) {
        let mut left = u16::try_from(records).unwrap_or(u16::MAX);
        for count in [&mut self.answers, &mut self.authorities, &mut self.additionals] {
            *count = left.min(*count);
            left -= *count;
        }
    }

    /// What the message asks for.
    #[inline]
    pub(super) fn opcode(&self) -> Opcode {
        Opcode(((self.flags & OPCODE) >> OPCODE.trailing_zeros()) as u8)
    }
}
