//! DNS messages as octets: read without copying, written into buffers of the caller.
//!
//! The promise of this floor: no clock, no I/O, no panic whatever the octets say, no allocation between a query and
//! its answer from the cache. Every loop is bounded by the length of the message. All reading goes through
//! `parse` functions that return a value only for well-formed input, so what exists is right.
//!
//! Read first: RFC 1035 section 4, RFC 2181 sections 5 and 8, RFC 6891 section 6, RFC 8914.

mod clean;
pub mod codes;
pub mod compose;
pub mod edit;
pub mod edns;
mod header;
pub mod key;
pub mod name;
pub mod query;
mod rebuild;
mod records;
pub mod refusal;
pub mod response;
mod soa;
pub mod svcb;
#[cfg(test)]
mod testing;

pub use codes::{Class, Ede, Opcode, Rcode, Type};
pub use edns::Edns;
pub use key::Key;
pub use name::Name;
pub use query::{Asker, Query};
pub use refusal::Refusal;
pub use response::{Kind, Response, Stored, Unfit};

/// Octets in a message header (RFC 1035 section 4.1.1).
pub const HEADER: usize = 12;
/// Octets in the longest name, its root label included (RFC 1035 section 2.3.4).
pub const NAME_MAX: usize = 255;
/// Octets every client takes over UDP without asking for more (RFC 1035 section 2.3.4).
pub const UDP_MIN: usize = 512;
/// Octets of the largest UDP message we send or ask for: fits the smallest IPv6 path unfragmented (RFC 9715).
pub const UDP_MAX: usize = 1232;
/// Octets of the largest message (RFC 1035 section 4.2.2: a 16-bit length).
pub const MESSAGE_MAX: usize = 65_535;

/// What carries a message between a client and us, or between us and a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// One message a datagram.
    Udp,
    /// Messages behind a two-octet length, TLS included (RFC 1035 section 4.2.2, RFC 7858).
    Tcp,
}
