//! The chapter that needs root: who answers the pods, before the agent, with it, and when it is killed.
//!
//! A stream of questions goes on through everything that happens, and each change shows what became of it. What is planned
//! must lose nothing; what a SIGKILL loses is shown.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::super::screen::{Screen, show_time};
use super::super::tour::Ended;
use super::agent::Agent;
use super::stream::{self, Count, Fate, RATE, Stream};
use super::{BY_AGENT, BY_CLUSTER, CLUSTER_IP, Cluster, ENDPOINTS, NAME, OWN_IP};

/// Longest wait until somebody else answers.
const LIMIT: Duration = Duration::from_secs(10);
/// Answers in a row after which it counts as settled who answers.
const SETTLED: usize = 250;
/// Time a stream runs before something happens to it.
const CALM: Duration = Duration::from_millis(300);

/// The agent on the node, and what happened until it was there.
pub(in super::super) struct Interception<'a> {
    cluster: &'a Cluster,
    yaml: &'a str,
    agent: Agent,
    before: Count,
    takeover: Count,
    /// Of all streams.
    pub(in super::super) total: Count,
}

// === impl Interception ===

impl<'a> Interception<'a> {
    /// Starts the agent on the node under a stream and waits until it answers. Says nothing yet: it may not work here.
    ///
    /// # Errors
    /// Why the agent does not intercept on this host, in one line.
    pub(in super::super) fn begin(cluster: &'a Cluster, yaml: &'a str) -> Result<Self, String> {
        let said = |error: io::Error| error.to_string();
        if !stream::reach(&cluster.pods, &ENDPOINTS, LIMIT) {
            return Err("the pods do not reach the cluster DNS".to_owned());
        }
        let stream = Stream::start(&cluster.pods, &[CLUSTER_IP]).map_err(said)?;
        let start = Instant::now();
        if !stream.wait_for(Fate::Cluster, SETTLED, start, LIMIT, || false) {
            return Err(format!("the pods do not reach the cluster DNS at {CLUSTER_IP}"));
        }
        let came = Instant::now();
        let mut agent = Agent::start(&cluster.node, yaml).map_err(said)?;
        if !stream.wait_for(Fate::Agent, SETTLED, came, LIMIT, || agent.has_ended()) {
            return Err(format!("the agent does not intercept here: {}", agent.last_word()));
        }
        let end = Instant::now();
        let (before, takeover) = (stream.count(start, came), stream.count(came, end));
        stream.stop().map_err(said)?;
        let total = before.and(takeover);
        Ok(Self { cluster, yaml, agent, before, takeover, total })
    }

    /// Shows it, kills the agent, starts it again, restarts it as an update does.
    ///
    /// # Errors
    /// If something planned lost a question, or nobody took over in time.
    pub(in super::super) fn show(&mut self, screen: &mut Screen<impl Write>) -> Result<(), Ended> {
        let each = RATE * 2;
        screen.section(&format!("Who answers the pods? {each} questions a second, to {CLUSTER_IP}"))?;
        screen.whisper(&format!("{NAME} is {BY_CLUSTER} to the cluster DNS and {BY_AGENT} to the agent"))?;
        screen.count_heads()?;
        row(screen, "no agent on the node", self.before, Planned::Yes)?;
        row(screen, "the agent starts and takes over", self.takeover, Planned::Yes)?;

        screen.section(&format!("The agent is killed: {each} questions a second, to {OWN_IP} as well"))?;
        screen.count_heads()?;
        let stream = Stream::start(&self.cluster.pods, &[CLUSTER_IP, OWN_IP])?;
        let start = Instant::now();
        self.until(&stream, Fate::Agent, start)?;
        std::thread::sleep(CALM);
        let killed = Instant::now();
        self.agent.kill()?;
        self.until(&stream, Fate::Cluster, killed)?;
        let dead = Instant::now();
        row(screen, "kill -9", stream.count(start, dead), Planned::No)?;
        let gap = stream.first_after(killed, Fate::Cluster).map_or_else(|| "no time".to_owned(), show_time);
        screen.whisper(&format!("  the kernel closed its sockets in {gap}; then the cluster DNS answered"))?;

        self.agent = Agent::start(&self.cluster.node, self.yaml)?;
        self.until(&stream, Fate::Agent, dead)?;
        let back = Instant::now();
        row(screen, "it starts again", stream.count(dead, back), Planned::Yes)?;

        std::thread::sleep(CALM);
        self.agent.stop()?;
        let stopped = Instant::now();
        self.agent = Agent::start(&self.cluster.node, self.yaml)?;
        self.until(&stream, Fate::Agent, stopped)?;
        let updated = Instant::now();
        row(screen, "rolling update: SIGTERM, start", stream.count(back, updated), Planned::Yes)?;
        self.total = self.total.and(stream.count(start, updated));
        Ok(stream.stop()?)
    }

    /// Ends the agent as an update would.
    ///
    /// # Errors
    /// If it did not end well.
    pub(in super::super) fn end(mut self) -> io::Result<()> {
        self.agent.stop()
    }

    /// Waits until `whom` answers everything that was asked after `since`.
    fn until(&mut self, stream: &Stream, whom: Fate, since: Instant) -> Result<(), Ended> {
        let (gone, wanted) = match whom {
            Fate::Agent => (true, "answers from the agent"),
            Fate::Cluster | Fate::Lost | Fate::Waiting => (false, "answers from the cluster DNS"),
        };
        let agent = &mut self.agent;
        if stream.wait_for(whom, SETTLED, since, LIMIT, || gone && agent.has_ended()) {
            return Ok(());
        }
        let got = if gone { agent.last_word() } else { "others, or none".to_owned() };
        Err(Ended::Wrong { asked: NAME.to_owned(), wanted: wanted.to_owned(), got })
    }
}

/// Shows what became of the questions while something happened.
fn row(screen: &mut Screen<impl Write>, what: &str, count: Count, planned: Planned) -> Result<(), Ended> {
    if planned == Planned::Yes && count.lost > 0 {
        let got = format!("{} of {} lost", count.lost, count.asked);
        return Err(Ended::Wrong { asked: what.to_owned(), wanted: "an answer to every question".to_owned(), got });
    }
    Ok(screen.count(what, &count)?)
}

/// Whether what happened may cost a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Planned {
    No,
    Yes,
}
