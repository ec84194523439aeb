//! A client that says exactly what it is told and reads every octet of the answer, twice.
//!
//! Answers are read by our own [`Message`] and by hickory-proto, an independent implementation; both must agree.

use std::collections::HashMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::ops::Deref;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::Message as Hickory;

use super::octets::{self, EXTENDED_ERROR, Message, Opt, Rr};
use super::upstream::{Transport, address_of};
use super::{LIMIT, seconds};

/// A question and how it is put. Starts as the usual stub's with EDNS: UDP, RD=1, OPT 1,232 without options.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: u16,
    pub flags: u16,
    /// In wire form, letters kept.
    pub qname: Vec<u8>,
    pub rtype: u16,
    pub class: u16,
    pub opt: Option<Opt>,
    pub transport: Transport,
    /// The address asked from.
    pub source: Option<IpAddr>,
    pub within: Duration,
    /// Whether hickory-proto must be able to read the answer.
    pub second_opinion: bool,
}

/// An answer, taken apart. Reads as the [`Message`] it is.
#[derive(Clone)]
pub struct Answer {
    message: Message,
    pub octets: Vec<u8>,
    pub transport: Transport,
    /// From sending the question to holding the answer.
    pub elapsed: Duration,
    pub at: Instant,
    /// When the question was sent.
    pub asked: Instant,
}

/// Asks with the defaults of [`Ask`]; panics if no answer comes.
pub fn ask(agent: SocketAddr, name: &str, rtype: u16) -> Answer {
    Ask::new(name, rtype).send(agent)
}

/// Puts all questions at once, each from a socket of its own, and returns the answers in the same order.
pub fn ask_at_once(agent: SocketAddr, questions: &[Ask]) -> Vec<Answer> {
    let pending: Vec<Pending> = questions.iter().map(|ask| ask.sender(agent)).collect();
    pending.into_iter().map(Pending::receive).collect()
}

/// Puts many questions through one socket, at most `window` unanswered; returns the answers in no order. A question
/// without an answer after its `within` is passed over.
pub fn ask_many(agent: SocketAddr, questions: impl IntoIterator<Item = Ask>, window: usize) -> Vec<Answer> {
    let mut questions = questions.into_iter();
    let Some(first) = questions.next() else { return Vec::new() };
    let socket = udp_socket(agent, first.source);
    let mut queue = Some(first).into_iter().chain(questions);
    let mut waiting: HashMap<u16, (Ask, Instant)> = HashMap::new();
    let mut answers = Vec::new();
    loop {
        while waiting.len() < window {
            let Some(ask) = queue.next() else { break };
            let free = (0..=u16::MAX).map(|step| ask.id.wrapping_add(step)).find(|id| !waiting.contains_key(id));
            let ask = ask.id(free.expect("the window is below 65,536"));
            socket.send(&ask.octets()).expect("loopback takes it");
            waiting.insert(ask.id, (ask, Instant::now()));
        }
        let Some(limit) = waiting.values().map(|(ask, _)| ask.within).max() else { return answers };
        match receive_datagram(&socket, limit) {
            Some(octets) => {
                let id = u16::from_be_bytes([octets[0], octets[1]]);
                if let Some((ask, start)) = waiting.remove(&id) {
                    answers.push(ask.read(octets, start));
                }
            }
            None => waiting.clear(),
        }
    }
}

// === impl Ask ===

impl Ask {
    pub fn new(name: &str, rtype: u16) -> Self {
        Self {
            id: fresh_id(),
            flags: octets::RD,
            qname: octets::name(name),
            rtype,
            class: octets::IN,
            opt: Some(Opt { payload_size: 1232, ..Opt::default() }),
            transport: Transport::Udp,
            source: None,
            // Longer than the 4 s within which the agent must have an answer to everything.
            within: seconds(8),
            second_opinion: true,
        }
    }

    pub fn tcp(mut self) -> Self {
        self.transport = Transport::Tcp;
        self
    }

    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    pub fn class(mut self, class: u16) -> Self {
        self.class = class;
        self
    }

