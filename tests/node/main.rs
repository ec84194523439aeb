//! The agent on a node: the real binary between pods, kube-proxy, the cluster's DNS and the LAN, in a kernel's network
//! namespaces that each test makes for itself.
//!
//! Every answer says who gave it, so a stream of questions shows who served whom, when, and what was lost. What the
//! agent put on the node is read with other people's tools (`eye`). The ids in the comments (L01, X02, …) are the rows
//! of the acceptance list.
//!
//! ```text
//!   pod1 ──┐                                  ┌── LAN host
//!          ├── node: nodens, kube-proxy ──────┤
//!   pod2 ──┘         (as rules)     uplink    └── other node: three cluster DNS pods, a server for `up.test`
//! ```
//!
//! Needs root, `ip`, `nft`, `iptables`, `conntrack` and `setpriv`; says `SKIPPED:` where they are missing.
//! `NODENS_LOAD=full` asks as often as the acceptance list says. `NODENS_BINARY=target/release/nodens` tests another
//! agent than the one built with the tests.

mod agent;
mod endpoint;
mod eye;
mod stage;
mod stream;

mod byhand;
mod death;
mod descriptors;
mod exposure;
mod hang;
mod harness;
mod life;
mod memory_group;
mod metrics;
mod modes;
mod moves;
mod repair;
mod status;
mod surge;
mod verify;
