//! Sockets: how queries reach us and how we reach the servers upstream.
//!
//! The promise of this floor: a query stays on the worker it came to, one thread with one current-thread runtime;
//! everything read from the network has gone through [`crate::wire`] before anybody sees it, and everything held for a
//! peer is bounded.
//!
//! ```text
//! listen ─► worker ─┬─► udp ─┐             ┌─► udp_pool ─┐
//!                   └─► tcp ─┴─► resolve ─► pilot        ├─► servers
//!            guest ◄──────────── lands ◄───┴─► stream ───┘   (connection, tls)
//! ```

mod connection;
pub mod exchange;
pub mod guest;
pub mod health;
pub mod listen;
pub mod pilot;
pub mod probe;
mod pulse;
pub mod stream;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod udp;
pub mod udp_pool;
pub mod worker;
