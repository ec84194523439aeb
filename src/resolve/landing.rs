//! A flight's end: what comes back is stored, and everybody parked is answered.
//!
//! ```text
//! lapse ─► the stale answer to those who wait; the flight goes on
//! land ─┬─► an answer:  stored ─► rendered for each ─► (strip-if-a: AAAA must be asked itself ─► a flight that follows)
//!       └─► a failure:  the stale answer to those who may have it, the failure to the others
//! ```
//!
//! Read first: RFC 8767 section 5, RFC 9520.

use super::pursuit::{Cause, Landing};
use super::rendering::{Rendered, Want, render};
use super::{Answer, DISCARD, Errand, Flight, Parked, Passage, Ready, Resolver, Step, Turn, Waiter};
use crate::cache::{Found, Freshness, NotCacheable};
use crate::metrics::{Drop as Dropped, NotStored, Outcome, Slot, Stored};
use crate::wire::compose::{self, TtlRule};
use crate::wire::{Asker, Ede, Kind, Rcode, Type};

impl<W: Waiter> Resolver<W> {
    /// The moment has come at which those with a stale answer get it; the flight goes on.
    pub fn lapse(&self, turn: Turn<'_>, flight: &mut Flight<W>, out: &mut [u8]) {
        flight.lapses_at = None;
        turn.count.flights_lapsed.bump();
        if let Some(entry) = flight.stale.clone() {
            let Flight { ticket, lifetimes, group, .. } = &*flight;
            let answer = Answer { key: ticket.key(), entry: &entry, age: 0, lifetimes, group };
            // Who came when the entry was no good any more waits for the flight's end.
            let epoch = self.cache.epoch();
            let is_due = |parked: &Parked<W>| entry.freshness(epoch, parked.since) != Freshness::Gone;
            self.answer_stale(turn, &answer, ticket.lapse(is_due), out);
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
            Landing::Found { entry, age } => {
                count.flights_landed.bump();
                let key = ticket.key().clone();
                let answer = Answer { key: &key, entry: &entry, age, lifetimes: &lifetimes, group: &group };
                self.answer_fresh(turn, &answer, ticket.land(), out)
            }
            Landing::Failure { rcode, ede, cause } => {
                // Who came when the entry was no good any more has parked behind the same flight; what counts is whether
                // it was usable when it was asked for.
                let epoch = self.cache.epoch();
                let usable = |at| stale.as_ref().filter(|entry| entry.freshness(epoch, at) != Freshness::Gone);
                let key = ticket.key().clone();
                let silent = cause == Cause::Silence;
                match usable(now) {
                    _ if cause == Cause::Own => count.flights_shed.bump(),
                    // Ahead of its expiry nothing is lost yet: it is asked again then.
                    Some(entry) if matches!(entry.freshness(epoch, now), Freshness::Fresh { .. }) => {}
                    Some(entry) => entry.hold_refresh(epoch, now, recheck, silent),
                    None => {
                        self.cache.store_failure(&key, rcode, ede, silent, &lifetimes, now);
                        count.stored.bump(Stored::Failure);
                    }
                }
                let (in_time, late): (Vec<_>, Vec<_>) =
                    ticket.land().into_iter().partition(|it| usable(it.since).is_some());
                if let Some(entry) = &stale {
                    let answer = Answer { key: &key, entry, age: 0, lifetimes: &lifetimes, group: &group };
                    self.answer_stale(turn, &answer, in_time, out);
                }
                for parked in late {
                    if let Some(length) = compose::failure(&parked.waiter.asker(), rcode, ede, out) {
                        parked.send(turn, Outcome::Failure, &out[..length]);
                    }
                }
                Vec::new()
            }
        }
    }

    /// Sends an entry past its lifetime to everybody in `parked`.
    pub(super) fn answer_stale(&self, turn: Turn<'_>, answer: &Answer<'_>, parked: Vec<Parked<W>>, out: &mut [u8]) {
        for parked in parked {
            let (asker, want, slot) = (parked.waiter.asker(), parked.want, parked.slot);
            if let Some(length) = self.render_stale(turn, answer, &asker, want, slot, out) {
                parked.send(turn, Outcome::Stale, &out[..length]);
            }
        }
    }

