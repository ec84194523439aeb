//! DNS over TCP for clients: pipelined, answered out of order, bounded in everything.
//!
//! ```text
//! accept ─► bounds ─► one task per connection:  read ─► frames ─► resolve ─► reply ─┐
//!                                                 ▲      └► parked ─► queue ────────┼─► pending ─► write
//!                                                 └─ pauses while too much is in flight or unread
//! ```
//! The limits are those of acceptance.md section 1. The same limits make a client that feeds us an octet at a time, or
//! never reads, cost one small buffer for a few seconds.
//!
//! Read first: RFC 7766 sections 6 to 8, RFC 7828, RFC 9210.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

use super::guest::{Guest, Way};
use super::listen::Pair;
use super::probe::ProbeName;
use super::udp::{may_ask, refuse};
use super::worker::{DRAIN, LINGER, Leave, Worker, left, over};
use crate::clients::{Kind, Place};
use crate::metrics::{Arrival, Closed, Drop as Dropped};
use crate::resolve::{Ends, Ready, Step, Turn};
use crate::wire::{HEADER, MESSAGE_MAX, Query, Transport};

/// A new connection asks within this time (TCP_FIRST).
const FIRST: Duration = Duration::from_secs(3);
/// A message that has begun is complete within this time (TCP_MSG).
const MESSAGE: Duration = Duration::from_secs(3);
/// A connection without a question or an answer is closed after this time (TCP_IDLE); told to clients (RFC 7828).
pub const IDLE: Duration = Duration::from_secs(10);
/// A connection without a question is kept so long while the agent stops.
const PARTING: Duration = Duration::from_millis(200);
/// A client that does not take its answers has this long (TCP_WRITE).
const WRITE: Duration = Duration::from_secs(5);
/// Questions of one connection under way; then reading pauses (TCP_INFLIGHT).
const IN_FLIGHT: usize = 100;
/// Octets of answers waiting for the client; then reading pauses.
const PENDING_PAUSE: usize = 64 * 1024;
/// Octets of answers waiting for the client; then the connection is closed.
const PENDING_MAX: usize = 256 * 1024;
/// Reads that one message may take; a client that needs more drips on purpose (T07).
const READS_PER_MESSAGE: u32 = 50;
/// Octets read at once.
const READ: usize = 4096;
/// Pause after the process has run out of descriptors, so that accepting does not spin (O11).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait for their client, oldest first; a full agent closes them for new ones.
#[derive(Default)]
pub struct Idle {
    waiting: BTreeMap<u64, Rc<Notify>>,
    next: u64,
}

