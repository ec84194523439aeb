//! UDP towards upstream servers: connected sockets on unguessable ports, one question at a time on each.
//!
//! The promise: a datagram from anywhere but the server never reaches us (the kernel drops it, RFC 5452 section 9.1);
//! the port of each question is picked at random out of as many as the pool has slots; no port lives longer than
//! [`LIFETIME`]; a socket that has seen anything but the one valid answer to each of its queries is never used again.
//!
//! ```text
//! open ─► slot at random ─► idle, young, quiet? ─► taken out ─┐
//!                 └───────► else a new socket ────────────────┴─► UdpAsk: send, heard, heard … ─► drop
//!                                                                    clean? back into its slot ◄──┴──► closed
//! ```
//!
//! Read first: RFC 5452 sections 9 and 10, RFC 9715 section 3.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::SetStruct;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use rand::{Rng, RngExt};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::exchange::ExchangeCounters;
use crate::wire::response::Asked;
use crate::wire::{Response, Unfit};

/// Longest use of one port, 60 s: what an attacker learnt about our ports is worth nothing a minute later.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// One question in so many is the last on its port, however young the port is; so a busy pool shows more ports than
/// it has slots. The price is a sixteenth of a new socket per question.
const RETIRE_ONE_IN: u32 = 16;

/// Octets of the buffer a worker receives into. We ask for at most 1,232 (RFC 9715); what is longer than this is cut
/// by the kernel and found malformed.
const SCRATCH: usize = 4096;

/// A worker's sockets towards all its servers.
pub struct UdpPool {
    shared: Rc<Shared>,
}

struct Shared {
    slots_per_server: usize,
    /// The idle sockets by server and slot; only what is idle takes memory.
    idle: RefCell<HashMap<SocketAddr, HashMap<usize, Idle, ahash::RandomState>, ahash::RandomState>>,
    /// Never borrowed across an await.
    scratch: RefCell<Box<[u8; SCRATCH]>>,
    counters: Rc<ExchangeCounters>,
}

struct Idle {
    socket: UdpSocket,
    opened: Instant,
    _place: Place,
}

/// Idle sockets of the whole process, at most: each holds a descriptor and one of the host's ephemeral ports, which all
/// workers, servers and other programs share. A question beyond it gets a new port, which guesses no easier.
const IDLE_MAX: usize = 4096;

static IDLE: AtomicUsize = AtomicUsize::new(0);

/// A place among the idle sockets of the process.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let free = |idle: usize| (idle < IDLE_MAX).then_some(idle + 1);
        IDLE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_ok().then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        IDLE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One question to one server: a socket nobody else uses until this is dropped.
pub struct UdpAsk {
    /// `None` only while being dropped.
    socket: Option<UdpSocket>,
    server: SocketAddr,
    slot: usize,
    opened: Instant,
    reuse: Reuse,
    sent: u32,
    answered: u32,
    pool: Rc<Shared>,
}

/// Whether a socket may go back into its slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reuse {
    Allowed,
    Forbidden,
}

/// What one wait brought.
#[derive(Debug)]
pub enum Heard {
    /// The valid answer to the query.
    Answer(Response),
    /// From the right place, but not what was asked: answers are being guessed, or the server is broken.
    NearMiss(Unfit),
    /// An answer nobody can use; the valid one may still come.
    Malformed(Unfit),
    /// Nothing listens on the server's port (ICMP port unreachable).
    Refused,
    /// The network says that the server cannot be reached, or the socket failed.
    Unreachable(io::Error),
}

// === impl UdpPool ===

impl UdpPool {
    /// Makes a pool that keeps up to `slots_per_server` (at least 1) idle sockets for each server.
    ///
    /// The workers' pools together should have 4,096 slots for a server, or more.
    pub fn new(slots_per_server: usize, counters: Rc<ExchangeCounters>) -> Self {
        let shared = Shared {
            slots_per_server: slots_per_server.max(1),
            idle: RefCell::default(),
            scratch: RefCell::new(Box::new([0; SCRATCH])),
            counters,
        };
        Self { shared: Rc::new(shared) }
    }

    /// Takes a socket connected to `server` for one question. `dice` must be a CSPRNG.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says: no route, no port left (EADDRNOTAVAIL, EAGAIN), no descriptor left (EMFILE).
    pub fn open(&self, server: SocketAddr, dice: &mut impl Rng, now: Instant) -> io::Result<UdpAsk> {
        let shared = &self.shared;
        let slot = dice.random_range(0..shared.slots_per_server);
        let reuse = if dice.random_ratio(1, RETIRE_ONE_IN) { Reuse::Forbidden } else { Reuse::Allowed };
        let idle = shared.idle.borrow_mut().get_mut(&server).and_then(|slots| slots.remove(&slot));
        let usable = idle.filter(|idle| now.duration_since(idle.opened) < LIFETIME && shared.is_quiet(&idle.socket));
        let counter = if usable.is_some() { &shared.counters.udp_reused } else { &shared.counters.udp_opened };
        let (socket, opened) = match usable {
            Some(Idle { socket, opened, .. }) => (socket, opened),
            None => (connect(server)?, now),
        };
        counter.set(counter.get() + 1);
        let pool = Rc::clone(shared);
        Ok(UdpAsk { socket: Some(socket), server, slot, opened, reuse, sent: 0, answered: 0, pool })
    }

