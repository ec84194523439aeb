//! What became of the questions of a stream.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub sent: Instant,
    pub address: IpAddr,
    pub transport: Transport,
    /// Sent from the port that asks as long as the stream goes on.
    pub kept_port: bool,
    pub fate: Fate,
    /// Until the answer or the refusal; the longest time there is for what was lost.
    pub took: Duration,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Transport {
    Tcp,
    Udp,
}

/// Who answered, or why nobody did.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fate {
    /// The agent, from its configuration.
    Agent,
    /// Cluster DNS, this endpoint.
    Cluster(u8),
    /// Nobody within the client's patience, somebody later.
    Late,
    /// Nobody.
    Lost,
    /// ICMP or RST.
    Refused(io::ErrorKind),
    /// The agent, who asked its upstream.
    Upstream,
    /// An answer that is none of ours, with its RCODE.
    Wrong(u8),
}

/// The questions of one stream, in the order they were sent.
#[derive(Clone, Debug, Default)]
pub struct Count {
    pub all: Vec<Asked>,
}

// === impl Fate ===

impl Fate {
    /// The agent answered.
    pub fn is_agent(self) -> bool {
        matches!(self, Self::Agent | Self::Upstream)
    }

    pub fn is_cluster(self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// A right answer came in time.
    pub fn is_answer(self) -> bool {
        self.is_agent() || self.is_cluster()
    }
}

// === impl Count ===

impl Count {
    pub fn of(all: Vec<Asked>) -> Self {
        Self { all }
    }

    /// Those that `keep` likes.
    pub fn only(&self, keep: impl Fn(&Asked) -> bool) -> Self {
        Self { all: self.all.iter().filter(|it| keep(it)).copied().collect() }
    }

    /// Those sent at `from` or later and before `to`.
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        self.only(|it| it.sent >= from && it.sent < to)
    }

    pub fn since(&self, from: Instant) -> Self {
        self.only(|it| it.sent >= from)
    }

    pub fn before(&self, to: Instant) -> Self {
        self.only(|it| it.sent < to)
    }

    pub fn for_address(&self, address: IpAddr) -> Self {
        self.only(|it| it.address == address)
    }

    pub fn over(&self, transport: Transport) -> Self {
        self.only(|it| it.transport == transport)
    }

    pub fn agent(&self) -> Self {
        self.only(|it| it.fate.is_agent())
    }

    pub fn cluster(&self) -> Self {
        self.only(|it| it.fate.is_cluster())
    }

    /// Those without a right answer in time.
    pub fn failed(&self) -> Self {
        self.only(|it| !it.fate.is_answer())
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// When the first of them was sent.
    pub fn first(&self) -> Option<Instant> {
        self.all.iter().map(|it| it.sent).min()
    }

    /// When the last of them was sent.
    pub fn last(&self) -> Option<Instant> {
        self.all.iter().map(|it| it.sent).max()
    }

    /// Panics if anything was lost, refused, late or wrong; it says what, and when seen from `event`.
    #[track_caller]
    pub fn assert_nothing_failed(&self, event: Instant) {
        let failed = self.failed();
        assert!(!self.is_empty(), "nothing was asked");
        assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), self.len(), failed.seen_from(event));
    }

    /// Panics unless the agent answered every one.
    #[track_caller]
    pub fn assert_all_by_agent(&self) {
        assert!(!self.is_empty() && self.agent().len() == self.len(), "not all by the agent:\n{self}");
    }

    /// Panics unless cluster DNS answered every one.
    #[track_caller]
    pub fn assert_all_by_cluster(&self) {
        assert!(!self.is_empty() && self.cluster().len() == self.len(), "not all by cluster DNS:\n{self}");
    }

    /// The first dozen, with their times relative to `event`.
    pub fn seen_from(&self, event: Instant) -> String {
        let line = |it: &Asked| {
            let port = if it.kept_port { " (kept port)" } else { "" };
            format!("  {:+8.1} ms {} {:?}{port}: {:?}", offset(it.sent, event), it.address, it.transport, it.fate)
        };
        let mut lines: Vec<String> = self.all.iter().take(12).map(line).collect();
        lines.push(self.to_string());
        lines.join("\n")
    }
}

/// Milliseconds from `event` to `moment`; negative before it.
pub fn offset(moment: Instant, event: Instant) -> f64 {
    let after = moment.saturating_duration_since(event).as_secs_f64();
    let before = event.saturating_duration_since(moment).as_secs_f64();
    (after - before) * 1_000.0
}

impl fmt::Display for Count {
    /// One line per address and transport: how many of each fate, and the longest time.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: BTreeMap<(IpAddr, Transport), Vec<&Asked>> = BTreeMap::new();
        for it in &self.all {
            groups.entry((it.address, it.transport)).or_default().push(it);
        }
        for ((address, transport), asked) in groups {
            let mut fates: BTreeMap<Fate, usize> = BTreeMap::new();
            for it in &asked {
                *fates.entry(it.fate).or_default() += 1;
            }
            let answered = asked.iter().filter(|it| it.fate.is_answer());
            let longest = answered.map(|it| it.took).max().unwrap_or_default();
            writeln!(out, "  {address} {transport:?}: {} asked, {fates:?}, longest {longest:.1?}", asked.len())?;
        }
        Ok(())
    }
}
