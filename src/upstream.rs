//! Upstream groups: which server gets the next question, and what its silence or its answers teach.
//!
//! No sockets here. A [`Group`] is shared by all workers; everything that changes is an atomic, so that choosing a
//! server takes no lock. Only answers that matched a question count as a sign of life, and only time that passed
//! without one counts as failure: forged packets change nothing.
//!
//! ```text
//!            silence × max_fails                 any matching reply, to a question or to a probe
//! Healthy ────────────────────────► Suspect ────────────────────────────────────────────────────► Healthy
//!                                     │ all suspects, for a while: the group is silent; its return voids failures
//! ```
//! Read first: RFC 5452 section 9, RFC 9520 section 3, RFC 6298 section 2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::metrics::Talks;
use crate::plan::{self, Choice, HealthCheck, Protocol};

/// Time without an answer after which a question sent before is sent once more, at least: see resolve::pursuit.
const RETRY_MIN: Duration = Duration::from_millis(175);
/// The same, at most, however slow the server usually is.
const RETRY_MAX: Duration = Duration::from_millis(400);
/// Time all servers of a group must have been silent before stale answers need not wait for them.
const SILENCE: Duration = Duration::from_millis(1500);
/// Time a server is asked without EDNS because it refused it (E16: at most 15 minutes).
const PLAIN_AFTER_REFUSAL: Duration = Duration::from_secs(15 * 60);
/// Time it is asked so because it was silent with EDNS and spoke without: perhaps that was packet loss only.
const PLAIN_AFTER_SILENCE: Duration = Duration::from_secs(60);

/// Time of failures in a row after which a server that knew EDNS may have been replaced by one that does not.
const EDNS_DOUBT: Duration = Duration::from_secs(5);
/// Time for which a group that forwards to ourselves is left alone; the loop may be gone after the next reload.
const LOOP_FOR: Duration = Duration::from_secs(30);

/// All groups of the plan, by its index.
pub struct Upstreams {
    groups: Vec<Arc<Group>>,
}

/// Servers that answer alike.
pub struct Group {
    pub name: String,
    pub protocol: Protocol,
    pub random_case: bool,
    pub health_check: HealthCheck,
    choice: Choice,
    servers: ArcSwap<Vec<Arc<Server>>>,
    rotor: AtomicUsize,
    /// Milliseconds since the epoch at which any server last replied; 0: none yet. What failed in silence before it is void.
    replied_at: AtomicU64,
    /// Milliseconds since the epoch until which the group counts as forwarding to ourselves.
    looping_until: AtomicU64,
    /// Questions asked while every server was a suspect.
    all_suspect: AtomicU64,
    epoch: Instant,
}

/// One server and what is known of it.
pub struct Server {
    pub address: SocketAddr,
    outstanding: AtomicU32,
    /// Failures in a row.
    fails: AtomicU32,
    /// Milliseconds since the epoch of the first of them.
    failing_since: AtomicU64,
    /// Smoothed round trip in microseconds; 0: not measured.
    round_trip: AtomicU32,
    /// Milliseconds since the epoch until which it is asked without EDNS.
    plain_until: AtomicU64,
    /// Milliseconds since the epoch until which its silence says nothing about EDNS, because it answered with it.
    knows_edns_until: AtomicU64,
    /// Milliseconds since the epoch of its last reply; 0: none yet.
    replied_at: AtomicU64,
    /// What it was asked and said, for the metrics.
    pub talks: Arc<Talks>,
}

/// Why a server is asked without EDNS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plain {
    /// It answered FORMERR or the like with EDNS.
    Refused,
    /// It did not answer with EDNS.
    Silent,
}

/// Whether a server is believed to answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    Healthy,
    Suspect,
}

