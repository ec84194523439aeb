//! The cache as a file's octets, so that answers outlive the process.
//!
//! ```text
//! file   head block* end                          all numbers big-endian; a sum covers what stands before it
//! head   "nodens cache" version:u32 written:u64 sum:u64               written: milliseconds since 1970
//! block  length:u32 entries sum:u64                                   its number is part of the sum
//! end    0:u32 sum:u64
//! entry  length:u16 key bits:u8 hits:u8 stale_for:u32 age:u64 message age: milliseconds when written
//! ```
//! The writer never holds more than one block. What is read is judged twice: the sums tell octets that were torn or
//! rotted, and every message goes the way an upstream's answer goes, for a sum proves nothing about who wrote it.
//!
//! Entries age by the wall clock while nobody runs. A clock that was put back makes nothing younger than it was when
//! written; one that was put forward makes old, at worst too old to be used.
//!
//! Read first: RFC 8767 section 5.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::Cache;
use super::entry::{Entry, Freshness, Kept, key_of};
use crate::wire::MESSAGE_MAX;

const MAGIC: &[u8; 12] = b"nodens cache";
/// Of this format; another one is not read.
const VERSION: u32 = 1;
const HEAD: usize = MAGIC.len() + 4 + 8 + SUM;
const SUM: usize = 8;
/// Octets of an entry before its message.
const FIXED: usize = 16;
/// A block is written once it has this many octets.
const BLOCK: usize = 64 * 1024;
/// Octets of the longest block: one short of full, and the longest entry.
const BLOCK_MAX: usize = BLOCK + FIXED + MESSAGE_MAX;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// Since 1970.
    pub wall: Duration,
}

/// Writes what `cache` knows at `at`, at most `bound` octets; how many entries that were.
///
/// # Errors
/// Those of `out`.
pub fn write(cache: &Cache, at: Moment, bound: usize, out: &mut impl Write) -> io::Result<usize> {
    let mut head = [&MAGIC[..], &VERSION.to_be_bytes(), &millis(at.wall).to_be_bytes()].concat();
    head.extend(sum(0, &head).to_be_bytes());
    out.write_all(&head)?;
    let mut block = Vec::with_capacity(BLOCK_MAX);
    let (mut number, mut entries, mut length) = (0, 0, HEAD + 4 + SUM);
    for (_, entry) in cache.positive.iter().chain(cache.negative.iter()) {
        if entry.freshness(cache.epoch, at.now) == Freshness::Gone {
            continue;
        }
        let before = block.len();
        put(&mut block, &entry, cache.epoch, at.now);
        length += block.len() - before;
        if length + 4 + SUM > bound {
            block.truncate(before);
            break;
        }
        entries += 1;
        if block.len() >= BLOCK {
            length += 4 + SUM;
            write_block(&mut block, &mut number, out)?;
        }
    }
    if !block.is_empty() {
        write_block(&mut block, &mut number, out)?;
    }
    write_block(&mut block, &mut number, out)?;
    Ok(entries)
}

fn put(block: &mut Vec<u8>, entry: &Entry, epoch: Instant, now: Instant) {
    let message = entry.stored().octets();
    let Kept { key_bits, hits, stale_for, age } = entry.kept(epoch, now);
    block.extend_from_slice(&(message.len() as u16).to_be_bytes());
    block.extend_from_slice(&[key_bits, hits]);
    block.extend_from_slice(&stale_for.to_be_bytes());
    block.extend_from_slice(&age.to_be_bytes());
    block.extend_from_slice(message);
}

/// Writes and empties `block`. The empty one is the end.
fn write_block(block: &mut Vec<u8>, number: &mut u64, out: &mut impl Write) -> io::Result<()> {
    *number += 1;
    out.write_all(&(block.len() as u32).to_be_bytes())?;
    out.write_all(block)?;
    out.write_all(&sum(*number, block).to_be_bytes())?;
    block.clear();
    Ok(())
}

/// A snapshot being read, block by block.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// Milliseconds since it was written.
    away: u64,
    /// Blocks read.
    number: u64,
    /// The last one of them was the end.
    ended: bool,
}

/// One block of a [`Reader`], not yet looked at.
#[derive(Debug, Default)]
pub struct Block {
    octets: Vec<u8>,
    number: u64,
    sum: u64,
    away: u64,
}

/// A block whose sum is right, and where its entries are.
#[derive(Debug)]
pub struct Indexed {
    pub(super) octets: Vec<u8>,
    /// Hash of the key, offset.
    pub(super) entries: Vec<(u64, u32)>,
    /// Milliseconds since it was written.
    pub(super) away: u64,
}

/// Why a snapshot is of no use.
#[derive(Debug)]
pub enum Flaw {
    /// A sum or a length is wrong.
    Corrupt,
    /// It is no snapshot.
    Foreign,
    Io(io::Error),
    /// It ends early.
    Torn,
    /// Another version of the format.
    Version(u32),
}

