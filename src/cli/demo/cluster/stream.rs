//! A steady stream of questions from the pods, each on a port of its own, counted to the last one.
//!
//! The name has two answers: the cluster DNS knows one, the agent is configured with another. So every answer says who
//! gave it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use super::namespace::Namespace;

/// The name, and what each of the two says.
pub(in super::super) const NAME: &str = "who-answers.test";
pub(in super::super) const BY_CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
pub(in super::super) const BY_AGENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Questions a second from each pod.
pub(super) const RATE: u32 = 500;
/// What is not answered by then is lost: less than the patience of any resolver.
const PATIENCE: Duration = Duration::from_secs(1);
/// After that a question on the way to a new neighbour is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// Octets of a DNS header.
const HEADER: usize = 12;

/// A stream that runs. Dropping it stops it.
pub(super) struct Stream {
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    pods: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Log {
    asked: Mutex<Vec<Asked>>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Agent,
    Cluster,
    Lost,
    Waiting,
}

/// What became of the questions of some time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in super::super) struct Count {
    pub(in super::super) asked: usize,
    pub(in super::super) cluster: usize,
    pub(in super::super) agent: usize,
    pub(in super::super) lost: usize,
}

// === impl Stream ===

impl Stream {
    /// Starts asking `addresses` in turn from each of `pods`.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(pods: &[Namespace], addresses: &[Ipv4Addr]) -> io::Result<Self> {
        let mut stream = Self { log: Arc::default(), stop: Arc::default(), pods: Vec::new() };
        for pod in pods {
            let (log, stop, addresses) = (Arc::clone(&stream.log), Arc::clone(&stream.stop), addresses.to_vec());
            stream.pods.push(pod.spawn(move || ask_on(&addresses, &log, &stop))?);
        }
        Ok(stream)
    }

    /// Waits until the last `count` questions asked since `since` that have an answer all have it from `whom`.
    ///
    /// False if that is not so within `limit`, or `is_over` before.
    pub(super) fn wait_for(
        &self,
        whom: Fate,
        count: usize,
        since: Instant,
        limit: Duration,
        mut is_over: impl FnMut() -> bool,
    ) -> bool {
        let deadline = Instant::now() + limit;
        let mut asked = self.log.lock();
        loop {
            let decided = asked.iter().rev().take_while(|it| it.at >= since).filter(|it| it.fate != Fate::Waiting);
            let mut last = decided.take(count).peekable();
            let seen = last.by_ref().take_while(|it| it.fate == whom).count();
            if seen == count {
                return true;
            }
            if Instant::now() > deadline || is_over() {
                return false;
            }
            asked = self
                .log
                .changed
                .wait_timeout(asked, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Counts the questions asked from `from` to `to`, which is past, when the fate of each is known.
    pub(super) fn count(&self, from: Instant, to: Instant) -> Count {
        let within = |it: &&Asked| it.at >= from && it.at < to;
        let is_open = |asked: &mut Vec<Asked>| asked.iter().filter(within).any(|it| it.fate == Fate::Waiting);
        let settled = self.log.changed.wait_while(self.log.lock(), is_open);
        let asked = settled.unwrap_or_else(PoisonError::into_inner);
        let mut count = Count::default();
        for it in asked.iter().filter(within) {
            count.asked += 1;
            match it.fate {
                Fate::Agent => count.agent += 1,
                Fate::Cluster => count.cluster += 1,
                Fate::Lost | Fate::Waiting => count.lost += 1,
            }
        }
        count
    }

    /// How long after `event` the first question was asked that `whom` answered.
    pub(super) fn first_after(&self, event: Instant, whom: Fate) -> Option<Duration> {
        let asked = self.log.lock();
        let first = asked.iter().filter(|it| it.at >= event && it.fate == whom).map(|it| it.at).min();
        first.map(|at| at - event)
    }

    /// Asks no more, and waits for what is still to come.
    ///
    /// # Errors
    /// If a pod could not ask.
    pub(super) fn stop(mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.pods.drain(..).map(|pod| pod.join().expect("asking does not panic"));
        ended.collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

// === impl Count ===

impl Count {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            asked: self.asked + other.asked,
            cluster: self.cluster + other.cluster,
            agent: self.agent + other.agent,
            lost: self.lost + other.lost,
        }
    }
}

// === impl Log ===

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> usize {
        let mut asked = self.lock();
        asked.push(Asked { at: Instant::now(), fate: Fate::Waiting });
        asked.len() - 1
    }

    fn end(&self, index: usize, fate: Fate) {
        self.lock()[index].fate = fate;
        self.changed.notify_all();
    }
}

/// Asks `targets` from each of `pods` until each has answered: from then on every link is up and every neighbour known,
/// and what is lost is not lost by the stage. False if that takes longer than `limit`.
pub(super) fn reach(pods: &[Namespace], targets: &[Ipv4Addr], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let ask_all = || -> io::Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for target in targets {
                while !matches!(tokio::time::timeout(RETRY, ask(*target)).await, Ok(Ok(Fate::Cluster))) {
                    if Instant::now() > deadline {
                        return Ok(false);
                    }
                    // A refusal comes at once.
                    tokio::time::sleep(RETRY / 10).await;
                }
            }
            Ok(true)
        })
    };
    pods.iter().all(|pod| pod.run(ask_all).unwrap_or(false))
}

