//! Asks ourselves, as a client would: through the kernel, at every address, on every CPU, over UDP and TCP.
//!
//! A worker that hangs keeps its sockets, and so does a whole process; only an answer proves that somebody serves. The
//! prober pins itself to one CPU after the other, because the kernel hands a query to the worker of the CPU it arrives
//! on. It asks for a name that nobody else can know and that only a worker answers.
//!
//! The probe carries a mark: while we hold no lease, packets to our addresses are on their way to the cluster DNS, and
//! the rule set lets marked ones through to us.
//!
//! Whose answer is it? While another instance holds the traffic it answers at the addresses, and behind iptables' rules the
//! cluster DNS may. Then every worker is asked at a socket of its own on the loopback
//! ([`Pair::own`](super::listen::Pair::own)), which proves that *we* work. A host whose firewall drops even what it
//! sends itself over `lo` keeps such an instance from being ready.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type as Kind};

use crate::health::{FRESH, Health, PROBE_MARK, Rest, Scope};
use crate::metrics::{Said, Talks};
use crate::wire::{Asker, HEADER, Key, Name, Transport, Type, UDP_MIN, compose};

/// Time from one round of probes to the next, begin to begin: two chances within the second that counts.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time between two rounds while we do not serve: what holds us back may end any moment.
const IMPATIENT: Duration = Duration::from_millis(20);
/// Time a worker has to answer a probe; a round that fails ends with it.
const PATIENCE: Duration = Duration::from_millis(250);
// A round that needs all its patience once must not be the end of what the round before it has proven.
const _: () = assert!(INTERVAL.as_millis() + PATIENCE.as_millis() < FRESH.as_millis());

/// A name that only an agent answers, and the proof it answers with.
///
/// The proof follows from the name, so that an instance about to leave vouches for the port it shares with its successor;
/// no other server gives it, wildcards included. The random part keeps it out of every cache.
#[derive(Clone, Debug)]
pub struct ProbeName {
    name: Name,
    proof: Ipv4Addr,
}

/// What all names of probes end in, as it stands on the wire.
const SUFFIX: &[u8] = b"\x05probe\x06nodens\x07invalid\x00";
/// Octets of the random label: 128 bits in hexadecimal digits, and its length.
const LABEL: usize = 33;

impl ProbeName {
    /// A name nobody has asked for before.
    pub fn new(random: u128) -> Self {
        let name: Name =
            format!("{random:032x}.probe.nodens.invalid").parse().expect("hexadecimal digits make a label");
        let proof = Self::proof(name.as_wire()).expect("made as a probe's name is made");
        Self { name, proof }
    }

    /// What proves that an agent has answered the question for `qname`; `None`: it is no probe.
    fn proof(qname: &[u8]) -> Option<Ipv4Addr> {
        // Lengths differ for nearly every query, so that this costs one comparison.
        let label = qname.strip_suffix(SUFFIX).filter(|label| label.len() == LABEL)?;
        let digits = |at: usize| label[1 + at..9 + at].iter().fold(0_u32, |sum, octet| sum << 4 ^ u32::from(*octet));
        let [_, a, b, c] =
            (digits(0) ^ digits(8) ^ digits(16).rotate_left(7) ^ digits(24).rotate_left(13)).to_be_bytes();
        Some(Ipv4Addr::new(127, a, b, c))
    }

    /// Asks `address` as any client does, and checks that an agent answers.
    ///
    /// # Errors
    /// Nothing in time, a refusal, or an answer that is somebody else's.
    pub fn ask(&self, address: SocketAddr, transport: Transport, patience: Duration) -> io::Result<()> {
        let (query, client) = (query(self), Client { patience, mark: None });
        match transport {
            Transport::Udp => ask_udp(address, &query, 0, client).answered(Some(self.proof)),
            Transport::Tcp => ask_tcp(address, &query, 0, Some(self.proof), client),
        }
    }

    /// Writes the proof, if `key` is a probe's question.
    pub fn answer(key: &Key, asker: &Asker<'_>, out: &mut [u8]) -> Option<usize> {
        compose::addresses(asker, &[IpAddr::V4(Self::proof(key.qname())?)], 0, out)
    }
}

/// Whose answer counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// An agent's: the proof is asked for.
    Agents,
    /// Anybody's: where probes cannot be told from other packets (rules by iptables), the cluster DNS may answer them. That
    /// our workers do is known from their own sockets.
    Anybody,
}

