//! What holds us back from serving, and since when: the latch that the lease reads.
//!
//! One thread finds out (net::probe), everybody may look. What was found is worth something for [`FRESH`], so that nobody
//! takes a prober that hangs, or a process that has hung, for one that serves.
//!
//! ```text
//! serving     the last round found nothing              the lease is renewed
//! unknown     it did, but is older than FRESH           the lease is let be: a prober that is only late has time, one that
//!                                                       hangs has none to lose
//! held back   somebody was silent; or nothing is known  the traffic is given back at once
//!             of the addresses: start, step_in, close
//! ```
//! Time is CLOCK_MONOTONIC. It goes on while a process is stopped, so a process that wakes up knows what it does not know.
//! It stands while the machine is suspended; with it stand the kernel's timers, the lease among them, and all who could ask.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The firewall mark of our own probes, "NODN": the rule set leaves packets with it untracked, lease or not.
pub const PROBE_MARK: u32 = 0x4e4f_444e;

/// How long a round of probes proves something, from its beginning: two rounds begin in this time (net::probe), so one may
/// be late by half a second. Shorter than any lease: one that has lapsed is never renewed for what was found before.
pub const FRESH: Duration = Duration::from_secs(1);

/// The health of the agent, shared.
#[derive(Debug)]
pub struct Health {
    latch: Mutex<Latch>,
    /// Told when a new round is wanted at once, or none any more.
    stirred: Condvar,
}

#[derive(Debug)]
struct Latch {
    state: State,
    scope: Scope,
    /// When the last round began, if it found nothing.
    proven: Option<Instant>,
    /// What was found by a round that began earlier counts for nothing.
    void_before: Option<Instant>,
    /// What the last turn was to.
    serving: bool,
    closed: bool,
}

/// How it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// What holds us back, one line each; empty: nothing does.
    pub held_by: Vec<String>,
    /// When `held_by` last became empty, or ceased to be.
    pub since: Instant,
}

/// What is to be probed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The addresses, which lead to us, and every worker.
    Addresses,
    /// Every worker, at a socket nobody else has: the addresses lead to another instance.
    Workers,
}

/// What is to become of the lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Somebody does not answer, or nothing has been probed yet.
    HeldBack,
    Serving,
    /// What was found last was good, and is too old.
    Unknown {
        since: Instant,
    },
}

/// Whether probing goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rest {
    /// The agent ends.
    Closed,
    Over,
}

impl Health {
    /// Not serving yet.
    pub fn new(now: Instant) -> Self {
        let held_by = vec!["nothing has been probed yet".to_owned()];
        let latch = Latch {
            state: State { held_by, since: now },
            scope: Scope::Addresses,
            proven: None,
            void_before: None,
            serving: false,
            closed: false,
        };
        Self { latch: Mutex::new(latch), stirred: Condvar::new() }
    }

    /// How it stands.
    pub fn state(&self, now: Instant) -> State {
        let latch = self.lock();
        match latch.proven {
            Some(proven) if !latch.is_fresh(now) => {
                let age = now.duration_since(proven).as_secs_f64();
                State { held_by: vec![format!("the last probes are {age:.1} s old")], since: proven + FRESH }
            }
            _ => latch.state.clone(),
        }
    }

    /// Whether nothing holds us back.
    pub fn is_serving(&self, now: Instant) -> bool {
        self.verdict(now) == Verdict::Serving
    }

    /// Whether we serve, as far as anybody knows.
    pub fn verdict(&self, now: Instant) -> Verdict {
        let latch = self.lock();
        match latch.proven {
            None => Verdict::HeldBack,
            Some(_) if latch.is_fresh(now) => Verdict::Serving,
            Some(proven) => Verdict::Unknown { since: proven + FRESH },
        }
    }

    /// What is to be probed.
    pub fn scope(&self) -> Scope {
        self.lock().scope
    }

    /// Takes in what a round that began at `begun` has found. True if we serve now and did not before, or the other way
    /// round.
    pub fn note(&self, held_by: Vec<String>, begun: Instant, now: Instant) -> bool {
        let mut latch = self.lock();
        if latch.closed || latch.void_before.is_some_and(|moment| begun < moment) {
            return false;
        }
        let stale = latch.serving && !latch.is_fresh(now);
        latch.proven = held_by.is_empty().then_some(begun);
        let serving = latch.is_fresh(now);
        let turned = latch.serving != serving || stale;
        if turned {
            latch.state.since = now;
        }
        latch.serving = serving;
        latch.state.held_by = held_by;
        turned
    }

    /// Another instance has the addresses: only our workers can be probed.
    pub fn stand_by(&self, now: Instant) {
        self.turn_to(
            Scope::Workers,
            now,
            "another instance has the addresses, and our workers have not been probed yet",
        );
    }

    /// The addresses lead to us from here on: what was found before counts for nothing.
    pub fn step_in(&self, now: Instant) {
        self.turn_to(Scope::Addresses, now, "the addresses have just become ours and have not been probed yet");
    }

