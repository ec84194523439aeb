//! What holds us back from serving, and since when: the latch that the lease reads.
//!
//! One thread finds out (net::probe), everybody may look. The lease is renewed only while nothing holds us back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The firewall mark of our own probes, "NODN": the rule set leaves packets with it untracked, lease or not.
pub const PROBE_MARK: u32 = 0x4e4f_444e;

/// The health of the agent, shared.
#[derive(Debug)]
pub struct Health(Mutex<State>);

/// How it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// What holds us back, one line each; empty: nothing does.
    pub held_by: Vec<String>,
    /// When `held_by` last became empty, or ceased to be.
    pub since: Instant,
}

impl Health {
    /// Not serving yet.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(State { held_by: vec!["nothing has been probed yet".to_owned()], since: now }))
    }

    /// How it stands.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Whether nothing holds us back.
    pub fn is_serving(&self) -> bool {
        self.lock().held_by.is_empty()
    }

    /// Takes in what a look has found. True if we serve now and did not before, or the other way round.
    pub fn note(&self, held_by: Vec<String>, now: Instant) -> bool {
        let mut state = self.lock();
        let turned = state.held_by.is_empty() != held_by.is_empty();
        if turned {
            state.since = now;
        }
        state.held_by = held_by;
        turned
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every hold is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_moment_of_the_turn_is_kept() {
        let start = Instant::now();
        let health = Health::new(start);
        assert!(!health.is_serving());
        assert!(health.note(Vec::new(), start + Duration::from_secs(1)));
        assert!(!health.note(Vec::new(), start + Duration::from_secs(2)));
        assert_eq!(health.state().since, start + Duration::from_secs(1));
        assert!(health.note(vec!["worker 1 is silent".to_owned()], start + Duration::from_secs(3)));
        assert!(!health.note(vec!["worker 0 too".to_owned()], start + Duration::from_secs(4)));
        assert_eq!(health.state().since, start + Duration::from_secs(3));
        assert_eq!(health.state().held_by, ["worker 0 too"]);
    }
}
