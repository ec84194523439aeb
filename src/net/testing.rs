//! What the tests of this folder share: a worker's runtime, messages, and patience that ends.

use std::net::Ipv4Addr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
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
