//! The upstream of every server: answers at once, any A with the address the name's number makes.
//!
//! It runs on the generator's core, between two looks at the clients, so that it adds nothing to the server's.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use super::client::{BATCH, QUERY, address_of, name_in};

/// Octets of an answer record behind the question.
const RECORD: usize = 16;
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
/// Seconds; longer than any run.
const TTL: u32 = 3600;

/// A socket that answers.
pub struct Upstream {
    socket: UdpSocket,
    port: u16,
    incoming: MultiHeaders<SockaddrIn>,
    outgoing: MultiHeaders<SockaddrIn>,
    queries: Vec<[u8; 512]>,
    replies: Vec<[u8; 512]>,
}

impl Upstream {
    pub fn new() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        Ok(Self {
            socket,
            port,
            incoming: MultiHeaders::preallocate(BATCH, None),
            outgoing: MultiHeaders::preallocate(BATCH, None),
            queries: vec![[0; 512]; BATCH],
            replies: vec![[0; 512]; BATCH],
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers what has arrived, without waiting; returns how many queries that were.
    pub fn serve(&mut self) -> io::Result<usize> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self.queries.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let received: Vec<(usize, Option<SockaddrIn>)> =
            match recvmmsg(self.socket.as_raw_fd(), &mut self.incoming, slices.iter_mut(), flags, None) {
                Ok(received) => received.map(|message| (message.bytes, message.address)).collect(),
                // A server that was ended left its answers to bounce.
                Err(Errno::EAGAIN | Errno::ECONNREFUSED) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
        let (mut lengths, mut askers) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        for ((length, asker), query) in received.iter().zip(&self.queries) {
            if let Some(length) = reply(&query[..*length], &mut self.replies[lengths.len()]) {
                lengths.push(length);
                askers.push(*asker);
            }
        }
        let replies = self.replies.iter().zip(&lengths);
        let slices: Vec<[IoSlice<'_>; 1]> = replies.map(|(reply, length)| [IoSlice::new(&reply[..*length])]).collect();
        if !slices.is_empty() {
            // What is lost here is asked again or counted as lost by the client.
            let _ = sendmmsg(self.socket.as_raw_fd(), &mut self.outgoing, slices.iter(), &askers, [], flags);
        }
        Ok(received.len())
    }
}

/// Writes the answer to `query`; what is no question for an address of ours gets an empty one.
fn reply(query: &[u8], out: &mut [u8; 512]) -> Option<usize> {
    let question_end = question_end(query)?;
    let with_opt = query.get(11) == Some(&1);
    let qtype = &query[question_end - 4..question_end - 2];
    let name = name_in(query).filter(|_| qtype == [0, 1]);
    out[..question_end].copy_from_slice(&query[..question_end]);
    out[2] = 0x80 | query[2] & 0x01;
    out[3] = 0x80;
    out[4..12].copy_from_slice(&[0, 1, 0, u8::from(name.is_some()), 0, 0, 0, u8::from(with_opt)]);
    let mut end = question_end;
    if let Some(name) = name {
        out[end..end + 6].copy_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        out[end + 6..end + 10].copy_from_slice(&TTL.to_be_bytes());
        out[end + 10..end + 12].copy_from_slice(&[0, 4]);
        out[end + 12..end + RECORD].copy_from_slice(&address_of(name));
        end += RECORD;
    }
    if with_opt {
        out[end..end + OPT.len()].copy_from_slice(&OPT);
        end += OPT.len();
    }
    Some(end)
}

fn question_end(query: &[u8]) -> Option<usize> {
    if query.len() >= QUERY && name_in(query).is_some() {
        return Some(QUERY);
    }
    let mut at = 12;
    while *query.get(at)? != 0 {
        at += 1 + usize::from(query[at]);
    }
    (at + 5 <= query.len() && at < 400).then_some(at + 5)
}
