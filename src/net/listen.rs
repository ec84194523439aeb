//! Sockets for clients: one UDP socket and one TCP listener per address and worker, sharing the port.
//!
//! Each address is bound itself, so the reply's source is right without asking the kernel, and IP_FREEBIND lets it be
//! bound before it exists. The kernel hands each query to the worker on the CPU it arrived on: waking a thread on
//! another CPU costs more than answering (39.0 against 23.4 µs per query at 20,000/s, performance.md 8).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Receive buffer of a UDP socket in octets: the default holds 277 small queries, a burst of new pods sends more.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Connections the kernel may hold for us to accept.
const BACKLOG: i32 = 1024;

/// The sockets of one worker, not yet part of any runtime.
#[derive(Debug, Default)]
pub struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    /// The worker's own, on the loopback and at a port that nobody shares: our probes reach this worker and nobody else.
    pub own: Option<UdpSocket>,
}

/// Why we cannot listen.
#[derive(Debug)]
pub struct ListenError {
    pub address: SocketAddr,
    pub transport: &'static str,
    pub source: io::Error,
}

/// Binds every address for each of `workers`, in the order of the workers: the kernel numbers a group's sockets so.
///
/// # Errors
/// The first address that cannot be had. Nothing stays bound then.
pub fn bind(addresses: &[IpAddr], port: u16, workers: usize) -> Result<Vec<Sockets>, ListenError> {
    let mut all: Vec<Sockets> = Vec::with_capacity(workers);
    let mut port_in_use = port;
    for worker in 0..workers {
        let mut sockets = Sockets::default();
        for address in addresses {
            let address = SocketAddr::new(*address, port_in_use);
            let failed = |transport| move |source| ListenError { address, transport, source };
            let udp = udp_socket(address).map_err(failed("UDP"))?;
            let bound = udp.local_addr().map_err(failed("UDP"))?;
            // Port 0 means any: the first socket decides, the others share it.
            port_in_use = bound.port();
            if worker == 0 && workers > 1 {
                steer(&udp, workers).map_err(failed("UDP"))?;
            }
            let tcp = tcp_listener(bound).map_err(failed("TCP"))?;
            if worker == 0 && workers > 1 {
                steer(&tcp, workers).map_err(failed("TCP"))?;
            }
            sockets.tcp.push(tcp);
            sockets.udp.push(udp);
        }
        all.push(sockets);
    }
    Ok(all)
}

/// Binds a socket of its own for each worker; where they are, in the order of the workers.
///
/// # Errors
/// The first that cannot be had.
pub fn bind_own(workers: &mut [Sockets]) -> Result<Vec<SocketAddr>, ListenError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let failed = |source| ListenError { address: any, transport: "UDP", source };
    let mut all = Vec::with_capacity(workers.len());
    for worker in workers {
        // Nothing of what `socket` sets: a port that can be shared may be one that is.
        let own = UdpSocket::bind(any).map_err(failed)?;
        own.set_nonblocking(true).map_err(failed)?;
        all.push(own.local_addr().map_err(failed)?);
        worker.own = Some(own);
    }
    Ok(all)
}

/// Steers each datagram or connection to the worker with the number of the CPU that received it, modulo the number of workers.
///
/// Three instructions of classic BPF. Attached to the group's first member; those that bind later inherit it.
fn steer(socket: &impl AsFd, workers: usize) -> io::Result<()> {
    let instruction = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, cpu),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers as u32),
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