/// Whom to ask for what.
pub struct Prober {
    name: ProbeName,
    query: Vec<u8>,
    targets: Box<dyn Fn() -> Targets + Send>,
    cpus: Vec<usize>,
    /// What it took to answer, a proper answer as NOERROR.
    talks: Arc<Talks>,
    /// The ID of the last query.
    id: Cell<u16>,
}

/// Who is there to be asked.
pub struct Targets {
    /// The workers' own sockets.
    pub workers: Vec<SocketAddr>,
    /// What we share with others: where clients ask.
    pub addresses: Vec<SocketAddr>,
    pub trust: Trust,
}

impl Prober {
    /// `targets` is looked at before each round; what comes of it counts in `talks`.
    pub fn new(name: ProbeName, targets: impl Fn() -> Targets + Send + 'static, talks: Arc<Talks>) -> Self {
        let query = query(&name);
        Self { name, query, targets: Box::new(targets), cpus: allowed_cpus(), talks, id: Cell::new(0) }
    }

    /// Probes in rounds and notes in `health` what it finds, until that is closed. Wants a thread of its own.
    ///
    /// `on_turn` is called whenever we begin or cease to serve.
    pub fn run(self, health: &Health, on_turn: impl Fn()) {
        loop {
            let begun = Instant::now();
            let held_by = self.round(health.scope());
            if health.note(held_by, begun, Instant::now()) {
                on_turn();
            }
            let period = if health.is_serving(Instant::now()) { INTERVAL } else { IMPATIENT };
            if health.rest(begun, period.saturating_sub(begun.elapsed()).max(IMPATIENT)) == Rest::Closed {
                return;
            }
        }
    }

    /// Asks everybody in `scope` once; who is silent, one line each. Ends with the first place where anybody is.
    fn round(&self, scope: Scope) -> Vec<String> {
        let Targets { workers, addresses, trust } = (self.targets)();
        let mut silent = Vec::new();
        let undecided = scope == Scope::Workers || trust == Trust::Anybody;
        let own = workers.iter().filter(|_| undecided);
        let own: Vec<Question> = own.map(|worker| self.ask_udp(*worker)).collect();
        for (index, question) in own.into_iter().enumerate() {
            if let Err(error) = self.count(question.sent, question.answered(Some(self.name.proof))) {
                silent.push(format!("worker {index} does not answer: {error}"));
            }
        }
        let proof = (trust == Trust::Agents).then_some(self.name.proof);
        for address in addresses {
            if scope == Scope::Workers || !silent.is_empty() {
                break;
            }
            // All are sent before the first is waited for: on a busy node each CPU keeps us waiting.
            let ask_on = |cpu: &usize| {
                pin(*cpu);
                (*cpu, self.ask_udp(address))
            };
            let questions: Vec<(usize, Question)> = self.cpus.iter().map(ask_on).collect();
            for (cpu, question) in questions {
                if let Err(error) = self.count(question.sent, question.answered(proof)) {
                    silent.push(format!("{address} does not answer over UDP on CPU {cpu}: {error}"));
                }
            }
            let id = self.next_id();
            let begun = Instant::now();
            if let Err(error) = self.count(begun, ask_tcp(address, &self.query, id, proof, PROBER)) {
                silent.push(format!("{address} does not answer over TCP: {error}"));
            }
        }
        silent
    }

    fn ask_udp(&self, address: SocketAddr) -> Question {
        let id = self.next_id();
        ask_udp(address, &self.query, id, PROBER)
    }

    /// Counts what came of a question that began at `sent`.
    fn count(&self, sent: Instant, outcome: io::Result<()>) -> io::Result<()> {
        match outcome {
            Ok(()) => self.talks.say(Said::NoError, sent.elapsed()),
            Err(_) => self.talks.fail_probe(),
        }
        outcome
    }

    fn next_id(&self) -> u16 {
        self.id.set(self.id.get().wrapping_add(1));
        self.id.get()
    }
}

/// A question over UDP, under way.
struct Question {
    id: u16,
    sent: Instant,
    patience: Duration,
    socket: io::Result<Socket>,
}