impl<R: Read> Reader<R> {
    /// Begins to read a snapshot at `wall`, the time since 1970.
    ///
    /// # Errors
    /// [`Flaw`]
    pub fn open(mut from: R, wall: Duration) -> Result<Self, Flaw> {
        let mut head = [0; HEAD];
        from.read_exact(&mut head).map_err(|error| match Flaw::from(error) {
            // Too short to say what it wanted to be.
            Flaw::Torn => Flaw::Foreign,
            flaw => flaw,
        })?;
        let (head, told) = head.split_at(HEAD - SUM);
        let (magic, rest) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Flaw::Foreign);
        }
        let (version, written) = rest.split_at(4);
        let version = u32::from_be_bytes(version.try_into().expect("four octets"));
        if version != VERSION {
            return Err(Flaw::Version(version));
        }
        if told != sum(0, head).to_be_bytes() {
            return Err(Flaw::Corrupt);
        }
        let written = u64::from_be_bytes(written.try_into().expect("eight octets"));
        Ok(Self { from, away: millis(wall).saturating_sub(written), number: 0, ended: false })
    }

    /// Reads the next block; false at the end, as often as it is asked.
    ///
    /// # Errors
    /// [`Flaw`]
    pub fn next(&mut self, block: &mut Block) -> Result<bool, Flaw> {
        if self.ended {
            return Ok(false);
        }
        let mut field = [0; 4];
        self.from.read_exact(&mut field)?;
        let length = u32::from_be_bytes(field) as usize;
        if length > BLOCK_MAX {
            return Err(Flaw::Corrupt);
        }
        block.octets.resize(length, 0);
        self.from.read_exact(&mut block.octets)?;
        let mut field = [0; SUM];
        self.from.read_exact(&mut field)?;
        self.number += 1;
        (block.number, block.sum, block.away) = (self.number, u64::from_be_bytes(field), self.away);
        if length > 0 {
            return Ok(true);
        }
        block.check()?;
        self.ended = true;
        Ok(false)
    }
}

impl Block {
    /// Finds its entries, to be looked up in `cache`.
    ///
    /// # Errors
    /// [`Flaw::Corrupt`]
    pub fn index(self, cache: &Cache) -> Result<Indexed, Flaw> {
        self.check()?;
        let mut entries = Vec::new();
        let mut rest = &self.octets[..];
        while !rest.is_empty() {
            let offset = self.octets.len() - rest.len();
            let (message, kept, behind) = entry_at(rest, self.away)?;
            // What has no question is no answer either.
            if let Some(key) = key_of(message, kept.key_bits) {
                entries.push((cache.hash(&key), offset as u32));
            }
            rest = behind;
        }
        Ok(Indexed { octets: self.octets, entries, away: self.away })
    }

    /// Octets it takes.
    pub fn length(&self) -> usize {
        self.octets.len()
    }

    fn check(&self) -> Result<(), Flaw> {
        if sum(self.number, &self.octets) == self.sum { Ok(()) } else { Err(Flaw::Corrupt) }
    }
}

/// The message and the rest of the entry at the start of `octets`, aged by `away` milliseconds, and what is behind it.
pub(super) fn entry_at(octets: &[u8], away: u64) -> Result<(&[u8], Kept, &[u8]), Flaw> {
    let (fixed, behind) = octets.split_first_chunk::<FIXED>().ok_or(Flaw::Corrupt)?;
    let [l0, l1, key_bits, hits, s0, s1, s2, s3, age @ ..] = *fixed;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (message, behind) = behind.split_at_checked(length).ok_or(Flaw::Corrupt)?;
    let stale_for = u32::from_be_bytes([s0, s1, s2, s3]);
    Ok((message, Kept { key_bits, hits, stale_for, age: u64::from_be_bytes(age).saturating_add(away) }, behind))
}

/// The sum behind block `number`; the head is number 0.
///
/// FNV-1a over words of eight octets, the last one filled with zeros, the length first. One changed word always changes it.
pub fn sum(number: u64, octets: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    let start = step(step(0xcbf2_9ce4_8422_2325, number), octets.len() as u64);
    octets.chunks(8).fold(start, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        step(hash, u64::from_be_bytes(word))
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

// === impl Flaw ===

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Torn } else { Self::Io(error) }
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Corrupt => f.write_str("it is corrupt"),
            Self::Foreign => f.write_str("it is no snapshot of a cache"),
            Self::Io(error) => error.fmt(f),
            Self::Torn => f.write_str("it ends early"),
            Self::Version(version) => write!(f, "it is of version {version}, this agent's is {VERSION}"),
        }
    }
}

#[cfg(test)]
mod tests;
