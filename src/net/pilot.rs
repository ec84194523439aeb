//! Flies a flight: carries out what the pursuit orders, over real sockets, and lands it.
//!
//! ```text
//! Pursuit::next ─► Ask ─► a socket, a query, a wait ─► on_event ─┐
//!        ▲  └────► Wait ─► whatever comes first ─────────────────┤
//!        └───────────────────────────────────────────────────────┘   Land ─► Resolver::land ─► everybody is answered
//! ```

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nix::errno::Errno;
use rand::Rng;

use super::guest::Guest;
use super::stream::StreamError;
use super::udp_pool::{Heard, UdpAsk};
use super::worker::Worker;
use crate::metrics::Exchange;
use crate::plan::Protocol;
use crate::resolve::pursuit::{Edns, Event, Order, Via};
use crate::resolve::{Flight, Turn};
use crate::upstream::Group;
use crate::wire::response::Asked;
use crate::wire::{Kind, Rcode, Transport, compose};

/// What a socket may hear in vain before it is not listened to any more. A near miss may be a guess, one in 65,536
/// right, and four of them are enough; a malformed answer had the right ID and is only useless.
const PATIENCE: u32 = 64;
const NEAR_MISS: u32 = 16;
const MALFORMED: u32 = 1;

/// A wait that ended: which try, what happened, and the wait that goes on, if any.
struct Heeded {
    attempt: usize,
    event: Event,
    goes_on: Option<Listening>,
}

/// A query on its way over UDP.
struct Listening {
    attempt: usize,
    ask: UdpAsk,
    query: Box<[u8]>,
    in_vain: u32,
}

type Waits = FuturesUnordered<LocalBoxFuture<'static, Heeded>>;

/// Flies `flight` to its end.
pub async fn fly(worker: &Rc<Worker>, mut flight: Box<Flight<Guest>>) {
    let mut pursuit = flight.pursuit(Instant::now());
    let mut waits = Waits::new();
    let landing = loop {
        let now = Instant::now();
        let order = pursuit.next(now, worker.roll());
        if pursuit.take_suspicion() {
            worker.shared.suspects.notify_one();
        }
        match order {
            Order::Land(landing) => break landing,
            Order::Ask { attempt, server, via, edns } => {
                worker.count.upstream_sends.bump();
                let query = query(worker, &flight, edns);
                match via {
                    Via::Stream => {
                        let (worker, group) = (Rc::clone(worker), Arc::clone(&flight.group));
                        waits.push(Box::pin(async move {
                            let event = ask_stream(&worker, &group, server, &query).await;
                            Heeded { attempt, event, goes_on: None }
                        }));
                    }
                    Via::Datagram => {
                        match open(worker, server, now).and_then(|mut ask| ask.send(&query).map(|()| ask)) {
                            Ok(ask) => {
                                let listening = Listening { attempt, ask, query, in_vain: 0 };
                                waits.push(Box::pin(listen(Rc::clone(worker), listening, flight.group.random_case)));
                            }
                            Err(error) => {
                                worker.count.exchanges.bump(Exchange::NoSocket);
                                let event = if is_our_own(&error) { Event::NoRoom } else { Event::Broken };
                                pursuit.on_event(attempt, event, now);
                            }
                        }
                    }
                }
            }
            Order::Wait(until) => {
                let until = flight.lapses_at.map_or(until, |lapse| lapse.min(until));
                tokio::select! {
                    Some(Heeded { attempt, event, goes_on }) = waits.next(), if !waits.is_empty() => {
                        pursuit.on_event(attempt, event, Instant::now());
                        if let Some(listening) = goes_on {
                            waits.push(Box::pin(listen(Rc::clone(worker), listening, flight.group.random_case)));
                        }
                    }
                    () = tokio::time::sleep_until(until.into()) => {}
                }
                let now = Instant::now();
                if flight.lapses_at.is_some_and(|lapse| lapse <= now) {
                    let active = worker.active();
                    let turn = Turn { active: &active, count: &worker.count, now };
                    worker.resolver.lapse(turn, &mut flight, &mut worker.scratch.borrow_mut());
                }
            }
        }
    };
    // Sockets with a clean history go back before the next question needs one.
    drop(waits);
    let active = worker.shared.active.load_full();
    let turn = Turn { active: &active, count: &worker.count, now: Instant::now() };
    let following = worker.resolver.land(turn, *flight, landing, &mut worker.scratch.borrow_mut());
    for next in following {
        worker.launch(Box::new(next));
    }
}

