//! A client: asks for names by number, and knows from an answer whether it is the right one.
//!
//! The name `n00000007.bench.example` has the address 10.0.0.7, so an answer is checked by its last four octets, which cost
//! next to nothing.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

/// Datagrams sent or received at once.
pub const BATCH: usize = 32;
/// Queries one client has under way at most. Those of all clients fit into three quarters of a default receive buffer:
/// the kernel gives back what was read a quarter at a time.
pub const WINDOW: usize = 12;
/// A query without an answer for so long is lost.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// Octets of every query: header, name, type and class.
pub const QUERY: usize = 12 + 25 + 4;
/// The digits of the name's number stand here.
const DIGITS: std::ops::Range<usize> = 14..22;
const TEMPLATE: &[u8; QUERY] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x09n00000000\x05bench\x07example\0\0\x01\0\x01";

/// What became of the queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub lost: u64,
    pub wrong: u64,
}

/// One socket, connected to the server from an address of its own.
pub struct Client {
    socket: UdpSocket,
    /// The queries under way, by the low bits of their ID.
    asked: [Option<(u16, u32)>; 4 * WINDOW],
    under_way: usize,
    next_id: u16,
    last_heard: Instant,
    incoming: MultiHeaders<SockaddrIn>,
    outgoing: MultiHeaders<SockaddrIn>,
    queries: Vec<[u8; QUERY]>,
    answers: Vec<[u8; 512]>,
}

impl Client {
    /// Client number `index`, of a server on 127.0.0.1.
    pub fn new(index: u8, server: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, 0, index + 1), 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, server))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            asked: [None; 4 * WINDOW],
            under_way: 0,
            next_id: u16::from(index) << 8,
            last_heard: Instant::now(),
            incoming: MultiHeaders::preallocate(BATCH, None),
            outgoing: MultiHeaders::preallocate(BATCH, None),
            queries: vec![*TEMPLATE; BATCH],
            answers: vec![[0; 512]; BATCH],
        })
    }

    /// How many more queries it may send.
    pub fn room(&self) -> usize {
        WINDOW - self.under_way
    }

    /// Asks for as many of `names` as there is room for.
    pub fn ask(&mut self, names: impl Iterator<Item = u32>) -> io::Result<usize> {
        let mut count = 0;
        for name in names.take(self.room()) {
            let id = self.next_id;
            self.next_id = id.wrapping_add(1);
            let query = &mut self.queries[count];
            query[..2].copy_from_slice(&id.to_be_bytes());
            write_digits(&mut query[DIGITS], name);
            let slot = usize::from(id) % self.asked.len();
            self.asked[slot] = Some((id, name));
            count += 1;
        }
        let slices: Vec<[IoSlice<'_>; 1]> = self.queries[..count].iter().map(|it| [IoSlice::new(it)]).collect();
        let addresses = [None; BATCH];
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = sendmmsg(self.socket.as_raw_fd(), &mut self.outgoing, slices.iter(), &addresses[..count], [], flags);
        match sent.map(Iterator::count) {
            Ok(sent) => {
                if self.under_way == 0 {
                    self.last_heard = Instant::now();
                }
                self.under_way += sent;
                Ok(sent)
            }
            // The server is not there yet, or its last message bounced.
            Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::ENOBUFS) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what has arrived, without waiting.
    pub fn take(&mut self, echo: bool, tally: &mut Tally) -> io::Result<usize> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self.answers.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let (mut lengths, mut count) = ([0; BATCH], 0);
        match recvmmsg(self.socket.as_raw_fd(), &mut self.incoming, slices.iter_mut(), flags, None) {
            Ok(received) => {
                for message in received {
                    lengths[count] = message.bytes;
                    count += 1;
                }
            }
            Err(Errno::EAGAIN | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
        if count == 0 {
            self.give_up_on_lost(tally);
            return Ok(0);
        }
        self.last_heard = Instant::now();
        for (answer, length) in self.answers.iter().zip(&lengths[..count]) {
            let slot = usize::from(u16::from_be_bytes([answer[0], answer[1]])) % self.asked.len();
            match self.asked[slot] {
                Some((id, name)) if answer[..2] == id.to_be_bytes() => {
                    self.asked[slot] = None;
                    self.under_way -= 1;
                    let right = echo || is_right(&answer[..*length], name);
                    tally.answered += u64::from(right);
                    tally.wrong += u64::from(!right);
                }
                // Late: it has been counted as lost.
                _ => {}
            }
        }
        Ok(count)
    }

    fn give_up_on_lost(&mut self, tally: &mut Tally) {
        if self.under_way > 0 && self.last_heard.elapsed() > LOST_AFTER {
            tally.lost += self.under_way as u64;
            self.under_way = 0;
            self.asked.fill(None);
        }
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way == 0
    }
}

/// The address of name number `name`.
pub fn address_of(name: u32) -> [u8; 4] {
    let [_, high, middle, low] = name.to_be_bytes();
    [10, high, middle, low]
}

/// The number of the name that a message asks for; `None` if it is not one of ours.
pub fn name_in(message: &[u8]) -> Option<u32> {
    if message.len() < QUERY || message[12..14] != TEMPLATE[12..14] {
        return None;
    }
    message[DIGITS]
        .iter()
        .try_fold(0, |number: u32, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

/// NOERROR with at least one answer, and the right address at the very end.
fn is_right(answer: &[u8], name: u32) -> bool {
    answer.len() > QUERY && rcode(answer) == 0 && answer[7] > 0 && answer.ends_with(&address_of(name))
}

fn rcode(message: &[u8]) -> u8 {
    message[3] & 0x0f
}

fn write_digits(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