impl Question {
    /// Waits for the answer.
    fn answered(self, proof: Option<Ipv4Addr>) -> io::Result<()> {
        let socket = self.socket?;
        // What is there already is taken, however late we come to look.
        let left = self.patience.saturating_sub(self.sent.elapsed()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let mut reply = [0; UDP_MIN];
        let length = loop {
            match (&socket).read(&mut reply) {
                // A signal came between, as when the process has just been woken up.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                length => break length?,
            }
        };
        check(&reply[..length], self.id, proof)
    }
}

fn query(name: &ProbeName) -> Vec<u8> {
    let key = Key::new(name.name.as_wire(), Type::A, false, false).expect("a Name is legal");
    let mut octets = [0; compose::QUERY_MAX];
    let length = compose::upstream_query(&key, 0, None, false, &mut octets);
    octets[..length.expect("QUERY_MAX octets are enough for every query")].to_vec()
}

/// How to ask.
#[derive(Clone, Copy)]
struct Client {
    patience: Duration,
    mark: Option<u32>,
}

/// As the prober does.
const PROBER: Client = Client { patience: PATIENCE, mark: Some(PROBE_MARK) };

fn ask_udp(address: SocketAddr, query: &[u8], id: u16, client: Client) -> Question {
    let send = || {
        let socket = client.socket(address, Kind::DGRAM, Protocol::UDP)?;
        socket.connect(&address.into())?;
        socket.send(&with_id(query, id))?;
        Ok(socket)
    };
    Question { id, sent: Instant::now(), patience: client.patience, socket: send() }
}

fn ask_tcp(address: SocketAddr, query: &[u8], id: u16, proof: Option<Ipv4Addr>, client: Client) -> io::Result<()> {
    let mut socket = client.socket(address, Kind::STREAM, Protocol::TCP)?;
    socket.connect_timeout(&address.into(), client.patience)?;
    let query = with_id(query, id);
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    socket.write_all(&framed)?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    socket.read_exact(&mut reply)?;
    check(&reply, id, proof)
}

impl Client {
    fn socket(self, address: SocketAddr, kind: Kind, protocol: Protocol) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        // The workers' own sockets need no mark, and kube-proxy would masquerade it: the bit 0x4000 is in it. Without the
        // right to mark there is no interception either, and nobody else to be mistaken for.
        if let Some(mark) = self.mark.filter(|_| !address.ip().is_loopback()) {
            let _ = socket.set_mark(mark);
        }
        socket.set_read_timeout(Some(self.patience))?;
        socket.set_write_timeout(Some(self.patience))?;
        Ok(socket)
    }
}

fn with_id(query: &[u8], id: u16) -> Vec<u8> {
    let mut query = query.to_vec();
    query[..2].copy_from_slice(&id.to_be_bytes());
    query
}

/// Only an agent answers the probe's name with the proof, which is the last record's data.
fn check(reply: &[u8], id: u16, proof: Option<Ipv4Addr>) -> io::Result<()> {
    let answered = reply.len() >= HEADER && reply[..2] == id.to_be_bytes();
    if answered && proof.is_none_or(|proof| reply[6..8] == [0, 1] && reply.ends_with(&proof.octets())) {
        Ok(())
    } else {
        Err(io::Error::other("somebody else answered"))
    }
}

/// The CPUs this process may run on, by number.
fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    // If it cannot be done, the probe still proves that one worker serves.
    let _ = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_probes_name_has_a_proof() {
        let probe = ProbeName::new(7);
        assert_eq!(ProbeName::proof(probe.name.as_wire()), Some(probe.proof));
        assert_ne!(probe.proof, ProbeName::new(8).proof);
        let other: Name = "00000000000000000000000000000007.probe.nodens.example".parse().expect("legal");
        assert_eq!(ProbeName::proof(other.as_wire()), None);
        let short: Name = "7.probe.nodens.invalid".parse().expect("legal");
        assert_eq!(ProbeName::proof(short.as_wire()), None);
    }

    // L07: a reply that any server with a wildcard would give is none.
    #[test]
    fn another_servers_answer_is_no_proof() {
        let reply = [&[0, 9, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..], &[0; 20], &[127, 0, 0, 1]].concat();
        assert!(check(&reply, 9, Some(Ipv4Addr::new(127, 1, 2, 3))).is_err());
        assert!(check(&reply, 9, Some(Ipv4Addr::LOCALHOST)).is_ok());
        assert!(check(&reply, 8, None).is_err());
    }
}
