//! One cached response: whether it may be stored, how it ages, how it is sent again.
//!
//! An entry keeps the octets as they will be sent and remembers where their TTLs are; sending it again is a copy and a
//! few patches. Everything is plain octets and small numbers, so that one entry costs little more than its message.
//!
//! Read first: RFC 2308 sections 3 and 5, RFC 8767 sections 4 and 5, RFC 2181 section 5.2.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::plan::Lifetimes;
use crate::wire::response::{Asked, Stored};
use crate::wire::{HEADER, Key, Kind, Rcode, Response, Transport, Type, compose, name};

/// A response that may be sent again. Exists only if [`Entry::admit`] agreed.
#[derive(Debug)]
pub struct Entry {
    /// The message without OPT.
    octets: Box<[u8]>,
    ttl_offsets: Offsets,
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
    /// Milliseconds since the cache's epoch; below zero: by an agent before this one.
    stored_at: i64,
    /// Milliseconds since the epoch before which a failed refresh is not tried again; 0: none failed.
    recheck_at: AtomicU64,
    /// Milliseconds since the epoch of a refresh that failed because all of upstream was silent; 0: another reason, or none.
    failed_in_silence_at: AtomicU64,
}

const AAAA: u8 = 1;
const SIGNED: u8 = 2;
const NEGATIVE: u8 = 4;

const DO: u8 = 1;
const CD: u8 = 2;

/// What an entry knows beside its message: the rest follows from that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kept {
    /// DO and CD of the question.
    pub key_bits: u8,
    pub hits: u8,
    /// Seconds.
    pub stale_for: u32,
    /// Milliseconds since it was stored.
    pub age: u64,
}

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
    Fresh {
        age: u32,
    },
    Stale,
    /// Not even good as stale.
    Gone,
}

impl Entry {
    /// Makes an entry of `response`, and says whether and why it must not be stored.
    ///
    /// What may not be stored still answers those who wait for it. TTLs are bounded by `lifetimes` in the octets.
    pub fn admit(
        response: Response,
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
        let traits = if response.contains_aaaa() { AAAA } else { 0 }
            | if response.is_signed() { SIGNED } else { 0 }
            | if negative { NEGATIVE } else { 0 };
        let truncated = response.truncated();
        let (mut octets, offsets) = response.into_parts();
        // The SOA of a negative answer already carries min(TTL, MINIMUM), see wire::response.
        let lifetime = bound_ttls(&mut octets, &offsets, floor, ceiling).unwrap_or(0);
        let verdict = if truncated {
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
        let entry = Self {
            octets,
            ttl_offsets: Offsets::new(offsets),
            key_bits: bits(key),
            traits,
            hits: AtomicU8::new(0),
            prefetched: AtomicU8::new(0),
            lifetime,
            stale_for: lifetimes.max_stale,
            stored_at: millis(epoch, now).cast_signed(),
            recheck_at: AtomicU64::new(0),
            failed_in_silence_at: AtomicU64::new(0),
        };
        (entry, verdict)
    }

    /// Makes an entry again of what [`stored`](Self::stored) and [`kept`](Self::kept) gave, perhaps in another process.
    ///
    /// The message is judged as an upstream's would be: `None` if it is no answer that may be stored.
    pub fn restore(message: &[u8], kept: Kept, epoch: Instant, now: Instant) -> Option<Self> {
        let key = key_of(message, kept.key_bits)?;
        let mut query = [0; compose::QUERY_MAX];
        let length = compose::upstream_query(&key, 0, None, true, &mut query)?;
        let asked = Asked { query: &query[..length], transport: Transport::Udp, exact_case: false };
        let response = Response::parse_for(message, &asked).ok()?;
        // Its TTLs have been bounded when it was stored.
        let lifetimes = Lifetimes {
            max_ttl: u32::MAX,
            max_negative_ttl: u32::MAX,
            min_ttl: 0,
            max_stale: kept.stale_for,
            ..Lifetimes::default()
        };
        let (entry, verdict) = Self::admit(response, &key, &lifetimes, epoch, now);
        verdict.ok()?;
        Some(Self {
            hits: AtomicU8::new(kept.hits),
            stored_at: entry.stored_at.saturating_sub_unsigned(kept.age),
            ..entry
        })
    }

    /// What it knows beside its message.
    pub fn kept(&self, epoch: Instant, now: Instant) -> Kept {
        Kept { key_bits: self.key_bits, hits: self.hits(), stale_for: self.stale_for, age: self.age(epoch, now) }
    }

    /// The message, to be patched for an asker.
    pub fn stored(&self) -> Stored<'_> {
        Stored::new(&self.octets, self.ttl_offsets.as_slice())
    }

