//! Nodens: the DNS on every Kubernetes node that stays up when everything around it, itself included, falls over.
pub mod discover;
pub mod net;
pub mod plan;
pub mod wire;