    pub fn flag(mut self, flag: u16) -> Self {
        self.flags |= flag;
        self
    }

    pub fn checking_disabled(self) -> Self {
        self.flag(octets::CD)
    }

    pub fn authentic_data(self) -> Self {
        self.flag(octets::AD)
    }

    pub fn no_recursion(mut self) -> Self {
        self.flags &= !octets::RD;
        self
    }

    /// Without OPT.
    pub fn plain(mut self) -> Self {
        self.opt = None;
        self
    }

    pub fn dnssec_ok(mut self) -> Self {
        self.opt.get_or_insert_default().flags |= 0x8000;
        self
    }

    pub fn size(mut self, payload_size: u16) -> Self {
        self.opt.get_or_insert_default().payload_size = payload_size;
        self
    }

    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.opt.get_or_insert_default().options.push((code, data.to_vec()));
        self
    }

    pub fn edit_opt(mut self, edit: impl FnOnce(&mut Opt)) -> Self {
        edit(self.opt.get_or_insert_default());
        self
    }

    pub fn from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// For answers that hickory-proto need not understand.
    pub fn own_reader_only(mut self) -> Self {
        self.second_opinion = false;
        self
    }

    /// The query's octets.
    pub fn octets(&self) -> Vec<u8> {
        let words = [self.id, self.flags, 1, 0, 0, u16::from(self.opt.is_some())];
        let mut out: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        out.extend(self.question());
        out.extend(self.opt.iter().flat_map(Opt::write));
        out
    }

    /// QNAME, QTYPE, QCLASS.
    pub fn question(&self) -> Vec<u8> {
        [&self.qname[..], &self.rtype.to_be_bytes(), &self.class.to_be_bytes()].concat()
    }

    /// Asks; panics if no answer comes in time or it does not belong to the question.
    pub fn send(&self, agent: SocketAddr) -> Answer {
        self.try_send(agent).unwrap_or_else(|| {
            let (name, rtype) = (octets::text(&self.qname), self.rtype);
            panic!("no answer to {name} TYPE{rtype} over {:?} within {:?}", self.transport, self.within)
        })
    }

    /// Asks; `None` if no answer comes in time, or the connection ends without one.
    pub fn try_send(&self, agent: SocketAddr) -> Option<Answer> {
        let start = Instant::now();
        let octets = match self.transport {
            Transport::Udp => self.sender(agent).receive_octets(self.within),
            Transport::Tcp => {
                let mut stream = TcpClient::connect(agent, self.source);
                stream.send(&self.octets());
                stream.receive(self.within)
            }
        }?;
        Some(self.read(octets, start))
    }

    /// Sends over UDP and returns what waits for the answer.
    pub fn sender(&self, agent: SocketAddr) -> Pending {
        let start = Instant::now();
        let socket = udp_socket(agent, self.source);
        socket.send(&self.octets()).expect("loopback takes it");
        Pending { ask: self.clone(), socket, start }
    }

    /// Takes an answer apart and checks what holds for every answer to this question.
    pub fn read(&self, octets: Vec<u8>, start: Instant) -> Answer {
        let at = Instant::now();
        let message = Message::read(&octets).unwrap_or_else(|e| panic!("the answer is malformed, {e}: {octets:02x?}"));
        assert_eq!(message.id, self.id, "the answer has our ID");
        assert!(message.has(octets::QR), "the answer is a response");
        assert_eq!(message.question, self.question(), "the question comes back octet for octet");
        assert_eq!(message.has(octets::RD), self.flags & octets::RD != 0, "RD is copied");
        assert_eq!(message.has(octets::CD), self.flags & octets::CD != 0, "CD is copied");
        assert!(!message.has(octets::Z), "Z is zero");
        assert_eq!(message.opts.len(), usize::from(self.opt.is_some()), "OPT answers OPT, once");
        assert_eq!(message.trailing, 0, "nothing follows the last record");
        if self.second_opinion {
            let hickory = Hickory::from_vec(&octets).unwrap_or_else(|e| panic!("hickory refuses: {e}: {octets:02x?}"));
            let counts = [hickory.answers.len(), hickory.authorities.len(), hickory.additionals.len()];
            let ours = [message.answers.len(), message.authorities.len(), message.additionals.len()];
            assert_eq!(counts, ours, "hickory counts other records");
            assert_eq!(u16::from(hickory.metadata.response_code), message.rcode(), "hickory reads another rcode");
        }
        Answer { message, octets, transport: self.transport, elapsed: at.duration_since(start), at, asked: start }
    }
}

