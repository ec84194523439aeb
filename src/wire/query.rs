//! Queries of clients, judged.
