//! What the tests of this folder share: a worker's runtime, messages, and patience that ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use crate::wire::Transport;
use crate::wire::response::Asked;

/// Octets of the header, and of `www.example.` with its type and class.
const QUESTION_END: usize = 12 + 13 + 4;

/// Runs `test` as a worker would, for 30 s at most.
pub(super) fn on_worker<F: Future>(test: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let limited = async { within(Duration::from_secs(30), test).await };
    runtime.expect("a runtime can be had").block_on(limited)
}

/// Waits for `future`, but not for ever.
pub(super) async fn within<F: Future>(time: Duration, future: F) -> F::Output {
    tokio::time::timeout(time, future).await.expect("the test takes less time than it is given")
}

/// Dice that fall the same way in every run.
pub(super) fn dice() -> StdRng {
    StdRng::seed_from_u64(20)
}

/// A question for `www.example. A` under `id`.
pub(super) fn query(id: u16) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend_from_slice(&[0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0]);
    octets.extend_from_slice(b"\x03www\x07example\0\0\x01\0\x01");
    octets
}

/// The answer to a query made by [`query`], carrying `address`.
pub(super) fn answer(query: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let mut octets = query[..QUESTION_END].to_vec();
    octets[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    octets.extend_from_slice(&address.octets());
    octets
}

/// What is asked when `query` is sent.
pub(super) fn asked(query: &[u8], transport: Transport) -> Asked<'_> {
    Asked { query, transport, exact_case: false }
}

/// A server whose connections the test plays by hand.
pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback is there") }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("the server is bound")
    }

    pub(super) async fn accept(&self) -> TcpStream {
        within(PATIENCE, self.listener.accept()).await.expect("loopback gives it").0
    }

    /// Whether somebody wants to connect right now.
    pub(super) async fn is_called(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.listener.accept()).await.is_ok()
    }
}

/// Time for what happens at once on loopback, on a machine that is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a message behind its length; `None` at the end of the connection.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = within(PATIENCE, stream.read_u16()).await.ok()?;
    let mut message = vec![0; length.into()];
    within(PATIENCE, stream.read_exact(&mut message)).await.ok()?;
    Some(message)
}

/// Writes a message behind its length.
pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) {
    let length = u16::try_from(message.len()).expect("messages of tests are short");
    let frame = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&frame).await.expect("loopback takes it");
    stream.flush().await.expect("loopback takes it");
}

/// Reads one query and answers it with `address`.
pub(super) async fn serve_one(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), address: Ipv4Addr) {
    let query = read_frame(stream).await.expect("a query comes");
    write_frame(stream, &answer(&query, address)).await;
}