impl Upstreams {
    /// The groups of `plans`. A server that `before` knew under the same group and address keeps what was learnt.
    pub fn new(plans: &[plan::Upstream], before: Option<&Self>, epoch: Instant) -> Self {
        let groups = plans.iter().map(|plan| {
            let known = before.and_then(|all| all.groups.iter().find(|group| group.is_like(plan)));
            let group = Group {
                name: plan.name.clone(),
                protocol: plan.protocol,
                random_case: plan.random_case,
                health_check: plan.health_check.clone(),
                choice: plan.choice,
                servers: ArcSwap::new(known.map_or_else(Arc::default, |known| known.servers.load_full())),
                rotor: AtomicUsize::new(0),
                replied_at: AtomicU64::new(known.map_or(0, |known| known.replied_at.load(Ordering::Relaxed))),
                looping_until: AtomicU64::new(0),
                all_suspect: AtomicU64::new(known.map_or(0, |known| known.all_suspect.load(Ordering::Relaxed))),
                epoch,
            };
            if let plan::Members::Servers(list) = &plan.members {
                let fixed = list.iter().filter_map(|server| match server {
                    plan::Server::Address(address) => Some(*address),
                    plan::Server::Host { .. } => None,
                });
                let fixed: Vec<_> = fixed.collect();
                // With host names among them the list is complete only when discovery has spoken.
                if fixed.len() == list.len() || group.servers.load().is_empty() {
                    group.set_servers(&fixed);
                }
            }
            Arc::new(group)
        });
        Self { groups: groups.collect() }
    }

    /// The group with this index in the plan.
    pub fn group(&self, index: usize) -> &Arc<Group> {
        &self.groups[index]
    }

    /// All groups, in the plan's order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.iter()
    }
}

impl Group {
    fn is_like(&self, plan: &plan::Upstream) -> bool {
        self.name == plan.name && self.protocol == plan.protocol
    }

    /// Replaces the members; those that stay keep their state.
    pub fn set_servers(&self, addresses: &[SocketAddr]) {
        let old = self.servers.load();
        let new = addresses.iter().map(|address| {
            let known = old.iter().find(|server| server.address == *address);
            known.map_or_else(|| Arc::new(Server::new(*address)), Arc::clone)
        });
        self.servers.store(Arc::new(new.collect()));
    }

    /// The members at this moment.
    pub fn servers(&self) -> Arc<Vec<Arc<Server>>> {
        self.servers.load_full()
    }

    /// The server for the next question, or for its next attempt: none of `tried`, healthy ones first.
    ///
    /// `dice` is a random number; `None`: there is no other server.
    pub fn choose(&self, tried: &[SocketAddr], dice: u32) -> Option<Arc<Server>> {
        let servers = self.servers.load();
        let untried = || servers.iter().filter(|server| !tried.contains(&server.address));
        // What others change meanwhile is read once: the list and the loads in it stay as they are from here on.
        let mut eligible: Vec<_> = untried().filter(|server| self.health(server) == Health::Healthy).collect();
        let suspects_only = eligible.is_empty();
        if suspects_only {
            eligible.extend(untried());
        }
        let random = |count: usize| dice as usize % count;
        let count = eligible.len();
        let chosen = match self.choice {
            _ if count == 0 => return None,
            Choice::Sequential => eligible[0],
            // With every server under suspicion, whichever comes back first shall be found: no preference then.
            _ if suspects_only => eligible[random(count)],
            Choice::Random => eligible[random(count)],
            Choice::RoundRobin => eligible[self.rotor.fetch_add(1, Ordering::Relaxed) % count],
            Choice::LeastOutstanding => {
                let loads: Vec<u32> = eligible.iter().map(|server| server.outstanding()).collect();
                let least = loads.iter().min()?;
                // Among equals the dice decide, else the first would get all the quiet hours.
                let equals: Vec<usize> = (0..count).filter(|index| loads[*index] == *least).collect();
                eligible[equals[random(equals.len())]]
            }
        };
        Some(Arc::clone(chosen))
    }

