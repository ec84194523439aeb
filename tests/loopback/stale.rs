//! Area S: answers past their time, while nobody has better ones.

mod bounds;
mod kinds;
mod recovery;
mod wait;
