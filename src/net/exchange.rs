//! What happened between a worker and the servers upstream, in numbers.
//!
//! The promise: counting costs a load and a store; nobody but the worker's own thread writes.

use std::cell::Cell;

use crate::metrics::{self, Socket};

/// What happened between a worker and the servers, in numbers. Written by its thread only.
#[derive(Debug, Default)]
pub struct ExchangeCounters {
    /// Sockets opened for a question.
    pub udp_opened: Cell<u64>,
    /// Questions asked on a socket used before.
    pub udp_reused: Cell<u64>,
    /// Idle sockets on which something had arrived that nobody waited for.
    pub strays: Cell<u64>,
    /// Answers with a wrong ID, question or letter case.
    pub near_misses: Cell<u64>,
    /// Answers to the question asked that are of no use.
    pub malformed: Cell<u64>,
    /// ICMP port unreachable.
    pub refused: Cell<u64>,
    /// Other errors of UDP sockets.
    pub unreachable: Cell<u64>,
    /// Connections established, TLS included.
    pub tcp_connects: Cell<u64>,
    /// Connections that could not be established.
    pub tcp_connect_failures: Cell<u64>,
    /// Questions asked on a connection that had been used before.
    pub tcp_reused: Cell<u64>,
    /// Questions asked again on a new connection because the old one seemed dead.
    pub tcp_retries: Cell<u64>,
    /// Messages on a connection with an ID that nobody waits for.
    pub unknown_ids: Cell<u64>,
    /// Connections dropped for a length that no message can have.
    pub bad_frames: Cell<u64>,
}

impl ExchangeCounters {
    /// Shows in `count`, the cells of the same thread, what carried the questions.
    pub fn show(&self, count: &metrics::Worker) {
        let sockets = &count.upstream_sockets;
        sockets.set(Socket::TcpOpened, self.tcp_connects.get());
        sockets.set(Socket::TcpReused, self.tcp_reused.get());
        sockets.set(Socket::UdpOpened, self.udp_opened.get());
        sockets.set(Socket::UdpReused, self.udp_reused.get());
    }
}
