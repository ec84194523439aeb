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

pub mod loops;
pub mod pursuit;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::flight::{Flights, Join, Lapse, Stale, Ticket};
use crate::cache::{Cache, Entry, Found, Freshness, NotCacheable};
use crate::clients::{self, Clients, Place};
use crate::metrics::{self, Drop as Dropped, Lookup, NotStored, Stored, Worker};
use crate::plan::{Aaaa, Lifetimes, NonRecursive, Plan};
use crate::policy::{Decision, LOCAL_TTL, Policy};
use crate::upstream::{Group, Upstreams};
use crate::wire::compose::{self, TtlRule};
use crate::wire::{Asker, Ede, Key, Kind, Query, Rcode, Type, edit, name};
use loops::Loops;
use pursuit::{Landing, Pace, Pursuit};

/// An answer that is not ready by then is not sent: nobody waits any more, and saved-up answers let go at once are a
/// weapon (DNSBomb, CVE-2024-33655).
pub const DISCARD: Duration = Duration::from_millis(4500);

/// What a plan means while it is in force. Replaced as a whole.
pub struct Active {
    pub plan: Plan,
    pub policy: Policy,
    pub upstreams: Upstreams,
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
}

/// How the answer to the upstream question becomes the answer to the client's. `labels`: of the zone the name lies in,
/// which owns the SOA of what is made here.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// As it is.
    Itself,
    /// Without IPv6 addresses, unless signed and asked for with DO.
    Stripped { labels: usize },
    /// An AAAA question, answered from A: no such data, whatever A says, unless there is no such name.
    NodataOfA { labels: usize },
    /// An AAAA question, answered from A if there is any, else to be asked itself.
    UnlessA { labels: usize },
}

/// A question to be asked upstream, with everybody parked behind it.
pub struct Flight<W> {
    ticket: Ticket<Parked<W>>,
    pub group: Arc<Group>,
    lifetimes: Lifetimes,
    stale: Option<Arc<Entry>>,
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
    /// This many octets of the buffer are the reply.
    Reply(usize),
    /// Reply, and fly the flight.
    ReplyAndLaunch(usize, Box<Flight<W>>),
}

impl Active {
    /// Puts `plan` in force; what `before` learnt about servers is kept.
    pub fn new(plan: Plan, before: Option<&Self>, epoch: Instant) -> Self {
        let policy = Policy::new(&plan);
        let upstreams = Upstreams::new(&plan.upstreams, before.map(|it| &it.upstreams), epoch);
        Self { plan, policy, upstreams }
    }
}