/// A socket for one question; idle ones are given up for it if there is no other.
fn open(worker: &Worker, server: SocketAddr, now: Instant) -> io::Result<UdpAsk> {
    let opened = worker.with_dice(|dice| worker.udp.open(server, dice, now));
    match opened {
        Err(error) if is_our_own(&error) && worker.udp.give_up_idle() > 0 => {
            worker.with_dice(|dice| worker.udp.open(server, dice, now))
        }
        opened => opened,
    }
}

/// Whether an error says that we have used up something: descriptors, ports, memory. No server is to blame for that.
fn is_our_own(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::EAGAIN
                | Errno::EADDRINUSE
                | Errno::EADDRNOTAVAIL
                | Errno::ENOBUFS
                | Errno::ENOMEM
        )
    )
}

/// Asks `server` over a stream. A group that wants TLS is never asked without: one that a reload has just replaced fails.
async fn ask_stream(worker: &Worker, group: &Group, server: SocketAddr, query: &[u8]) -> Event {
    let known = worker.shared.tls.load_full();
    let tls = known.get(&group.name).filter(|_| group.protocol == Protocol::Tls);
    if group.protocol == Protocol::Tls && tls.is_none() {
        return Event::Broken;
    }
    let asked = Asked { query, transport: Transport::Tcp, exact_case: group.random_case };
    match worker.streams.ask(server, tls, &asked).await {
        Ok(response) => answer(worker, response),
        Err(StreamError::Busy) => {
            worker.count.exchanges.bump(Exchange::NoSocket);
            Event::NoRoom
        }
        Err(_) => {
            worker.count.exchanges.bump(Exchange::StreamClosed);
            Event::Broken
        }
    }
}

/// The octets of the question of `flight`, with an ID, and where asked for letters, nobody can guess.
fn query(worker: &Worker, flight: &Flight<Guest>, edns: Edns) -> Box<[u8]> {
    let mut octets = [0; compose::QUERY_MAX];
    let (id, case) = worker.with_dice(|dice| {
        let case =
            flight.group.random_case.then(|| [dice.next_u64(), dice.next_u64(), dice.next_u64(), dice.next_u64()]);
        (dice.next_u32() as u16, case)
    });
    let length = compose::upstream_query(flight.key(), id, case, edns == Edns::With, &mut octets);
    let length = length.expect("QUERY_MAX octets are enough for every query");
    octets[..length].into()
}

/// Waits for the next datagram that matters.
async fn listen(worker: Rc<Worker>, mut it: Listening, exact_case: bool) -> Heeded {
    let asked = Asked { query: &it.query, transport: Transport::Udp, exact_case };
    let heard = it.ask.heard(&asked).await;
    let attempt = it.attempt;
    let count = &worker.count.exchanges;
    match heard {
        Heard::Answer(response) => Heeded { attempt, event: answer(&worker, response), goes_on: None },
        Heard::Refused => {
            count.bump(Exchange::RefusedIcmp);
            Heeded { attempt, event: Event::Broken, goes_on: None }
        }
        Heard::Unreachable(_) => {
            count.bump(Exchange::NoSocket);
            Heeded { attempt, event: Event::Broken, goes_on: None }
        }
        Heard::NearMiss(_) | Heard::Malformed(_) => {
            let (outcome, weight) = match heard {
                Heard::NearMiss(_) => (Exchange::NearMiss, NEAR_MISS),
                _ => (Exchange::Malformed, MALFORMED),
            };
            count.bump(outcome);
            it.in_vain += weight;
            let goes_on = (it.in_vain < PATIENCE).then_some(it);
            Heeded { attempt, event: Event::NearMiss, goes_on }
        }
    }
}

fn answer(worker: &Worker, response: crate::wire::Response) -> Event {
    let outcome = match response.kind() {
        _ if response.truncated() => Exchange::Truncated,
        Kind::Failure(Rcode::SERVFAIL) => Exchange::Servfail,
        Kind::Failure(_) | Kind::Referral => Exchange::Failure,
        Kind::Answer | Kind::NoData { .. } | Kind::NxDomain { .. } => Exchange::Answer,
    };
    worker.count.exchanges.bump(outcome);
    Event::Answer(Box::new(response))
}
