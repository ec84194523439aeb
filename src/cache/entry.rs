//! One cached response: whether it may be stored, how it ages, how it is sent again.
//!
//! An entry keeps the octets as they will be sent and remembers where their TTLs are; sending it again is a copy and a
//! few patches. Everything is plain octets and small numbers, so that one entry costs little more than its message.
//!
//! Read first: RFC 2308 sections 3 and 5, RFC 8767 sections 4 and 5, RFC 2181 section 5.2.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::plan::Lifetimes;
use crate::wire::response::Stored;
use crate::wire::{HEADER, Key, Kind, Rcode, Response};

/// A response that may be sent again. Exists only if [`Entry::admit`] agreed.
#[derive(Debug)]
pub struct Entry {
    /// The message without OPT, then its TTL offsets, two octets each.
    blob: Box<[u8]>,
    /// Octets of the message in `blob`.
    message: u16,
    /// DO and CD of the question; the rest of the key stands in the message.
    key_bits: u8,
    traits: u8,
    /// Times asked since it was stored, up to the plan's threshold; saturates.
    hits: AtomicU8,
    /// Whether a refresh ahead of expiry is under way or done.
    prefetched: AtomicU8,
    /// Seconds it is fresh, counted from `stored_at`.
    lifetime: u32,
    /// Seconds after that during which it may be used as stale.
    stale_for: u32,
    /// Milliseconds since the cache's epoch.
    stored_at: u64,
    /// Milliseconds since the epoch before which a failed refresh is not tried again; 0: none failed.
    recheck_at: AtomicU64,
}

const AAAA: u8 = 1;
const SIGNED: u8 = 2;
const NEGATIVE: u8 = 4;

/// Why a response was not stored. The label of `nodens_not_stored_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotCacheable {
    Failure,
    NegativeWithoutSoa,
    Referral,
    Truncated,
    ZeroTtl,
}

/// How an entry stands at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Freshness {
    /// `age` in whole seconds, below the lifetime.
    Fresh { age: u32 },
    Stale,
    /// Not even good as stale.
    Gone,
}

impl Entry {
    /// Makes an entry of `response`, and says whether and why it must not be stored.
    ///
    /// What may not be stored still answers those who wait for it. TTLs are bounded by `lifetimes` in the octets.
    pub fn admit(
        mut response: Response,
        key: &Key,
        lifetimes: &Lifetimes,
        epoch: Instant,
        now: Instant,
    ) -> (Self, Result<(), NotCacheable>) {
        let kind = response.kind();
        let negative = matches!(kind, Kind::NoData { .. } | Kind::NxDomain { .. });
        let (floor, ceiling) = if negative {
            (0, lifetimes.max_negative_ttl)
        } else {
            (lifetimes.min_ttl.min(lifetimes.max_ttl), lifetimes.max_ttl)
        };
        // The SOA of a negative answer already carries min(TTL, MINIMUM), see wire::response.
        let lifetime = response.bound_ttls(floor, ceiling).unwrap_or(0);
        let verdict = if response.truncated() {
            Err(NotCacheable::Truncated)
        } else {
            match kind {
                Kind::Failure(_) => Err(NotCacheable::Failure),
                Kind::Referral => Err(NotCacheable::Referral),
                // RFC 2308 section 5: without SOA the lifetime is unknown.
                Kind::NoData { negative_ttl: None } | Kind::NxDomain { negative_ttl: None } => {
                    Err(NotCacheable::NegativeWithoutSoa)
                }
                _ if lifetime == 0 => Err(NotCacheable::ZeroTtl),
                _ => Ok(()),
            }
        };
        let traits = if response.contains_aaaa() { AAAA } else { 0 }
            | if response.is_signed() { SIGNED } else { 0 }
            | if negative { NEGATIVE } else { 0 };
        let (octets, offsets) = (response.octets(), response.ttl_offsets());
        let mut blob = Vec::with_capacity(octets.len() + 2 * offsets.len());
        blob.extend_from_slice(octets);
        for offset in offsets {
            blob.extend_from_slice(&offset.to_ne_bytes());
        }
        let entry = Self {
            message: octets.len() as u16,
            blob: blob.into_boxed_slice(),
            key_bits: key.bits(),
            traits,
            hits: AtomicU8::new(0),
            prefetched: AtomicU8::new(0),
            lifetime,
            stale_for: lifetimes.max_stale,
            stored_at: millis(epoch, now),
            recheck_at: AtomicU64::new(0),
        };
        (entry, verdict)
    }