/// When something happens, what is in force then, and who counts it.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    pub active: &'a Active,
    pub count: &'a Worker,
    pub now: Instant,
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

    /// Deals with a query from `client`. A reply is written into `out`; `waiter` is called only if one must wait.
    pub fn on_query(
        &self,
        turn: Turn<'_>,
        query: &Query<'_>,
        client: IpAddr,
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
            return fail(&asker, Rcode::SERVFAIL, None, out);
        }
        let reply = |length: Option<usize>| length.map_or(Step::Drop(Dropped::Malformed), Step::Reply);
        let (zone, upstream, aaaa) = match active.policy.decide(key, client) {
            Decision::Route { zone, upstream, aaaa } => (zone, upstream, aaaa),
            here => {
                count.lookups.bump(Lookup::Local);
                return reply(answer_here(&here, &asker, out));
            }
        };
        let group = active.upstreams.group(upstream);
        let passage = Passage { turn, asker, client, lifetimes: &zone.lifetimes, group, since: now };
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
        match self.cache.lookup(key, || at.group.recovered(), at.turn.now) {
            Found::Fresh { entry, age } => {
                at.turn.count.lookups.bump(Lookup::Fresh);
                match render(&entry, &at.asker, want, TtlRule::Age(age), at.lifetimes, out) {
                    Rendered::AskItself => {
                        self.route(at, Errand { key: &key.with_type(Type::AAAA), want: Want::Itself }, waiter, out)
                    }
                    Rendered::Reply(length) => match self.prefetch(at, key, &entry, age) {
                        Some(flight) => Step::ReplyAndLaunch(length, flight),
                        None => Step::Reply(length),
                    },
                    Rendered::TooSmall => Step::Drop(Dropped::Malformed),
                }
            }
            Found::Failed(failure) => {
                at.turn.count.lookups.bump(Lookup::FailureCached);
                let ede = if failure.silent { failure.ede } else { Some(Ede::CACHED_ERROR) };
                fail(&at.asker, failure.rcode, ede.or(Some(Ede::CACHED_ERROR)), out)
            }
            Found::Stale { entry, failed } => self.route_stale(at, errand, &entry, failed, waiter, out),
            Found::Vacant if !at.asker.recursion_desired && plan.non_recursive == NonRecursive::Refuse => {
                at.turn.count.refused.bump(metrics::Refused::NonRecursive);
                fail(&at.asker, Rcode::REFUSED, Some(Ede::NOT_AUTHORITATIVE), out)
            }
            Found::Vacant => {
                let parked = Parked { waiter: waiter(), client: at.client, since: at.since, want };
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
        let Turn { active, count, now } = at.turn;
        let recheck = active.plan.cache.recheck;
        let held = failed || entry.refresh_is_held(self.cache.epoch(), now, at.group.recovered(), recheck);
        let at_once = held
            || at.lifetimes.client_timeout.is_zero()
            || at.group.is_silent(now)
            || self.flights.under_way(key) == Some(Lapse::Passed);
        let answer = Answer { key, entry, age: 0, lifetimes: at.lifetimes, group: at.group };
        if !at_once {
            let parked = Parked { waiter: waiter(), client: at.client, since: at.since, want };
            match self.flights.join(key, parked, Stale::AtHand) {
                Join::Parked => {
                    count.lookups.bump(Lookup::Parked);
                    return Step::Parked;
                }
                Join::Launched(ticket) => {
                    count.lookups.bump(Lookup::Miss);
                    return self.launch(at, ticket, Some(Arc::clone(entry)), out);
                }
                // The waiter is spent, so it gets the answer, not the caller.
                Join::Full(parked) | Join::Lapsed(parked) => {
                    count.lookups.bump(Lookup::Stale);
                    self.answer_stale(at.turn, &answer, vec![parked], out);
                    return Step::Parked;
                }
            }
        }
        count.lookups.bump(Lookup::Stale);
        let Some(length) = self.render_stale(at.turn, &answer, &at.asker, want, out) else {
            return Step::Drop(Dropped::Malformed);
        };
        let refresh = if held { None } else { self.refresh(at, key, Some(Arc::clone(entry))) };
        refresh.map_or(Step::Reply(length), |flight| Step::ReplyAndLaunch(length, flight))
    }

    /// Writes an entry past its lifetime as the reply to `asker`.
    fn render_stale(
        &self,
        turn: Turn<'_>,
        answer: &Answer<'_>,
        asker: &Asker<'_>,
        want: Want,
        out: &mut [u8],
    ) -> Option<usize> {
        let Answer { key, entry, lifetimes, group, .. } = *answer;
        let stale = TtlRule::Stale { cap: lifetimes.stale_ttl };
        turn.count.stale_answers.bump();
        let rendered = match render(entry, asker, want, stale, lifetimes, out) {
            // Only with strip-if-a: the stale A answer holds no address, so AAAA decides.
            Rendered::AskItself => {
                match self.cache.lookup(&key.with_type(Type::AAAA), || group.recovered(), turn.now) {
                    Found::Fresh { entry, age } => {
                        render(&entry, asker, Want::Itself, TtlRule::Age(age), lifetimes, out)
                    }
                    Found::Stale { entry, .. } => render(&entry, asker, Want::Itself, stale, lifetimes, out),
                    Found::Failed(_) | Found::Vacant => {
                        return compose::failure(asker, Rcode::SERVFAIL, Some(Ede::NO_REACHABLE_AUTHORITY), out);
                    }
                }
            }
            rendered => rendered,
        };
        match rendered {
            Rendered::Reply(length) => Some(length),
            Rendered::AskItself | Rendered::TooSmall => None,
        }
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
            let key = ticket.key().clone();
            let answer = Answer { key: &key, entry: &entry, age, lifetimes: at.lifetimes, group: at.group };
            // Only strip-if-a has anything to follow, and that is one question: AAAA for the same name.
            let follows = self.answer_fresh(at.turn, &answer, ticket.land(), out).pop();
            return follows.map_or(Step::Parked, |flight| Step::Launch(Box::new(flight)));
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
                    send(at.turn, parked.waiter, &out[..length]);
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
        let ticket = self.flights.refresh(key)?;
        Some(Box::new(Flight::new(at, ticket, stale, None, None, Pace::Idle)))
    }

    fn prefetch(&self, at: &Passage<'_>, key: &Key, entry: &Entry, age: u32) -> Option<Box<Flight<W>>> {
        let prefetch = at.turn.active.plan.cache.prefetch?;
        let hits = entry.count_hit(prefetch.hits);
        let due = u64::from(age) * 100 >= u64::from(entry.lifetime()) * u64::from(100 - prefetch.at_percent);
        if !due || hits < prefetch.hits || !entry.claim_prefetch() {
            return None;
        }
        at.turn.count.prefetches.bump();
        self.refresh(at, key, None)
    }

    /// The moment has come at which those with a stale answer get it; the flight goes on.
    pub fn lapse(&self, turn: Turn<'_>, flight: &mut Flight<W>, out: &mut [u8]) {
        flight.lapses_at = None;
        turn.count.flights_lapsed.bump();
        if let Some(entry) = flight.stale.clone() {
            let Flight { ticket, lifetimes, group, .. } = &*flight;
            let answer = Answer { key: ticket.key(), entry: &entry, age: 0, lifetimes, group };
            self.answer_stale(turn, &answer, ticket.lapse(), out);
        }
    }

    /// Ends `flight` as `landing` says: stores, answers everybody parked. What comes back must be flown next.
    #[must_use = "flights that follow must be flown"]
    pub fn land(&self, turn: Turn<'_>, flight: Flight<W>, landing: Landing, out: &mut [u8]) -> Vec<Flight<W>> {
        let Turn { count, now, .. } = turn;
        let Flight { ticket, group, lifetimes, stale, recheck, _place: place, .. } = flight;
        drop(place);
        match landing {
            Landing::Answer(response) => {
                let stored = match response.kind() {
                    Kind::NoData { .. } => Stored::NoData,
                    Kind::NxDomain { .. } => Stored::NxDomain,
                    Kind::Answer | Kind::Failure(_) | Kind::Referral => Stored::Answer,
                };
                let (entry, verdict) = self.cache.store(ticket.key(), *response, &lifetimes, now);
                match verdict {
                    Ok(()) => count.stored.bump(stored),
                    Err(reason) => count.not_stored.bump(not_stored(reason)),
                }
                count.flights_landed.bump();
                let key = ticket.key().clone();
                let answer = Answer { key: &key, entry: &entry, age: 0, lifetimes: &lifetimes, group: &group };
                self.answer_fresh(turn, &answer, ticket.land(), out)
            }
            Landing::Failure { rcode, ede, silent } => {
                // Who came when the entry was no good any more has parked behind the same flight; what counts is whether
                // it was usable when it was asked for.
                let epoch = self.cache.epoch();
                let usable = |at| stale.as_ref().filter(|entry| entry.freshness(epoch, at) != Freshness::Gone);
                let key = ticket.key().clone();
                if let Some(entry) = usable(now) {
                    entry.hold_refresh(epoch, now + recheck);
                } else {
                    self.cache.store_failure(&key, rcode, ede, silent, &lifetimes, now);
                    count.stored.bump(Stored::Failure);
                }
                let (in_time, late): (Vec<_>, Vec<_>) =
                    ticket.land().into_iter().partition(|it| usable(it.since).is_some());
                if let Some(entry) = &stale {
                    let answer = Answer { key: &key, entry, age: 0, lifetimes: &lifetimes, group: &group };
                    self.answer_stale(turn, &answer, in_time, out);
                }
                for parked in late {
                    count.latency.record(metrics::Outcome::Miss, now.saturating_duration_since(parked.since));
                    if let Some(length) = compose::failure(&parked.waiter.asker(), rcode, ede, out) {
                        send(turn, parked.waiter, &out[..length]);
                    }
                }
                Vec::new()
            }
        }
    }

    /// Sends an entry past its lifetime to everybody in `parked`.
    fn answer_stale(&self, turn: Turn<'_>, answer: &Answer<'_>, parked: Vec<Parked<W>>, out: &mut [u8]) {
        for parked in parked {
            turn.count.latency.record(metrics::Outcome::Stale, turn.now.saturating_duration_since(parked.since));
            if let Some(length) = self.render_stale(turn, answer, &parked.waiter.asker(), parked.want, out) {
                send(turn, parked.waiter, &out[..length]);
            }
        }
    }

    /// Sends an entry to everybody in `parked`; what comes back must be flown next.
    fn answer_fresh(
        &self,
        turn: Turn<'_>,
        answer: &Answer<'_>,
        parked: Vec<Parked<W>>,
        out: &mut [u8],
    ) -> Vec<Flight<W>> {
        let mut follow = Vec::new();
        for parked in parked {
            let waited = turn.now.saturating_duration_since(parked.since);
            if waited > DISCARD {
                turn.count.drops.bump(Dropped::Late);
                parked.waiter.discard();
                continue;
            }
            let asker = parked.waiter.asker();
            match render(answer.entry, &asker, parked.want, TtlRule::Age(answer.age), answer.lifetimes, out) {
                Rendered::Reply(length) => {
                    turn.count.latency.record(metrics::Outcome::Miss, waited);
                    send(turn, parked.waiter, &out[..length]);
                }
                Rendered::AskItself => follow.extend(self.follow(turn, answer, parked, out)),
                Rendered::TooSmall => {}
            }
        }
        follow
    }

    /// A has no address, so the AAAA question that waited for it is asked itself (strip-if-a).
    fn follow(&self, turn: Turn<'_>, answer: &Answer<'_>, parked: Parked<W>, out: &mut [u8]) -> Option<Flight<W>> {
        let Parked { waiter, client, since, .. } = parked;
        // The asker borrows the waiter, which is parked meanwhile: the passage gets a copy of the question.
        let (question, asker) = (waiter.asker().question.to_vec(), waiter.asker());
        let asker = Asker { question: &question, ..asker };
        let Answer { key, lifetimes, group, .. } = *answer;
        let passage = Passage { turn, asker, client, lifetimes, group, since };
        let mut waiter = Some(waiter);
        let park = || waiter.take().expect("route calls its closure once");
        let errand = Errand { key: &key.with_type(Type::AAAA), want: Want::Itself };
        match self.route(&passage, errand, park, out) {
            Step::Reply(length) => {
                if let Some(waiter) = waiter {
                    send(turn, waiter, &out[..length]);
                }
                None
            }
            Step::ReplyAndLaunch(length, flight) => {
                if let Some(waiter) = waiter {
                    send(turn, waiter, &out[..length]);
                }
                Some(*flight)
            }
            Step::Launch(flight) => Some(*flight),
            Step::Drop(_) | Step::Parked => None,
        }
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
        Pursuit::new(Arc::clone(&self.group), self.pace, self.started, now)
    }
}

