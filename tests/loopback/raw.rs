//! Packets below the socket: sent with any source, seen with their headers. Needs root; IPv4 only.
//!
//! A test sees through this what no client socket shows: fragmentation bits, segment borders, and that nothing at all
//! was sent back.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::peers::programs::skip;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Sees every packet of one protocol that arrives in this network namespace, loopback included.
pub struct Sniffer(Socket);

/// A packet as it arrived.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: SocketAddr,
    pub target: SocketAddr,
    /// The DF bit (RFC 791 section 3.1).
    pub dont_fragment: bool,
    /// Part of a datagram that was cut on the way.
    pub fragment: bool,
    /// What the transport carried.
    pub payload: Vec<u8>,
}

impl Sniffer {
    /// `None`, said aloud, without the right to do so.
    pub fn udp() -> Option<Self> {
        Self::open(Protocol::UDP)
    }

    /// `None`, said aloud, without the right to do so.
    pub fn tcp() -> Option<Self> {
        Self::open(Protocol::TCP)
    }

    fn open(protocol: Protocol) -> Option<Self> {
        match Socket::new(Domain::IPV4, Type::RAW, Some(protocol)) {
            Ok(socket) => {
                socket.set_recv_buffer_size(4 << 20).expect("a large buffer is allowed");
                Some(Self(socket))
            }
            Err(error) => {
                skip(&format!("no raw sockets: {error}"));
                None
            }
        }
    }

    /// The packets that `wanted` picks and that arrive within `patience`; at most `enough`.
    pub fn collect(&self, patience: Duration, enough: usize, wanted: impl Fn(&Packet) -> bool) -> Vec<Packet> {
        let deadline = Instant::now() + patience;
        let mut found = Vec::new();
        let mut buffer = vec![0; 65_536];
        while found.len() < enough {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.0.set_read_timeout(Some(left)).expect("what is left is above zero");
            match (&self.0).read(&mut buffer) {
                Ok(length) => found.extend(Packet::parse(&buffer[..length]).filter(&wanted)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("a raw socket fails: {error}"),
            }
        }
        found
    }
}

impl Packet {
    /// Reads an IPv4 packet with UDP or TCP in it.
    fn parse(octets: &[u8]) -> Option<Self> {
        let transport = usize::from(octets.first()? & 15) * 4;
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets.get(at..at + 4)?).ok()?));
        let word = |at: usize| Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]));
        let header = match octets.get(9)? {
            17 => UDP_HEADER,
            6 => usize::from(octets.get(transport + 12)? >> 4) * 4,
            _ => return None,
        };
        Some(Self {
            source: SocketAddrV4::new(address(12)?, word(transport)?).into(),
            target: SocketAddrV4::new(address(16)?, word(transport + 2)?).into(),
            dont_fragment: octets[6] & 0x40 != 0,
            fragment: word(6)? & 0x3fff != 0,
            payload: octets.get(transport + header..)?.to_vec(),
        })
    }
}

/// Sends a UDP datagram that claims to come from `source`. `false`, said aloud, without the right to do so.
#[must_use]
pub fn send_as(source: SocketAddrV4, target: SocketAddrV4, payload: &[u8]) -> bool {
    let socket = match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))) {
        Ok(socket) => socket,
        Err(error) => {
            skip(&format!("no raw sockets: {error}"));
            return false;
        }
    };
    let udp_length = UDP_HEADER + payload.len();
    let mut octets = Vec::with_capacity(IP_HEADER + udp_length);
    // Version 4, five words of header; the kernel fills in length, ID and checksum (raw(7)).
    octets.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    octets.extend(source.ip().octets());
    octets.extend(target.ip().octets());
    octets.extend(source.port().to_be_bytes());
    octets.extend(target.port().to_be_bytes());
    octets.extend((udp_length as u16).to_be_bytes());
    // Checksum 0: none (RFC 768).
    octets.extend([0, 0]);
    octets.extend(payload);
    // With its own header given, the packet goes where the address says; its port is not looked at.
    socket.send_to(&octets, &SockAddr::from(SocketAddrV4::new(*target.ip(), 0))).expect("loopback takes the packet");
    true
}
