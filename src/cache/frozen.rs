//! What an agent before this one knew, as octets that can be looked up: so that a large snapshot delays nobody.
//!
//! ```text
//! blocks ─► indexed by the hash of their questions ─► asked for: that entry is made, at once ─┐
//!                                                 └► behind it: thawed, block after block ────┴─► cache; the block goes
//! ```
//! To index an entry takes a fraction of what it takes to judge it. Together with what has been thawed it never holds more
//! than the cache may.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::entry::{Entry, Freshness};
use super::snapshot::{Indexed, entry_at};
use super::{Cache, Prehashed};
use crate::wire::Key;

/// A snapshot on its way into the cache.
pub(super) struct Frozen {
    /// Block and offset of an entry, by the hash of its key.
    index: HashMap<u64, (u32, u32), Prehashed>,
    blocks: Vec<Block>,
}

struct Block {
    /// `None` once all of it is in the cache.
    octets: ArcSwapOption<Vec<u8>>,
    hashes: Vec<(u64, u32)>,
    away: u64,
}

impl Cache {
    /// Makes what `blocks` hold known; how many entries that is. Meant for a cache that nobody reads yet.
    pub fn freeze(&self, blocks: Vec<Indexed>) -> usize {
        let entries = blocks.iter().map(|block| block.entries.len()).sum();
        let mut index = HashMap::with_capacity_and_hasher(entries, Prehashed);
        let mut kept = Vec::with_capacity(blocks.len());
        for (number, Indexed { octets, entries, away }) in blocks.into_iter().enumerate() {
            index.extend(entries.iter().map(|(hash, offset)| (*hash, (number as u32, *offset))));
            kept.push(Block { octets: ArcSwapOption::from_pointee(octets), hashes: entries, away });
        }
        self.frozen.store(Some(Arc::new(Frozen { index, blocks: kept })));
        entries
    }

    /// Moves everything frozen into the cache, where there is nothing newer; takes its time, and no lock.
    pub fn thaw(&self, now: Instant) {
        let Some(frozen) = self.frozen.load_full() else { return };
        for block in &frozen.blocks {
            let Some(octets) = block.octets.load_full() else { continue };
            for (hash, offset) in &block.hashes {
                // A flush forgets what is frozen, too.
                if self.frozen.load().is_none() {
                    return;
                }
                if let Some(entry) = restore(self, &octets, *offset, block.away, now) {
                    self.insert_older(*hash, entry);
                }
            }
            block.octets.store(None);
        }
        self.frozen.store(None);
    }

    /// The entry for `key`, if it is frozen still.
    pub(super) fn thawed(&self, key: &Key, hash: u64, now: Instant) -> Option<Arc<Entry>> {
        let frozen = self.frozen.load();
        let frozen = frozen.as_ref()?;
        let (block, offset) = *frozen.index.get(&hash)?;
        let block = &frozen.blocks[block as usize];
        // Without octets, it has been thawed since somebody looked.
        if let Some(octets) = &*block.octets.load() {
            let entry = restore(self, octets, offset, block.away, now)?;
            self.insert_older(hash, entry);
        }
        let found = self.positive.get(&hash).or_else(|| self.negative.get(&hash));
        found.filter(|entry| entry.answers(key))
    }

    /// Takes in an entry unless there is one already: that one is newer.
    fn insert_older(&self, hash: u64, entry: Arc<Entry>) {
        let (same_sign, other_sign) =
            if entry.is_negative() { (&self.negative, &self.positive) } else { (&self.positive, &self.negative) };
        if other_sign.peek(&hash).is_none() {
            let known = same_sign.get_or_insert_with(&hash, || Ok::<_, Infallible>(entry));
            drop(known);
        }
    }
}

fn restore(cache: &Cache, octets: &[u8], offset: u32, away: u64, now: Instant) -> Option<Arc<Entry>> {
    let (message, kept, _) = entry_at(&octets[offset as usize..], away).ok()?;
    let entry = Entry::restore(message, kept, cache.epoch, now)?;
    (entry.freshness(cache.epoch, now) != Freshness::Gone).then(|| Arc::new(entry))
}
