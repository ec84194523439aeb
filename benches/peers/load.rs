//! The load: sixteen clients and the upstream, served in turn by one thread that never sleeps.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Extent;
use super::client::{Client, Tally};
use super::process::Process;
use super::table::Cost;
use super::upstream::Upstream;

const CLIENTS: u8 = 16;
/// A client that has less room waits: sending in bunches leaves time to look at the others.
const BUNCH: usize = 6;
/// Longest time until a server's first answer.
const START: Duration = Duration::from_secs(10);
/// Between two tries for the first answer.
const RETRY: Duration = Duration::from_micros(500);
/// Longest time without any answer; a server that is silent for so long will not speak again.
const SILENCE: Duration = Duration::from_secs(5);

/// How fast to ask.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as answers come.
    Full,
    PerSecond(u32),
}

/// Which names to ask for.
#[derive(Clone, Debug)]
pub struct Names {
    state: u64,
    next: Option<u32>,
    below: u32,
}

impl Names {
    /// Any of the first `below` names.
    pub fn random_below(below: u32) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, next: None, below }
    }

    /// Names that nobody asked for.
    pub fn never_asked() -> Self {
        Self { next: Some(1_000_000), ..Self::random_below(u32::MAX) }
    }
}

impl Iterator for Names {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if let Some(next) = self.next {
            self.next = Some(next + 1);
            return Some(next);
        }
        // xorshift64: good enough to jump about.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        Some((((self.state >> 32) * u64::from(self.below)) >> 32) as u32)
    }
}

/// Clients, and the upstream of the server they ask.
pub struct Load {
    clients: Vec<Client>,
    upstream: Upstream,
    tally: Tally,
    echo: bool,
}

impl Load {
    pub fn new() -> io::Result<Self> {
        Ok(Self { clients: Vec::new(), upstream: Upstream::new()?, tally: Tally::default(), echo: false })
    }

    pub fn upstream_port(&self) -> u16 {
        self.upstream.port()
    }

    /// What became of all queries so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Waits for the first answer; the time since the server was started.
    pub fn first_answer(&mut self, process: &Process) -> io::Result<Duration> {
        self.echo = process.is_echo();
        self.clients = (0..CLIENTS).map(|index| Client::new(index, process.port())).collect::<io::Result<_>>()?;
        let before = self.tally.answered;
        let mut tried = None;
        while self.tally.answered == before {
            if process.age() > START {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"));
            }
            // Each try from another client: the first may have been lost where nobody listened yet.
            if tried.is_none_or(|at: Instant| at.elapsed() > RETRY) {
                tried = Some(Instant::now());
                if let Some(client) = self.clients.iter_mut().find(|client| client.room() > 0) {
                    client.ask([0].into_iter())?;
                }
            }
            self.look()?;
        }
        let took = process.age();
        self.come_to_rest()?;
        self.tally = Tally::default();
        Ok(took)
    }

    /// Asks for each of `names` until it has been answered once.
    pub fn ask_each(&mut self, names: Range<u32>) -> io::Result<()> {
        let mut names = names.peekable();
        while names.peek().is_some() {
            for client in self.clients.iter_mut().filter(|client| client.room() >= BUNCH) {
                client.ask(&mut names)?;
            }
            self.look()?;
        }
        self.come_to_rest()
    }

    /// Asks for `names` and returns what an answer cost the server.
    pub fn cost(&mut self, process: &Process, names: Names, pace: Pace, extent: &Extent) -> io::Result<Option<Cost>> {
        let mut names = names;
        self.ask_for(extent.warm_up, &mut names, pace)?;
        let (before, busy, began) = (self.tally.answered, process.busy()?, Instant::now());
        self.ask_for(extent.measured, &mut names, pace)?;
        let (answered, busy, took) =
            (self.tally.answered - before, process.busy()?.saturating_sub(busy), began.elapsed());
        self.come_to_rest()?;
        Ok((answered > 0).then(|| Cost {
            micros: busy.as_secs_f64() * 1e6 / answered as f64,
            per_second: answered as f64 / took.as_secs_f64(),
        }))
    }

    fn ask_for(&mut self, time: Duration, names: &mut Names, pace: Pace) -> io::Result<()> {
        let began = Instant::now();
        let (mut asked, mut turn, mut heard) = (0_u64, 0, (self.tally.answered, began));
        loop {
            let now = Instant::now();
            if now - began >= time {
                return Ok(());
            }
            match pace {
                Pace::Full => {
                    for client in self.clients.iter_mut().filter(|client| client.room() >= BUNCH) {
                        client.ask(&mut *names)?;
                    }
                }
                Pace::PerSecond(rate) => {
                    let due = (now - began).as_nanos() as u64 * u64::from(rate) / 1_000_000_000;
                    while asked < due {
                        turn = (turn + 1) % self.clients.len();
                        self.clients[turn].ask(names.by_ref().take(1))?;
                        asked += 1;
                    }
                }
            }
            self.look()?;
            if heard.0 != self.tally.answered {
                heard = (self.tally.answered, now);
            } else if now - heard.1 > SILENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "stopped answering"));
            }
        }
    }

    /// One look at every socket.
    fn look(&mut self) -> io::Result<()> {
        self.upstream.serve()?;
        for client in &mut self.clients {
            if !client.is_idle() {
                client.take(self.echo, &mut self.tally)?;
            }
        }
        Ok(())
    }

    /// Waits until every query has been answered or counted as lost.
    fn come_to_rest(&mut self) -> io::Result<()> {
        while !self.clients.iter().all(Client::is_idle) {
            self.look()?;
        }
        Ok(())
    }
}