/// A UDP question whose answer is awaited.
pub struct Pending {
    ask: Ask,
    pub socket: UdpSocket,
    pub start: Instant,
}

// === impl Pending ===

impl Pending {
    /// Waits for the answer; panics if it does not come within `limit`.
    pub fn receive(self) -> Answer {
        let octets = self.receive_octets(self.ask.within).unwrap_or_else(|| {
            panic!("no answer to {} TYPE{} within {:?}", octets::text(&self.ask.qname), self.ask.rtype, self.ask.within)
        });
        self.ask.read(octets, self.start)
    }

    /// The first datagram that comes within `limit` from now.
    pub fn receive_octets(&self, limit: Duration) -> Option<Vec<u8>> {
        receive_datagram(&self.socket, limit)
    }
}

/// How long a test waits for one of the host's ephemeral ports.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// A UDP socket connected to the agent.
pub fn udp_socket(agent: SocketAddr, source: Option<IpAddr>) -> UdpSocket {
    let any: IpAddr = if agent.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // The host's ephemeral ports are few for so many tests at once; others give theirs back.
    let until = Instant::now() + PORT_PATIENCE;
    let socket = loop {
        match UdpSocket::bind((source.unwrap_or(any), 0)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => break bound.expect("an ephemeral port is free"),
        }
    };
    socket.connect(agent).expect("loopback has a route");
    socket
}

/// The next datagram; `None` if none comes within `limit`, or the port is closed.
pub fn receive_datagram(socket: &UdpSocket, limit: Duration) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    socket.set_read_timeout(Some(limit)).expect("the limit is not zero");
    match socket.recv(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Some(buffer)
        }
        Err(e) if is_silence(e.kind()) => None,
        Err(e) => panic!("receiving failed: {e}"),
    }
}

/// A TCP connection to the agent.
pub struct TcpClient {
    pub stream: TcpStream,
}

// === impl TcpClient ===

impl TcpClient {
    pub fn connect(agent: SocketAddr, source: Option<IpAddr>) -> Self {
        let domain = socket2::Domain::for_address(agent);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a descriptor is free");
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into()).expect("the address is on the loopback");
        }
        socket.connect_timeout(&agent.into(), LIMIT).expect("the agent listens on TCP");
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("TCP knows NODELAY");
        Self { stream }
    }

    /// Sends one message with its length.
    pub fn send(&mut self, octets: &[u8]) {
        self.send_raw(&frame(octets));
    }

    /// Sends octets as they are. A connection that the agent has closed shows when receiving.
    pub fn send_raw(&mut self, octets: &[u8]) {
        match self.stream.write_all(octets) {
            Err(e) if !is_silence(e.kind()) => panic!("sending failed: {e}"),
            _ => {}
        }
    }

    /// The next message; `None` if it is not whole within `limit` (per read), or the connection ends.
    pub fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let mut length = [0; 2];
        self.fill(&mut length, limit)?;
        let mut octets = vec![0; usize::from(u16::from_be_bytes(length))];
        self.fill(&mut octets, limit)?;
        Some(octets)
    }

    /// Whether the agent closes the connection within `limit`, sending nothing more.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("the limit is not zero");
        match self.stream.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Sends a FIN; answers can still come.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    fn fill(&mut self, buffer: &mut [u8], limit: Duration) -> Option<()> {
        self.stream.set_read_timeout(Some(limit)).expect("the limit is not zero");
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(e) if is_silence(e.kind()) => None,
            Err(e) => panic!("receiving failed: {e}"),
        }
    }
}