    /// A question goes out although every server is a suspect.
    pub fn note_all_suspect(&self) {
        self.all_suspect.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn all_suspect(&self) -> u64 {
        self.all_suspect.load(Ordering::Relaxed)
    }

    /// Whether `server` is believed to answer.
    pub fn health(&self, server: &Server) -> Health {
        if server.fails.load(Ordering::Relaxed) < self.health_check.max_fails {
            Health::Healthy
        } else {
            Health::Suspect
        }
    }

    /// A reply that matched a question came after `round_trip`: a sign of life, whatever it says.
    pub fn on_reply(&self, server: &Server, round_trip: Duration, now: Instant) {
        let sample = round_trip.as_micros().clamp(1, u128::from(u32::MAX)) as u32;
        let smoothed = match server.round_trip.load(Ordering::Relaxed) {
            0 => sample,
            // RFC 6298 section 2.3 with alpha = 1/8.
            old => old - old / 8 + sample / 8,
        };
        server.round_trip.store(smoothed.max(1), Ordering::Relaxed);
        server.fails.store(0, Ordering::Relaxed);
        let at = self.millis(now).max(1);
        server.replied_at.store(at, Ordering::Relaxed);
        self.replied_at.store(at, Ordering::Relaxed);
    }

    /// A question went unanswered for its time, or the network refused it. True if that made the server a suspect.
    #[must_use]
    pub fn on_failure(&self, server: &Server, now: Instant) -> bool {
        let fails = server.fails.load(Ordering::Relaxed);
        if fails == 0 {
            server.failing_since.store(self.millis(now), Ordering::Relaxed);
        }
        server.fails.store(fails.saturating_add(1), Ordering::Relaxed);
        fails + 1 == self.health_check.max_fails
    }

    /// Whether every server has been failing for so long that nobody need wait for them who has a stale answer.
    pub fn is_silent(&self, now: Instant) -> bool {
        let now = self.millis(now);
        let long = SILENCE.as_millis() as u64;
        let servers = self.servers.load();
        !servers.is_empty()
            && servers.iter().all(|server| {
                self.health(server) == Health::Suspect
                    && now.saturating_sub(server.failing_since.load(Ordering::Relaxed)) >= long
            })
    }

    /// How long to wait for `server` before the question is sent yet again.
    pub fn retry_after(&self, server: &Server) -> Duration {
        let round_trip = Duration::from_micros(server.round_trip.load(Ordering::Relaxed).into());
        (round_trip * 2).clamp(RETRY_MIN, RETRY_MAX)
    }

    /// Whether `server` is asked without EDNS at `now`.
    pub fn is_plain(&self, server: &Server, now: Instant) -> bool {
        self.millis(now) < server.plain_until.load(Ordering::Relaxed)
    }

    /// `server` answered without EDNS what it would not answer with it.
    pub fn note_plain(&self, server: &Server, why: Plain, now: Instant) {
        let time = match why {
            Plain::Refused => PLAIN_AFTER_REFUSAL,
            Plain::Silent => PLAIN_AFTER_SILENCE,
        };
        server.plain_until.store(self.millis(now + time), Ordering::Relaxed);
    }

    /// Whether `server` answered with EDNS lately and has not failed for long: its silence says nothing about EDNS then.
    pub fn knows_edns(&self, server: &Server, now: Instant) -> bool {
        let now = self.millis(now);
        let failing_for = now.saturating_sub(server.failing_since.load(Ordering::Relaxed));
        let failing = server.fails() > 0 && failing_for >= EDNS_DOUBT.as_millis() as u64;
        now < server.knows_edns_until.load(Ordering::Relaxed) && !failing
    }

    /// `server` answered with EDNS.
    pub fn note_edns(&self, server: &Server, now: Instant) {
        server.knows_edns_until.store(self.millis(now + PLAIN_AFTER_REFUSAL), Ordering::Relaxed);
    }

    /// Whether any server of the group replied to anything after `moment`.
    pub fn replied_since(&self, moment: Instant) -> bool {
        self.replied_at.load(Ordering::Relaxed) > self.millis(moment)
    }

    /// When a server of the group last replied to anything.
    pub fn replied(&self) -> Option<Instant> {
        match self.replied_at.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(self.epoch + Duration::from_millis(millis)),
        }
    }

