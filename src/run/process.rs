//! What the kernel knows about this process: read anew at each scrape, from /proc and getrusage.

use std::collections::HashSet;
use std::fs;
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

/// Those of `candidates`, sockets by inode, that a descriptor of ours refers to.
pub(super) fn own_sockets(mut candidates: HashSet<u32>) -> HashSet<u32> {
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
    use super::*;

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
