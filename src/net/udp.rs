//! The hot path: datagrams in, replies out, a batch at a time on one thread.
//!
//! ```text
//! readable ─► recvmmsg ─► each: screen ─► Query::parse ─► resolve ─► reply into the batch ─► sendmmsg
//!                                                          └► Launch: the flight becomes a task of this worker
//! ```
//! Nothing here allocates, locks across cores or wakes another thread for a hit.
//!
//! Read first: RFC 5452 section 9, RFC 6891 section 7.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::guest::{Guest, Way};
use super::listen::Pair;
use super::probe::ProbeName;
use super::worker::{DRAIN, LINGER, Leave, Worker, left, over};
use crate::metrics::{Arrival, Drop as Dropped, Outcome, Refused, Slot};
use crate::resolve::{Ends, Ready, Step, Turn};
use crate::wire::{Query, Refusal, Transport, UDP_MAX, compose};

/// Datagrams taken at once.
const BATCH: usize = 32;
/// Octets of a query worth reading: a name, an OPT, room for options.
const QUERY_MAX: usize = 2048;

/// More datagrams than any receive buffer of ours holds.
const QUEUE_MAX: usize = 1 << 16;

/// Answers what arrives at `socket`, that of `pair`, until the post is left. The pair lives as long.
///
/// # Errors
/// If the socket cannot be watched, or not any more.
pub async fn serve(
    worker: Rc<Worker>,
    pair: Arc<Pair>,
    socket: UdpSocket,
    mut leave: watch::Receiver<Leave>,
) -> io::Result<()> {
    // Known to the worker as long as this serves it.
    let socket = Arc::new(socket);
    let local = socket.local_addr()?;
    // Readable only: tokio's own socket would wake us for every reply the kernel has sent off as well.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; this one is sound for an fd that is owned and never changes"
    )]
    let ready = AsyncFd::with_interest(Arc::clone(&socket), Interest::READABLE)?;
    let mut batch = Batch::new();
    // Set once the socket is drained.
    let mut until = None;
    let mut how = Leave::Stay;
    worker.listening.borrow_mut().push(Arc::downgrade(&socket));
    loop {
        let mut guard = tokio::select! {
            guard = ready.readable() => guard?,
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
        match batch.receive(&pair.udp) {
            Ok(received) => {
                let now = Instant::now();
                if worker.beat(now) {
                    worker.count.drops.add(Dropped::Aged, received as u64);
                } else {
                    batch.answer(&worker, &pair, local, received, now);
                    batch.send(&worker, &pair.udp);
                }
                if received < BATCH {
                    // The queue was empty; what comes later makes the socket readable again.
                    guard.clear_ready();
                } else {
                    // Flights and connections of this worker get their turn, however many datagrams wait.
                    tokio::task::yield_now().await;
                }
            }
            Err(Errno::EAGAIN) => guard.clear_ready(),
            // An ICMP error about an earlier reply; the error is gone with the asking.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Buffers for one batch, used again and again.
struct Batch {
    incoming: MultiHeaders<SockaddrStorage>,
    outgoing: MultiHeaders<SockaddrStorage>,
    queries: Box<[[u8; QUERY_MAX]; BATCH]>,
    replies: Box<[[u8; UDP_MAX]; BATCH]>,
    /// Length and sender of each query.
    arrived: Vec<(usize, Option<SockaddrStorage>)>,
    /// Where each reply goes, and its length; filled from the front.
    peers: Vec<Option<SockaddrStorage>>,
    lengths: Vec<usize>,
    /// How each reply counts; `None`: not at all, it went to ourselves.
    counted: Vec<Option<Ready>>,
}

impl Batch {
    fn new() -> Self {
        let zeroed = |_| [0_u8; QUERY_MAX];
        let queries: Box<[_]> = (0..BATCH).map(zeroed).collect();
        let replies: Box<[_]> = (0..BATCH).map(|_| [0_u8; UDP_MAX]).collect();
        Self {
            incoming: MultiHeaders::preallocate(BATCH, None),
            outgoing: MultiHeaders::preallocate(BATCH, None),
            queries: queries.try_into().expect("collected BATCH of them"),
            replies: replies.try_into().expect("collected BATCH of them"),
            arrived: Vec::with_capacity(BATCH),
            peers: Vec::with_capacity(BATCH),
            lengths: Vec::with_capacity(BATCH),
            counted: Vec::with_capacity(BATCH),
        }
    }

    fn receive(&mut self, socket: &UdpSocket) -> Result<usize, Errno> {
        self.arrived.clear();
        let mut slices = self.queries.each_mut().map(|query| [IoSliceMut::new(query)]);
        let received =
            recvmmsg(socket.as_raw_fd(), &mut self.incoming, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        self.arrived.extend(received.map(|message| (message.bytes, message.address)));
        Ok(self.arrived.len())
    }

    /// Writes a reply for each query that gets one now.
    fn answer(&mut self, worker: &Rc<Worker>, pair: &Arc<Pair>, local: SocketAddr, received: usize, now: Instant) {
        self.peers.clear();
        self.lengths.clear();
        self.counted.clear();
        let address = worker.active().slots.address(local.ip());
        // One query of the batch stands for all of them among the most frequent.
        let sample = if received > 1 { worker.roll() as usize % received } else { 0 };
        for index in 0..received {
            let (length, source) = self.arrived[index];
            let Some((source, peer)) = source.and_then(|it| Some((it, to_std(&it)?))) else { continue };
            let query = &self.queries[index][..length];
            let reply = &mut self.replies[self.lengths.len()];
            // One query's panic must not take the others; their replies are in the batch already.
            let result = catch_unwind(AssertUnwindSafe(|| {
                let stands_for = if index == sample { received as u64 } else { 0 };
                let arrival = Arrived { octets: query, peer, address, now, stands_for };
                answer_one(worker, pair, local, &arrival, reply)
            }));
            match result {
                Ok(Some(reply)) => {
                    self.lengths.push(reply.length());
                    self.counted.push(reply.ready());
                    self.peers.push(Some(source));
                }
                Ok(None) => {}
                Err(_) => worker.count.panics.bump(),
            }
        }
        // The time of the whole batch: what the last of its clients waited.
        let took = now.elapsed();
        for (ready, reply) in self.counted.iter().zip(self.replies.iter()) {
            if let Some(Ready { length, outcome, slot }) = *ready {
                worker.count.count_sent(&reply[..length], Transport::Udp, outcome, slot, took);
            }
        }
    }

    /// Sends the replies. What one of them runs into does not keep the others back.
    fn send(&mut self, worker: &Worker, socket: &UdpSocket) {
        let mut sent = 0;
        while sent < self.lengths.len() {
            let slices: Vec<[IoSlice<'_>; 1]> = self.replies[sent..self.lengths.len()]
                .iter()
                .zip(&self.lengths[sent..])
                .map(|(reply, length)| [IoSlice::new(&reply[..*length])])
                .collect();
            let result = sendmmsg(
                socket.as_raw_fd(),
                &mut self.outgoing,
                slices.iter(),
                &self.peers[sent..],
                [],
                MsgFlags::MSG_DONTWAIT,
            );
            match result.map(Iterator::count) {
                Ok(count) if count > 0 => sent += count,
                Err(Errno::EINTR) => {}
                // The first of them was not taken (no route, no buffer, forbidden): its client asks again.
                Ok(_) | Err(_) => {
                    worker.count.drops.bump(Dropped::SendFailed);
                    sent += 1;
                }
            }
        }
    }
}

/// Empties the worker's sockets: it has been away, and whoever asked meanwhile has asked somebody else.
pub fn discard_waiting(worker: &Worker) {
    let mut listening = worker.listening.borrow_mut();
    listening.retain(|socket| socket.strong_count() > 0);
    for socket in listening.iter().filter_map(Weak::upgrade) {
        // Those that arrive meanwhile are no reason to go on for ever.
        for _ in 0..QUEUE_MAX {
            match socket.recv(&mut [0]) {
                Ok(_) => worker.count.drops.bump(Dropped::Aged),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error about an earlier reply; the error is gone with the asking.
                Err(_) => {}
            }
        }
    }
}

/// A datagram.
struct Arrived<'a> {
    octets: &'a [u8],
    peer: SocketAddr,
    /// Our address, as [`Ends`] has it.
    address: usize,
    now: Instant,
    /// How many queries it stands for among the most frequent; 0: it was not picked.
    stands_for: u64,
}

/// Deals with one datagram; the reply in `out`, if it gets one now.
fn answer_one(
    worker: &Rc<Worker>,
    pair: &Arc<Pair>,
    local: SocketAddr,
    &Arrived { octets, peer, address, now, stands_for }: &Arrived<'_>,
    out: &mut [u8],
) -> Option<Reply> {
    let count = &worker.count;
    let client = peer.ip();
    if peer == local || is_reflector(peer.port()) {
        count.drops.bump(Dropped::BadPort);
        return None;
    }
    let active = worker.active();
    if client != local.ip() && !may_ask(&active.plan.limits.allow, client) {
        count.drops.bump(Dropped::Acl);
        return None;
    }
    let query = match Query::parse(octets, Transport::Udp) {
        Ok(query) => query,
        Err(refusal) => {
            count.queries.bump(Arrival::of(Transport::Udp, client));
            return refuse(worker, octets, refusal, Transport::Udp, out).map(Reply::Counts);
        }
    };
    if let Some(length) = ProbeName::answer(query.key(), &query.asker(), out) {
        return Some(Reply::ToOurselves(length));
    }
    count.queries.bump(Arrival::of(Transport::Udp, client));
    let waiter = || Guest::new(&query, Transport::Udp, Way::Udp(Arc::clone(pair), peer));
    if stands_for > 0 {
        count.top.offer(query.key().qname(), client, stands_for, now);
    }
    let turn = Turn { active: &active, count, now };
    let step = worker.resolver.on_query(turn, &query, Ends { client, address }, waiter, out);
    worker.log(&query, peer, Transport::Udp, step.label());
    match step {
        Step::Reply(ready) => Some(Reply::Counts(ready)),
        Step::ReplyAndLaunch(ready, flight) => {
            worker.launch(flight);
            Some(Reply::Counts(ready))
        }
        Step::Launch(flight) => {
            worker.launch(flight);
            None
        }
        Step::Parked => None,
        Step::Drop(reason) => {
            count.drops.bump(reason);
            None
        }
    }
}

/// A reply in the buffer.
enum Reply {
    Counts(Ready),
    /// To a probe of our own, of this many octets.
    ToOurselves(usize),
}

impl Reply {
    fn length(&self) -> usize {
        match self {
            Self::Counts(ready) => ready.length,
            Self::ToOurselves(length) => *length,
        }
    }

    fn ready(self) -> Option<Ready> {
        match self {
            Self::Counts(ready) => Some(ready),
            Self::ToOurselves(_) => None,
        }
    }
}

/// The reply to what is no query we answer, if it gets one.
pub(super) fn refuse(
    worker: &Worker,
    octets: &[u8],
    refusal: Refusal,
    transport: Transport,
    out: &mut [u8],
) -> Option<Ready> {
    let Some(length) = compose::refuse(octets, &refusal, transport, out) else {
        worker.count.drops.bump(Dropped::of_label(refusal.label()).unwrap_or(Dropped::Malformed));
        return None;
    };
    worker.count.refused.bump(Refused::of_label(refusal.label()).unwrap_or(Refused::Other));
    Some(Ready { length, outcome: Outcome::Refused, slot: Slot::NONE })
}

/// Whether a query from `port` would make us answer a service that answers back: echo, discard, daytime, quote, chargen.
fn is_reflector(port: u16) -> bool {
    matches!(port, 0 | 7 | 9 | 13 | 17 | 19)
}

/// Whether `client` may ask.
pub(super) fn may_ask(allow: &[crate::plan::Prefix], client: IpAddr) -> bool {
    allow.is_empty() || allow.iter().any(|net| net.contains(client))
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}
