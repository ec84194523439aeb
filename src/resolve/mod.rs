//! The heart: one query's life, from its question to its answer. Time and dice are arguments; no sockets.
//!
//! ```text
//! on_query ─► policy ─┬─► answered here ──────────────────────────────────────────────► Reply
//!                     └─► cache ─┬─► fresh ───────────────────────────────────────────► Reply (and perhaps a refresh)
//!                                ├─► stale ─► refresh held, upstream silent, no wait ──► Reply (and perhaps a refresh)
//!                                │        └─► wait up to client_timeout ─┐
//!                                └─► vacant ───────────────────────────► Parked behind a flight, or a Flight to fly
//! flight: lapse (stale answers are due) ─► land ─► everybody parked gets the entry, the stale one, or the failure
//! ```
//! An AAAA question under `aaaa: strip` is answered from the answer to the A question, so that both agree on the rcode:
//! stub resolvers drop a name when they do not (acceptance.md section 0).
//!
//! Read first: RFC 2308, RFC 8767 section 5, RFC 9520, RFC 8914.

mod landing;
pub mod loops;
pub mod pursuit;
mod rendering;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::flight::{Flights, Join, Lapse, PARKED, Stale, Ticket};
use crate::cache::{Cache, Entry, Found};
use crate::clients::{self, Clients, Place};
use crate::metrics::{self, Drop as Dropped, Lookup, Outcome, Sign, Slot, Slots, Worker};
use crate::plan::{Aaaa, Lifetimes, NonRecursive, Plan};
use crate::policy::{Decision, LOCAL_TTL, Policy, Verdict};
use crate::upstream::{Group, Upstreams};
use crate::wire::compose::{self, TtlRule};
use crate::wire::{Asker, Ede, Key, Name, Query, Rcode, Type};
use loops::Loops;
use pursuit::{Landing, Pace, Pursuit};
use rendering::{Rendered, Want, render};

/// An answer that is not ready by then is not sent: nobody waits any more, and saved-up answers let go at once are a
/// weapon (DNSBomb, CVE-2024-33655).
pub const DISCARD: Duration = Duration::from_millis(4500);

/// Questions of one client that may wait, behind whatever flights: an eighth of all that may (`cache::flight`). Twice as
/// many as one flight holds, so that no honest burst meets it.
const PARKED_PER_CLIENT: usize = PARKED / 8;

/// Lifetime in seconds below which an answer is not refreshed ahead: of a single second there is nothing to be ahead of.
const PREFETCH_MIN: u32 = 2;

/// What a plan means while it is in force. Replaced as a whole.
pub struct Active {
    pub plan: Plan,
    pub policy: Policy,
    pub upstreams: Upstreams,
    /// Where queries count for the incumbent's metrics; none, if the plan does not want those.
    pub slots: Slots,
}

/// Somebody who waits for an answer. Dropped without one, it must tell its client that it failed.
pub trait Waiter {
    /// How the reply must look.
    fn asker(&self) -> Asker<'_>;
    /// Sends the reply.
    fn answer(self, reply: &[u8]);
    /// Sends nothing, on purpose.
    fn discard(self);
}

/// What all workers share.
pub struct Resolver<W> {
    pub cache: Cache,
    pub clients: Clients,
    pub loops: Loops,
    flights: Arc<Flights<Parked<W>>>,
}

/// One who asked and waits.
pub struct Parked<W> {
    waiter: W,
    client: IpAddr,
    since: Instant,
    want: Want,
    slot: Slot,
    _place: Place,
}

/// A question to be asked upstream, with everybody parked behind it.
pub struct Flight<W> {
    ticket: Ticket<Parked<W>>,
    pub group: Arc<Group>,
    lifetimes: Lifetimes,
    stale: Option<Arc<Entry>>,
    /// The answer and its age in seconds, if the question was landed by another flight before this one took off.
    found: Option<(Arc<Entry>, u32)>,
    /// When those with a stale answer get it.
    pub lapses_at: Option<Instant>,
    started: Instant,
    pace: Pace,
    recheck: Duration,
    _place: Option<Place>,
}

