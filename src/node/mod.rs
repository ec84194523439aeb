//! Everything Nodens puts on the host: link, addresses, rules; found again after a restart, removed without a trace.
//!
//! Read first: `src/lib.rs` for the floors.

pub mod facts;
pub mod iptables;
pub mod link;

#[cfg(test)]
mod testing;