    /// Closes the idle sockets that are too old to be used again. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        self.shared.idle.borrow_mut().retain(|_, slots| {
            slots.retain(|_, idle| now.duration_since(idle.opened) < LIFETIME);
            !slots.is_empty()
        });
    }

    /// Closes every idle socket and says how many that were: descriptors or ports are needed elsewhere.
    pub fn give_up_idle(&self) -> usize {
        let idle = std::mem::take(&mut *self.shared.idle.borrow_mut());
        idle.values().map(HashMap::len).sum()
    }

    /// Number of idle sockets, over all servers.
    pub fn idle(&self) -> usize {
        self.shared.idle.borrow().values().map(HashMap::len).sum()
    }
}

// === impl Shared ===

impl Shared {
    /// Whether nothing has arrived on an idle socket. What has is counted; somebody knows this port.
    fn is_quiet(&self, socket: &UdpSocket) -> bool {
        let mut looked = false;
        let mut scratch = self.scratch.borrow_mut();
        // Through the runtime if it believes that there is something, so that it learns if there is not.
        let mut found = socket.try_io(Interest::READABLE, || {
            looked = true;
            receive(socket, &mut scratch[..])
        });
        if !looked {
            found = receive(socket, &mut scratch[..]);
        }
        match found {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            _ => {
                self.counters.strays.set(self.counters.strays.get() + 1);
                false
            }
        }
    }
}

// === impl UdpAsk ===

impl UdpAsk {
    /// Sends `query`. Sending the same octets again is a retry on the same port.
    ///
    /// # Errors
    /// What the kernel says; an ICMP error that answers an earlier query may be reported here.
    pub fn send(&mut self, query: &[u8]) -> io::Result<()> {
        self.sent += 1;
        match send(self.socket().as_raw_fd(), query, MsgFlags::empty()) {
            // No room in the kernel just now: the same as a datagram lost on its way.
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(()),
            Err(errno) => {
                self.reuse = Reuse::Forbidden;
                Err(errno.into())
            }
        }
    }

    /// Waits for the next datagram and says what it is. The caller decides whether to go on waiting.
    ///
    /// Cancel-safe: nothing is lost by dropping the future.
    pub async fn heard(&mut self, asked: &Asked<'_>) -> Heard {
        let heard = self.next(asked).await;
        let counters = &self.pool.counters;
        let counter = match &heard {
            Heard::Answer(_) => {
                self.answered += 1;
                return heard;
            }
            Heard::NearMiss(_) => &counters.near_misses,
            Heard::Malformed(_) => &counters.malformed,
            Heard::Refused => &counters.refused,
            Heard::Unreachable(_) => &counters.unreachable,
        };
        counter.set(counter.get() + 1);
        self.reuse = Reuse::Forbidden;
        heard
    }

    /// The local address, for logs and tests.
    ///
    /// # Errors
    /// None in practice: the socket is connected.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    async fn next(&self, asked: &Asked<'_>) -> Heard {
        loop {
            let socket = self.socket();
            let ready = match socket.ready(EVENTS).await {
                Ok(ready) => ready,
                Err(error) => return Heard::Unreachable(error),
            };
            // tokio forgets one kind of event at a time only; of two, the other makes the next turn.
            let event = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
            let mut scratch = self.pool.scratch.borrow_mut();
            match socket.try_io(event, || receive(socket, &mut scratch[..])) {
                Ok(length) => return judge(&scratch[..length], asked),
                // A closed socket stays ready for ever; waiting for it would spin.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && ready.is_read_closed() => {
                    return Heard::Unreachable(io::ErrorKind::NotConnected.into());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Heard::Refused,
                Err(error) => return Heard::Unreachable(error),
            }
        }
    }

    fn socket(&self) -> &UdpSocket {
        self.socket.as_ref().expect("the socket leaves only in drop")
    }
}

impl Drop for UdpAsk {
    fn drop(&mut self) {
        // A query without its answer may be answered later, to whoever has the socket then.
        let clean = self.reuse == Reuse::Allowed && self.sent == self.answered;
        if let Some(socket) = self.socket.take().filter(|_| clean)
            && let Some(place) = Place::take()
        {
            let mut idle = self.pool.idle.borrow_mut();
            idle.entry(self.server).or_default().insert(self.slot, Idle { socket, opened: self.opened, _place: place });
        }
    }
}

/// What wakes us. Errors as well: ICMP alone does not make a UDP socket readable.
const EVENTS: Interest = Interest::READABLE.add(Interest::ERROR);

fn receive(socket: &UdpSocket, into: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), into, MsgFlags::empty())?)
}

fn judge(octets: &[u8], asked: &Asked<'_>) -> Heard {
    match Response::parse_for(octets, asked) {
        Ok(response) => Heard::Answer(response),
        Err(unfit) if unfit.is_near_miss() => Heard::NearMiss(unfit),
        Err(unfit) => Heard::Malformed(unfit),
    }
}

/// Opens a socket that talks to `server` only, from a port the kernel picks with its own CSPRNG.
fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM.nonblocking(), None)?;
    // RFC 9715 section 3.1: fragments can be forged, so a path too narrow for a query is an error.
    match server {
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4PathMtu, &libc::IP_PMTUDISC_DO)?,
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6PathMtu, &libc::IPV6_PMTUDISC_DO)?,
    }
    socket.connect(&server.into())?;
    UdpSocket::from_std(socket.into())
}

/// `IP_MTU_DISCOVER`: whether a packet may be fragmented on its way. Not among nix's own options.
#[derive(Clone, Copy)]
struct Ipv4PathMtu;
nix::setsockopt_impl!(Ipv4PathMtu, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int, SetStruct<libc::c_int>);

/// `IPV6_MTU_DISCOVER`, the same for IPv6.
#[derive(Clone, Copy)]
struct Ipv6PathMtu;
nix::setsockopt_impl!(Ipv6PathMtu, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int, SetStruct<libc::c_int>);

#[cfg(test)]
mod tests;