/// A message with its length in front (RFC 1035 section 4.2.2).
pub fn frame(octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).expect("messages stay below 65,536 octets");
    [&length.to_be_bytes()[..], octets].concat()
}

/// What a time-out, a closed port and a closed connection look like.
fn is_silence(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
    )
}

fn fresh_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    // An odd factor visits every ID; neighbours differ in all octets.
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(40_503)
}

// === impl Answer ===

impl Deref for Answer {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message { flags, question, opts, .. } = &self.message;
        let name = octets::text(&question[..question.len() - 4]);
        write!(f, "{name} {:?} {:?} flags {flags:04x} rcode {} {opts:?}", self.transport, self.elapsed, self.rcode())?;
        for record in self.records().take(12) {
            let Rr { rtype, ttl, rdata, .. } = record;
            write!(f, "\n  {} TYPE{rtype} ttl {ttl} {:02x?}", record.owner_text(), &rdata[..rdata.len().min(24)])?;
        }
        Ok(())
    }
}

impl Answer {
    /// The TTL of the first record of the answer section, or of the SOA if there is none.
    pub fn ttl(&self) -> u32 {
        let record = self.answers.first().or_else(|| self.soa());
        record.unwrap_or_else(|| panic!("no record to read a TTL from: {self:?}")).ttl
    }

    pub fn soa(&self) -> Option<&Rr> {
        self.authorities.iter().find(|record| record.rtype == octets::SOA)
    }

    /// The EDE codes, in order.
    pub fn ede(&self) -> Vec<u16> {
        let options = self.opt().map(|opt| &opt.options[..]).unwrap_or_default();
        let errors = options.iter().filter(|(code, _)| *code == EXTENDED_ERROR);
        errors.map(|(_, data)| u16::from_be_bytes([data[0], data[1]])).collect()
    }

    /// The IPv4 addresses of the answer section, in order.
    pub fn ipv4(&self) -> Vec<Ipv4Addr> {
        self.answers.iter().filter_map(Rr::ipv4).collect()
    }

    pub fn ipv6(&self) -> Vec<Ipv6Addr> {
        self.answers.iter().filter_map(Rr::ipv6).collect()
    }

    /// The records of a type in the answer section.
    pub fn of_type(&self, rtype: u16) -> Vec<&Rr> {
        self.answers.iter().filter(|record| record.rtype == rtype).collect()
    }

    /// Asserts NOERROR with exactly this address.
    #[track_caller]
    pub fn assert_address(&self, expected: impl Into<Ipv4Addr>) -> &Self {
        self.assert_rcode(octets::NOERROR);
        assert_eq!(self.ipv4(), [expected.into()], "{self:?}");
        self
    }

    /// Asserts the address that stands for `name`.
    #[track_caller]
    pub fn assert_encodes(&self, name: &str) -> &Self {
        self.assert_address(address_of(name))
    }

    #[track_caller]
    pub fn assert_rcode(&self, expected: u16) -> &Self {
        assert_eq!(self.rcode(), expected, "rcode of {self:?}");
        self
    }

    #[track_caller]
    pub fn assert_ede(&self, expected: &[u16]) -> &Self {
        assert_eq!(self.ede(), expected, "EDE of {self:?}");
        self
    }

    /// Asserts the TTL that [`Answer::ttl`] reads, give or take one second for the whole seconds passed.
    #[track_caller]
    pub fn assert_ttl_near(&self, expected: u32) -> &Self {
        assert!(self.ttl().abs_diff(expected) <= 1, "TTL {} instead of {expected}: {self:?}", self.ttl());
        self
    }

    /// NOERROR and no answer.
    #[track_caller]
    pub fn assert_nodata(&self) -> &Self {
        self.assert_rcode(octets::NOERROR);
        assert!(self.answers.is_empty(), "NODATA: {self:?}");
        self
    }
}
