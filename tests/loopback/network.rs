//! A network that belongs to one test: routes and addresses come and go without anybody else noticing.

use std::panic;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::peers::programs::{output_of, skip};

/// Runs `test`, and all it starts, in a network namespace that has a loopback and nothing else.
///
/// Without the right to make one, says so aloud and does nothing.
pub fn in_a_network_of_its_own(test: impl FnOnce() + Send) {
    // A thread of its own, because the rest of the test program keeps the network it has.
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                return skip(&format!("no network namespace: {error}"));
            }
            ip("link set lo up");
            test();
        });
        if let Err(cause) = thread.join() {
            panic::resume_unwind(cause);
        }
    });
}

/// Runs `ip` with these words; it must succeed.
pub fn ip(words: &str) {
    output_of("ip", &words.split(' ').collect::<Vec<_>>(), Path::new("/"));
}