/// Sends a reply to one who waited, and counts it.
fn send<W: Waiter>(turn: Turn<'_>, waiter: W, reply: &[u8]) {
    turn.count.count_reply(reply);
    waiter.answer(reply);
}

/// What came of writing an answer.
enum Rendered {
    /// A has no address: AAAA must be asked itself.
    AskItself,
    Reply(usize),
    TooSmall,
}

/// Writes `entry` as the answer to `asker`.
fn render(
    entry: &Entry,
    asker: &Asker<'_>,
    want: Want,
    ttl: TtlRule,
    lifetimes: &Lifetimes,
    out: &mut [u8],
) -> Rendered {
    let stored = entry.stored();
    let stale = matches!(ttl, TtlRule::Stale { .. }).then_some(match entry.rcode() {
        Rcode::NXDOMAIN => Ede::STALE_NXDOMAIN,
        _ => Ede::STALE_ANSWER,
    });
    let length = match want {
        Want::Itself => compose::patch(stored, asker, ttl, stale, out),
        Want::Stripped { .. } if !entry.contains_aaaa() || (entry.is_signed() && asker.dnssec_ok()) => {
            compose::patch(stored, asker, ttl, stale, out)
        }
        Want::Stripped { labels } => {
            let edited = if asker.qtype() == Type::AAAA {
                edit::nodata_for_aaaa(stored, apex(asker, labels), negative_ttl(entry, lifetimes))
            } else {
                edit::without_aaaa(stored)
            };
            compose::patch(edited.stored(), asker, ttl, stale.or(Some(Ede::FILTERED)), out)
        }
        // No such name, or no such data for A: the answer to A says it all.
        Want::NodataOfA { .. } if entry.is_negative() => compose::patch(stored, asker, ttl, stale, out),
        Want::UnlessA { .. } if entry.rcode() == Rcode::NXDOMAIN => compose::patch(stored, asker, ttl, stale, out),
        Want::UnlessA { .. } if entry.is_negative() => return Rendered::AskItself,
        Want::NodataOfA { labels } | Want::UnlessA { labels } => {
            let edited = edit::nodata_for_aaaa(stored, apex(asker, labels), negative_ttl(entry, lifetimes));
            compose::patch(edited.stored(), asker, ttl, stale.or(Some(Ede::FILTERED)), out)
        }
    };
    length.map_or(Rendered::TooSmall, Rendered::Reply)
}

