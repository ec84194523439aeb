//! Area C: what is kept, under which question, for how long, and what is never kept.

mod content;
mod failures;
mod keys;
mod lifetimes;
mod negative;
mod pressure;
