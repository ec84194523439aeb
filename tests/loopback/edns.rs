//! Area E: EDNS, header flags and sizes.

mod flags;
mod options;
mod sizes;
mod upstream_side;
