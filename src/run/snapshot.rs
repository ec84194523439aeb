//! The cache's file: read before anybody is served, written every minute and at the end.
//!
//! ```text
//! start   file ─► blocks ─► indexed on every core ─► all is well ─► found by every lookup    else: one warning
//! then    entries made of it, one after the other, or as they are asked for
//! later   a thread of its own ─► cache, entry by entry ─► file beside it, synced, renamed
//! ```
//! Whatever is wrong with the file or the disk, the agent goes on.
//!
//! Measured with 100,000 entries (8.8 MB) and every upstream dead, release build, two cores that were busy otherwise (load 4
//! to 8): first answer 43 to 68 ms after the exec, of which the file took 42.

use std::fs::OpenOptions;
use std::io::{self, BufReader};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc;

use super::{Inner, file};
use crate::cache::Cache;
use crate::cache::snapshot::{self, Block, Flaw, Indexed, Moment, Reader};
use crate::metrics::Snapshot;
use crate::plan::Plan;

/// Time between two snapshots.
const PERIOD: Duration = Duration::from_secs(60);
/// Time the last one may take; a disk that hangs must not keep us from ending.
const LAST: Duration = Duration::from_secs(5);
/// Octets read from the file at once.
const READ: usize = 256 * 1024;

/// The thread that writes.
pub(super) struct Keeper {
    /// Dropped, the thread writes once more and ends.
    stop: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl Keeper {
    pub(super) fn start(inner: Arc<Inner>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        thread::Builder::new().name("nodens-snapshot".to_owned()).spawn(move || {
            keep(&inner, &stopped);
            // Nobody waits any more if it took too long.
            let _ = end.send(());
        })?;
        Ok(Self { stop, ended })
    }

    /// Waits for the last snapshot.
    pub(super) fn finish(self) {
        drop(self.stop);
        if self.ended.recv_timeout(LAST) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the last snapshot of the cache takes too long; the one before it stays");
        }
    }
}

fn keep(inner: &Inner, stopped: &mpsc::Receiver<()>) {
    inner.shared.resolver.cache.thaw(Instant::now());
    let mut told = None;
    loop {
        let is_last = stopped.recv_timeout(PERIOD) != Err(mpsc::RecvTimeoutError::Timeout);
        let active = inner.shared.active.load_full();
        if let Some(path) = &active.plan.cache.snapshot {
            told = write(inner, path, active.plan.cache.memory, told.as_deref());
        }
        if is_last {
            return;
        }
    }
}

/// Writes one snapshot; the trouble, if there is any. Trouble that was `told` before is not worth another line.
fn write(inner: &Inner, path: &Path, memory: usize, told: Option<&str>) -> Option<String> {
    let started = Instant::now();
    let at = Moment { now: started, wall: wall() };
    match file::replace(path, |out| snapshot::write(&inner.shared.resolver.cache, at, memory, out)) {
        Ok(entries) => {
            tracing::debug!(file = %path.display(), entries, took = ?started.elapsed(), "snapshot of the cache");
            inner.metrics.control().snapshots.bump(Snapshot::Written);
            None
        }
        Err(error) => {
            let trouble = format!("{}: {error}", path.display());
            if told != Some(&trouble) {
                tracing::warn!("no snapshot of the cache is written, the agent goes on without: {trouble}");
            }
            inner.metrics.control().snapshots.bump(Snapshot::WriteFailed);
            Some(trouble)
        }
    }
}

/// Fills `cache` from the plan's snapshot, if there is one; what came of it, if anything did.
///
/// The cache finds what was read at once; the [`Keeper`] makes entries of it.
pub(super) fn restore(cache: &Cache, plan: &Plan) -> Option<Snapshot> {
    let path = plan.cache.snapshot.as_ref()?;
    let started = Instant::now();
    match load(cache, path, plan.cache.memory) {
        Ok(entries) => {
            let file = path.display();
            tracing::info!(%file, entries, took = ?started.elapsed(), "the cache goes on where it was");
            Some(Snapshot::Restored)
        }
        // The first start.
        Err(Flaw::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(flaw) => {
            tracing::warn!("the snapshot {} is ignored, the cache starts empty: {flaw}", path.display());
            Some(Snapshot::Ignored)
        }
    }
}

/// Reads the snapshot `path` into `cache`, all of it or nothing, but never more than `memory` holds; how many entries.
fn load(cache: &Cache, path: &Path, memory: usize) -> Result<usize, Flaw> {
    // A pipe has nobody at its other end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Flaw::Foreign);
    }
    let reader = Mutex::new(Reader::open(BufReader::with_capacity(READ, file), wall())?);
    let bytes = AtomicUsize::new(0);
    let index = || {
        let mut indexed = Vec::new();
        let mut block = Block::default();
        while bytes.load(Ordering::Relaxed) < memory
            && reader.lock().unwrap_or_else(PoisonError::into_inner).next(&mut block)?
        {
            bytes.fetch_add(block.length(), Ordering::Relaxed);
            indexed.push(mem::take(&mut block).index(cache)?);
        }
        Ok::<_, Flaw>(indexed)
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let indexed: Vec<Vec<Indexed>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(index)).collect();
        // A panic is a flaw of ours; what it was about to read is not worth the start.
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Flaw::Corrupt))).collect::<Result<_, Flaw>>()
    })?;
    Ok(cache.freeze(indexed.into_iter().flatten().collect()))
}

/// The time since 1970; a clock before that counts as then.
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
