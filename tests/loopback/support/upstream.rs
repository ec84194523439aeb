//! An upstream that follows a script: answers, lies, delays and dies as told, and remembers every query.
//!
//! ```text
//! udp ─┐                       ┌─ now ──► socket
//!      ├─► Seen ─► behaviour ─►│
//! tcp ─┘    └─► log            └─ later ► clock thread ► socket
//! ```

mod script;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::octets::{self, Message, Opt};
use super::{LIMIT, fresh_address};

pub use script::*;

/// Where scripted upstreams listen.
pub const PORT: u16 = 5301;

/// One query as an upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub octets: Vec<u8>,
    pub transport: Transport,
    pub source: SocketAddr,
    pub at: Instant,
    /// How many queries this upstream had seen before.
    pub nth: usize,
    pub id: u16,
    pub flags: u16,
    /// QNAME, lower case, no final dot.
    pub name: String,
    /// QNAME as sent, in wire form.
    pub qname: Vec<u8>,
    pub rtype: u16,
    pub class: u16,
    pub message: Message,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// What an upstream does with a query.
#[derive(Clone, Debug)]
pub enum Act {
    /// Closes the TCP connection with a FIN.
    Close { after: Duration },
    /// Sends octets as they are: no length in front on TCP.
    Raw { after: Duration, octets: Vec<u8> },
    /// Sends a message.
    Reply { after: Duration, octets: Vec<u8> },
    /// Closes the TCP connection with a RST.
    Reset { after: Duration },
}

/// What an upstream does with each query.
pub type Behaviour = Box<dyn Fn(&Seen) -> Vec<Act> + Send + Sync>;

/// A running upstream. Dropping it closes its sockets.
pub struct Upstream {
    address: SocketAddr,
    serves_tcp: bool,
    state: Arc<State>,
    running: Mutex<Option<Running>>,
}

struct State {
    behaviour: Mutex<Arc<Behaviour>>,
    log: Mutex<Vec<Seen>>,
    logged: Condvar,
}

struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    clock: JoinHandle<()>,
    connections: Arc<Mutex<Vec<Weak<Connection>>>>,
}

/// A TCP connection. Only the thread that reads it owns it, so it closes when that thread ends.
struct Connection {
    stream: TcpStream,
    writing: Mutex<()>,
}

// === impl Upstream ===