/// The name of the zone with so many labels that the question lies in.
fn apex<'a>(asker: &Asker<'a>, labels: usize) -> &'a [u8] {
    let qname = asker.question.split_last_chunk::<4>().map_or(&[][..], |(qname, _)| qname);
    name::suffixes(qname).nth(name::label_count(qname).saturating_sub(labels)).unwrap_or(&[0])
}

/// How long a NODATA made from `entry` lives: as long as the entry, within the bound for negative answers.
fn negative_ttl(entry: &Entry, lifetimes: &Lifetimes) -> u32 {
    entry.lifetime().min(lifetimes.max_negative_ttl)
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

fn fail<W>(asker: &Asker<'_>, rcode: Rcode, ede: Option<Ede>, out: &mut [u8]) -> Step<W> {
    compose::failure(asker, rcode, ede, out).map_or(Step::Drop(Dropped::Malformed), Step::Reply)
}

fn not_stored(reason: NotCacheable) -> NotStored {
    match reason {
        NotCacheable::Failure => NotStored::OwnFailure,
        NotCacheable::NegativeWithoutSoa => NotStored::NegativeWithoutSoa,
        NotCacheable::Referral => NotStored::Referral,
        NotCacheable::Truncated => NotStored::Truncated,
        NotCacheable::ZeroTtl => NotStored::TtlZero,
    }
}

#[cfg(test)]
mod tests;