/// One pod: asks until told to stop, then waits for the last answers.
fn ask_on(addresses: &[Ipv4Addr], log: &Arc<Log>, stop: &AtomicBool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut targets = addresses.iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let target = *targets.next().expect("there is an address to ask");
            let log = Arc::clone(log);
            tokio::task::spawn_local(async move {
                let index = log.begin();
                let asked = tokio::time::timeout(PATIENCE, ask(target)).await;
                log.end(index, asked.unwrap_or(Ok(Fate::Lost)).unwrap_or(Fate::Lost));
            });
        }
    });
    runtime.block_on(tasks);
    Ok(())
}

/// Asks once, from a port of its own, and says who answered. An answer of any other kind counts as none.
async fn ask(target: Ipv4Addr) -> io::Result<Fate> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(SocketAddr::from((target, 53))).await?;
    let query = query(rand::random());
    socket.send(&query).await?;
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).await?;
    Ok(fate_of(&query, &reply[..length]))
}

/// [`NAME`] IN A with RD, without EDNS.
fn query(id: u16) -> Vec<u8> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query[..2].copy_from_slice(&id.to_be_bytes());
    for label in NAME.split('.') {
        query.push(u8::try_from(label.len()).expect("labels are short"));
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Who gives this answer: one record, the question repeated, the address last.
fn fate_of(query: &[u8], reply: &[u8]) -> Fate {
    let ours = reply.len() > query.len()
        && reply[..2] == query[..2]
        && reply[2] & 0x80 != 0
        && reply[6..8] == [0, 1]
        && reply[HEADER..query.len()] == query[HEADER..];
    match reply.last_chunk::<4>().map(|octets| Ipv4Addr::from(*octets)) {
        Some(BY_AGENT) if ours => Fate::Agent,
        Some(BY_CLUSTER) if ours => Fate::Cluster,
        _ => Fate::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        reply.extend(address.octets());
        reply
    }

    #[test]
    fn an_answer_says_who_gave_it_and_nothing_else_does() {
        let asked = query(7);
        assert_eq!(fate_of(&asked, &reply(&asked, BY_AGENT)), Fate::Agent);
        assert_eq!(fate_of(&asked, &reply(&asked, BY_CLUSTER)), Fate::Cluster);
        assert_eq!(fate_of(&asked, &reply(&asked, Ipv4Addr::LOCALHOST)), Fate::Lost);
        assert_eq!(fate_of(&asked, &reply(&query(8), BY_AGENT)), Fate::Lost, "another question's");
        assert_eq!(fate_of(&asked, &asked), Fate::Lost);
        assert_eq!(fate_of(&asked, &[]), Fate::Lost);
    }

    #[test]
    fn counts_add_up() {
        let log = Arc::<Log>::default();
        let from = Instant::now();
        for fate in [Fate::Agent, Fate::Cluster, Fate::Agent, Fate::Lost] {
            let index = log.begin();
            log.end(index, fate);
        }
        let to = Instant::now() + Duration::from_secs(1);
        log.asked.lock().expect("no panic").push(Asked { at: to, fate: Fate::Agent });
        let stream = Stream { log, stop: Arc::default(), pods: Vec::new() };
        assert_eq!(stream.count(from, to), Count { asked: 4, cluster: 1, agent: 2, lost: 1 });
        assert!(!stream.wait_for(Fate::Agent, 2, from, Duration::ZERO, || false), "one was lost between");
        assert!(stream.wait_for(Fate::Agent, 1, from, Duration::ZERO, || false));
    }
}
