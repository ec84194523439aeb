//! What one server was asked and what it said. Written by all workers: a question to a server costs microseconds of
//! sockets, and two additions beside the atomics that choosing a server needs anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cells::{Distribution, Label, nanoseconds};
use super::labels::Said;
use super::served::TIMES;

/// The counts of one server.
#[derive(Debug, Default)]
pub struct Talks {
    asked: AtomicU64,
    failed_probes: AtomicU64,
    said: [Times; Said::COUNT],
}

/// Durations sorted by [`TIMES`].
#[derive(Debug, Default)]
struct Times {
    /// One more than there are bounds: the last is for what took longer.
    counts: [AtomicU64; TIMES.len() + 1],
    nanoseconds: AtomicU64,
}

impl Talks {
    /// A question begins, over whatever, sent however often.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// A reply to a question came after `round_trip`.
    pub fn say(&self, what: Said, round_trip: Duration) {
        let it = &self.said[what.index()];
        let nanoseconds = nanoseconds(round_trip);
        let at = TIMES.iter().position(|bound| nanoseconds <= *bound).unwrap_or(TIMES.len());
        it.counts[at].fetch_add(1, Ordering::Relaxed);
        it.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// A probe had no answer.
    pub fn fail_probe(&self) {
        self.failed_probes.fetch_add(1, Ordering::Relaxed);
    }

    /// Questions asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Probes without an answer.
    pub fn failed_probes(&self) -> u64 {
        self.failed_probes.load(Ordering::Relaxed)
    }

    /// How long it took to say `what`.
    pub fn said(&self, what: Said) -> Distribution {
        let it = &self.said[what.index()];
        let mut count = 0;
        let mut cumulative: Vec<u64> = it
            .counts
            .iter()
            .map(|cell| {
                count += cell.load(Ordering::Relaxed);
                count
            })
            .collect();
        cumulative.pop();
        Distribution { cumulative, count, sum: it.nanoseconds.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_in_the_bucket_of_its_time_and_in_all_longer_ones() {
        let talks = Talks::default();
        for time in [Duration::from_micros(250), Duration::from_micros(251), Duration::from_secs(60)] {
            talks.say(Said::NoError, time);
        }
        talks.say(Said::ServFail, Duration::ZERO);
        let said = talks.said(Said::NoError);
        assert_eq!(said.cumulative[..2], [1, 2]);
        assert_eq!((said.cumulative.len(), said.cumulative[TIMES.len() - 1], said.count), (TIMES.len(), 2, 3));
        assert_eq!(said.sum, 60_000_501_000);
        assert_eq!(talks.said(Said::ServFail).cumulative[0], 1);
    }
}