/// What becomes of a query.
#[must_use]
pub enum Step<W> {
    /// No reply.
    Drop(Dropped),
    /// Parked behind a new flight: fly it.
    Launch(Box<Flight<W>>),
    /// Parked; whoever flies the flight answers.
    Parked,
    /// The buffer holds the reply.
    Reply(Ready),
    /// Reply, and fly the flight.
    ReplyAndLaunch(Ready, Box<Flight<W>>),
}

/// A reply in the buffer, and how it counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ready {
    /// Octets of it.
    pub length: usize,
    pub outcome: Outcome,
    pub slot: Slot,
}

impl Active {
    /// Puts `plan` in force; what `before` learnt about servers is kept.
    pub fn new(plan: Plan, before: Option<&Self>, epoch: Instant) -> Self {
        let policy = Policy::new(&plan);
        let upstreams = Upstreams::new(&plan.upstreams, before.map(|it| &it.upstreams), epoch);
        let zones: Vec<&Name> = plan.zones.iter().map(|zone| &zone.name).collect();
        let (addresses, zones) =
            if plan.coredns_names { (plan.listen_sockets().collect(), zones) } else { (Vec::new(), Vec::new()) };
        let slots = Slots::new(&addresses, &zones, before.map(|it| &it.slots));
        Self { plan, policy, upstreams, slots }
    }
}

/// When something happens, what is in force then, and who counts it.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    pub active: &'a Active,
    pub count: &'a Worker,
    pub now: Instant,
}

/// Between whom a query passes.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub client: IpAddr,
    /// Our address, as [`Slots::address`] numbers it.
    pub address: usize,
}

/// One query on its way through: what every step needs.
struct Passage<'a> {
    turn: Turn<'a>,
    asker: Asker<'a>,
    client: IpAddr,
    lifetimes: &'a Lifetimes,
    group: &'a Arc<Group>,
    /// When the client asked.
    since: Instant,
    slot: Slot,
}

/// An entry that answers a question.
struct Answer<'a> {
    key: &'a Key,
    entry: &'a Entry,
    /// In seconds.
    age: u32,
    lifetimes: &'a Lifetimes,
    group: &'a Arc<Group>,
}

/// What is asked upstream, and what for.
#[derive(Clone, Copy)]
struct Errand<'a> {
    key: &'a Key,
    want: Want,
}

impl<W: Waiter> Resolver<W> {
    /// A resolver with an empty cache.
    pub fn new(plan: &Plan, epoch: Instant) -> Self {
        Self {
            cache: Cache::new(&plan.cache, epoch),
            clients: Clients::default(),
            loops: Loops::default(),
            flights: Arc::default(),
        }
    }

    /// Questions under way to upstreams.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Deals with a query between `ends`. A reply is written into `out`; `waiter` is called only if one must wait.
    pub fn on_query(
        &self,
        turn: Turn<'_>,
        query: &Query<'_>,
        Ends { client, address }: Ends,
        waiter: impl FnOnce() -> W,
        out: &mut [u8],
    ) -> Step<W> {
        let Turn { active, count, now } = turn;
        let asker = query.asker();
        let key = query.key();
        if let Some(group) = self.loops.caught(key, now) {
            count.loops.bump();
            if group.note_loop(now) {
                tracing::error!(upstream = group.name, "forwarding loop: a server of this upstream asks us");
            }
            return reply(compose::failure(&asker, Rcode::SERVFAIL, None, out), Outcome::Failure, Slot::NONE);
        }
        let Verdict { zone, decision } = active.policy.decide(key, client);
        let slot = active.slots.slot(address, zone);
        count.served.asked(slot, query);
        let (zone, upstream, aaaa) = match decision {
            Decision::Route { zone, upstream, aaaa } => (zone, upstream, aaaa),
            here => {
                count.lookups.bump(Lookup::Local);
                return reply(answer_here(&here, &asker, out), Outcome::Local, slot);
            }
        };
        let group = active.upstreams.group(upstream);
        let passage = Passage { turn, asker, client, lifetimes: &zone.lifetimes, group, since: now, slot };
        let labels = zone.name.labels();
        match (aaaa, query.qtype()) {
            (Aaaa::Keep, _) => self.route(&passage, Errand { key, want: Want::Itself }, waiter, out),
            // A signed answer must not be bent for one who checks signatures (V05), so AAAA itself must be seen.
            (_, Type::AAAA) if !key.dnssec_ok() => {
                let want = match aaaa {
                    Aaaa::StripIfA => Want::UnlessA { labels },
                    _ => Want::NodataOfA { labels },
                };
                self.route(&passage, Errand { key: &key.with_type(Type::A), want }, waiter, out)
            }
            (Aaaa::StripIfA, _) => self.route(&passage, Errand { key, want: Want::Itself }, waiter, out),
            (Aaaa::Strip, _) => self.route(&passage, Errand { key, want: Want::Stripped { labels } }, waiter, out),
        }
    }

