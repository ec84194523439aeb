//! What the kernel knows about this process: read anew at each scrape, from /proc and getrusage.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// Seconds since 1970.
pub(super) fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Seconds on the CPU, of all threads, user and system.
pub(super) fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let times = [usage.user_time(), usage.system_time()];
    Some(times.iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum())
}

/// Bytes of address space, and of memory in use.
pub(super) fn memory() -> Option<(f64, f64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = |label: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(label))?;
        line.split_ascii_whitespace().next()?.parse::<f64>().ok()
    };
    Some((kib("VmSize:")? * 1024.0, kib("VmRSS:")? * 1024.0))
}

pub(super) fn threads() -> Option<f64> {
    Some(fs::read_dir("/proc/self/task").ok()?.count() as f64)
}

pub(super) fn open_descriptors() -> Option<f64> {
    // Reading the folder takes one itself.
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64 - 1.0)
}

pub(super) fn descriptor_limit() -> Option<f64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64)
}

/// Datagrams the kernel could not put into the receive buffers of our sockets at `addresses`, by address. Sockets of
/// another process at the same address, as of our successor, are not among them.
pub(super) fn receive_drops(addresses: &[SocketAddr]) -> BTreeMap<SocketAddr, u64> {
    let mut drops: BTreeMap<SocketAddr, u64> = addresses.iter().map(|address| (*address, 0)).collect();
    let mut found = Vec::new();
    for file in ["/proc/net/udp", "/proc/net/udp6"] {
        let table = fs::read_to_string(file).unwrap_or_default();
        found.extend(table.lines().filter_map(socket).filter(|it| drops.contains_key(&it.local)));
    }
    let own = own_sockets(found.iter().map(|it| it.inode).collect());
    for it in found.iter().filter(|it| own.contains(&it.inode)) {
        *drops.entry(it.local).or_default() += it.drops;
    }
    drops
}

/// A line of /proc/net/udp.
#[derive(Debug, Eq, PartialEq)]
struct UdpSocket {
    local: SocketAddr,
    inode: u64,
    drops: u64,
}

fn socket(line: &str) -> Option<UdpSocket> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let local = SocketAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?);
    let inode = fields.nth(7)?.parse().ok()?;
    let drops = fields.last()?.parse().ok()?;
    Some(UdpSocket { local, inode, drops })
}

/// An address as /proc writes it: words of 32 bits in the machine's order, in hexadecimal digits.
fn address_of(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let octets = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into())
        }
        _ => None,
    }
}

/// Those of `candidates` that a descriptor of ours refers to.
fn own_sockets(mut candidates: HashSet<u64>) -> HashSet<u64> {
    let mut own = HashSet::new();
    for descriptor in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        // Listening sockets are among the first; thousands to upstreams may follow.
        if candidates.is_empty() {
            break;
        }
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if let Some(inode) = inode.filter(|inode| candidates.remove(inode)) {
            own.insert(inode);
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Socket;

    use super::*;

    #[test]
    fn what_the_kernel_dropped_is_found_by_address() {
        let receiver = Socket::bind(("127.0.0.1", 0)).expect("loopback");
        let address = receiver.local_addr().expect("bound");
        assert_eq!(receive_drops(&[address])[&address], 0);
        let sender = Socket::bind(("127.0.0.1", 0)).expect("loopback");
        // Nobody reads: at some point the buffer is full, whatever its size is here.
        for _ in 0..20_000 {
            sender.send_to(&[0; 1024], address).expect("loopback takes it");
        }
        assert!(receive_drops(&[address])[&address] > 0);
        let gone = address;
        drop(receiver);
        assert_eq!(receive_drops(&[gone])[&gone], 0, "a closed socket is not ours");
    }

    #[test]
    fn a_line_of_the_kernels_table_is_read() {
        let line =
            " 26: 0A14FEA9:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000 17";
        let local = SocketAddr::from(([169, 254, 20, 10], 53));
        let expected = cfg!(target_endian = "little").then_some(UdpSocket { local, inode: 4711, drops: 17 });
        assert_eq!(socket(line).filter(|_| cfg!(target_endian = "little")), expected);
        assert_eq!(address_of("00000000000000000000000001000000").map(|it| it.is_loopback()), Some(true));
        assert_eq!(socket("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"), None);
    }

    #[test]
    fn a_process_has_memory_threads_and_descriptors() {
        let (virtual_memory, resident) = memory().expect("Linux has /proc");
        assert!(virtual_memory > resident && resident > 100_000.0);
        assert!(threads().is_some_and(|threads| threads >= 1.0));
        assert!(open_descriptors().is_some_and(|open| open >= 3.0));
        assert!(descriptor_limit() > open_descriptors());
        assert!(cpu_seconds().is_some());
    }
}
