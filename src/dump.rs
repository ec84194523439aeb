//! One cache entry as people see it, the way to ask for some of them, and where they come from.
//!
//! Whoever holds the cache fills the rows; `http` and `control` send them on as they are pulled, one at a time, so that a
//! dump of the whole cache needs no memory of its own. Names are in presentation form: no octet a client chose
//! reaches a terminal or a JSON parser unescaped.
//!
//! Read first: RFC 1035 section 5.1, RFC 4343 section 2.1.

mod records;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use records::records;

use crate::wire::{Name, Type};

/// One entry. Times are whole seconds from the moment of the dump.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DumpRow {
    /// QNAME, escaped, with its final dot.
    pub name: String,
    /// QTYPE by mnemonic.
    #[serde(rename = "type")]
    pub qtype: String,
    /// Part of the key: the asker wanted DNSSEC records (RFC 3225).
    pub dnssec_ok: bool,
    /// Part of the key: the asker checks by itself (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
    /// RCODE by mnemonic.
    pub rcode: String,
    /// `answer`, `nodata`, `nxdomain` or `failure`.
    pub kind: String,
    /// Until the answer expires; 0: it has.
    pub ttl_left: u32,
    /// Until it may not even be used stale (RFC 8767).
    pub stale_left: u32,
    /// How often it was used since it was stored.
    pub hits: u64,
    /// What it takes up, bookkeeping included.
    pub bytes: u64,
    /// The records in presentation form, as [`records()`] writes them.
    pub records: Vec<String>,
}

/// Which entries are meant. Everything left out: all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    /// This name and all below it.
    pub zone: Option<Name>,
    /// This name alone.
    pub name: Option<Name>,
    /// This type alone.
    pub qtype: Option<Type>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// What a [`Filter`] is made of, as it comes from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// [`Filter::limit`].
    Limit,
    /// [`Filter::name`].
    Name,
    /// [`Filter::qtype`].
    Type,
    /// [`Filter::zone`].
    Zone,
}

/// A filter that cannot be understood: which part, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadFilter {
    /// The part.
    pub field: Field,
    /// The reason.
    pub why: String,
}

/// Where rows come from. Pulled row by row; dropped when nobody wants more.
pub struct Source(Box<Open>);

type Open = dyn Fn(&Filter) -> Box<dyn Iterator<Item = DumpRow> + Send> + Send + Sync;

// === impl Filter ===

impl Filter {
    /// Whether an entry with this key is meant. The limit is not looked at.
    pub fn admits(&self, name: &Name, qtype: Type) -> bool {
        self.zone.as_ref().is_none_or(|zone| name.is_under(zone))
            && self.name.as_ref().is_none_or(|one| one == name)
            && self.qtype.is_none_or(|one| one == qtype)
    }

    /// Reads one part of a filter from its text.
    ///
    /// # Errors
    /// [`BadFilter`] if the text is no name, no type or no number.
    pub fn set(&mut self, field: Field, text: &str) -> Result<(), BadFilter> {
        let bad = |why: String| BadFilter { field, why };
        match field {
            Field::Limit => self.limit = Some(text.parse().map_err(|_| bad("not a whole number".to_owned()))?),
            Field::Name => self.name = Some(name(text).map_err(bad)?),
            Field::Type => self.qtype = Some(text.parse().map_err(|error| bad(format!("{error}")))?),
            Field::Zone => self.zone = Some(name(text).map_err(bad)?),
        }
        Ok(())
    }
}

/// An empty text is no name: the root is written `.`.
fn name(text: &str) -> Result<Name, String> {
    if text.is_empty() {
        return Err("empty; the root is `.`".to_owned());
    }
    text.parse().map_err(|error| format!("{error}"))
}

// === impl Field ===

impl Field {
    /// The field's name in queries and requests.
    pub fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Name => "name",
            Self::Type => "type",
            Self::Zone => "zone",
        }
    }

    /// The field with this name.
    pub fn of_label(label: &str) -> Option<Self> {
        [Self::Limit, Self::Name, Self::Type, Self::Zone].into_iter().find(|field| field.label() == label)
    }
}

// === impl BadFilter ===

impl fmt::Display for BadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field.label(), self.why)
    }
}

// === impl Source ===

impl Source {
    /// A source that starts a pass over the cache each time it is opened. The rows must respect the filter; they must
    /// not hold a lock of the cache from one row to the next, because the reader may be slow.
    pub fn new<I>(open: impl Fn(&Filter) -> I + Send + Sync + 'static) -> Self
    where
        I: Iterator<Item = DumpRow> + Send + 'static,
    {
        Self(Box::new(move |filter| Box::new(open(filter))))
    }

    /// The rows that `filter` means, no more than its limit.
    pub fn open(&self, filter: &Filter) -> impl Iterator<Item = DumpRow> + Send + use<> {
        (self.0)(filter).take(filter.limit.unwrap_or(usize::MAX))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::DumpRow;

    /// One of many rows, told apart by their number.
    pub(crate) fn row(number: usize) -> DumpRow {
        DumpRow {
            name: format!("n{number}.test."),
            qtype: "A".to_owned(),
            dnssec_ok: false,
            checking_disabled: false,
            rcode: "NOERROR".to_owned(),
            kind: "answer".to_owned(),
            ttl_left: 30,
            stale_left: 3630,
            hits: number as u64,
            bytes: 200,
            records: vec!["10.0.0.1".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_admits_what_all_its_parts_mean() {
        let mut filter = Filter::default();
        let www: Name = "www.Example.test".parse().expect("a name");
        assert!(filter.admits(&www, Type::A));
        filter.set(Field::Zone, "EXAMPLE.test.").expect("a name");
        assert!(filter.admits(&www, Type::A));
        assert!(!filter.admits(&"wwwexample.test".parse().expect("a name"), Type::A));
        filter.set(Field::Type, "aaaa").expect("a type");
        assert!(!filter.admits(&www, Type::A) && filter.admits(&www, Type::AAAA));
        filter.set(Field::Name, "example.test").expect("a name");
        assert!(!filter.admits(&www, Type::AAAA));
    }

    #[test]
    fn a_part_that_makes_no_sense_is_named() {
        for (field, text) in [(Field::Limit, "-1"), (Field::Name, "a..b"), (Field::Type, "AAAAA"), (Field::Zone, "")] {
            let bad = Filter::default().set(field, text).expect_err("makes no sense");
            assert!(bad.to_string().starts_with(field.label()), "{bad}");
        }
    }
}
