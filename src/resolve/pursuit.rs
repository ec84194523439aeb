//! The pursuit of one answer: whom to ask, when to ask again, when to give up. A machine without sockets or clock.
//!
//! The driver (net::pilot) does what [`Pursuit::next`] orders and reports what happened with [`Pursuit::on_event`].
//! Earlier questions stay open while later ones are sent: a retry never makes an answer on its way worthless.
//!
//! ```text
//! ask ─400 ms─► next server, or again ─175..400 ms─► … ≤ 14 sends, 4 s in all ─► failure
//!  ├► truncated, near miss ─► the same question over a stream, the datagram still awaited after a near miss
//!  ├► FORMERR, NOTIMP, BADVERS ─► once without EDNS
//!  ├► other failure, closed port ─► next server at once; none left: failure
//!  └► answer ─► landed
//! ```
//! Read first: RFC 5452 section 9, RFC 6891 section 7, RFC 7766 section 5, RFC 8767 section 5.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Entry;
use crate::metrics::Said;
use crate::plan::Protocol;
use crate::upstream::{Group, Health, Outstanding, Plain, Server};
use crate::wire::{Ede, Kind, Rcode, Response};

/// Time for everything; below the 5 s after which glibc asks again.
pub const RESOLVE_TIMER: Duration = Duration::from_secs(4);
/// A first answer may take this long before the question is sent again: lost packets show within 500 ms (Q02), while an
/// upstream that needs 300 ms still sees one question.
const FIRST_RETRY: Duration = Duration::from_millis(400);
/// Sends at the quick pace; with 30 % loss both ways 8 sends in 1.45 s leave 0.5 % unanswered (H08).
const QUICK_SENDS: u32 = 8;
/// Sends in all; the cap on what one client question can cost upstream.
const MOST_SENDS: u32 = 14;
/// Pace of a refresh nobody waits for.
const IDLE_RETRY: Duration = Duration::from_secs(1);
/// A question on a stream is not repeated to the same server before this; the stream itself retries what broke.
const STREAM_RETRY: Duration = Duration::from_secs(1);
/// Unanswered sends after which a server that never answered with EDNS is asked without (RFC 6891 section 7).
const EDNS_SENDS: u32 = 3;
/// Times a server is asked over streams that break.
const STREAM_ASKS: u32 = 3;
/// Pause before a question whose connection broke is asked again.
const BREATH: Duration = Duration::from_millis(50);
/// Once some server has said that it cannot, the silent ones get this long.
const GRACE: Duration = Duration::from_secs(1);

/// One question on its way to an answer.
pub struct Pursuit {
    group: Arc<Group>,
    pace: Pace,
    tries: Vec<Try>,
    /// Tries ordered by an event, to be carried out before anything else.
    ordered: Vec<usize>,
    sends: u32,
    next_send: Instant,
    deadline: Instant,
    replied: bool,
    no_room: bool,
    began: Instant,
    landed: Option<Landing>,
    suspicion: bool,
}

/// Whether somebody waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    Idle,
    Urgent,
}

/// One server asked in one way.
struct Try {
    server: Arc<Server>,
    via: Via,
    edns: Edns,
    state: State,
    begun: Instant,
    last_sent: Instant,
    sends: u32,
    /// The last send has been counted as a failure of its server.
    overdue: bool,
    outstanding: Option<Outstanding>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The network said no, or the stream broke.
    Broken,
    /// The server said that it cannot.
    Failed(Rcode),
    /// Another try carries on for this one.
    Superseded,
    Waiting,
}

/// What carries a question to a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    Datagram,
    Stream,
}

/// Whether a question carries an OPT record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Edns {
    With,
    Without,
}

/// What the driver shall do.
#[derive(Debug)]
pub enum Order {
    /// Send the question; a try seen before is sent again, under a new ID from another port, the earlier ones still open.
    Ask { attempt: usize, server: SocketAddr, via: Via, edns: Edns },
    /// The pursuit is over.
    Land(Landing),
    /// Nothing to do before this moment, unless something happens.
    Wait(Instant),
}