    /// The agent ends: we do not serve any more, and nothing is probed.
    pub fn close(&self, now: Instant) {
        self.lock().closed = true;
        self.turn_to(Scope::Workers, now, "the agent stops");
    }

    fn turn_to(&self, scope: Scope, now: Instant, why: &str) {
        let mut latch = self.lock();
        latch.scope = scope;
        latch.void_before = Some(now);
        latch.proven = None;
        latch.serving = false;
        latch.state = State { held_by: vec![why.to_owned()], since: now };
        self.stirred.notify_all();
    }

    /// Waits between two rounds: for `time`, or until what was found in the round begun at `begun` is void.
    pub fn rest(&self, begun: Instant, time: Duration) -> Rest {
        let undisturbed = |latch: &mut Latch| !latch.closed && latch.void_before.is_none_or(|moment| begun >= moment);
        let waited = self.stirred.wait_timeout_while(self.lock(), time, undisturbed);
        if waited.unwrap_or_else(PoisonError::into_inner).0.closed { Rest::Closed } else { Rest::Over }
    }

    fn lock(&self) -> MutexGuard<'_, Latch> {
        // Every hold leaves it as a whole.
        self.latch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latch {
    fn is_fresh(&self, now: Instant) -> bool {
        self.proven.is_some_and(|proven| now < proven + FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ROUND: Duration = Duration::from_millis(10);

    /// A round that ends at `now`, after the start.
    fn note(health: &Health, held_by: &[&str], now: Instant) -> bool {
        let begun = now.checked_sub(ROUND).expect("a round after the start");
        health.note(held_by.iter().map(ToString::to_string).collect(), begun, now)
    }

    #[test]
    fn the_moment_of_the_turn_is_kept() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let health = Health::new(start);
        assert!(!health.is_serving(start));
        assert!(note(&health, &[], at(1.0)));
        assert!(!note(&health, &[], at(1.5)));
        assert_eq!(health.state(at(1.5)).since, at(1.0));
        assert!(note(&health, &["worker 1 is silent"], at(2.0)));
        assert!(!note(&health, &["worker 0 too"], at(2.5)));
        assert_eq!(health.state(at(2.5)).since, at(2.0));
        assert_eq!(health.state(at(9.0)).held_by, ["worker 0 too"]);
    }

    // O05: what was found before a hang is worth nothing after it, and the first finding after it is a turn.
    #[test]
    fn nobody_serves_on_old_findings() {
        let start = Instant::now();
        let health = Health::new(start);
        assert!(note(&health, &[], start + ROUND));
        assert!(health.is_serving(start + FRESH.saturating_sub(ROUND)));
        assert_eq!(health.verdict(start + FRESH), Verdict::Unknown { since: start + FRESH });
        let state = health.state(start + 6 * SECOND);
        assert_eq!(state.held_by, ["the last probes are 6.0 s old"]);
        assert_eq!(state.since, start + FRESH);
        assert!(note(&health, &[], start + 6 * SECOND), "serving again is a turn");
        assert!(health.is_serving(start + 6 * SECOND));
        assert!(note(&health, &["silent"], start + 12 * SECOND), "and so is bad news");
        assert_eq!(health.verdict(start + 12 * SECOND), Verdict::HeldBack);
    }

    // A round across the hang proves nothing: part of it is older than the hang.
    #[test]
    fn a_round_longer_than_its_worth_proves_nothing() {
        let start = Instant::now();
        let health = Health::new(start);
        assert!(!health.note(Vec::new(), start, start + 2 * SECOND));
        assert!(!health.is_serving(start + 2 * SECOND));
    }

    // L07
    #[test]
    fn what_was_found_while_the_addresses_were_anothers_counts_for_nothing() {
        let start = Instant::now();
        let health = Health::new(start);
        health.stand_by(start);
        assert_eq!(health.scope(), Scope::Workers);
        assert!(note(&health, &[], start + ROUND));
        health.step_in(start + 2 * ROUND);
        assert_eq!(health.scope(), Scope::Addresses);
        assert!(!health.is_serving(start + 2 * ROUND));
        assert!(!health.note(Vec::new(), start + ROUND, start + 3 * ROUND), "begun before");
        assert!(!health.is_serving(start + 3 * ROUND));
        assert!(note(&health, &[], start + 4 * ROUND));
        assert!(health.is_serving(start + 4 * ROUND));
    }

    #[test]
    fn a_closed_latch_stays_closed() {
        let start = Instant::now();
        let health = Health::new(start);
        health.close(start);
        assert!(!note(&health, &[], start + SECOND));
        assert_eq!(health.state(start + SECOND).held_by, ["the agent stops"]);
        assert_eq!(health.rest(start + SECOND, LONG), Rest::Closed);
    }

    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_rest_ends_when_the_round_before_it_is_void() {
        let begun = Instant::now();
        let health = Health::new(begun);
        std::thread::scope(|threads| {
            let rest = threads.spawn(|| health.rest(begun, LONG));
            health.step_in(begun + ROUND);
            assert_eq!(rest.join().expect("no panic"), Rest::Over);
        });
    }
}
