//! One question to one server: UDP, and TCP where UDP cannot be had or cannot be trusted.
//!
//! The promise: the wait goes on until the valid answer comes. A malformed datagram never ends it; the first near miss
//! moves the question to TCP, where nobody guesses; only if TCP fails does the wait on UDP go on.
//!
//! ```text
//! udp ─► answer ─────────────────────────────► done
//!   │ ├► answer with TC=1 ─► tcp ─────────────► done, or failed
//!   │ ├► near miss ────────► tcp ─► answer ───► done
//!   │ │                       └──► else wait on (once)
//!   │ ├► malformed ────────► wait on
//!   │ └► refused, unreachable ───────────────► failed, at once
//!   └── silence ───────────► the same octets again
//! ```
//!
//! Read first: RFC 5452 section 9, RFC 7766 section 5, RFC 1035 section 4.2.1.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout, timeout_at};

use super::stream::{Limits, StreamError, StreamPool};
use super::tls::Tls;
use super::udp_pool::{Heard, UdpAsk, UdpPool};
use crate::plan::Protocol;
use crate::wire::response::Asked;
use crate::wire::{Response, Transport};

/// A worker's means of asking servers.
pub struct Exchange {
    /// Swept by whoever owns this, about once a second.
    pub udp: UdpPool,
    /// Looks after itself.
    pub streams: StreamPool,
    /// What both count.
    pub counters: Rc<ExchangeCounters>,
}

/// Whom to ask, and how.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Address and port.
    pub server: SocketAddr,
    /// UDP may end in TCP, to the same port.
    pub protocol: Protocol,
    /// Needed where `protocol` is TLS.
    pub tls: Option<&'a Tls>,
}

/// A query in its octets, the ID at their head drawn by a CSPRNG.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The whole message; over TCP the ID is replaced.
    pub query: &'a [u8],
    /// Demand the letter case of the query back over UDP (0x20). Over TCP it protects nothing.
    pub exact_case: bool,
    /// Time of silence over UDP after which the query is sent again.
    pub resend_after: Duration,
}

/// Why a server gave no answer. Silence is none: the caller ends that by dropping the future.
#[derive(Debug)]
pub enum ExchangeError {
    /// Somebody seems to be guessing at the answer, and TCP has failed.
    Guessed,
    /// Nothing listens on the server's port (ICMP port unreachable).
    Refused,
    /// TCP or TLS failed.
    Stream(StreamError),
    /// No socket was to be had, or the network says that the server cannot be reached.
    Unreachable(io::Error),
}

// === impl Exchange ===

impl Exchange {
    /// Makes the means of one worker: pools without a socket. `dice` gives IDs over TCP and must be seeded well.
    pub fn new(slots_per_server: usize, dice: StdRng, limits: Limits) -> Self {
        let counters = Rc::new(ExchangeCounters::default());
        Self {
            udp: UdpPool::new(slots_per_server, Rc::clone(&counters)),
            streams: StreamPool::new(dice, limits, Rc::clone(&counters)),
            counters,
        }
    }

    /// Asks until there is a valid answer or no hope for one. An answer with TC=1 is never returned.
    ///
    /// `dice` must be a CSPRNG. Waits for ever on a silent server: the caller sets the time limit by dropping the
    /// future, which harms nobody.
    ///
    /// # Errors
    /// [`ExchangeError`]; the caller asks another server.
    pub async fn ask(
        &self,
        to: &Destination<'_>,
        question: &Question<'_>,
        dice: &mut impl Rng,
    ) -> Result<Response, ExchangeError> {
        match to.protocol {
            Protocol::Udp => {
                let now = std::time::Instant::now();
                let ask = self.udp.open(to.server, dice, now).map_err(ExchangeError::Unreachable)?;
                self.ask_over_udp(ask, to, question).await
            }
            Protocol::Tcp | Protocol::Tls => self.ask_over_tcp(to, question).await,
        }
    }

    async fn ask_over_udp(
        &self,
        mut ask: UdpAsk,
        to: &Destination<'_>,
        question: &Question<'_>,
    ) -> Result<Response, ExchangeError> {
        let asked = Asked { query: question.query, transport: Transport::Udp, exact_case: question.exact_case };
        let mut near_misses = 0;
        loop {
            ask.send(question.query).map_err(ExchangeError::of)?;
            let again_at = Instant::now() + question.resend_after;
            while let Ok(heard) = timeout_at(again_at, ask.heard(&asked)).await {
                match heard {
                    Heard::Answer(response) if response.truncated() => {
                        // RFC 1035 section 7.4: what was cut is of no use, not even in part.
                        self.counters.truncated.set(self.counters.truncated.get() + 1);
                        return self.ask_over_tcp(to, question).await;
                    }
                    Heard::Answer(response) => return Ok(response),
                    Heard::Malformed(_) => {}
                    Heard::NearMiss(_) => {
                        near_misses += 1;
                        if near_misses > NEAR_MISSES {
                            return Err(ExchangeError::Guessed);
                        }
                        if near_misses == 1
                            && let Ok(Ok(response)) = timeout(TCP_WAIT, self.ask_over_tcp(to, question)).await
                        {
                            return Ok(response);
                        }
                    }
                    Heard::Refused => return Err(ExchangeError::Refused),
                    Heard::Unreachable(error) => return Err(ExchangeError::Unreachable(error)),
                }
            }
        }
    }

    async fn ask_over_tcp(&self, to: &Destination<'_>, question: &Question<'_>) -> Result<Response, ExchangeError> {
        let asked = Asked { query: question.query, transport: Transport::Tcp, exact_case: false };
        self.streams.ask(to.server, to.tls, &asked).await.map_err(ExchangeError::Stream)
    }
}

/// Most near misses one question survives on UDP after TCP has failed it: 8 guesses at an ID that has 65,536 values.
const NEAR_MISSES: u32 = 8;

/// Time TCP gets after the first near miss, before the wait on UDP goes on: 1 s, so that a server whose TCP is dead
/// still answers within a client's patience.
const TCP_WAIT: Duration = Duration::from_secs(1);

// === impl ExchangeError ===

impl ExchangeError {
    /// A name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Guessed => "guessed",
            Self::Refused => "refused",
            Self::Stream(error) => error.label(),
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// What an error of sending means: the kernel reports there, too, what ICMP said of an earlier query.
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Unreachable(error),
        }
    }
}

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
    /// Questions asked again over TCP because the answer was cut (TC=1).
    pub truncated: Cell<u64>,
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

#[cfg(test)]
mod tests;
