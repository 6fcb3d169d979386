//! Test equipment: a real Envoy under control, a `navarch serve` process under control, demo
//! applications, goldens, meshes of any size, a small HTTP client.
//!
//! Everything here waits by polling with a bound, listens on loopback only, and is stopped when
//! dropped. This crate knows nothing of translation: it runs programs and compares files.

pub mod agent;
pub mod apps;
pub mod cluster;
pub mod envoy;
pub mod faults;
pub mod go;
pub mod golden;
pub mod grpc;
pub mod http;
pub mod kubernetes;
pub mod mesh;
pub mod navarch;
pub mod network;
pub mod ports;
pub mod process;
pub mod wait;
pub mod workspace;
