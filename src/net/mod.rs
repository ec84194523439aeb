//! Sockets: how queries reach us and how we reach the servers upstream.
//!
//! The promise of this floor: one worker, one thread, one current-thread runtime; nothing here is shared between
//! workers, so nothing here locks. Everything read from the network has gone through [`crate::wire`] before anybody
//! sees it, and everything held for a peer is bounded.

mod connection;
pub mod exchange;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod udp_pool;
