//! What must hold whatever the octets say: one property a module, each a function `check` that panics if it does not.
//!
//! The fuzzer calls them with what it makes up (`fuzz_targets/`), `cargo test` with what is kept in `corpus/`. Where
//! another implementation can be asked, it is: hickory-proto reads what we read and what we wrote.

pub mod compose;
pub mod config;
pub mod corefile;
pub mod dump;
pub mod edit;
pub mod name;
pub mod query;
pub mod response;
pub mod snapshot;
mod support;

/// A property.
pub type Check = fn(&[u8]);

/// Every property, under the name of its target and of its folder in `corpus/`.
pub const ALL: &[(&str, Check)] = &[
    ("compose", compose::check),
    ("config", config::check),
    ("corefile", corefile::check),
    ("dump", dump::check),
    ("edit", edit::check),
    ("name", name::check),
    ("query", query::check),
    ("response", response::check),
    ("snapshot", snapshot::check),
];