    /// The cache, then the upstream, for the question of `errand`, which need not be the client's own.
    fn route(&self, at: &Passage<'_>, errand: Errand<'_>, waiter: impl FnOnce() -> W, out: &mut [u8]) -> Step<W> {
        let Errand { key, want } = errand;
        let plan = &at.turn.active.plan;
        match self.cache.lookup(key, || at.group.replied(), at.turn.now) {
            Found::Fresh { entry, age } => {
                at.hit(Lookup::Fresh, &entry);
                match render(&entry, &at.asker, want, TtlRule::Age(age), at.lifetimes, out) {
                    Rendered::AskItself => {
                        self.route(at, Errand { key: &key.with_type(Type::AAAA), want: Want::Itself }, waiter, out)
                    }
                    Rendered::Reply(length) => match self.prefetch(at, key, &entry) {
                        Some(flight) => Step::ReplyAndLaunch(at.ready(length, Outcome::Hit), flight),
                        None => Step::Reply(at.ready(length, Outcome::Hit)),
                    },
                    Rendered::TooSmall => Step::Drop(Dropped::Malformed),
                }
            }
            Found::Failed(failure) => {
                at.turn.count.lookups.bump(Lookup::FailureCached);
                at.turn.count.served.hit(at.slot, Sign::Denial);
                let ede = if failure.silent { failure.ede } else { Some(Ede::CACHED_ERROR) };
                let length = compose::failure(&at.asker, failure.rcode, ede.or(Some(Ede::CACHED_ERROR)), out);
                reply(length, Outcome::Failure, at.slot)
            }
            Found::Stale { entry, failed } => self.route_stale(at, errand, &entry, failed, waiter, out),
            Found::Vacant if !at.asker.recursion_desired && plan.non_recursive == NonRecursive::Refuse => {
                at.turn.count.refused.bump(metrics::Refused::NonRecursive);
                at.turn.count.served.missed(at.slot);
                let length = compose::failure(&at.asker, Rcode::REFUSED, Some(Ede::NOT_AUTHORITATIVE), out);
                reply(length, Outcome::Refused, at.slot)
            }
            Found::Vacant => {
                at.turn.count.served.missed(at.slot);
                let Some(place) = self.clients.take(at.client, clients::Kind::Parked, PARKED_PER_CLIENT) else {
                    return Step::Drop(Dropped::TooManyWaiters);
                };
                let parked = at.park(waiter(), want, place);
                match self.flights.join(key, parked, Stale::None) {
                    Join::Parked => {
                        at.turn.count.lookups.bump(Lookup::Parked);
                        Step::Parked
                    }
                    Join::Launched(ticket) => {
                        at.turn.count.lookups.bump(Lookup::Miss);
                        self.launch(at, ticket, None, out)
                    }
                    Join::Full(parked) | Join::Lapsed(parked) => {
                        parked.waiter.discard();
                        Step::Drop(Dropped::TooManyWaiters)
                    }
                }
            }
        }
    }

