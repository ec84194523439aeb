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

/// The name that proves a worker alive; made anew at every start.
#[derive(Clone, Debug)]
pub struct ProbeName(Name);

impl ProbeName {
    /// A name nobody can guess.
    pub fn new(random: u128) -> Self {
        Self(format!("{random:032x}.probe.nodens.invalid").parse().expect("hexadecimal digits make a label"))
    }

    /// Whether `key` asks for it.
    pub fn is(&self, key: &Key) -> bool {
        // Lengths differ for nearly every query, so that this costs one comparison.
        self.0.as_wire() == key.qname()
    }

    /// The proof: the number of the worker as an address.
    pub fn answer(asker: &Asker<'_>, worker: usize, out: &mut [u8]) -> Option<usize> {
        let [.., high, low] = (worker as u32).to_be_bytes();
        compose::addresses(asker, &[IpAddr::V4(Ipv4Addr::new(127, 0, high, low))], 0, out)
    }
}

/// Probes `addresses` in rounds and notes in `health` what it finds, until `stopped` says so. Runs on its own thread.
///
/// `on_turn` is called whenever we begin or cease to serve.
pub fn run(
    name: &ProbeName,
    addresses: &[SocketAddr],
    health: &Arc<Health>,
    stopped: impl Fn(Duration) -> bool,
    on_turn: impl Fn(),
) {
    let cpus = allowed_cpus();
    let query = query(name);
    let mut id = 0_u16;
    loop {
        let mut held_by = Vec::new();
        for address in addresses {
            for cpu in &cpus {
                pin(*cpu);
                id = id.wrapping_add(1);
                if let Err(error) = ask_udp(*address, &query, id) {
                    held_by.push(format!("{address} does not answer over UDP on CPU {cpu}: {error}"));
                }
            }
            id = id.wrapping_add(1);
            if let Err(error) = ask_tcp(*address, &query, id) {
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

fn query(name: &ProbeName) -> Vec<u8> {
    let key = Key::new(name.0.as_wire(), Type::A, false, false).expect("a Name is legal");
    let mut octets = [0; compose::QUERY_MAX];
    let length = compose::upstream_query(&key, 0, None, false, &mut octets);
    octets[..length.expect("QUERY_MAX octets are enough for every query")].to_vec()
}

fn ask_udp(address: SocketAddr, query: &[u8], id: u16) -> io::Result<()> {
    let socket = socket(address, Kind::DGRAM, Protocol::UDP)?;
    socket.connect(&address.into())?;
    socket.send(&with_id(query, id))?;
    let mut reply = [0; UDP_MIN];
    let length = (&socket).read(&mut reply)?;
    check(&reply[..length], id)
}

fn ask_tcp(address: SocketAddr, query: &[u8], id: u16) -> io::Result<()> {
    let mut socket = socket(address, Kind::STREAM, Protocol::TCP)?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let query = with_id(query, id);
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    socket.write_all(&framed)?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    socket.read_exact(&mut reply)?;
    check(&reply, id)
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

/// Only a worker answers the probe's name, with one address.
fn check(reply: &[u8], id: u16) -> io::Result<()> {
    let ours = reply.len() > HEADER && reply[..2] == id.to_be_bytes() && reply[3] << 4 == 0 && reply[6..8] == [0, 1];
    if ours { Ok(()) } else { Err(io::Error::other("somebody else answered")) }
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