    /// A question of ours came back to us: the group is not asked for a while. True if that is news.
    pub fn note_loop(&self, now: Instant) -> bool {
        let before = self.looping_until.swap(self.millis(now + LOOP_FOR), Ordering::Relaxed);
        before <= self.millis(now)
    }

    /// Whether the group counts as forwarding to ourselves.
    pub fn is_looping(&self, now: Instant) -> bool {
        self.millis(now) < self.looping_until.load(Ordering::Relaxed)
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

// === impl Server ===

impl Server {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            outstanding: AtomicU32::new(0),
            fails: AtomicU32::new(0),
            failing_since: AtomicU64::new(0),
            round_trip: AtomicU32::new(0),
            plain_until: AtomicU64::new(0),
            knows_edns_until: AtomicU64::new(0),
            replied_at: AtomicU64::new(0),
            talks: Arc::default(),
        }
    }

    /// Counts a question as outstanding until the guard goes.
    pub fn begin(self: &Arc<Self>) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.talks.ask();
        Outstanding(Arc::clone(self))
    }

    /// Questions outstanding.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Smoothed round trip, once measured.
    pub fn round_trip(&self) -> Option<Duration> {
        match self.round_trip.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        }
    }

    /// Whether it replied to anything after `moment`.
    pub fn replied_since(&self, moment: Instant, group: &Group) -> bool {
        self.replied_at.load(Ordering::Relaxed) > group.millis(moment)
    }

    /// Failures in a row.
    pub fn fails(&self) -> u32 {
        self.fails.load(Ordering::Relaxed)
    }
}

