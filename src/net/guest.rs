//! A client whose query waits for an answer: how it asked and how the reply gets to it.
//!
//! A guest may be answered by another worker than the one it came to. Dropped without an answer, whatever the reason, it
//! tells its client SERVFAIL: a waiter is never forgotten.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use super::listen::Pair;
use crate::resolve::Waiter;
use crate::wire::compose;
use crate::wire::{Asker, Edns, MESSAGE_MAX, Query, Rcode, Transport};

/// One waiting client.
#[derive(Debug)]
pub struct Guest {
    id: u16,
    question: Box<[u8]>,
    recursion_desired: bool,
    checking_disabled: bool,
    authentic_data: bool,
    edns: Option<Edns>,
    transport: Transport,
    /// `None` once answered.
    way: Option<Way>,
}

/// How a reply gets to its client.
#[derive(Debug)]
pub enum Way {
    /// Into the connection's queue; it takes one message per query in flight, so there is always room.
    Tcp(Sender<Box<[u8]>>),
    /// From the socket the query came to, which stays bound for it.
    Udp(Arc<Pair>, SocketAddr),
}

impl Guest {
    /// The client of `query`, to be answered by `way`.
    pub fn new(query: &Query<'_>, transport: Transport, way: Way) -> Self {
        Self {
            id: query.id(),
            question: query.question().into(),
            recursion_desired: query.recursion_desired(),
            checking_disabled: query.checking_disabled(),
            authentic_data: query.authentic_data(),
            edns: query.edns(),
            transport,
            way: Some(way),
        }
    }
}

impl Waiter for Guest {
    fn asker(&self) -> Asker<'_> {
        Asker {
            id: self.id,
            question: &self.question,
            recursion_desired: self.recursion_desired,
            checking_disabled: self.checking_disabled,
            authentic_data: self.authentic_data,
            edns: self.edns,
            transport: self.transport,
        }
    }

    fn answer(mut self, reply: &[u8]) {
        if let Some(way) = self.way.take() {
            way.send(reply);
        }
    }

    fn discard(mut self) {
        // A connection counts on one message per query: an empty one says that there is none.
        if let Some(way @ Way::Tcp(_)) = self.way.take() {
            way.send(&[]);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(way) = self.way.take() {
            let mut reply = [0; 512 + 64];
            let length = compose::failure(&self.asker(), Rcode::SERVFAIL, None, &mut reply);
            way.send(&reply[..length.unwrap_or(0)]);
        }
    }
}

impl Way {
    /// Sends `reply`. A client that is gone or a full buffer loses it, as the network would: the client asks again.
    fn send(self, reply: &[u8]) {
        debug_assert!(reply.len() <= MESSAGE_MAX);
        match self {
            Self::Tcp(queue) => drop(queue.try_send(reply.into())),
            Self::Udp(pair, peer) if !reply.is_empty() => drop(pair.udp.send_to(reply, peer)),
            Self::Udp(..) => {}
        }
    }
}
