//! The client of a stream: one thread, many sockets.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, timeout};

use super::count::{Asked, Fate, Transport};
use super::{Load, PATIENCE};
use crate::stage::servers::{RECEIVE_BUFFER, question_end};

/// Questions a UDP port asks before another takes its place.
const PER_PORT: u32 = 4;
/// Ports in use at the same time, for each address.
const PORTS: usize = 8;
/// Every so many questions of an address go out by the port that is never given up.
const KEPT_PORT_EVERY: u32 = 16;
/// How often questions are sent.
const TICK: Duration = Duration::from_millis(1);
/// The longest time without CPU that is caught up; a longer one leaves a gap rather than a burst.
const CATCH_UP: Duration = Duration::from_millis(20);

type Log = Rc<RefCell<Vec<Asked>>>;

/// Asks until told to stop.
pub fn run(load: &Load, stop: &AtomicBool) -> Vec<Asked> {
    run_for(load, stop, u32::MAX)
}

/// Asks until told to stop, `count` questions at most.
pub fn run_for(load: &Load, stop: &AtomicBool, count: u32) -> Vec<Asked> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs a few descriptors");
    let log = Log::default();
    LocalSet::new().block_on(&runtime, ask_all(load, stop, count, &log));
    // The tasks of lost questions have ended with their set, and with them the other owners.
    log.take()
}

