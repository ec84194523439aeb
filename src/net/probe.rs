//! Asks ourselves, as a client would: through the kernel, at every address, on every CPU, over UDP and TCP.
//!
//! A worker that hangs keeps its sockets, and so does a whole process; only an answer proves that somebody serves. The
//! prober pins itself to one CPU after the other, because the kernel hands a query to the worker of the CPU it arrives
//! on. It asks for a name that nobody else can know and that only a worker answers.
//!
//! The probe carries a mark: while we hold no lease, packets to our addresses are on their way to the cluster DNS, and
//! the rule set lets marked ones through to us.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type as Kind};

use crate::health::{Health, PROBE_MARK};
use crate::wire::{Asker, HEADER, Key, Name, Type, UDP_MIN, compose};

/// Time between two rounds of probes: two chances within the second that counts.
const INTERVAL: Duration = Duration::from_millis(500);
/// The same while we do not serve: what holds us back may end any moment.
const IMPATIENT: Duration = Duration::from_millis(20);
/// Time a worker has to answer a probe; in a round that fails, nothing else is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

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
    /// Anybody's: where probes cannot be told from other packets (rules by iptables), the cluster DNS may answer them.
    Anybody,
}

/// Probes `addresses` in rounds and notes in `health` what it finds, until `stopped` says so. Runs on its own thread.
///
/// `on_turn` is called whenever we begin or cease to serve.
pub fn run(
    name: &ProbeName,
    addresses: &[SocketAddr],
    trust: Trust,
    health: &Arc<Health>,
    stopped: impl Fn(Duration) -> bool,
    on_turn: impl Fn(),
) {
    let cpus = allowed_cpus();
    let query = query(name);
    let proof = (trust == Trust::Agents).then_some(name.proof);
    let mut id = 0_u16;
    loop {
        let mut held_by = Vec::new();
        for address in addresses {
            for cpu in &cpus {
                pin(*cpu);
                id = id.wrapping_add(1);
                if let Err(error) = twice(|| ask_udp(*address, &query, id, proof)) {
                    held_by.push(format!("{address} does not answer over UDP on CPU {cpu}: {error}"));
                }
            }
            id = id.wrapping_add(1);
            if let Err(error) = twice(|| ask_tcp(*address, &query, id, proof)) {
                held_by.push(format!("{address} does not answer over TCP: {error}"));
            }
        }
        if health.note(held_by, Instant::now()) {
            on_turn();
        }
        if stopped(if health.is_serving() { INTERVAL } else { IMPATIENT }) {
            return;
        }
    }
}

/// Asks once more if a signal came between: a process that has just been woken up is well.
fn twice(ask: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match ask() {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => ask(),
        outcome => outcome,
    }
}

fn query(name: &ProbeName) -> Vec<u8> {
    let key = Key::new(name.name.as_wire(), Type::A, false, false).expect("a Name is legal");
    let mut octets = [0; compose::QUERY_MAX];
    let length = compose::upstream_query(&key, 0, None, false, &mut octets);
    octets[..length.expect("QUERY_MAX octets are enough for every query")].to_vec()
}

fn ask_udp(address: SocketAddr, query: &[u8], id: u16, proof: Option<Ipv4Addr>) -> io::Result<()> {
    let socket = socket(address, Kind::DGRAM, Protocol::UDP)?;
    socket.connect(&address.into())?;
    socket.send(&with_id(query, id))?;
    let mut reply = [0; UDP_MIN];
    let length = (&socket).read(&mut reply)?;
    check(&reply[..length], id, proof)
}

fn ask_tcp(address: SocketAddr, query: &[u8], id: u16, proof: Option<Ipv4Addr>) -> io::Result<()> {
    let mut socket = socket(address, Kind::STREAM, Protocol::TCP)?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let query = with_id(query, id);
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    socket.write_all(&framed)?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    socket.read_exact(&mut reply)?;
    check(&reply, id, proof)
}

fn socket(address: SocketAddr, kind: Kind, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    // Without the right to mark there is no interception either, and nobody else to be mistaken for.
    let _ = socket.set_mark(PROBE_MARK);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
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