    /// An expired answer is at hand: who waits for a better one, and how long?
    fn route_stale(
        &self,
        at: &Passage<'_>,
        errand: Errand<'_>,
        entry: &Arc<Entry>,
        failed: bool,
        waiter: impl FnOnce() -> W,
        out: &mut [u8],
    ) -> Step<W> {
        let Errand { key, want } = errand;
        let Turn { count, now, .. } = at.turn;
        let held = failed || entry.refresh_is_held(self.cache.epoch(), now, at.group.replied());
        let at_once = held
            || at.lifetimes.client_timeout.is_zero()
            || at.group.is_silent(now)
            || self.flights.under_way(key) == Some(Lapse::Passed);
        let answer = Answer { key, entry, age: 0, lifetimes: at.lifetimes, group: at.group };
        // One without room to wait is answered at once, too.
        let place = if at_once { None } else { self.clients.take(at.client, clients::Kind::Parked, PARKED_PER_CLIENT) };
        if let Some(place) = place {
            let parked = at.park(waiter(), want, place);
            match self.flights.join(key, parked, Stale::AtHand) {
                Join::Parked => {
                    count.lookups.bump(Lookup::Parked);
                    count.served.missed(at.slot);
                    return Step::Parked;
                }
                Join::Launched(ticket) => {
                    count.lookups.bump(Lookup::Miss);
                    count.served.missed(at.slot);
                    return self.launch(at, ticket, Some(Arc::clone(entry)), out);
                }
                // The waiter is spent, so it gets the answer, not the caller.
                Join::Full(parked) | Join::Lapsed(parked) => {
                    at.hit(Lookup::Stale, entry);
                    self.answer_stale(at.turn, &answer, vec![parked], out);
                    return Step::Parked;
                }
            }
        }
        at.hit(Lookup::Stale, entry);
        let Some(length) = self.render_stale(at.turn, &answer, &at.asker, want, at.slot, out) else {
            return Step::Drop(Dropped::Malformed);
        };
        let ready = at.ready(length, Outcome::Stale);
        let refresh = if held { None } else { self.refresh(at, key, Some(Arc::clone(entry))) };
        refresh.map_or(Step::Reply(ready), |flight| Step::ReplyAndLaunch(ready, flight))
    }

    /// Lets a flight take off, if the limits allow; else everybody parked behind it is told at once.
    fn launch(
        &self,
        at: &Passage<'_>,
        ticket: Ticket<Parked<W>>,
        stale: Option<Arc<Entry>>,
        out: &mut [u8],
    ) -> Step<W> {
        // Between the look into the cache and the take-off another worker may have landed the same question.
        if let Found::Fresh { entry, age } = self.cache.lookup(ticket.key(), || None, at.turn.now) {
            // Those parked by now may have come over TCP: their replies want more room than `out` has.
            let mut flight = Flight::new(at, ticket, None, None, None, Pace::Urgent);
            flight.found = Some((entry, age));
            return Step::Launch(Box::new(flight));
        }
        let limits = &at.turn.active.plan.limits;
        let place = self.clients.take(at.client, clients::Kind::InFlight, limits.in_flight_per_client);
        if place.is_none() || self.flights.len() > limits.in_flight {
            at.turn.count.flights_shed.bump();
            if let Some(entry) = stale {
                let key = ticket.key().clone();
                let answer = Answer { key: &key, entry: &entry, age: 0, lifetimes: at.lifetimes, group: at.group };
                self.answer_stale(at.turn, &answer, ticket.land(), out);
                return Step::Parked;
            }
            // Never REFUSED: musl takes it for the end of the search. Never cached: it says nothing about the name.
            for parked in ticket.land() {
                if let Some(length) = compose::failure(&parked.waiter.asker(), Rcode::SERVFAIL, None, out) {
                    parked.send(at.turn, Outcome::Failure, &out[..length]);
                }
            }
            return Step::Parked;
        }
        let lapses_at = stale.as_ref().map(|_| at.turn.now + at.lifetimes.client_timeout);
        Step::Launch(Box::new(Flight::new(at, ticket, stale, lapses_at, place, Pace::Urgent)))
    }

    /// A flight that nobody waits for, if none is under way and there is room.
    fn refresh(&self, at: &Passage<'_>, key: &Key, stale: Option<Arc<Entry>>) -> Option<Box<Flight<W>>> {
        if self.flights.len() >= at.turn.active.plan.limits.in_flight {
            at.turn.count.flights_shed.bump();
            return None;
        }
        let ticket = self.flights.refresh(key, Lapse::Passed)?;
        Some(Box::new(Flight::new(at, ticket, stale, None, None, Pace::Idle)))
    }

