//! What the answer to every question of a load run has to be: a pure function of the question.
//!
//! The address of a name is a hash of the name and the type, so an answer that belongs to another question, an old
//! one or a garbled one cannot pass. The authority that tells these truths is [`Authority`].

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use socket2::SockRef;

const A: u16 = 1;
const AAAA: u16 = 28;
const HEADER: usize = 12;
const TTL: u32 = 600;

/// A question of the run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Presentation form without the final dot.
    pub name: String,
    pub qtype: u16,
}

/// The mix of a run: hot names, names asked once, names that do not exist, and pairs of A and AAAA.
///
/// Of 20 questions in a row 11 are for a thousand hot names, 4 for names never asked before, 3 for missing names
/// and 2 are the A and AAAA of one name. The same number always gives the same question.
pub fn question(number: u64) -> Question {
    let dice = hash(&number.to_be_bytes());
    let (name, qtype) = match number % 20 {
        0..11 => (format!("h{}.hot.test", dice % 1_000), A),
        11..15 => (format!("m{number}.miss.test"), if dice & 1 == 0 { A } else { AAAA }),
        15..18 => (format!("x{}.none.test", dice % 20_000), if dice & 1 == 0 { A } else { AAAA }),
        18 => (format!("p{}.pair.test", number / 20 % 5_000), A),
        _ => (format!("p{}.pair.test", number / 20 % 5_000), AAAA),
    };
    Question { name, qtype }
}

/// What there is under a name and type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Truth {
    Address(Vec<u8>),
    NxDomain,
}

/// The truth about a name in lower-case wire form.
pub fn truth(qname: &[u8], qtype: u16) -> Truth {
    // Names under `none.test.` do not exist.
    if qname.ends_with(b"\x04none\x04test\x00") {
        return Truth::NxDomain;
    }
    let digest = hash(qname) ^ u64::from(qtype).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match qtype {
        AAAA => {
            let [a, b, c, d] = [48, 32, 16, 0].map(|shift| (digest >> shift) as u16);
            Truth::Address(Ipv6Addr::new(0xfd00, 0, 0, 0, a, b, c, d).octets().to_vec())
        }
        _ => Truth::Address(Ipv4Addr::from(0x0a00_0000 | (digest as u32 & 0x00ff_ffff)).octets().to_vec()),
    }
}

/// FNV-1a with a final mix: short, and every bit of the name counts.
fn hash(octets: &[u8]) -> u64 {
    let mut state = octets
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |state, octet| (state ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3));
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^ state >> 33
}

/// The query for a question, as octets.
pub fn query(id: u16, question: &Question) -> Vec<u8> {
    let mut octets = Vec::with_capacity(64);
    octets.extend(id.to_be_bytes());
    octets.extend([0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in question.name.split('.') {
        octets.push(label.len() as u8);
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    octets.extend(question.qtype.to_be_bytes());
    octets.extend([0, 1]);
    octets
}

/// Whether `answer` is the truth about `query`; says what is wrong with it otherwise.
///
/// # Errors
/// The first difference found, in words.
pub fn check(query: &[u8], answer: &[u8]) -> Result<(), String> {
    let question = &query[HEADER..];
    if answer.len() < query.len() || answer[..2] != query[..2] {
        return Err(format!("no answer to this query: {answer:02x?}"));
    }
    if answer[2] & 0x82 != 0x80 || answer[4..6] != [0, 1] || &answer[HEADER..query.len()] != question {
        return Err(format!("header or question differ: {answer:02x?}"));
    }
    let rcode = answer[3] & 15;
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let qtype = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    match truth(&question[..question.len() - 4], qtype) {
        Truth::NxDomain if rcode == 3 && count == 0 => Ok(()),
        Truth::NxDomain => Err(format!("not NXDOMAIN but rcode {rcode} with {count} records")),
        Truth::Address(address) => {
            if rcode != 0 || count != 1 {
                return Err(format!("rcode {rcode} with {count} records"));
            }
            // c00c, type, class, TTL, length, address: the shape every answer of the authority has.
            let record = &answer[query.len()..];
            let ttl = record.get(6..10).map(|ttl| u32::from_be_bytes(ttl.try_into().expect("four octets")));
            let right = record.get(..2) == Some(&[0xc0, 0x0c])
                && record.get(2..4) == Some(&qtype.to_be_bytes())
                && ttl.is_some_and(|ttl| (1..=TTL).contains(&ttl))
                && record.get(12..12 + address.len()) == Some(&address);
            if right { Ok(()) } else { Err(format!("wrong record {record:02x?}, expected {address:02x?}")) }
        }
    }
}

/// An authority that knows the truth about every name; one thread, UDP only.
pub struct Authority {
    pub address: SocketAddr,
    /// Queries seen.
    seen: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Authority {
    pub fn start(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("the address is free");
        // Asked in bursts; what does not fit is lost and would count against the agent.
        SockRef::from(&socket).set_recv_buffer_size(4 << 20).expect("a large buffer is allowed");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        let address = socket.local_addr().expect("a bound socket has an address");
        let (seen, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, over) = (Arc::clone(&seen), Arc::clone(&over));
            move || serve(&socket, &seen, &over)
        });
        Self { address, seen, over, thread: Some(thread) }
    }

    pub fn queries(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, seen: &AtomicU64, over: &AtomicBool) {
    let mut buffer = [0; 1500];
    while !over.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, asker)) => {
                seen.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer(&buffer[..length]) {
                    let _ = socket.send_to(&answer, asker);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => {} // ICMP for an asker that has gone
        }
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let end = HEADER + query.get(HEADER..)?.iter().position(|octet| *octet == 0)? + 1;
    let qtype = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let mut octets = query.get(..end + 4)?.to_vec();
    octets[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    match truth(&query[HEADER..end].to_ascii_lowercase(), qtype) {
        Truth::Address(address) => {
            octets[7] = 1;
            octets.extend([0xc0, 0x0c]);
            octets.extend(qtype.to_be_bytes());
            octets.extend([0, 1]);
            octets.extend(TTL.to_be_bytes());
            octets.extend((address.len() as u16).to_be_bytes());
            octets.extend(address);
        }
        Truth::NxDomain => {
            octets[3] |= 3;
            octets[9] = 1;
            // `none.test.` is the last eleven octets of the name; its SOA has short names: root and root.
            let zone = 0xc000 | (end - 11) as u16;
            octets.extend(zone.to_be_bytes());
            octets.extend([0, 6, 0, 1]);
            octets.extend(TTL.to_be_bytes());
            octets.extend([0, 22, 0, 0]);
            for number in [1, 3_600, 900, 86_400, TTL] {
                octets.extend(u32::to_be_bytes(number));
            }
        }
    }
    Some(octets)
}