/// Accepts connections at `listener`, that of `pair`, until the post is left. The pair lives as long.
///
/// # Errors
/// If the listener cannot be watched; what fails later is tried again.
pub async fn serve(
    worker: Rc<Worker>,
    pair: Arc<Pair>,
    listener: std::net::TcpListener,
    mut leave: watch::Receiver<Leave>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    // Set once the listener is drained. A connection left in the kernel's queue would be reset.
    let mut until = None;
    let mut how = Leave::Stay;
    let mut absences = 0;
    // Whether what is accepted may have waited for longer than its client.
    let aged = Cell::new(false);
    let accept = |context: &mut Context<'_>| {
        let accepted = listener.poll_accept(context);
        aged.set(aged.get() && accepted.is_ready());
        accepted
    };
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(accept) => accepted,
            new = left(&mut leave, how) => {
                if new == Leave::HandOver {
                    return Ok(());
                }
                how = new;
                until = Some(Instant::now() + DRAIN);
                continue;
            }
            () = tokio::time::sleep(LINGER), if until.is_some() => {
                if worker.may_close(&pair, how) {
                    return Ok(());
                }
                continue;
            }
            () = over(until) => return Ok(()),
        };
        match accepted {
            Ok((stream, peer)) => {
                worker.beat(Instant::now());
                let before = std::mem::replace(&mut absences, worker.pulse.absences());
                aged.set(aged.get() || absences != before);
                if aged.get() && has_given_up(&stream) {
                    worker.count.drops.bump(Dropped::Aged);
                    continue;
                }
                let own = stream.local_addr().is_ok_and(|local| local.ip() == peer.ip());
                if let Some(seat) = admit(&worker, peer, own) {
                    worker.count.tcp_accepted.bump();
                    worker.count.tcp_open.rise();
                    let it = Rc::clone(&worker);
                    worker.spawn(async move {
                        let reason = Connection::new(Rc::clone(&it), stream, peer).serve().await;
                        it.count.tcp_closed.bump(reason);
                        it.count.tcp_open.fall();
                        drop(seat);
                    });
                }
            }
            // The connection went before we took it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Whether the client has closed its side.
fn has_given_up(stream: &TcpStream) -> bool {
    // nix has no name for this flag, so that only whether there was an event can be told, not which.
    let closed = PollFlags::from_bits_retain(libc::POLLRDHUP);
    poll(&mut [PollFd::new(stream.as_fd(), closed)], PollTimeout::ZERO).is_ok_and(|events| events > 0)
}

/// A connection's place under the bounds.
struct Seat {
    _place: Place,
    worker: Rc<Worker>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Finds room for a connection from `peer` (`own`: from the address it goes to, so from this host), at the cost of the oldest idle one if need be.
fn admit(worker: &Rc<Worker>, peer: SocketAddr, own: bool) -> Option<Seat> {
    let active = worker.active();
    let limits = &active.plan.limits;
    if !own && !may_ask(&limits.allow, peer.ip()) {
        worker.count.drops.bump(Dropped::Acl);
        return None;
    }
    let Some(place) = worker.resolver.clients.take(peer.ip(), Kind::Connection, limits.tcp_connections_per_client)
    else {
        worker.count.tcp_closed.bump(Closed::Limit);
        return None;
    };
    let open = worker.shared.connections.fetch_add(1, Ordering::Relaxed);
    let seat = Seat { _place: place, worker: Rc::clone(worker) };
    if open >= limits.tcp_connections && !worker.idle_connections.borrow_mut().close_oldest() {
        if worker.shared.idle_connections.load(Ordering::Relaxed) == 0 {
            worker.count.tcp_closed.bump(Closed::Limit);
            return None;
        }
        // Another worker's idle connection gives way.
        worker.shared.room_wanted.fetch_add(1, Ordering::Relaxed);
        worker.shared.make_room.notify_waiters();
    }
    Some(seat)
}

/// Closes this worker's oldest idle connection whenever another worker is in need of room, until the runtime ends.
pub async fn make_room(worker: Rc<Worker>) {
    loop {
        worker.shared.make_room.notified().await;
        // Claimed one by one, so that of all the workers told just one closes a connection for each place wanted.
        let wanted = &worker.shared.room_wanted;
        while wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| it.checked_sub(1)).is_ok() {
            if !worker.idle_connections.borrow_mut().close_oldest() {
                wanted.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
}

impl Idle {
    fn enter(&mut self, wake: &Rc<Notify>) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, Rc::clone(wake));
        self.next
    }

    /// Tells the connection that has been idle longest to close; false if none is.
    fn close_oldest(&mut self) -> bool {
        self.waiting.pop_first().is_some_and(|(_, wake)| {
            wake.notify_one();
            true
        })
    }
}

/// One client's connection.
struct Connection {
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    /// Our address it came to.
    local: IpAddr,
    /// Read, not yet a whole message.
    unread: Vec<u8>,
    reads: u32,
    /// Written by nobody yet.
    pending: Vec<u8>,
    in_flight: usize,
    answers: mpsc::Receiver<Box<[u8]>>,
    queue: mpsc::Sender<Box<[u8]>>,
    since: Moments,
    client: Client,
    /// The worker stops.
    parting: bool,
}

/// When things last moved, for the deadlines.
struct Moments {
    /// The connection was accepted or something was asked or answered.
    active: Instant,
    /// The first octet of the message being read arrived.
    message: Option<Instant>,
    /// The client last took something, or there was nothing to take.
    taken: Instant,
}

/// What the client may still do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Client {
    /// It has not asked yet.
    New,
    Asking,
    /// It has closed its side; it still gets its answers.
    Done,
}

impl Connection {
    fn new(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) -> Self {
        // Unknown only of a connection that is gone already.
        let local = stream.local_addr().map_or(peer.ip(), |local| local.ip());
        let (queue, answers) = mpsc::channel(IN_FLIGHT);
        let now = Instant::now();
        // Answers leave whole; there is nothing to wait for (T18).
        drop(stream.set_nodelay(true));
        Self {
            worker,
            stream,
            peer,
            local,
            unread: Vec::new(),
            reads: 0,
            pending: Vec::new(),
            in_flight: 0,
            answers,
            queue,
            since: Moments { active: now, message: None, taken: now },
            client: Client::New,
            parting: false,
        }
    }

    /// Serves until either side is done; why it ended.
    async fn serve(mut self) -> Closed {
        let evicted = Rc::new(Notify::new());
        let mut paused = false;
        loop {
            if let Err(reason) = self.take_messages() {
                return reason;
            }
            if paused && self.may_read() {
                // The pause was ours: the rest of a message may have been waiting all the time.
                self.since.message = self.since.message.map(|_| Instant::now());
            }
            paused = !self.may_read();
            let drained = self.in_flight == 0 && self.pending.is_empty();
            if self.client == Client::Done && drained {
                return Closed::Client;
            }
            let waiting = drained && self.unread.is_empty();
            let registered = waiting.then(|| Registered::new(&self.worker, &evicted));
            let (deadline, reason) = self.deadline();
            let interest = match (self.may_read(), self.pending.is_empty()) {
                (true, true) => Some(Interest::READABLE),
                (true, false) => Some(Interest::READABLE | Interest::WRITABLE),
                (false, false) => Some(Interest::WRITABLE),
                (false, true) => None,
            };
            let worker = Rc::clone(&self.worker);
            let ready = tokio::select! {
                ready = self.stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => ready,
                Some(answer) = self.answers.recv(), if self.in_flight > 0 => {
                    drop(registered);
                    if let Err(reason) = self.on_answer(&answer) {
                        return reason;
                    }
                    continue;
                }
                () = evicted.notified() => return Closed::Limit,
                () = worker.stopping(), if !self.parting => {
                    self.parting = true;
                    continue;
                }
                () = tokio::time::sleep_until(deadline.into()) => return reason,
            };
            drop(registered);
            let Ok(ready) = ready else { return Closed::Error };
            if ready.is_writable() && !self.pending.is_empty() && self.write().is_err() {
                return Closed::Error;
            }
            if ready.is_readable() && self.may_read() && self.read().is_err() {
                return Closed::Error;
            }
        }
    }

    fn may_read(&self) -> bool {
        self.client != Client::Done && self.in_flight < IN_FLIGHT && self.pending.len() < PENDING_PAUSE
    }

    /// What is waited for next, and what its absence means.
    fn deadline(&self) -> (Instant, Closed) {
        if !self.pending.is_empty() {
            return (self.since.taken + WRITE, Closed::SlowWriter);
        }
        // Whole messages that only wait for room are no torso.
        if let Some(begun) = self.since.message.filter(|_| self.may_read()) {
            return (begun + MESSAGE, Closed::SlowReader);
        }
        if self.in_flight > 0 {
            // Every flight ends by itself, far sooner.
            return (self.since.active + WRITE + IDLE, Closed::Error);
        }
        match self.client {
            // A client that has just connected may have asked already.
            _ if self.parting => (self.since.active + PARTING, Closed::Shutdown),
            Client::New => (self.since.active + FIRST, Closed::Idle),
            Client::Asking | Client::Done => (self.since.active + IDLE, Closed::Idle),
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => {
                self.client = Client::Done;
                // Half a message will never be whole.
                self.unread.clear();
                self.since.message = None;
            }
            Ok(length) => {
                if self.unread.is_empty() {
                    self.since.message = Some(Instant::now());
                    self.reads = 0;
                }
                self.reads += 1;
                self.unread.extend_from_slice(&buffer[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        match self.stream.try_write(&self.pending) {
            Ok(length) => {
                self.pending.drain(..length);
                self.since.taken = Instant::now();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deals with every whole message read, as far as the bounds allow.
    fn take_messages(&mut self) -> Result<(), Closed> {
        let mut at = 0;
        while self.in_flight < IN_FLIGHT && self.pending.len() < PENDING_PAUSE {
            let Some(&[high, low]) = self.unread.get(at..at + 2) else { break };
            let length = usize::from(u16::from_be_bytes([high, low]));
            // RFC 7766 section 8: what is shorter than a header is no message; nothing after it can be trusted.
            if length < HEADER {
                return Err(Closed::Malformed);
            }
            if self.unread.len() < at + 2 + length {
                break;
            }
            let message: Box<[u8]> = self.unread[at + 2..at + 2 + length].into();
            at += 2 + length;
            self.on_message(&message)?;
        }
        if at > 0 {
            self.unread.drain(..at);
            self.reads = 0;
            self.since.message = (!self.unread.is_empty()).then(Instant::now);
            self.since.active = Instant::now();
        }
        if self.reads > READS_PER_MESSAGE { Err(Closed::SlowReader) } else { Ok(()) }
    }

    fn on_message(&mut self, octets: &[u8]) -> Result<(), Closed> {
        let now = Instant::now();
        let worker = Rc::clone(&self.worker);
        let count = &worker.count;
        let client = self.peer.ip();
        self.client = if self.client == Client::New { Client::Asking } else { self.client };
        let out = &mut worker.scratch.borrow_mut()[..];
        let query = match Query::parse(octets, Transport::Tcp) {
            Ok(query) => query,
            Err(refusal) => {
                count.queries.bump(Arrival::of(Transport::Tcp, client));
                // What gets no answer at all over UDP ends a connection: a response, a torso.
                let ready = refuse(&worker, octets, refusal, Transport::Tcp, out).ok_or(Closed::Malformed)?;
                return self.reply(out, ready, now);
            }
        };
        if let Some(length) = ProbeName::answer(query.key(), &query.asker(), out) {
            return self.push(&out[..length]);
        }
        count.queries.bump(Arrival::of(Transport::Tcp, client));
        let active = worker.active();
        let queue = self.queue.clone();
        let in_flight = &mut self.in_flight;
        // Every guest sends one message into the queue, an empty one if it has no answer; see `on_answer`.
        let waiter = || {
            *in_flight += 1;
            Guest::new(&query, Transport::Tcp, Way::Tcp(queue))
        };
        count.top.offer(query.key().qname(), client, 1, now);
        let turn = Turn { active: &active, count, now };
        let ends = Ends { client, address: active.slots.address(self.local) };
        let step = worker.resolver.on_query(turn, &query, ends, waiter, out);
        worker.log(&query, self.peer, Transport::Tcp, step.label());
        match step {
            Step::Reply(ready) => self.reply(out, ready, now),
            Step::ReplyAndLaunch(ready, flight) => {
                worker.launch(flight);
                self.reply(out, ready, now)
            }
            Step::Launch(flight) => {
                worker.launch(flight);
                Ok(())
            }
            Step::Parked => Ok(()),
            Step::Drop(reason) => {
                count.drops.bump(reason);
                Ok(())
            }
        }
    }

    fn on_answer(&mut self, answer: &[u8]) -> Result<(), Closed> {
        self.in_flight -= 1;
        self.since.active = Instant::now();
        // An empty message: this one was discarded.
        if answer.is_empty() { Ok(()) } else { self.push(answer) }
    }

    /// Counts a reply to a query that came at `since`, and sends it.
    fn reply(&mut self, out: &[u8], Ready { length, outcome, slot }: Ready, since: Instant) -> Result<(), Closed> {
        let reply = &out[..length];
        self.worker.count.count_sent(reply, Transport::Tcp, outcome, slot, since.elapsed());
        self.push(reply)
    }

    /// Queues a reply and sends what the kernel takes: length and body in one piece (RFC 7766 section 8).
    fn push(&mut self, reply: &[u8]) -> Result<(), Closed> {
        debug_assert!(reply.len() <= MESSAGE_MAX);
        if self.pending.is_empty() {
            self.since.taken = Instant::now();
        }
        self.pending.extend_from_slice(&(reply.len() as u16).to_be_bytes());
        self.pending.extend_from_slice(reply);
        self.write().map_err(|_| Closed::Error)?;
        if self.pending.len() > PENDING_MAX { Err(Closed::SlowWriter) } else { Ok(()) }
    }
}

/// A connection's entry among the idle ones; gone when it has something to do again.
struct Registered {
    worker: Rc<Worker>,
    number: u64,
}

impl Registered {
    fn new(worker: &Rc<Worker>, wake: &Rc<Notify>) -> Self {
        worker.shared.idle_connections.fetch_add(1, Ordering::Relaxed);
        let number = worker.idle_connections.borrow_mut().enter(wake);
        Self { worker: Rc::clone(worker), number }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.shared.idle_connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.idle_connections.borrow_mut().waiting.remove(&self.number);
    }
}
