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

/// How long after an absence its sockets are read for the first time: what comes later to a socket that was empty is new.
const WAKING: Duration = Duration::from_millis(50);

/// One worker's.
#[derive(Debug)]
pub struct Pulse {
    last: Cell<Instant>,
    absences: Cell<u32>,
    /// When the last absence ended.
    back: Cell<Instant>,
}

impl Pulse {
    pub fn new(now: Instant) -> Self {
        Self { last: Cell::new(now), absences: Cell::new(0), back: Cell::new(now) }
    }

    /// The worker runs.
    pub fn beat(&self, now: Instant) {
        if now.duration_since(self.last.replace(now)) > AWAY {
            self.absences.set(self.absences.get().wrapping_add(1));
            self.back.set(now);
        }
    }

    /// The worker runs and reads a socket; whether all that is in there has waited during an absence, or may have.
    ///
    /// `seen`: the absences this socket has been read after; 0 at first.
    pub fn is_aged(&self, seen: &mut u32, now: Instant) -> bool {
        self.beat(now);
        let absences = self.absences.get();
        std::mem::replace(seen, absences) != absences && now.duration_since(self.back.get()) < WAKING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    // O05
    #[test]
    fn after_a_long_silence_each_socket_is_emptied_once() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        let (mut one, mut two) = (0, 0);
        let mut now = start;
        for _ in 0..10 {
            now += BEAT;
            assert!(!pulse.is_aged(&mut one, now));
        }
        now += AWAY;
        assert!(!pulse.is_aged(&mut one, now));
        now += 2 * AWAY;
        assert!(pulse.is_aged(&mut one, now));
        assert!(!pulse.is_aged(&mut one, now + MOMENT), "the next batch is new");
        assert!(pulse.is_aged(&mut two, now + MOMENT), "another socket of the worker");
    }

    #[test]
    fn a_socket_that_was_empty_loses_nothing() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        let mut seen = 0;
        let back = start + 2 * AWAY;
        pulse.beat(back);
        pulse.beat(back + BEAT);
        assert!(!pulse.is_aged(&mut seen, back + BEAT + MOMENT));
    }
}