    fn prefetch(&self, at: &Passage<'_>, key: &Key, entry: &Arc<Entry>) -> Option<Box<Flight<W>>> {
        let prefetch = at.turn.active.plan.cache.prefetch?;
        let hits = entry.count_hit(prefetch.hits);
        let due =
            entry.lifetime() >= PREFETCH_MIN && entry.is_in_last(prefetch.at_percent, self.cache.epoch(), at.turn.now);
        if !due || hits < prefetch.hits || !entry.claim_prefetch() {
            return None;
        }
        at.turn.count.prefetches.bump();
        at.turn.count.served.prefetched(at.slot);
        if self.flights.len() >= at.turn.active.plan.limits.in_flight {
            return None;
        }
        let ticket = self.flights.refresh(key, Lapse::Ahead)?;
        // Who asks once the entry has expired waits for this flight, as long as for any other.
        let (left, _) = entry.remaining(self.cache.epoch(), at.turn.now);
        let lapses_at = at.turn.now + Duration::from_secs(left) + at.lifetimes.client_timeout;
        Some(Box::new(Flight::new(at, ticket, Some(Arc::clone(entry)), Some(lapses_at), None, Pace::Idle)))
    }
}

// === impl Step ===

impl<W> Step<W> {
    /// What it is, for the query log.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Drop(_) => "dropped",
            Self::Launch(_) => "asked upstream",
            Self::Parked => "waits",
            Self::Reply(_) => "answered",
            Self::ReplyAndLaunch(..) => "answered, refreshed",
        }
    }
}

// === impl Flight ===

impl<W> Flight<W> {
    fn new(
        at: &Passage<'_>,
        ticket: Ticket<Parked<W>>,
        stale: Option<Arc<Entry>>,
        lapses_at: Option<Instant>,
        place: Option<Place>,
        pace: Pace,
    ) -> Self {
        at.turn.count.flights_launched.bump();
        Self {
            ticket,
            group: Arc::clone(at.group),
            lifetimes: *at.lifetimes,
            stale,
            found: None,
            lapses_at,
            started: at.since,
            pace,
            recheck: at.turn.active.plan.cache.recheck,
            _place: place,
        }
    }

    /// The question to ask.
    pub fn key(&self) -> &Key {
        self.ticket.key()
    }

    /// The machine that finds the answer.
    pub fn pursuit(&self, now: Instant) -> Pursuit {
        let pursuit = Pursuit::new(Arc::clone(&self.group), self.pace, self.started, now);
        match &self.found {
            Some((entry, age)) => pursuit.ended(Landing::Found { entry: Arc::clone(entry), age: *age }),
            None => pursuit,
        }
    }
}

fn answer_here(decision: &Decision<'_>, asker: &Asker<'_>, out: &mut [u8]) -> Option<usize> {
    match decision {
        Decision::Addresses(addresses) => compose::addresses(asker, addresses, LOCAL_TTL, out),
        Decision::Negative { rcode, zone, ede } => {
            compose::negative(asker, *rcode, zone.as_wire(), LOCAL_TTL, Some(*ede), out)
        }
        Decision::Pointers(names) => compose::pointers(asker, names, LOCAL_TTL, out),
        Decision::Refused => compose::failure(asker, Rcode::REFUSED, Some(Ede::PROHIBITED), out),
        Decision::Route { .. } => None,
    }
}

/// The step after writing a reply; without a length there was no room for it.
fn reply<W>(length: Option<usize>, outcome: Outcome, slot: Slot) -> Step<W> {
    length.map_or(Step::Drop(Dropped::Malformed), |length| Step::Reply(Ready { length, outcome, slot }))
}

// === impl Passage ===

impl Passage<'_> {
    /// Counts that the cache had `entry`.
    fn hit(&self, lookup: Lookup, entry: &Entry) {
        let count = self.turn.count;
        count.lookups.bump(lookup);
        count.served.hit(self.slot, if entry.is_negative() { Sign::Denial } else { Sign::Success });
    }

    fn park<W>(&self, waiter: W, want: Want, place: Place) -> Parked<W> {
        Parked { waiter, client: self.client, since: self.since, want, slot: self.slot, _place: place }
    }

    fn ready(&self, length: usize, outcome: Outcome) -> Ready {
        Ready { length, outcome, slot: self.slot }
    }
}

#[cfg(test)]
mod tests;
