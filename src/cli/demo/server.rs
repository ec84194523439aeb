//! A DNS server of the demo: hickory-server on a loopback port, with a thread of its own and a memory of who asked what.
//!
//! It can be told to be slow or silent, and stopped for good: then its port is closed, as a pod's is that is gone.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{LowerName, Name, RecordType};
use hickory_server::Server as Hickory;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

use super::zone::Zones;

/// Longest time an idle TCP connection is kept; the agent's own limits are below it.
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers waiting on one TCP connection.
const TCP_BUFFER: usize = 32;
/// Octets of questions that may wait while this machine is busy with others: some seconds of a stream.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Ports tried until one is free for UDP and TCP both.
const PORT_ATTEMPTS: usize = 16;
/// RFC 9715 section 3.1 and the flag day of 2020: no UDP answer above this many octets.
const PAYLOAD_SIZE: u16 = 1232;

/// A running server. Dropping it stops it.
pub(super) struct Server {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How the server treats what it is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Manner {
    Prompt,
    /// The sockets are open and nothing comes back: a pod that hangs, or a network that drops.
    Silent,
    Slow(Duration),
}

struct State {
    zones: Zones,
    manner: Mutex<Manner>,
    asked: Mutex<HashMap<LowerName, u64>>,
}

struct Handler(Arc<State>);

/// Those of one address.
type Sockets = (std::net::UdpSocket, std::net::TcpListener);

// === impl Server ===

impl Server {
    /// Serves `zones` over UDP and TCP on one loopback port that the kernel picks.
    ///
    /// # Errors
    /// If no such port or no thread can be had.
    pub(super) fn start(zones: Zones) -> io::Result<Self> {
        Self::serve(zones, vec![bind_both()?])
    }

    /// Serves `zones` over UDP and TCP at each of `addresses`, at least one, in the network namespace of this thread.
    ///
    /// # Errors
    /// If an address or a thread cannot be had.
    pub(super) fn start_at(zones: Zones, addresses: &[SocketAddr]) -> io::Result<Self> {
        let bound = addresses.iter().map(|address| bind_to(*address));
        Self::serve(zones, bound.collect::<io::Result<_>>()?)
    }

    fn serve(zones: Zones, sockets: Vec<Sockets>) -> io::Result<Self> {
        let address = sockets[0].0.local_addr()?;
        let state = Arc::new(State { zones, manner: Mutex::new(Manner::Prompt), asked: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handler = Handler(Arc::clone(&state));
        let serve = async move {
            let mut server = Hickory::new(handler);
            for (udp, tcp) in sockets {
                server.register_socket(UdpSocket::from_std(udp)?);
                server.register_listener(TcpListener::from_std(tcp)?, TCP_TIMEOUT, TCP_BUFFER);
            }
            // Told to stop or left by its owner: both end it.
            let _ = stopped.await;
            server.shutdown_gracefully().await.map_err(io::Error::other)
        };
        let thread = std::thread::Builder::new().name(format!("dns-{}", address.port())).spawn(move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::warn!(%address, %error, "a server of the demo ended badly");
            }
        })?;
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how every question that is yet to come is treated.
    pub(super) fn behave(&self, manner: Manner) {
        *lock(&self.state.manner) = manner;
    }

    pub(super) fn manner(&self) -> Manner {
        self.state.manner()
    }

    /// Queries so far, without the agent's probes (NS of the root).
    pub(super) fn queries(&self) -> u64 {
        lock(&self.state.asked).values().sum()
    }

    /// Queries so far for this name, of whatever type.
    pub(super) fn queries_for(&self, name: &Name) -> u64 {
        lock(&self.state.asked).get(&LowerName::new(name)).copied().unwrap_or(0)
    }

    /// Stops the server and returns when its sockets are closed.
    pub(super) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A UDP socket and a TCP listener on the same loopback port.
fn bind_both() -> io::Result<Sockets> {
    let mut last = None;
    for _ in 0..PORT_ATTEMPTS {
        let free = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        match bind_to(free) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("the loop ran and left only by an error"))
}

fn bind_to(address: SocketAddr) -> io::Result<Sockets> {
    let (udp, tcp) = (std::net::UdpSocket::bind(address)?, std::net::TcpListener::bind(address)?);
    // More than the host's default only with rights; a stream of questions without them is none of the demo's.
    let _ = setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

// === impl Handler ===

impl Handler {
    async fn answer(&self, request: &Request, mut responder: impl ResponseHandler) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        metadata.recursion_available = true;
        let question = match request.queries.queries() {
            [question] if request.metadata.op_code == OpCode::Query => question,
            _ => {
                metadata.response_code = ResponseCode::NotImp;
                let response = MessageResponseBuilder::new(&request.queries, None).build_no_records(metadata);
                return responder.send_response(response).await.unwrap_or_else(|_| info(metadata));
            }
        };
        // Before it is counted, so that whoever sees the count may change the manner for the next.
        let manner = self.0.manner();
        if !(question.query_type() == RecordType::NS && question.name().is_root()) {
            *lock(&self.0.asked).entry(question.name().clone()).or_default() += 1;
        }
        match manner {
            Manner::Prompt => {}
            Manner::Silent => return info(metadata),
            Manner::Slow(delay) => tokio::time::sleep(delay).await,
        }
        let answer = self.0.zones.answer(question.name(), question.query_type());
        metadata.response_code = answer.rcode;
        let edns = request.edns.as_ref().map(|theirs| {
            let mut ours = Edns::new();
            ours.set_max_payload(theirs.max_payload().clamp(512, PAYLOAD_SIZE)).set_version(0);
            ours
        });
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = builder.build(metadata, &answer.answers, &answer.authority, [], []);
        // The asker is gone: it will ask again if it still wants to know.
        responder.send_response(response).await.unwrap_or_else(|_| info(metadata))
    }
}

// The trait is declared with `async_trait`; this is what the macro makes of an `async fn`.
impl RequestHandler for Handler {
    fn handle_request<'handler, 'request, 'future, R, T>(
        &'handler self,
        request: &'request Request,
        responder: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'future>>
    where
        'handler: 'future,
        'request: 'future,
        Self: 'future,
        R: ResponseHandler + 'future,
        T: Time + 'future,
    {
        Box::pin(self.answer(request, responder))
    }
}

// === impl State ===

impl State {
    fn manner(&self) -> Manner {
        *lock(&self.manner)
    }
}

/// What hickory wants to know of a response for its own log.
fn info(metadata: Metadata) -> ResponseInfo {
    Header { metadata, counts: HeaderCounts::default() }.into()
}

/// Nothing that is held under these locks is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
