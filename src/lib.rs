//! Nodens: the DNS on every Kubernetes node that stays up when everything around it, itself included, falls over.
pub mod cli;
pub mod config;
pub mod control;
pub mod dump;
pub mod http;
pub mod metrics;
pub mod plan;
pub mod wire;