    /// Whether this entry answers `key`: DO and CD the same, name equal in any case, same type.
    pub fn answers(&self, key: &Key) -> bool {
        let (qname, qtype) = (key.qname(), key.qtype());
        let end = HEADER + qname.len();
        self.key_bits == bits(key)
            && self.octets.get(HEADER..end).is_some_and(|name| name.eq_ignore_ascii_case(qname))
            && self.octets.get(end..end + 2).is_some_and(|field| field == qtype.0.to_be_bytes())
    }

    /// The question this entry answers.
    pub fn key(&self) -> Option<Key> {
        key_of(&self.octets, self.key_bits)
    }

    /// Milliseconds since it was stored.
    fn age(&self, epoch: Instant, now: Instant) -> u64 {
        millis(epoch, now).cast_signed().saturating_sub(self.stored_at).max(0).cast_unsigned()
    }

    /// How the entry stands at `now`.
    pub fn freshness(&self, epoch: Instant, now: Instant) -> Freshness {
        let age = self.age(epoch, now);
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
        let age = self.age(epoch, now) / 1000;
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

    /// Whether it is in the last `percent` of its life.
    pub fn is_in_last(&self, percent: u8, epoch: Instant, now: Instant) -> bool {
        let age = self.age(epoch, now);
        // Milliseconds × 100 against seconds × 1000 × percent.
        age.saturating_mul(100) >= u64::from(self.lifetime) * 1000 * u64::from(100 - percent.min(100))
    }

    /// The lifetime in seconds it was stored with.
    pub fn lifetime(&self) -> u32 {
        self.lifetime
    }

    /// Notes at `now` that a refresh failed: no other for `recheck`; `silent`: unless upstream speaks before that.
    pub fn hold_refresh(&self, epoch: Instant, now: Instant, recheck: Duration, silent: bool) {
        self.failed_in_silence_at.store(if silent { millis(epoch, now).max(1) } else { 0 }, Ordering::Relaxed);
        self.recheck_at.store(millis(epoch, now + recheck), Ordering::Relaxed);
    }

    /// Whether a refresh failed so lately that it shall not be tried again; `replied`: when upstream last spoke.
    pub fn refresh_is_held(&self, epoch: Instant, now: Instant, replied: Option<Instant>) -> bool {
        if self.recheck_at.load(Ordering::Relaxed) <= millis(epoch, now) {
            return false;
        }
        let failed_in_silence_at = self.failed_in_silence_at.load(Ordering::Relaxed);
        failed_in_silence_at == 0 || replied.is_none_or(|at| millis(epoch, at) <= failed_in_silence_at)
    }

    /// Bytes this entry takes, bookkeeping of the allocator and of the cache included.
    pub fn cost(&self) -> usize {
        ENTRY_OVERHEAD + self.octets.len() + self.ttl_offsets.heap_bytes()
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
        Rcode(u16::from(self.octets[3] & 0x0f))
    }
}

/// Raises and lowers every TTL into the bounds; the lowest afterwards, `None` if there is no record.
fn bound_ttls(octets: &mut [u8], offsets: &[u16], floor: u32, ceiling: u32) -> Option<u32> {
    let bound = |offset: &u16| {
        let at = usize::from(*offset);
        let field = octets.get_mut(at..at + 4)?;
        let ttl = u32::from_be_bytes(field.try_into().ok()?).clamp(floor, ceiling);
        field.copy_from_slice(&ttl.to_be_bytes());
        Some(ttl)
    };
    offsets.iter().filter_map(bound).min()
}

/// The question that `message` repeats.
pub(super) fn key_of(message: &[u8], bits: u8) -> Option<Key> {
    let question = message.get(HEADER..)?;
    let (qname, rest) = question.split_at_checked(name::uncompressed_length(question)?)?;
    let qtype = Type(u16::from_be_bytes(*rest.first_chunk()?));
    Key::new(qname, qtype, bits & DO != 0, bits & CD != 0)
}

fn bits(key: &Key) -> u8 {
    (if key.dnssec_ok() { DO } else { 0 }) | (if key.checking_disabled() { CD } else { 0 })
}

/// Offsets of TTLs. Most answers have few records: no allocation for those.
#[derive(Debug)]
enum Offsets {
    Few(u8, [u16; FEW]),
    Many(Box<[u16]>),
}

/// As many as fit beside the tag in the room that the box of many takes anyway.
const FEW: usize = 7;

impl Offsets {
    fn new(offsets: Box<[u16]>) -> Self {
        let mut few = [0; FEW];
        match few.get_mut(..offsets.len()) {
            Some(part) => {
                part.copy_from_slice(&offsets);
                Self::Few(offsets.len() as u8, few)
            }
            None => Self::Many(offsets),
        }
    }

    fn as_slice(&self) -> &[u16] {
        match self {
            Self::Few(count, offsets) => &offsets[..usize::from(*count)],
            Self::Many(offsets) => offsets,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Few(..) => 0,
            Self::Many(offsets) => 16 + 2 * offsets.len(),
        }
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