/// What happened to a try.
#[derive(Debug)]
pub enum Event {
    /// A response that matches the question.
    Answer(Box<Response>),
    /// The network refused: closed port, no route, broken stream, no socket to be had.
    Broken,
    /// We have used up something of our own, sockets or places in a queue; it says nothing about the server.
    NoRoom,
    /// Something came that is not the answer, though nearly: somebody guesses, or the server is confused.
    NearMiss,
}

/// How a pursuit ended.
#[derive(Debug)]
pub enum Landing {
    Answer(Box<Response>),
    /// The cache has the answer by now, `age` seconds old.
    Found {
        entry: Arc<Entry>,
        age: u32,
    },
    /// No answer, and why.
    Failure {
        rcode: Rcode,
        ede: Option<Ede>,
        cause: Cause,
    },
}

/// What a failure says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// About the name: a server said so, or answered others meanwhile. Holds for its time.
    Name,
    /// About us: we had no room. Says nothing, is never remembered.
    Own,
    /// About the group: nobody there said anything. Void as soon as somebody does.
    Silence,
}

impl Pursuit {
    /// Begins to pursue a question with the servers of `group`, until `started` plus [`RESOLVE_TIMER`].
    pub fn new(group: Arc<Group>, pace: Pace, started: Instant, now: Instant) -> Self {
        Self {
            group,
            pace,
            tries: Vec::with_capacity(2),
            ordered: Vec::new(),
            sends: 0,
            next_send: now,
            deadline: started + RESOLVE_TIMER,
            replied: false,
            no_room: false,
            began: now,
            landed: None,
            suspicion: false,
        }
    }

    /// The same with nothing left to do but to land.
    #[must_use]
    pub fn ended(self, landing: Landing) -> Self {
        Self { landed: Some(landing), ..self }
    }

    /// What to do at `now`. Call again after carrying out an [`Order::Ask`], and after every event.
    pub fn next(&mut self, now: Instant, dice: u32) -> Order {
        if let Some(landing) = self.landed.take() {
            return Order::Land(landing);
        }
        if let Some(attempt) = self.ordered.pop() {
            return self.ask(attempt, now);
        }
        if self.group.is_looping(now) {
            return Order::Land(self.failure());
        }
        if now >= self.deadline {
            self.count_overdue(now, Duration::ZERO);
            return Order::Land(self.failure());
        }
        if now >= self.next_send && self.sends < MOST_SENDS {
            self.count_overdue(now, Duration::from_millis(100));
            let tried: Vec<SocketAddr> = self.tries.iter().map(|it| it.server.address).collect();
            if let Some(server) = self.group.choose(&tried, dice) {
                // Healthy ones are chosen first.
                if tried.is_empty() && self.group.health(&server) == Health::Suspect {
                    self.group.note_all_suspect();
                }
                let via = if self.group.protocol == Protocol::Udp { Via::Datagram } else { Via::Stream };
                let edns = if self.group.is_plain(&server, now) { Edns::Without } else { Edns::With };
                let attempt = self.add(server, via, edns, now);
                return self.ask(attempt, now);
            }
            if let Some(attempt) = self.longest_waiting(now) {
                let attempt = self.without_edns(attempt, now).unwrap_or(attempt);
                return self.ask(attempt, now);
            }
        }
        if !self.tries.iter().any(|it| it.state == State::Waiting) {
            return Order::Land(self.failure());
        }
        let send_more = self.sends < MOST_SENDS && self.next_send > now;
        Order::Wait(if send_more { self.next_send.min(self.deadline) } else { self.deadline.min(now + STREAM_RETRY) })
    }

    /// Takes in what happened to the try `attempt`.
    pub fn on_event(&mut self, attempt: usize, event: Event, now: Instant) {
        match event {
            Event::Answer(response) => self.on_answer(attempt, response, now),
            Event::Broken => {
                let it = &mut self.tries[attempt];
                it.state = State::Broken;
                it.outstanding = None;
                if it.via == Via::Datagram || self.group.protocol != Protocol::Udp {
                    let server = Arc::clone(&it.server);
                    self.suspicion |= self.group.on_failure(&server, now);
                }
                self.try_the_next(now);
                if self.next_send > now {
                    self.ask_again_over_a_stream(attempt, now);
                }
            }
            Event::NoRoom => {
                self.no_room = true;
                let it = &mut self.tries[attempt];
                it.state = State::Superseded;
                it.outstanding = None;
            }
            // The first near miss moves the question to where guessing is hopeless (PowerDNS: spoof-nearmiss-max = 1);
            // a valid datagram is still welcome, so that a forger cannot decide what we hear.
            Event::NearMiss => {
                let it = &self.tries[attempt];
                if it.via == Via::Datagram {
                    let (server, edns) = (Arc::clone(&it.server), it.edns);
                    self.stream(server, edns, now);
                }
            }
        }
    }

