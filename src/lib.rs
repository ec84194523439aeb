//! Nodens: the DNS on every Kubernetes node that stays up when everything around it, itself included, falls over.
//!
//! ```text
//!  clients ──udp/tcp──► net::udp / net::tcp       (one worker per core: its own sockets, its own current-thread runtime)
//!                         │ octets
//!                         ▼
//!                       wire::Query::parse ──► policy ──► cache.lookup ──► Fresh ──► wire::compose::patch ──► sent in the same batch
//!                         │ no value          │ answer      │ Stale ─────► patch, and refresh behind it
//!                         ▼ exists for bad    │ here        │ in flight ─► park behind the flight
//!                       drop / FORMERR        ▼             └ Vacant ────► Flight ─► net::pilot ◄─► resolve::pursuit
//!                                         NODATA, pins, …                               │ Response::parse_for(&query)
//!                             every parked query ◄── flight lands ◄── cache::Entry::admit, or the reason why not
//!
//!  config file ─► config ─► Plan (only legal values) ─► arc-swap ─► everybody reads it                [control thread]
//!  discover: host names, resolv.conf ─► upstream::Group;  net::health: suspects ─► probes             [control thread]
//! ```
//!
//! # Floors
//!
//! Imports go strictly downwards; equals never meet except siblings in one folder. `tests/floors.rs` reads this table and
//! checks every `use crate::`.
//!
//! | floor | modules | may import | never |
//! |---|---|---|---|
//! | 0 | `wire` | - | clock, I/O, panic, allocation on the query path |
//! | 1 | `plan` `metrics` `health` `incidents` | 0 | serde, sockets, async |
//! | 2 | `cache` `clients` `policy` `upstream` | 0-1 | `Instant::now`, random numbers, sockets: time and dice are arguments |
//! | 3 | `resolve` | 0-2 | the same: one query's life as a machine that can be stepped in a test |
//! | 4 | `net` `discover` | 0-3 | serde |
//! | 5 | `node` | 0-1 | serde, queries |
//! | 6 | `config` `dump` `http` `control` | 0-1, 6 | the data plane: what they show reaches them as closures |
//! | 7 | `run` | 0-6 | - |
//! | 8 | `cli` | 0-7 | - |
//!
//! # Words
//!
//! All names come from RFC 9499 and IANA, but for these, which are ours:
//!
//! - *plan*: a validated configuration. *zone*: a part of the name space and what happens to questions in it. *route*: a
//!   zone's way to an upstream.
//! - *upstream*: a group of servers that answer alike. *server*: one of them. *exchange*: one query to one server.
//! - *flight*: the one question under way upstream for a key. *park*: to wait behind it. *land*: its end, with an answer or
//!   without. *pursuit*: the decisions of a flight: whom to ask, when again, when to give up. *lapse*: the moment from which
//!   those with a stale answer need not wait for the flight any longer.
//! - *pair*: a UDP socket and a listener at one address. *post*: a pair as one worker serves it. *crew*: the workers and
//!   their posts. *frozen*: read from a snapshot, not yet an entry of the cache.
//! - *guest*: a client whose query waits. *suspect*: a server that failed too often in a row and is probed.

pub mod cache;
pub mod cli;
pub mod clients;
pub mod config;
pub mod control;
pub mod discover;
pub mod dump;
pub mod health;
pub mod http;
pub mod incidents;
pub mod metrics;
pub mod net;
pub mod node;
pub mod plan;
pub mod policy;
pub mod resolve;
pub mod run;
pub mod upstream;
pub mod wire;
