//! Sockets for clients: one UDP socket and one TCP listener per address and worker, sharing the port.
//!
//! Each address is bound itself, so the reply's source is right without asking the kernel, and IP_FREEBIND lets it be
//! bound before it exists. The kernel hands each query to the worker on the CPU it arrived on: waking a thread on
//! another CPU costs more than answering (39.0 against 23.4 µs per query at 20,000/s, performance.md 8).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Receive buffer of a UDP socket in octets: the default holds 277 small queries, a burst of new pods sends more.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Connections the kernel may hold for us to accept.
const BACKLOG: i32 = 1024;

/// A UDP socket and a listener at one address, for one worker to serve, not yet part of any runtime.
#[derive(Debug)]
pub struct Pair {
    pub udp: UdpSocket,
    /// Missing where only we ask.
    pub tcp: Option<TcpListener>,
}

/// Why we cannot listen.
#[derive(Debug)]
pub struct ListenError {
    pub address: SocketAddr,
    pub transport: &'static str,
    pub source: io::Error,
}

impl Pair {
    /// Binds one more pair at `address`; port 0 means any. The kernel numbers those of one address in their order.
    ///
    /// # Errors
    /// If the address cannot be had. Nothing stays bound then.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |transport| move |source| ListenError { address, transport, source };
        let udp = udp_socket(address).map_err(failed("UDP"))?;
        let bound = udp.local_addr().map_err(failed("UDP"))?;
        let tcp = tcp_listener(bound).map_err(failed("TCP"))?;
        Ok(Self { udp, tcp: Some(tcp) })
    }

    /// Binds a worker's own, on the loopback and at a port that nobody shares: our probes reach this worker and nobody else.
    ///
    /// # Errors
    /// If there is no port for it.
    pub fn own() -> Result<Self, ListenError> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let failed = |source| ListenError { address: any, transport: "UDP", source };
        // Nothing of what `socket` sets: a port that can be shared may be one that is.
        let udp = UdpSocket::bind(any).map_err(failed)?;
        udp.set_nonblocking(true).map_err(failed)?;
        Ok(Self { udp, tcp: None })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Steers what arrives at this pair's address to the first `pairs` that were bound there: each datagram or connection
    /// to the one with the number of the CPU that received it, modulo `pairs`. Those bound later get nothing.
    ///
    /// # Errors
    /// The kernel's; it chooses by a hash of the sender then, or goes on as before.
    pub fn steer(&self, pairs: usize) -> io::Result<()> {
        steer(&self.udp, pairs)?;
        self.tcp.as_ref().map_or(Ok(()), |tcp| steer(tcp, pairs))
    }
}

/// Three instructions of classic BPF, in force for all sockets of the group.
fn steer(socket: &impl AsFd, sockets: usize) -> io::Result<()> {
    let instruction = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, cpu),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets as u32),
        instruction(libc::BPF_RET | BPF_A, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, sockopt::AttachReusePortCbpf, &program)?)
}

/// Return the accumulator (linux/filter.h).
const BPF_A: u32 = 0x10;

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    // What the limit allows is taken; with NET_ADMIN it is no limit.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // A connection of our predecessor in TIME_WAIT must not keep us from starting.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // Always: the next instance starts while this one still answers.
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    Ok(socket)
}

// === impl ListenError ===

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, transport, source } = self;
        write!(f, "cannot listen on {address} over {transport}: {source}")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "; another program holds the port (`ss -lunpt 'sport = :{}'`)", address.port())
            }
            io::ErrorKind::PermissionDenied => write!(f, "; ports below 1024 need CAP_NET_BIND_SERVICE"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
