//! The agent as its clients and upstreams see it: the real binary, real sockets, one loopback address each.
//!
//! Every test starts an agent of its own between a raw client and a scripted upstream, all on addresses nobody else
//! uses, so the tests run side by side. The ids in the comments (C01, E03, …) are the rows of the acceptance list.
//!
//! ```text
//! client::Ask ──udp/tcp──► agent (CARGO_BIN_EXE_nodens run -c FILE) ──udp/tcp──► upstream::Upstream, which logs all
//!     ▲                                                                              │
//!     └── octets::Message (our own reader) and hickory-proto must both accept ◄──────┘ behaviour: Fn(&Seen) → Vec<Act>
//! ```

mod support;

mod cache;
mod coalesce;
mod edns;
mod harness;
mod stale;
