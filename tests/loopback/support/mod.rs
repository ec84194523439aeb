//! What every loopback test needs: addresses of its own, the agent, scripted upstreams, a raw client.

pub mod agent;
pub mod client;
pub mod config;
pub mod octets;
pub mod upstream;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest time anything that must happen may take before a test gives up.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Addresses of 127/8 set aside for one test process.
const PER_PROCESS: u32 = 4096;

/// A loopback address no other test, and hardly any other test process, uses.
pub fn fresh_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(PER_PROCESS).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    // 127.0/16 belongs to other programs, and 127.255.255.255 is the broadcast address.
    let second = 1 + number / 65_536 % 253;
    IpAddr::V4(Ipv4Addr::from_bits(0x7f00_0000 | second << 16 | (number % 65_536)))
}

/// Waits for a point in time. Only for lifetimes: the expiry of a TTL is the one event that nothing announces.
pub fn until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Whole seconds, for the sums with TTLs.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Milliseconds.
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
