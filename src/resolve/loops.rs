//! Forwarding loops: noticed by a question of ours that comes back to us.
//!
//! Two agents that face each other would pass every miss to and fro until both time out. When a server has become a
//! suspect it is asked for a name nobody can guess; if that name arrives here as a client's question, the server
//! forwards to us. Its group then fails at once instead of after 4 s, and is tried again a little later. A client
//! cannot trigger it: it would have to guess 128 bits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::upstream::Group;
use crate::wire::{Key, Name};

/// A probe that has not come back by then has gone elsewhere.
const WATCH: Duration = Duration::from_secs(5);
/// Probes watched for at once; older ones give way.
const MOST: usize = 64;

/// Names that must not come back.
#[derive(Default)]
pub struct Loops {
    /// Saves the lock while there is nothing to watch for, which is nearly always.
    watching: AtomicBool,
    probes: Mutex<Vec<Probe>>,
}

struct Probe {
    name: Name,
    group: Arc<Group>,
    until: Instant,
}

impl Loops {
    /// A name nobody can guess, watched for from `now` on; a server of `group` is about to be asked for it.
    pub fn name(&self, group: &Arc<Group>, random: u128, now: Instant) -> Name {
        let name: Name = format!("{random:032x}.loop.nodens.invalid").parse().expect("hexadecimal digits make a label");
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.retain(|probe| probe.until > now);
        if probes.len() >= MOST {
            probes.remove(0);
        }
        probes.push(Probe { name: name.clone(), group: Arc::clone(group), until: now + WATCH });
        self.watching.store(true, Ordering::Relaxed);
        name
    }

    /// The group that sent the question `key` back to us, if it is one of our probes.
    pub fn caught(&self, key: &Key, now: Instant) -> Option<Arc<Group>> {
        if !self.watching.load(Ordering::Relaxed) {
            return None;
        }
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.retain(|probe| probe.until > now);
        self.watching.store(!probes.is_empty(), Ordering::Relaxed);
        let probe = probes.iter().find(|probe| probe.name.as_wire() == key.qname())?;
        Some(Arc::clone(&probe.group))
    }
}
