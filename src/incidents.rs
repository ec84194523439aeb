//! What went other than planned lately, and when: a few lines for whoever looks at the agent afterwards.
//!
//! The promise: at most [`PLACES`] are kept, the oldest goes first, and a long text is cut. Logs and metrics have all.

use std::collections::VecDeque;
use std::time::Instant;

/// Incidents kept.
pub const PLACES: usize = 32;
/// Characters kept of each: a refused configuration may come with a page of complaints.
const LONGEST: usize = 500;

/// What happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// The host handed us the traffic.
    Intercepting,
    /// We are not healthy and gave the traffic back.
    GivenBack,
    /// Nobody renewed the lease, so the kernel took the traffic back.
    Lapsed,
    /// The host refused something.
    NodeTrouble,
    /// The newest configuration is not in force.
    ReloadRefused,
    /// Something of ours had been changed by others, and was restored.
    Repaired,
}

/// One of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Incident {
    pub at: Instant,
    pub what: What,
    pub words: String,
}

/// The last of them, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Incidents(VecDeque<Incident>);

// === impl What ===

impl What {
    /// As it appears in `nodens status --json`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Intercepting => "intercepting",
            Self::GivenBack => "given_back",
            Self::Lapsed => "lease_lapsed",
            Self::NodeTrouble => "node_trouble",
            Self::ReloadRefused => "reload_refused",
            Self::Repaired => "repaired",
        }
    }
}

// === impl Incidents ===

impl Incidents {
    /// Keeps that this happened `at` that moment, at the cost of the oldest. What happens again at once takes no new place.
    pub fn note(&mut self, at: Instant, what: What, words: &str) {
        let mut kept: String = words.chars().take(LONGEST).collect();
        if kept.len() < words.len() {
            kept.push('…');
        }
        if self.0.back().is_some_and(|last| last.what == what && last.words == kept) {
            self.0.pop_back();
        }
        if self.0.len() >= PLACES {
            self.0.pop_front();
        }
        self.0.push_back(Incident { at, what, words: kept });
    }

    /// Keeps `others` too, at the cost of the oldest of all.
    pub fn take_in(&mut self, others: &Self) {
        self.0 = self.with(Some(others)).into_iter().rev().collect();
    }

    /// These and `others`, newest first, as many as one keeps.
    pub fn with(&self, others: Option<&Self>) -> Vec<Incident> {
        let all = self.0.iter().chain(others.iter().flat_map(|it| &it.0));
        let mut all: Vec<Incident> = all.cloned().collect();
        all.sort_by_key(|it| std::cmp::Reverse(it.at));
        all.truncate(PLACES);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// So many seconds after `start`.
    fn second(start: Instant, number: usize) -> Instant {
        start + Duration::from_secs(number as u64)
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let (mut incidents, start) = (Incidents::default(), Instant::now());
        for number in 0..3 * PLACES {
            incidents.note(second(start, number), What::Repaired, &number.to_string());
        }
        let kept = incidents.with(None);
        assert_eq!((kept.len(), &*kept[0].words, &*kept[PLACES - 1].words), (PLACES, "95", "64"));
    }

    #[test]
    fn two_rings_are_shown_as_one_newest_first() {
        let (mut one, mut other, start) = (Incidents::default(), Incidents::default(), Instant::now());
        one.note(second(start, 1), What::ReloadRefused, "a");
        one.note(second(start, 3), What::ReloadRefused, "c");
        other.note(second(start, 2), What::Lapsed, "b");
        let words: Vec<String> = one.with(Some(&other)).into_iter().map(|it| it.words).collect();
        assert_eq!(words, ["c", "b", "a"]);
        let shown = one.with(Some(&other));
        one.take_in(&other);
        assert_eq!(one.with(None), shown, "taken in, they are the same");
    }

    #[test]
    fn the_same_again_is_one_incident_of_the_later_moment() {
        let (mut incidents, start) = (Incidents::default(), Instant::now());
        for number in 0..3 {
            incidents.note(second(start, number), What::NodeTrouble, "EPERM");
        }
        let kept = incidents.with(None);
        assert_eq!((kept.len(), kept[0].at), (1, second(start, 2)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let (mut incidents, start) = (Incidents::default(), Instant::now());
        incidents.note(second(start, 0), What::ReloadRefused, &"ü".repeat(LONGEST + 1));
        assert_eq!(incidents.with(None)[0].words, "ü".repeat(LONGEST) + "…");
    }
}
