//! The DNS servers behind the node: each answers every question with an address of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::Namespace;

/// Enough for a thread that gets no CPU for a second: what is lost must have been lost by the agent.
pub const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// One server: where it listens and the address all its answers carry.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub listens: SocketAddr,
    pub says: Ipv4Addr,
}

/// A running group of servers, UDP and TCP.
pub struct Servers {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// How long answers wait, in milliseconds.
    delay: AtomicU64,
    asked: AtomicU64,
}

// === impl Servers ===

impl Servers {
    /// Starts `servers` inside `namespace`, which has their addresses.
    pub fn start(namespace: &Namespace, servers: Vec<Server>) -> Self {
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, up) = std::sync::mpsc::channel();
        let thread = namespace.spawn({
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime needs a few descriptors");
                LocalSet::new().block_on(&runtime, async {
                    for server in servers {
                        serve(server, &shared).await.unwrap_or_else(|error| panic!("{server:?}: {error}"));
                    }
                    ready.send(()).expect("the starter waits");
                    // Also when the sender is dropped.
                    let _ = stopped.await;
                });
            }
        });
        up.recv().expect("every server gets its address");
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Lets every answer from here on wait.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay.store(u64::try_from(delay.as_millis()).expect("a short delay"), Ordering::Relaxed);
    }

    /// How many questions came.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been told where it happened.
            let _ = thread.join();
        }
    }
}

async fn serve(server: Server, shared: &Arc<Shared>) -> io::Result<()> {
    let udp = Rc::new(UdpSocket::bind(server.listens).await?);
    setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let tcp = TcpListener::bind(server.listens).await?;
    spawn_local({
        let shared = shared.clone();
        async move {
            let mut buffer = [0; 1500];
            loop {
                // Errors are ICMP for clients that are gone.
                let Ok((length, client)) = udp.recv_from(&mut buffer).await else { continue };
                let Some(reply) = reply(&buffer[..length], server.says) else { continue };
                shared.asked.fetch_add(1, Ordering::Relaxed);
                let delay = Duration::from_millis(shared.delay.load(Ordering::Relaxed));
                if delay.is_zero() {
                    let _ = udp.send_to(&reply, client).await;
                } else {
                    let udp = udp.clone();
                    spawn_local(async move {
                        tokio::time::sleep(delay).await;
                        let _ = udp.send_to(&reply, client).await;
                    });
                }
            }
        }
    });
    spawn_local({
        let shared = shared.clone();
        async move {
            loop {
                if let Ok((stream, _)) = tcp.accept().await {
                    spawn_local(converse(stream, server.says, shared.clone()));
                }
            }
        }
    });
    Ok(())
}

async fn converse(mut stream: TcpStream, says: Ipv4Addr, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        // The end of the stream is an error here, and the end of the conversation.
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        let reply = reply(&query, says).ok_or(io::ErrorKind::InvalidData)?;
        shared.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(shared.delay.load(Ordering::Relaxed))).await;
        let length = u16::try_from(reply.len()).expect("replies are small");
        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).await?;
    }
}

/// The answer to a query with one question: one A record with `says`, TTL one minute, without EDNS.
fn reply(query: &[u8], says: Ipv4Addr) -> Option<Vec<u8>> {
    let end = question_end(query)?;
    let mut out = query[..end].to_vec();
    out[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    out.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    out.extend(says.octets());
    Some(out)
}

/// Where the question section of a message with one question ends. RFC 1035 section 4.1.2.
pub fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return (at + 5 <= message.len()).then_some(at + 5),
            length => at += 1 + length,
        }
    }
}

/// Cluster DNS and the server for `up.test`, as the other node runs them.
pub fn behind(endpoints: &[IpAddr], up: &[IpAddr]) -> Vec<Server> {
    let says = |ip: &IpAddr| match ip {
        IpAddr::V4(it) => it.octets()[3],
        IpAddr::V6(it) => it.octets()[15],
    };
    let cluster = endpoints
        .iter()
        .map(|ip| Server { listens: SocketAddr::new(*ip, 53), says: Ipv4Addr::new(10, 9, 9, says(ip)) });
    let up = up.iter().map(|ip| Server { listens: SocketAddr::new(*ip, 53), says: Ipv4Addr::new(10, 7, 7, 7) });
    cluster.chain(up).collect()
}