async fn ask_all(load: &Load, stop: &AtomicBool, count: u32, log: &Log) {
    let mut ports: Vec<Ports> = load.addresses.iter().map(|ip| Ports::to(SocketAddr::new(*ip, 53))).collect();
    let mut due = [Due::at(load.udp_per_second), Due::at(load.tcp_per_second)];
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut asked: u32 = 0;
    // Round robin, for each transport.
    let mut turns = [0, 0];
    while !stop.load(Ordering::Relaxed) && asked < count {
        ticks.tick().await;
        let [udp, tcp] = due.each_mut().map(|due| due.now(Instant::now()));
        for (transport, questions) in [(Transport::Udp, udp), (Transport::Tcp, tcp)] {
            for _ in 0..questions.min(count - asked) {
                let turn = &mut turns[usize::from(transport == Transport::Tcp)];
                let number = *turn % ports.len();
                *turn += 1;
                let query = query(asked, load.zone);
                asked += 1;
                match transport {
                    Transport::Udp => ports[number].ask(query, log),
                    Transport::Tcp => ask_tcp(ports[number].to, query, load.tcp_pause, log),
                }
            }
        }
    }
    let last = Instant::now();
    while last.elapsed() < PATIENCE && log.borrow().iter().any(|it| it.fate == Fate::Lost) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `q<number>.<zone>` IN A, without EDNS; the ID is the number's low half.
fn query(number: u32, zone: &str) -> Vec<u8> {
    let mut out = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    out[..2].copy_from_slice(&number.to_be_bytes()[2..]);
    for label in [&format!("q{number}")].into_iter().map(String::as_str).chain(zone.split('.')) {
        out.push(u8::try_from(label.len()).expect("labels are short"));
        out.extend(label.bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

fn begin(log: &Log, address: IpAddr, transport: Transport, kept_port: bool) -> usize {
    let mut log = log.borrow_mut();
    let sent = Instant::now();
    log.push(Asked { sent, address, transport, kept_port, fate: Fate::Lost, took: Duration::MAX });
    log.len() - 1
}

fn end(log: &Log, index: usize, fate: Fate) {
    let asked = &mut log.borrow_mut()[index];
    asked.took = asked.sent.elapsed();
    asked.fate = if asked.took > PATIENCE { Fate::Late } else { fate };
}

fn ask_tcp(to: SocketAddr, query: Vec<u8>, pause: Duration, log: &Log) {
    let (index, log) = (begin(log, to.ip(), Transport::Tcp, false), log.clone());
    spawn_local(async move {
        let exchange = async {
            let mut stream = TcpStream::connect(to).await?;
            tokio::time::sleep(pause).await;
            let length = u16::try_from(query.len()).expect("queries are short");
            stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            io::Result::Ok(answer)
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(answer)) => end(&log, index, fate_of(&query, &answer)),
            Ok(Err(error)) => end(&log, index, Fate::Refused(error.kind())),
            // Lost is what it is until we know better.
            Err(_) => {}
        }
    });
}

/// Who gave this answer.
fn fate_of(query: &[u8], answer: &[u8]) -> Fate {
    let end = question_end(query).expect("we wrote it");
    let is_answer = answer.len() == end + 16
        && answer[..2] == query[..2]
        && answer[2] & 0x80 != 0
        && answer[6..12] == [0, 1, 0, 0, 0, 0]
        && answer[12..end] == query[12..end];
    if !is_answer {
        return Fate::Wrong(answer.get(3).map_or(u8::MAX, |flags| flags & 0xf));
    }
    match answer[end + 12..] {
        [10, 8, 8, 8] => Fate::Agent,
        [10, 7, 7, 7] => Fate::Upstream,
        [10, 9, 9, endpoint] => Fate::Cluster(endpoint),
        _ => Fate::Wrong(0),
    }
}

// === impl Due ===

/// How many questions are due.
struct Due {
    per_second: u32,
    /// Up to here all are sent.
    until: Instant,
}

impl Due {
    fn at(per_second: u32) -> Self {
        Self { per_second, until: Instant::now() }
    }

    fn now(&mut self, now: Instant) -> u32 {
        if self.per_second == 0 {
            return 0;
        }
        let each = Duration::from_secs(1) / self.per_second;
        self.until = self.until.max(now.checked_sub(CATCH_UP.max(each)).unwrap_or(now));
        let mut due = 0;
        while self.until + each <= now {
            self.until += each;
            due += 1;
        }
        due
    }
}

// === impl Ports ===

/// The UDP ports that ask one address.
struct Ports {
    to: SocketAddr,
    kept: Rc<Port>,
    short: Vec<Rc<Port>>,
    asked: u32,
}

/// One connected socket.
struct Port {
    socket: UdpSocket,
    /// By ID: the place in the log and the query.
    waiting: RefCell<BTreeMap<u16, (usize, Vec<u8>)>>,
    asked: Cell<u32>,
    life: Life,
}

/// How long a port is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    /// For [`PER_PORT`] questions.
    Short,
    /// As long as the stream.
    Stream,
}

impl Ports {
    fn to(to: SocketAddr) -> Self {
        Self { to, kept: Port::to(to, Life::Stream), short: Vec::new(), asked: 0 }
    }

    fn ask(&mut self, query: Vec<u8>, log: &Log) {
        self.asked += 1;
        if self.asked.is_multiple_of(KEPT_PORT_EVERY) {
            return self.kept.ask(query, log);
        }
        let place = usize::try_from(self.asked).expect("32 bits fit") % PORTS;
        if place >= self.short.len() {
            self.short.push(Port::to(self.to, Life::Short));
        }
        let place = place.min(self.short.len() - 1);
        if self.short[place].is_spent() {
            self.short[place] = Port::to(self.to, Life::Short);
        }
        self.short[place].ask(query, log);
    }
}

impl Port {
    fn to(to: SocketAddr, life: Life) -> Rc<Self> {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let open = || {
            let socket = std::net::UdpSocket::bind(any)?;
            if life == Life::Stream {
                setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            }
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        let socket = open().unwrap_or_else(|error| panic!("no socket to {to}: {error}"));
        Rc::new(Self { socket, waiting: RefCell::default(), asked: Cell::default(), life })
    }

    /// It has asked what it may.
    fn is_spent(&self) -> bool {
        self.life == Life::Short && self.asked.get() >= PER_PORT
    }

    fn ask(self: &Rc<Self>, query: Vec<u8>, log: &Log) {
        let to = self.socket.peer_addr().expect("it is connected");
        let index = begin(log, to.ip(), Transport::Udp, self.life == Life::Stream);
        let id = u16::from_be_bytes([query[0], query[1]]);
        // Not tokio's: that waits for the reactor to have looked at the socket once.
        let send = |query: &[u8]| SockRef::from(&self.socket).send(query);
        let sent = send(&query).or_else(|error| match error.kind() {
            // ICMP for an earlier question: take it, and send this one.
            io::ErrorKind::ConnectionRefused => {
                self.refused(log, error.kind());
                send(&query)
            }
            _ => Err(error),
        });
        if let Err(error) = sent {
            return end(log, index, Fate::Refused(error.kind()));
        }
        self.waiting.borrow_mut().insert(id, (index, query));
        if self.asked.replace(self.asked.get() + 1) == 0 {
            let (port, log) = (self.clone(), log.clone());
            spawn_local(async move { port.listen(&log).await });
        }
    }

    async fn listen(&self, log: &Log) {
        let mut buffer = [0; 1500];
        while !self.is_spent() || !self.waiting.borrow().is_empty() {
            match self.socket.recv(&mut buffer).await {
                Ok(length) => self.answered(log, &buffer[..length]),
                Err(error) => self.refused(log, error.kind()),
            }
        }
    }

    fn answered(&self, log: &Log, answer: &[u8]) {
        let id = answer.first_chunk().map(|id| u16::from_be_bytes(*id));
        let asked = id.and_then(|id| self.waiting.borrow_mut().remove(&id));
        // What nobody waits for was answered before.
        if let Some((index, query)) = asked {
            end(log, index, fate_of(&query, answer));
        }
    }

    /// An ICMP error does not say for which question it is: the oldest one.
    fn refused(&self, log: &Log, kind: io::ErrorKind) {
        let oldest = self.waiting.borrow().iter().min_by_key(|(_, (index, _))| *index).map(|(id, _)| *id);
        let asked = oldest.and_then(|id| self.waiting.borrow_mut().remove(&id));
        if let Some((index, _)) = asked {
            end(log, index, Fate::Refused(kind));
        }
    }
}