impl Upstream {
    /// Starts on an address of its own, UDP and TCP.
    pub fn new(behaviour: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::new(fresh_address(), PORT), true, behaviour)
    }

    /// As [`Upstream::new`], but TCP is refused.
    pub fn udp_only(behaviour: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::new(fresh_address(), PORT), false, behaviour)
    }

    /// Starts on `address`.
    pub fn at(
        address: SocketAddr,
        serves_tcp: bool,
        behaviour: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            behaviour: Mutex::new(Arc::new(Box::new(behaviour))),
            log: Mutex::default(),
            logged: Condvar::new(),
        };
        let upstream = Self { address, serves_tcp, state: Arc::new(state), running: Mutex::new(None) };
        upstream.start();
        upstream
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the script; queries already being answered keep theirs.
    pub fn set(&self, behaviour: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) {
        *lock(&self.state.behaviour) = Arc::new(Box::new(behaviour));
    }

    /// Opens the sockets again after [`Upstream::stop`].
    pub fn start(&self) {
        let mut running = lock(&self.running);
        assert!(running.is_none(), "the upstream runs already");
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (clock, alarms) = mpsc::channel();
        let udp = Arc::new(UdpSocket::bind(self.address).expect("the address is ours alone"));
        // Bursts wait here, not in the bin; the kernel takes what it allows.
        socket2::SockRef::from(&*udp).set_recv_buffer_size(4 << 20).expect("any size is clamped");
        let run = thread::spawn(move || run_clock(&alarms));
        let mut threads = vec![thread::spawn({
            let (state, stop, clock) = (self.state.clone(), stop.clone(), clock.clone());
            move || serve_udp(&udp, &state, &stop, &clock)
        })];
        if self.serves_tcp {
            let listener = TcpListener::bind(self.address).expect("the address is ours alone");
            let (state, stop, connections) = (self.state.clone(), stop.clone(), connections.clone());
            threads.push(thread::spawn(move || serve_tcp(&listener, &state, &stop, &clock, &connections)));
        }
        *running = Some(Running { stop, threads, clock: run, connections });
    }

    /// Closes all sockets: UDP queries meet an ICMP error, TCP connections end and are refused.
    pub fn stop(&self) {
        let Some(running) = lock(&self.running).take() else { return };
        running.stop.store(true, Ordering::SeqCst);
        // Both threads wait in the kernel; a datagram and a connection wake them.
        let waker = UdpSocket::bind((self.address.ip(), 0)).expect("an ephemeral port is free");
        waker.send_to(&[], self.address).expect("loopback takes it");
        if self.serves_tcp {
            drop(TcpStream::connect(self.address));
        }
        let mut well = true;
        for thread in running.threads {
            well &= thread.join().is_ok();
        }
        for connection in lock(&running.connections).iter().filter_map(Weak::upgrade) {
            // An error means that it is closed already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        well &= running.clock.join().is_ok();
        assert!(well || thread::panicking(), "the script of the upstream at {} panicked", self.address);
    }

    /// All queries so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.log).clone()
    }

    /// Queries for this name (any letter case, no final dot) and type so far.
    pub fn seen_of(&self, name: &str, rtype: u16) -> Vec<Seen> {
        lock(&self.state.log).iter().filter(|seen| seen.is(name, rtype)).cloned().collect()
    }

    /// How many queries for this name and type there were. Probes and other names do not count.
    pub fn count_of(&self, name: &str, rtype: u16) -> usize {
        self.seen_of(name, rtype).len()
    }

    /// As [`Upstream::seen_of`], but what was sent again, octet for octet, counts once: on a busy machine even a
    /// prompt answer can be late enough for that.
    pub fn questions_of(&self, name: &str, rtype: u16) -> Vec<Seen> {
        let mut known = HashSet::new();
        self.seen_of(name, rtype).into_iter().filter(|it| known.insert((it.transport, it.octets.clone()))).collect()
    }

    /// Waits until there have been `count` queries in all.
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        self.wait_where(count, LIMIT, |_| true)
    }

    /// Waits until there have been `count` queries for this name and type.
    pub fn wait_for_name(&self, name: &str, rtype: u16, count: usize) -> Vec<Seen> {
        self.wait_where(count, LIMIT, |seen| seen.is(name, rtype))
    }

    /// Waits until `count` queries satisfy `wanted`, and returns those; panics after `limit`.
    pub fn wait_where(&self, count: usize, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let deadline = Instant::now() + limit;
        let mut log = lock(&self.state.log);
        loop {
            let found: Vec<Seen> = log.iter().filter(|seen| wanted(seen)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(log);
                panic!("{} of {count} queries within {limit:?}; seen:\n{}", found.len(), self.history());
            }
            log = self.state.logged.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The log in words, for messages.
    pub fn history(&self) -> String {
        let log = lock(&self.state.log);
        let mut out = String::new();
        for seen in log.iter().take(50) {
            let Seen { transport, name, rtype, flags, source, .. } = seen;
            let since = seen.at.duration_since(log[0].at);
            writeln!(out, "  {since:>12.3?} {transport:?} {name} TYPE{rtype} flags {flags:04x} from {source}")
                .expect("strings take all");
        }
        out
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Seen ===

impl Seen {
    fn read(octets: &[u8], transport: Transport, source: SocketAddr) -> Option<Self> {
        let message = Message::read(octets).ok()?;
        let (wire, end) = octets::read_name(octets, 12).ok()?;
        let field = |at: usize| octets.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        Some(Self {
            octets: octets.to_vec(),
            transport,
            source,
            at: Instant::now(),
            nth: 0,
            id: message.id,
            flags: message.flags,
            name: octets::text(&wire),
            qname: wire,
            rtype: field(end)?,
            class: field(end + 2)?,
            message,
        })
    }

    pub fn is(&self, name: &str, rtype: u16) -> bool {
        self.rtype == rtype && self.name.eq_ignore_ascii_case(name)
    }

    pub fn opt(&self) -> Option<&Opt> {
        self.message.opt()
    }

    pub fn dnssec_ok(&self) -> bool {
        self.opt().is_some_and(Opt::dnssec_ok)
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

// === The threads ===

/// Where a reply goes.
#[derive(Clone)]
enum Way {
    Tcp(Weak<Connection>),
    Udp(Arc<UdpSocket>, SocketAddr),
}

struct Alarm {
    at: Instant,
    number: usize,
    way: Way,
    act: Act,
}

impl State {
    /// Logs a query, asks the script and does what it says.
    fn on_octets(
        &self,
        octets: &[u8],
        transport: Transport,
        source: SocketAddr,
        way: &Way,
        clock: &mpsc::Sender<Alarm>,
    ) {
        let Some(mut seen) = Seen::read(octets, transport, source) else { return };
        {
            let mut log = lock(&self.log);
            seen.nth = log.len();
            log.push(seen.clone());
        }
        self.logged.notify_all();
        let behaviour = lock(&self.behaviour).clone();
        for (number, act) in behaviour(&seen).into_iter().enumerate() {
            let (Act::Close { after } | Act::Raw { after, .. } | Act::Reply { after, .. } | Act::Reset { after }) =
                &act;
            if after.is_zero() {
                way.perform(act);
            } else {
                let alarm = Alarm { at: seen.at + *after, number: seen.nth << 8 | number, way: way.clone(), act };
                // A stopped upstream answers nothing more.
                let _ = clock.send(alarm);
            }
        }
    }
}

impl Way {
    /// Errors mean that the asker is gone, which is no concern of a script.
    fn perform(&self, act: Act) {
        let _ = match self {
            Self::Tcp(connection) => connection.upgrade().map_or(Ok(()), |connection| connection.perform(act)),
            Self::Udp(socket, source) => match act {
                Act::Close { .. } | Act::Reset { .. } => Ok(()),
                Act::Raw { octets, .. } | Act::Reply { octets, .. } => socket.send_to(&octets, source).map(drop),
            },
        };
    }
}

impl Connection {
    fn perform(&self, act: Act) -> std::io::Result<()> {
        let _turn = lock(&self.writing);
        match act {
            Act::Close { .. } => self.stream.shutdown(Shutdown::Both),
            Act::Raw { octets, .. } => (&self.stream).write_all(&octets),
            Act::Reply { octets, .. } => {
                let length = u16::try_from(octets.len()).expect("scripts stay below 65,536 octets");
                (&self.stream).write_all(&[&length.to_be_bytes()[..], &octets].concat())
            }
            Act::Reset { .. } => {
                // Ends the reader, whose close then aborts the connection.
                socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                self.stream.shutdown(Shutdown::Read)
            }
        }
    }
}

fn serve_udp(socket: &Arc<UdpSocket>, state: &State, stop: &AtomicBool, clock: &mpsc::Sender<Alarm>) {
    let mut buffer = vec![0; 65_535];
    loop {
        let received = socket.recv_from(&mut buffer);
        if stop.load(Ordering::SeqCst) {
            return;
        }
        // An error is the ICMP echo of a reply to an asker that is gone.
        if let Ok((length, source)) = received {
            let way = Way::Udp(socket.clone(), source);
            state.on_octets(&buffer[..length], Transport::Udp, source, &way, clock);
        }
    }
}

fn serve_tcp(
    listener: &TcpListener,
    state: &Arc<State>,
    stop: &AtomicBool,
    clock: &mpsc::Sender<Alarm>,
    connections: &Mutex<Vec<Weak<Connection>>>,
) {
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, source)) = accepted else { continue };
        // An asker that never reads must not stop the clock.
        stream.set_write_timeout(Some(LIMIT)).expect("the limit is not zero");
        let connection = Arc::new(Connection { stream, writing: Mutex::new(()) });
        lock(connections).push(Arc::downgrade(&connection));
        let (state, clock) = (state.clone(), clock.clone());
        thread::spawn(move || serve_connection(&connection, source, &state, &clock));
    }
}

fn serve_connection(connection: &Arc<Connection>, source: SocketAddr, state: &State, clock: &mpsc::Sender<Alarm>) {
    let way = Way::Tcp(Arc::downgrade(connection));
    let mut reader = &connection.stream;
    let mut length = [0; 2];
    while reader.read_exact(&mut length).is_ok() {
        let mut octets = vec![0; usize::from(u16::from_be_bytes(length))];
        if reader.read_exact(&mut octets).is_err() {
            return;
        }
        state.on_octets(&octets, Transport::Tcp, source, &way, clock);
    }
}

/// Performs acts when they are due; ends when nobody can send any more.
fn run_clock(alarms: &mpsc::Receiver<Alarm>) {
    let mut due = BinaryHeap::new();
    loop {
        let wait = due
            .peek()
            .map_or(LIMIT, |Reverse(next): &Reverse<Alarm>| next.at.saturating_duration_since(Instant::now()));
        match alarms.recv_timeout(wait) {
            Ok(alarm) => due.push(Reverse(alarm)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while due.peek().is_some_and(|Reverse(next)| next.at <= Instant::now()) {
            if let Some(Reverse(Alarm { way, act, .. })) = due.pop() {
                way.perform(act);
            }
        }
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Alarm {}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

/// A panic elsewhere is reported elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
