//! What sidecars get.

pub mod listeners;
pub(crate) mod routes;
