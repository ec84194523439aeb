//! Datagrams the kernel could not put into the receive buffers of our sockets, asked for over netlink (sock_diag).
//!
//! Not from /proc/net/udp: the kernel writes that a page at a time and walks its whole table for each, which on a node
//! with ten thousand sockets takes seconds. Here it walks the table once and answers for our port only. A kernel without
//! udp_diag says nothing, and nothing is shown.
//!
//! Read first: sock_diag(7), linux/inet_diag.h, linux/sock_diag.h.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Kernel};

use super::process;

/// What a message from the kernel may be: nlmsg_type.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST and NLM_F_DUMP.
const REQUEST_DUMP: u16 = 0x301;
/// Octets of struct nlmsghdr, of struct inet_diag_msg, and of a struct nlattr.
const HEADER: usize = 16;
const DIAG: usize = 72;
const ATTRIBUTE: usize = 4;
/// An attribute: counts of memory, 32 bits each; the ninth is the drops (SK_MEMINFO_DROPS).
const INET_DIAG_SKMEMINFO: u16 = 7;
const SK_MEMINFO_DROPS: usize = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_UDP: u8 = 17;

/// What was dropped at `addresses`, by our own sockets: those of another process at the same address, as of our
/// successor, are not counted. Empty if the kernel does not tell.
pub(super) fn at(addresses: &[SocketAddr]) -> BTreeMap<SocketAddr, u64> {
    let mut drops: BTreeMap<SocketAddr, u64> = addresses.iter().map(|address| (*address, 0)).collect();
    let mut asked: Vec<(u8, u16)> =
        addresses.iter().map(|it| (if it.is_ipv4() { AF_INET } else { AF_INET6 }, it.port())).collect();
    asked.sort_unstable();
    asked.dedup();
    let mut found = Vec::new();
    for (family, port) in asked {
        match ask(family, port) {
            Ok(sockets) => found.extend(sockets.into_iter().filter(|it| drops.contains_key(&it.local))),
            Err(_) => return BTreeMap::new(),
        }
    }
    let own = process::own_sockets(found.iter().map(|it| it.inode).collect());
    for it in found.iter().filter(|it| own.contains(&it.inode)) {
        *drops.entry(it.local).or_default() += u64::from(it.drops);
    }
    drops
}

/// A UDP socket of this network namespace.
#[derive(Debug, Eq, PartialEq)]
struct Found {
    local: SocketAddr,
    inode: u32,
    drops: u32,
}

fn ask(family: u8, port: u16) -> io::Result<Vec<Found>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&Kernel::new(0, 0))?;
    socket.send(&request(family, port), 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Some((kind, body, after)) = message(rest) {
            match kind {
                SOCK_DIAG_BY_FAMILY => found.extend(read(body)),
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(io::Error::other("the kernel knows no udp_diag")),
                _ => {}
            }
            rest = after;
        }
    }
}

/// Asks for all UDP sockets of a family at a port, with their memory: nlmsghdr, inet_diag_req_v2.
fn request(family: u8, port: u16) -> Vec<u8> {
    let memory = 1 << (INET_DIAG_SKMEMINFO - 1);
    let mut id = [0; 48];
    id[..2].copy_from_slice(&port.to_be_bytes());
    let length = HEADER as u32 + 8 + id.len() as u32;
    [
        &length.to_ne_bytes()[..],
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &REQUEST_DUMP.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &[family, IPPROTO_UDP, memory, 0],
        // In whatever state.
        &u32::MAX.to_ne_bytes(),
        &id,
    ]
    .concat()
}

/// The first message in `octets`: its type, its body, and what follows.
fn message(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = word(octets, 0)? as usize;
    let kind = half(octets, 4)?;
    let body = octets.get(HEADER..length)?;
    Some((kind, body, octets.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// An inet_diag_msg and its attributes.
fn read(body: &[u8]) -> Option<Found> {
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let address = body.get(8..)?;
    let address = match *body.first()? {
        AF_INET => IpAddr::from(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        _ => IpAddr::from(Ipv6Addr::from(*address.first_chunk::<16>()?)),
    };
    let inode = word(body, DIAG - 4)?;
    let mut rest = body.get(DIAG..)?;
    loop {
        let length = usize::from(half(rest, 0)?);
        let value = rest.get(ATTRIBUTE..length)?;
        if half(rest, 2)? == INET_DIAG_SKMEMINFO {
            let drops = word(value, SK_MEMINFO_DROPS * 4)?;
            return Some(Found { local: SocketAddr::new(address, port), inode, drops });
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    // Issue 4: kernel receive drops, per address, of our own sockets only.
    #[test]
    fn what_the_kernel_dropped_is_found_by_address() {
        for ip in ["127.0.0.1", "::1"] {
            let Ok(receiver) = UdpSocket::bind((ip, 0)) else {
                eprintln!("SKIPPED: {ip} is not on this host");
                continue;
            };
            let address = receiver.local_addr().expect("bound");
            assert_eq!(at(&[address]).get(&address), Some(&0), "{ip}");
            let sender = UdpSocket::bind((ip, 0)).expect("loopback");
            // Nobody reads: at some point the buffer is full, whatever its size is here.
            for _ in 0..20_000 {
                sender.send_to(&[0; 1024], address).expect("loopback takes it");
            }
            assert!(at(&[address])[&address] > 0, "{ip}");
            drop(receiver);
            assert_eq!(at(&[address])[&address], 0, "a closed socket is not ours");
        }
    }

    #[test]
    fn what_is_no_answer_is_no_socket() {
        let socket = [&[AF_INET, 7, 0, 0][..], &[0; DIAG - 4]].concat();
        assert_eq!(read(&socket), None, "no attribute tells the drops");
        for cut in 0..DIAG {
            assert_eq!(read(&socket[..cut]), None);
        }
        // An attribute of length 0 must not be read for ever.
        assert_eq!(read(&[&socket[..], &[0; 8]].concat()), None);
        assert_eq!(message(&[0xff; 20]), None);
    }
}