    /// Writes an entry past its lifetime as the reply to `asker`.
    pub(super) fn render_stale(
        &self,
        turn: Turn<'_>,
        answer: &Answer<'_>,
        asker: &Asker<'_>,
        want: Want,
        slot: Slot,
        out: &mut [u8],
    ) -> Option<usize> {
        let Answer { key, entry, lifetimes, group, .. } = *answer;
        let stale = TtlRule::Stale { cap: lifetimes.stale_ttl };
        turn.count.stale_answers.bump();
        turn.count.served.stale(slot);
        let rendered = match render(entry, asker, want, stale, lifetimes, out) {
            // Only with strip-if-a: the stale A answer holds no address, so AAAA decides.
            Rendered::AskItself => match self.cache.lookup(&key.with_type(Type::AAAA), || group.replied(), turn.now) {
                Found::Fresh { entry, age } => render(&entry, asker, Want::Itself, TtlRule::Age(age), lifetimes, out),
                Found::Stale { entry, .. } => render(&entry, asker, Want::Itself, stale, lifetimes, out),
                Found::Failed(_) | Found::Vacant => {
                    return compose::failure(asker, Rcode::SERVFAIL, Some(Ede::NO_REACHABLE_AUTHORITY), out);
                }
            },
            rendered => rendered,
        };
        match rendered {
            Rendered::Reply(length) => Some(length),
            Rendered::AskItself | Rendered::TooSmall => None,
        }
    }

    /// Sends an entry to everybody in `parked`; what comes back must be flown next.
    pub(super) fn answer_fresh(
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
                Rendered::Reply(length) => parked.send(turn, Outcome::Miss, &out[..length]),
                Rendered::AskItself => follow.extend(self.follow(turn, answer, parked, out)),
                Rendered::TooSmall => {}
            }
        }
        follow
    }

    /// A has no address, so the AAAA question that waited for it is asked itself (strip-if-a).
    fn follow(&self, turn: Turn<'_>, answer: &Answer<'_>, parked: Parked<W>, out: &mut [u8]) -> Option<Flight<W>> {
        let Parked { waiter, client, since, slot, _place: place, .. } = parked;
        // The asker borrows the waiter, which is parked meanwhile: the passage gets a copy of the question.
        let (question, asker) = (waiter.asker().question.to_vec(), waiter.asker());
        let asker = Asker { question: &question, ..asker };
        let Answer { key, lifetimes, group, .. } = *answer;
        let passage = Passage { turn, asker, client, lifetimes, group, since, slot };
        let mut waiter = Some(waiter);
        let park = || waiter.take().expect("route calls its closure once");
        let errand = Errand { key: &key.with_type(Type::AAAA), want: Want::Itself };
        let step = self.route(&passage, errand, park, out);
        let send = |waiter: Option<W>, Ready { length, outcome, slot }: Ready| {
            if let Some(waiter) = waiter {
                Parked { waiter, client, since, want: errand.want, slot, _place: place }.send(
                    turn,
                    outcome,
                    &out[..length],
                );
            }
        };
        match step {
            Step::Reply(ready) => {
                send(waiter, ready);
                None
            }
            Step::ReplyAndLaunch(ready, flight) => {
                send(waiter, ready);
                Some(*flight)
            }
            Step::Launch(flight) => Some(*flight),
            Step::Drop(_) | Step::Parked => None,
        }
    }
}

// === impl Parked ===

impl<W: Waiter> Parked<W> {
    /// Sends the reply, and counts it.
    pub(super) fn send(self, turn: Turn<'_>, outcome: Outcome, reply: &[u8]) {
        let waited = turn.now.saturating_duration_since(self.since);
        turn.count.count_sent(reply, self.waiter.asker().transport, outcome, self.slot, waited);
        self.waiter.answer(reply);
    }
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