    /// Whether a server has become a suspect since this was last asked; somebody should probe it.
    pub fn take_suspicion(&mut self) -> bool {
        std::mem::take(&mut self.suspicion)
    }

    /// The servers this question is waiting for.
    pub fn waits_for(&self) -> impl Iterator<Item = SocketAddr> {
        self.tries.iter().filter(|it| it.state == State::Waiting).map(|it| it.server.address)
    }

    fn on_answer(&mut self, attempt: usize, response: Box<Response>, now: Instant) {
        self.replied = true;
        let (server, via, edns) = {
            let it = &mut self.tries[attempt];
            it.outstanding = None;
            (Arc::clone(&it.server), it.via, it.edns)
        };
        let Try { begun, last_sent, .. } = self.tries[attempt];
        // Which of several sends was answered is not known: from the first on is what we waited.
        server.talks.say(Said::of(response.rcode()), now.saturating_duration_since(begun));
        self.group.on_reply(&server, now.saturating_duration_since(last_sent), now);
        if response.edns_seen() {
            self.group.note_edns(&server, now);
        }
        if response.truncated() && via == Via::Datagram {
            // RFC 7766 section 5. What a truncated answer holds is never used.
            self.tries[attempt].state = State::Superseded;
            self.stream(server, edns, now);
            return;
        }
        match response.kind() {
            Kind::Failure(rcode) if edns == Edns::With && is_edns_trouble(rcode) => {
                // RFC 6891 section 7: a server that does not know EDNS answers like this.
                self.tries[attempt].state = State::Superseded;
                let plain = self.add(server, via, Edns::Without, now);
                self.ordered.push(plain);
            }
            Kind::Failure(rcode) => self.fail(attempt, rcode, now),
            // A server that refers us elsewhere does not resolve; we do not iterate.
            Kind::Referral => self.fail(attempt, Rcode::SERVFAIL, now),
            Kind::Answer | Kind::NoData { .. } | Kind::NxDomain { .. } => {
                if edns == Edns::Without && !self.group.knows_edns(&server, now) && !self.group.is_plain(&server, now) {
                    self.group.note_plain(&server, self.why_plain(&server), now);
                }
                self.landed = Some(Landing::Answer(response));
            }
        }
    }

    /// Whether `server` was asked without EDNS because it said so, or because it said nothing.
    fn why_plain(&self, server: &Server) -> Plain {
        let refused = |it: &Try| it.server.address == server.address && it.state == State::Superseded;
        if self.tries.iter().any(refused) { Plain::Refused } else { Plain::Silent }
    }

    fn fail(&mut self, attempt: usize, rcode: Rcode, now: Instant) {
        self.tries[attempt].state = State::Failed(rcode);
        self.deadline = self.deadline.min(now + GRACE);
        self.try_the_next(now);
    }

    fn try_the_next(&mut self, now: Instant) {
        let tried: Vec<SocketAddr> = self.tries.iter().map(|it| it.server.address).collect();
        if self.group.choose(&tried, 0).is_some() {
            self.next_send = now;
        }
    }

    /// A connection may break under a question through no fault of the server's: with nobody else to ask, it is asked again.
    fn ask_again_over_a_stream(&mut self, attempt: usize, now: Instant) {
        let it = &mut self.tries[attempt];
        if self.group.protocol != Protocol::Udp && it.sends < STREAM_ASKS {
            it.state = State::Waiting;
            // Ready to be sent again as soon as anything may be.
            it.last_sent = now.checked_sub(STREAM_RETRY).unwrap_or(now);
            it.overdue = true;
            self.next_send = now + BREATH;
        }
    }

