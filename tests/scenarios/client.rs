//! Clients: what they asked, and that they remember what they heard.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use nodens::resolve::Waiter;
use nodens::wire::{Asker, Query, Rcode, Transport, compose};

/// A query of a client.
pub struct Inquiry {
    pub label: String,
    pub octets: Vec<u8>,
    pub transport: Transport,
}

/// What a client heard.
pub struct Heard {
    pub inquiry: Rc<Inquiry>,
    pub what: Outcome,
    pub at: Duration,
}

pub enum Outcome {
    /// No reply, on purpose.
    Dropped(&'static str),
    Reply(Vec<u8>),
}

/// A client that waits. Like the real one it hears SERVFAIL if it is forgotten.
pub struct Client {
    pub inquiry: Rc<Inquiry>,
    pub heard: Rc<RefCell<VecDeque<Heard>>>,
    pub clock: Rc<Cell<Duration>>,
    pub settled: bool,
}

impl Client {
    fn hear(&mut self, what: Outcome) {
        self.settled = true;
        let at = self.clock.get();
        self.heard.borrow_mut().push_back(Heard { inquiry: Rc::clone(&self.inquiry), what, at });
    }
}

impl Waiter for Client {
    fn asker(&self) -> Asker<'_> {
        Query::parse(&self.inquiry.octets, self.inquiry.transport).expect("parsed before it waited").asker()
    }

    fn answer(mut self, reply: &[u8]) {
        self.hear(Outcome::Reply(reply.to_vec()));
    }

    fn discard(mut self) {
        self.hear(Outcome::Dropped("discarded"));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.settled {
            let mut reply = [0; 1024];
            let length = compose::failure(&self.asker(), Rcode::SERVFAIL, None, &mut reply).unwrap_or(0);
            self.hear(Outcome::Reply(reply[..length].to_vec()));
        }
    }
}
