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

mod crowd;
mod network;
mod raw;
mod support;

mod cache;
mod clients;
mod coalesce;
mod debug;
mod dual_stack;
mod edns;
mod failover;
mod forgery;
mod harness;
mod load;
mod logs;
mod malformed;
mod metrics;
mod peers;
mod reload;
mod snapshot;
mod stale;
mod stop;
mod tcp;
mod top;
