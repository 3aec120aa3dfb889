//! Placeholder until its first part lands.

pub mod audit;
pub mod auth;
pub mod store;
