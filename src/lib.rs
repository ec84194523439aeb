//! Nodens: the DNS on every Kubernetes node that stays up when everything around it, itself included, falls over.
pub mod cache;
pub mod clients;
pub mod metrics;
pub mod plan;
pub mod policy;
pub mod resolve;
pub mod upstream;
pub mod wire;
