//! When a worker last ran: who has been away for seconds finds questions in its sockets that nobody waits for any more.
//!
//! A process that hangs, or is stopped, or starved of its CPU, keeps its sockets, and they fill. When it goes on, those who
//! asked have asked again and others have answered; replies that late help nobody and keep waiting who asks now. How old a
//! datagram is the kernel says only if it stamps every packet of the host. But a worker that sees by its own clock that it
//! was away drops what it finds: this costs a comparison a batch.
//!
//! Where the traffic is leased, nothing is lost that way that had not been lost before: what a hung agent's sockets get, they
//! get before its lease has lapsed. Elsewhere a question of the last moments of the absence goes as well, and is asked again.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// An absence that counts: who waits longer for an answer has asked somebody else by then. (musl asks again after 2.5 s,
/// glibc after 5 s.)
const AWAY: Duration = Duration::from_secs(3);
/// How often a worker with nothing to do says that it could.
pub const BEAT: Duration = Duration::from_secs(1);

/// One worker's.
#[derive(Debug)]
pub struct Pulse {
    last: Cell<Instant>,
    absences: Cell<u32>,
}

impl Pulse {
    pub fn new(now: Instant) -> Self {
        Self { last: Cell::new(now), absences: Cell::new(0) }
    }

    /// The worker runs. True if it has just come back: then whatever waits in its sockets has waited for long, or may have.
    pub fn beat(&self, now: Instant) -> bool {
        let is_back = now.duration_since(self.last.replace(now)) > AWAY;
        self.absences.set(self.absences.get().wrapping_add(is_back.into()));
        is_back
    }

    /// How often it was away.
    pub fn absences(&self) -> u32 {
        self.absences.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // O05
    #[test]
    fn only_a_long_silence_is_an_absence() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        let mut now = start;
        for pause in [BEAT; 10].into_iter().chain([AWAY]) {
            now += pause;
            assert!(!pulse.beat(now));
        }
        now += 2 * AWAY;
        assert!(pulse.beat(now));
        assert!(!pulse.beat(now), "once");
        assert_eq!(pulse.absences(), 1);
    }
}
