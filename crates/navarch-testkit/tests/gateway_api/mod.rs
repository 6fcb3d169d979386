//! A gateway and a mesh of the Gateway API, and what is tried with them.

pub mod example;
pub mod http;
pub mod mesh;
pub mod rig;
pub mod stream;
pub mod table;
pub mod tls;
