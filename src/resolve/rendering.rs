//! How an entry becomes the answer to a client's question, which need not be the one asked upstream.
//!
//! Read first: acceptance.md section 0, "A and AAAA must agree on the rcode"; RFC 8914.

use crate::cache::Entry;
use crate::plan::Lifetimes;
use crate::wire::compose::{self, TtlRule};
use crate::wire::{Asker, Ede, Rcode, Type, edit, name};

/// How the answer to the upstream question becomes the answer to the client's. `labels`: of the zone the name lies in,
/// which owns the SOA of what is made here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// As it is.
    Itself,
    /// Without IPv6 addresses, unless signed and asked for with DO.
    Stripped { labels: usize },
    /// An AAAA question, answered from A: no such data, whatever A says, unless there is no such name.
    NodataOfA { labels: usize },
    /// An AAAA question, answered from A if there is any, else to be asked itself.
    UnlessA { labels: usize },
}

/// What came of writing an answer.
pub(super) enum Rendered {
    /// A has no address: AAAA must be asked itself.
    AskItself,
    Reply(usize),
    TooSmall,
}

/// Writes `entry` as the answer to `asker`.
pub(super) fn render(
    entry: &Entry,
    asker: &Asker<'_>,
    want: Want,
    ttl: TtlRule,
    lifetimes: &Lifetimes,
    out: &mut [u8],
) -> Rendered {
    let stored = entry.stored();
    let stale = matches!(ttl, TtlRule::Stale { .. }).then_some(match entry.rcode() {
        Rcode::NXDOMAIN => Ede::STALE_NXDOMAIN,
        _ => Ede::STALE_ANSWER,
    });
    let length = match want {
        Want::Itself => compose::patch(stored, asker, ttl, stale, out),
        Want::Stripped { .. } if !entry.contains_aaaa() || (entry.is_signed() && asker.dnssec_ok()) => {
            compose::patch(stored, asker, ttl, stale, out)
        }
        Want::Stripped { labels } => {
            let edited = if asker.qtype() == Type::AAAA {
                edit::nodata_for_aaaa(stored, apex(asker, labels), negative_ttl(entry, lifetimes))
            } else {
                edit::without_aaaa(stored)
            };
            compose::patch(edited.stored(), asker, ttl, stale.or(Some(Ede::FILTERED)), out)
        }
        // No such name, or no such data for A: the answer to A says it all.
        Want::NodataOfA { .. } if entry.is_negative() => compose::patch(stored, asker, ttl, stale, out),
        Want::UnlessA { .. } if entry.rcode() == Rcode::NXDOMAIN => compose::patch(stored, asker, ttl, stale, out),
        Want::UnlessA { .. } if entry.is_negative() => return Rendered::AskItself,
        Want::NodataOfA { labels } | Want::UnlessA { labels } => {
            let edited = edit::nodata_for_aaaa(stored, apex(asker, labels), negative_ttl(entry, lifetimes));
            compose::patch(edited.stored(), asker, ttl, stale.or(Some(Ede::FILTERED)), out)
        }
    };
    length.map_or(Rendered::TooSmall, Rendered::Reply)
}

/// The name of the zone with so many labels that the question lies in.
fn apex<'a>(asker: &Asker<'a>, labels: usize) -> &'a [u8] {
    let qname = asker.question.split_last_chunk::<4>().map_or(&[][..], |(qname, _)| qname);
    name::suffixes(qname).nth(name::label_count(qname).saturating_sub(labels)).unwrap_or(&[0])
}

/// How long a NODATA made from `entry` lives: as long as the entry, within the bound for negative answers.
fn negative_ttl(entry: &Entry, lifetimes: &Lifetimes) -> u32 {
    entry.lifetime().min(lifetimes.max_negative_ttl)
}
