//! What the plane tells: how it stands, and what happened lately.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::facts::Degraded;
use super::tables::TableSeen;
use crate::incidents::{Incidents, What};

/// How it stands, for those who look after the node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Whether the traffic is ours at this moment.
    pub intercepting: bool,
    /// When that last turned, by the wall clock: a message may leave this process.
    pub since: Option<SystemTime>,
    /// How long the kernel goes on without a renewal.
    pub lease: Duration,
    /// The netlink port of the other instance that holds the traffic, while we wait for it to go.
    pub waiting_for: Option<u32>,
    /// How we intercept: the label of [`Mode`](super::facts::Mode).
    pub mode: &'static str,
    /// What this host lacks.
    pub degraded: Vec<Degraded>,
    /// Where the addresses are.
    pub link: String,
    pub addresses: Vec<IpAddr>,
    /// Our tables as the kernel had them at the last renewal.
    pub tables: Vec<TableSeen>,
    /// Times something of ours had been changed by others and was restored.
    pub repaired: Repaired,
    /// The last of them: when, and what was not as we had made it.
    pub last_repair: Option<(SystemTime, String)>,
    /// Times the host refused something.
    pub failures: u64,
    /// What went wrong last, until something goes right.
    pub trouble: Option<String>,
    /// What happened lately.
    pub incidents: Incidents,
}

/// Repairs, by what was changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Repaired {
    pub link: u64,
    pub tables: u64,
}

impl Status {
    /// Takes in whether the traffic is ours.
    pub(super) fn turn(&mut self, intercepting: bool) {
        if self.intercepting != intercepting || self.since.is_none() {
            self.since = Some(SystemTime::now());
        }
        self.intercepting = intercepting;
    }

    /// Keeps that something was restored.
    pub(super) fn on_repair(&mut self, what: String) {
        self.incidents.note(Instant::now(), What::Repaired, &what);
        self.last_repair = Some((SystemTime::now(), what));
    }
}
