//! HTTP for those who look after the agent: metrics, health, debug. Small, bounded, and never in the way of DNS.
//!
//! The promise: whatever a client sends or does not fetch, a listener holds at most 16 connections, each for 2 s without
//! a request and 30 s in all; nothing is read but the head, of at most 8 KiB; nothing can be changed from here. A port
//! that is taken is reported and tried again, for as long as it takes.
//!
//! ```text
//! keep_serving ─► bind ─► accept (16) ─► head (2 s, 8 KiB) ─► pages::Site ─► body, pulled as the client reads
//!      ▲            │ taken
//!      └── 5 s ◄────┘
//! ```
//!
//! * `GET /metrics`: the Prometheus text format.
//! * `GET /healthz`, `GET /health`: 200 while alive.
//! * `GET /readyz`: 200 while ready to serve, else 503 with what is missing, one line each.
//! * `GET /debug/cache?zone=&name=&type=&limit=`, `GET /debug/upstreams`, `GET /debug/node`, `GET /debug/plan`,
//!   `GET /debug/status`, `GET /debug/top?limit=`: JSON. `GET /`: a page for a browser.
//!
//! Read first: RFC 9110 sections 7.2 and 15, RFC 9112 section 3.2.

mod body;
mod page;
mod pages;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub use pages::{Debug, Readiness, Site};

/// Connections a listener holds at once; more wait in the kernel's queue.
pub const CONNECTIONS: usize = 16;
/// Octets of the longest request head.
pub const HEAD: usize = 8 * 1024;
/// Time to send the head.
pub const HEAD_TIME: Duration = Duration::from_secs(2);
/// Time a connection may last: a dump of the whole cache, read at a leisurely pace.
const WHOLE_TIME: Duration = Duration::from_secs(30);
/// Time between two attempts to get a port that is taken.
const RETRY: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, as it does when descriptors run out: no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections the kernel keeps for us until we accept them.
const BACKLOG: i32 = 64;

/// Serves `site` at `address` for ever.
///
/// Tells `report` the address once it listens, and each new reason why it does not; it tries again every 5 s. Dropping
/// the future closes everything but the connections being answered.
pub async fn keep_serving(
    address: SocketAddr,
    site: Arc<Site>,
    mut report: impl FnMut(Result<SocketAddr, io::Error>),
) -> Infallible {
    let mut told = None;
    loop {
        match bind(address).and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((at, listener)) => {
                report(Ok(at));
                return serve(listener, site).await;
            }
            Err(error) if told == Some(error.kind()) => {}
            Err(error) => {
                told = Some(error.kind());
                report(Err(error));
            }
        }
        sleep(RETRY).await;
    }
}

/// A listener at `address`, which need not be on the host yet, and may be shared with an agent that is about to leave.
///
/// # Errors
/// Those of the kernel: the port is taken, the right to it is missing.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves `site` on `listener` for ever.
pub async fn serve(listener: TcpListener, site: Arc<Site>) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = Arc::clone(&site);
                tokio::spawn(async move {
                    // Whatever ended it, it is over, and nobody here could mend it.
                    let _ = timeout(WHOLE_TIME, converse(stream, site)).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One request, one response.
async fn converse(stream: TcpStream, site: Arc<Site>) -> Result<(), hyper::Error> {
    let answer = service_fn(move |request| {
        let response = site.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .max_header_size(HEAD)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

#[cfg(test)]
mod tests;