    /// Asks `server` over a stream too, unless that is under way or was tried.
    fn stream(&mut self, server: Arc<Server>, edns: Edns, now: Instant) {
        if !self.tries.iter().any(|it| it.via == Via::Stream && it.server.address == server.address) {
            let attempt = self.add(server, Via::Stream, edns, now);
            self.ordered.push(attempt);
        }
    }

    fn add(&mut self, server: Arc<Server>, via: Via, edns: Edns, now: Instant) -> usize {
        let outstanding = Some(server.begin());
        self.tries.push(Try {
            server,
            via,
            edns,
            state: State::Waiting,
            begun: now,
            last_sent: now,
            sends: 0,
            overdue: false,
            outstanding,
        });
        self.tries.len() - 1
    }

    fn ask(&mut self, attempt: usize, now: Instant) -> Order {
        self.sends += 1;
        let address = self.tries[attempt].server.address;
        let first_ask = self.tries.iter().filter(|it| it.server.address == address).all(|it| it.sends == 0);
        let it = &mut self.tries[attempt];
        it.last_sent = now;
        it.sends += 1;
        it.overdue = false;
        let usual = self.group.retry_after(&it.server);
        self.next_send = now
            + match self.pace {
                Pace::Idle => IDLE_RETRY,
                // A server asked for the first time may be slow, whoever was asked before it.
                Pace::Urgent if first_ask => FIRST_RETRY,
                Pace::Urgent if self.sends < QUICK_SENDS => usual,
                Pace::Urgent => FIRST_RETRY,
            };
        Order::Ask { attempt, server: it.server.address, via: it.via, edns: it.edns }
    }

    /// The try to be sent again: of those still awaited, the one longest quiet.
    fn longest_waiting(&self, now: Instant) -> Option<usize> {
        let ready = |it: &Try| match it.via {
            Via::Datagram => true,
            Via::Stream => now.saturating_duration_since(it.last_sent) >= STREAM_RETRY,
        };
        let waiting = self.tries.iter().enumerate().filter(|(_, it)| it.state == State::Waiting && ready(it));
        waiting.min_by_key(|(_, it)| it.last_sent).map(|(attempt, _)| attempt)
    }

    /// The try that asks without EDNS what `attempt` asked in vain: some servers and firewalls drop what they do not know.
    fn without_edns(&mut self, attempt: usize, now: Instant) -> Option<usize> {
        let it = &self.tries[attempt];
        let in_vain = it.edns == Edns::With && it.via == Via::Datagram && it.sends >= EDNS_SENDS;
        let address = it.server.address;
        let tried = self.tries.iter().any(|it| it.server.address == address && it.edns == Edns::Without);
        if !in_vain || self.group.knows_edns(&it.server, now) || tried {
            return None;
        }
        let server = Arc::clone(&it.server);
        Some(self.add(server, Via::Datagram, Edns::Without, now))
    }

    /// Counts against its server every send that has had `patience` without an answer, once.
    fn count_overdue(&mut self, now: Instant, patience: Duration) {
        for it in &mut self.tries {
            let late = now.saturating_duration_since(it.last_sent) >= patience;
            if it.state == State::Waiting && late && !it.overdue {
                it.overdue = true;
                // A server that answers others is alive: it is this name that has no answer.
                if it.server.replied_since(it.last_sent, &self.group) {
                    continue;
                }
                self.suspicion |= self.group.on_failure(&it.server, now);
            }
        }
    }

    /// The failure that says most: what all servers agree on, else SERVFAIL.
    fn failure(&self) -> Landing {
        let mut said = self.tries.iter().filter_map(|it| match it.state {
            State::Failed(rcode) => Some(rcode),
            _ => None,
        });
        let first = said.next();
        let agreed = first.filter(|rcode| said.all(|other| other == *rcode));
        let rcode = agreed.filter(|_| !self.tries.iter().any(|it| it.state == State::Waiting));
        let cause = if self.no_room {
            Cause::Own
        } else if self.replied || self.group.replied_since(self.began) {
            Cause::Name
        } else {
            Cause::Silence
        };
        Landing::Failure {
            rcode: rcode.unwrap_or(Rcode::SERVFAIL),
            ede: (!self.replied && !self.no_room).then_some(Ede::NO_REACHABLE_AUTHORITY),
            cause,
        }
    }
}

fn is_edns_trouble(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS)
}