/// One question a server has not answered yet.
#[must_use = "dropped, the question no longer counts"]
pub struct Outstanding(Arc<Server>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Name;

    fn group(choice: Choice, count: u8) -> (Group, Instant) {
        let epoch = Instant::now();
        let group = Group {
            name: "test".into(),
            protocol: Protocol::Udp,
            random_case: false,
            health_check: HealthCheck { interval: Duration::from_secs(1), max_fails: 2, name: Name::root() },
            choice,
            servers: ArcSwap::default(),
            rotor: AtomicUsize::new(0),
            replied_at: AtomicU64::new(0),
            looping_until: AtomicU64::new(0),
            all_suspect: AtomicU64::new(0),
            epoch,
        };
        let addresses: Vec<SocketAddr> = (1..=count).map(address).collect();
        group.set_servers(&addresses);
        (group, epoch)
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 53))
    }

    fn suspect(group: &Group, index: usize, now: Instant) {
        let server = &group.servers()[index];
        assert!(!group.on_failure(server, now));
        assert!(group.on_failure(server, now), "the second failure makes a suspect");
    }

    // H12: equal servers share the load, whatever the policy that shares.
    #[test]
    fn equal_servers_get_equal_shares() {
        for choice in [Choice::LeastOutstanding, Choice::Random, Choice::RoundRobin] {
            let (group, _) = group(choice, 4);
            let mut counts = [0_u32; 4];
            let mut dice = 1_u32;
            for _ in 0..40_000 {
                dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let chosen = group.choose(&[], dice >> 8).expect("there are servers");
                counts[(chosen.address.ip().to_string().as_bytes()[8] - b'1') as usize] += 1;
            }
            assert!(counts.iter().all(|count| (8_000..=12_000).contains(count)), "{choice:?}: {counts:?}");
        }
    }

    #[test]
    fn sequential_takes_the_first_that_is_healthy() {
        let (group, now) = group(Choice::Sequential, 3);
        assert_eq!(group.choose(&[], 7).map(|it| it.address), Some(address(1)));
        suspect(&group, 0, now);
        assert_eq!(group.choose(&[], 7).map(|it| it.address), Some(address(2)));
    }

    #[test]
    fn the_least_loaded_server_is_chosen() {
        let (group, _) = group(Choice::LeastOutstanding, 2);
        let busy = group.servers()[0].begin();
        assert_eq!(group.choose(&[], 0).map(|it| it.address), Some(address(2)));
        drop(busy);
        assert_eq!(group.servers()[0].outstanding(), 0);
    }

    // H01: a suspect is skipped while others are healthy, and asked all the same when none is.
    #[test]
    fn suspects_are_asked_only_when_nobody_else_is_left() {
        let (group, now) = group(Choice::Random, 2);
        suspect(&group, 0, now);
        assert!((0..100).all(|dice| group.choose(&[], dice).is_some_and(|it| it.address == address(2))));
        assert_eq!(group.choose(&[address(2)], 0).map(|it| it.address), Some(address(1)));
        suspect(&group, 1, now);
        assert!((0..100).any(|dice| group.choose(&[], dice).is_some_and(|it| it.address == address(1))));
        assert!(group.choose(&[address(1), address(2)], 0).is_none());
    }

    // H06: any reply that matched counts as a sign of life.
    #[test]
    fn one_reply_clears_a_suspect() {
        let (group, now) = group(Choice::Random, 1);
        suspect(&group, 0, now);
        group.on_reply(&group.servers()[0], Duration::from_millis(3), now);
        assert_eq!(group.health(&group.servers()[0]), Health::Healthy);
    }

    // H05: what failed while everybody was silent is void once somebody speaks.
    #[test]
    fn a_group_is_silent_only_after_a_while_and_its_return_is_remembered() {
        let (group, now) = group(Choice::Random, 2);
        suspect(&group, 0, now);
        suspect(&group, 1, now);
        assert!(!group.is_silent(now + Duration::from_millis(1400)));
        assert!(group.is_silent(now + Duration::from_millis(1600)));
        assert_eq!(group.replied(), None);
        let later = now + Duration::from_secs(60);
        group.on_reply(&group.servers()[1], Duration::from_millis(1), later);
        assert!(!group.is_silent(later));
        assert!(group.replied().is_some_and(|at| later.duration_since(at) < Duration::from_millis(1)));
    }

    // H18: only what changed changes.
    #[test]
    fn servers_that_stay_keep_what_was_learnt() {
        let (group, now) = group(Choice::Random, 2);
        suspect(&group, 0, now);
        group.set_servers(&[address(1), address(9)]);
        assert_eq!(group.health(&group.servers()[0]), Health::Suspect);
        assert_eq!(group.health(&group.servers()[1]), Health::Healthy);
    }

    // E16: for a quarter of an hour at most.
    #[test]
    fn a_server_without_edns_is_tried_with_it_again() {
        let (group, now) = group(Choice::Random, 1);
        let server = &group.servers()[0];
        assert!(!group.is_plain(server, now));
        group.note_plain(server, Plain::Refused, now);
        assert!(group.is_plain(server, now + Duration::from_secs(899)));
        assert!(!group.is_plain(server, now + Duration::from_secs(901)));
    }

    #[test]
    fn the_time_to_retry_follows_the_round_trip_within_bounds() {
        let (group, now) = group(Choice::Random, 1);
        let server = &group.servers()[0];
        assert_eq!(group.retry_after(server), RETRY_MIN);
        group.on_reply(server, Duration::from_millis(100), now);
        assert_eq!(group.retry_after(server), Duration::from_millis(200));
        group.on_reply(server, Duration::from_secs(30), now);
        assert_eq!(group.retry_after(server), RETRY_MAX);
    }
}
