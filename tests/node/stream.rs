//! A steady stream of questions, counted to the last packet: who answered each, or what became of it.
//!
//! A client inside one namespace asks a fixed number of questions per second, every name once, round robin over the
//! addresses. UDP ports live for a few questions, as with glibc, but one is kept for as long as the stream. TCP makes a
//! connection for each. Nothing is asked twice: what is lost stays lost.

mod client;
mod count;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::stage::Namespace;

pub use count::{Asked, Count, Fate, Transport};

/// How long an answer may take before it is no answer: a little less than glibc's patience.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// What to ask.
#[derive(Clone, Debug)]
pub struct Load {
    pub addresses: Vec<IpAddr>,
    pub udp_per_second: u32,
    pub tcp_per_second: u32,
    /// How long a TCP client thinks between its connection and its question.
    pub tcp_pause: Duration,
    /// The names are below this one.
    pub zone: &'static str,
}

/// A stream that runs. Dropping it stops it.
pub struct Stream {
    stop: Arc<AtomicBool>,
    client: Option<JoinHandle<Vec<Asked>>>,
}

// === impl Load ===

impl Load {
    /// Questions the agent answers by itself.
    pub fn to(addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            udp_per_second: 2_300,
            tcp_per_second: 200,
            tcp_pause: Duration::ZERO,
            zone: "pin.test",
        }
    }

    /// As many questions per second in all as the acceptance list asks for, a pod's and the node's together.
    pub fn rate(mut self, udp_per_second: u32, tcp_per_second: u32) -> Self {
        (self.udp_per_second, self.tcp_per_second) = (udp_per_second, tcp_per_second);
        self
    }

    /// TCP clients with a long way between connection and question.
    pub fn tcp_pause(mut self, pause: Duration) -> Self {
        self.tcp_pause = pause;
        self
    }

    pub fn zone(mut self, zone: &'static str) -> Self {
        self.zone = zone;
        self
    }

    /// Starts asking from inside `namespace`.
    pub fn start(self, namespace: &Namespace) -> Stream {
        let stop = Arc::<AtomicBool>::default();
        let client = namespace.spawn({
            let stop = stop.clone();
            move || client::run(&self, &stop)
        });
        Stream { stop, client: Some(client) }
    }

    /// Asks `count` questions over UDP or TCP, at this load's rates, and waits for the answers.
    pub fn ask(mut self, namespace: &Namespace, transport: Transport, count: u32) -> Count {
        let rate = match transport {
            Transport::Tcp => &mut self.udp_per_second,
            Transport::Udp => &mut self.tcp_per_second,
        };
        *rate = 0;
        let stop = AtomicBool::new(false);
        namespace.run(|| Count::of(client::run_for(&self, &stop, count)))
    }
}

// === impl Stream ===

impl Stream {
    /// Stops asking, waits for what is still to come, and counts.
    pub fn stop(mut self) -> Count {
        self.stop.store(true, Ordering::Relaxed);
        let client = self.client.take().expect("only this and drop take it");
        Count::of(client.join().expect("the client does not panic"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Lets a stream run for a while: traffic is what the test is about, so nothing announces that there was enough.
pub fn for_a_while(time: Duration) {
    std::thread::sleep(time);
}

/// The point in time `by` before `moment`.
pub fn earlier(moment: Instant, by: Duration) -> Instant {
    moment.checked_sub(by).expect("the machine runs longer than the test")
}

/// Waits until `is_so`, looking every few milliseconds; how long it took, `None` after `limit`.
pub fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    loop {
        if is_so() {
            return Some(start.elapsed());
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