    /// The message, to be patched for an asker.
    pub fn stored(&self) -> Stored<'_> {
        let (octets, offsets) = self.blob.split_at(usize::from(self.message));
        Stored::new(octets, offsets)
    }

    /// Whether this entry answers `key`: DO and CD the same, name equal in any case, same type.
    pub fn answers(&self, key: &Key) -> bool {
        let (qname, qtype) = (key.qname(), key.qtype());
        let end = HEADER + qname.len();
        self.key_bits == key.bits()
            && self.blob.get(HEADER..end).is_some_and(|name| name.eq_ignore_ascii_case(qname))
            && self.blob.get(end..end + 2).is_some_and(|field| field == qtype.0.to_be_bytes())
    }

    /// The question this entry answers.
    pub fn key(&self) -> Option<Key> {
        Key::of_message(&self.blob[..usize::from(self.message)], self.key_bits)
    }

    /// How the entry stands at `now`.
    pub fn freshness(&self, epoch: Instant, now: Instant) -> Freshness {
        let age = millis(epoch, now).saturating_sub(self.stored_at);
        let (life, stale) = (u64::from(self.lifetime) * 1000, u64::from(self.stale_for) * 1000);
        if age < life {
            Freshness::Fresh { age: (age / 1000) as u32 }
        } else if age < life + stale {
            Freshness::Stale
        } else {
            Freshness::Gone
        }
    }

    /// Seconds until it expires, and until it is no good as stale either; zero once past.
    pub fn remaining(&self, epoch: Instant, now: Instant) -> (u64, u64) {
        let age = millis(epoch, now).saturating_sub(self.stored_at) / 1000;
        let life = u64::from(self.lifetime);
        (life.saturating_sub(age), (life + u64::from(self.stale_for)).saturating_sub(age))
    }

    /// Counts an asker and says how many there were, itself included; stops at `threshold`.
    pub fn count_hit(&self, threshold: u8) -> u8 {
        let hits = self.hits.load(Ordering::Relaxed);
        // A hot entry is not written any more: its cache line stays shared between the cores.
        if hits < threshold {
            self.hits.store(hits + 1, Ordering::Relaxed);
            return hits + 1;
        }
        hits
    }

    /// Askers counted so far.
    pub fn hits(&self) -> u8 {
        self.hits.load(Ordering::Relaxed)
    }

    /// True once, for whoever shall refresh this entry ahead of its expiry.
    pub fn claim_prefetch(&self) -> bool {
        self.prefetched.swap(1, Ordering::Relaxed) == 0
    }

    /// The lifetime in seconds it was stored with.
    pub fn lifetime(&self) -> u32 {
        self.lifetime
    }

    /// Notes that a refresh failed: no other before `until`.
    pub fn hold_refresh(&self, epoch: Instant, until: Instant) {
        self.recheck_at.store(millis(epoch, until), Ordering::Relaxed);
    }

    /// Whether a refresh failed so lately that it shall not be tried again; `recovered` lifts what was held before it.
    pub fn refresh_is_held(&self, epoch: Instant, now: Instant, recovered: Option<Instant>, recheck: Duration) -> bool {
        let held_until = self.recheck_at.load(Ordering::Relaxed);
        if held_until <= millis(epoch, now) {
            return false;
        }
        let failed_at = held_until.saturating_sub(recheck.as_millis() as u64);
        recovered.is_none_or(|at| millis(epoch, at) <= failed_at)
    }

    /// Bytes this entry takes, bookkeeping of the allocator and of the cache included.
    pub fn cost(&self) -> usize {
        ENTRY_OVERHEAD + self.blob.len()
    }

    /// Whether any AAAA record or ipv6hint is in it.
    pub fn contains_aaaa(&self) -> bool {
        self.traits & AAAA != 0
    }

    /// Whether its answer is signed.
    pub fn is_signed(&self) -> bool {
        self.traits & SIGNED != 0
    }

    /// Whether it says that there is no such name or no such data.
    pub fn is_negative(&self) -> bool {
        self.traits & NEGATIVE != 0
    }

    /// The response code.
    pub fn rcode(&self) -> Rcode {
        self.stored().rcode()
    }
}

/// The struct in its `Arc` (96 with the allocator's header), the blob's header and rounding (16), the cache's slot,
/// index and key at its usual fill (64): measured as resident bytes over 100,000 entries.
const ENTRY_OVERHEAD: usize = 176;

fn millis(epoch: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(epoch).as_millis() as u64
}

// === impl NotCacheable ===

impl NotCacheable {
    /// The reason as metrics and logs name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::NegativeWithoutSoa => "negative_without_soa",
            Self::Referral => "referral",
            Self::Truncated => "truncated",
            Self::ZeroTtl => "zero_ttl",
        }
    }
}
