//! Who a workload is, and the proof of it: a certificate authority whose keys are kept on disk, requests for
//! certificates, tokens for those who have no certificate yet, the roots that are trusted, and how one root
//! follows another.
//!
//! ```text
//!   a request of istio.v1.auth           service        bytes in, bytes or a refusal out
//!        |  Presented                    authenticate   first success wins: certificate, then tokens
//!        |  Caller (a proven SpiffeId)   tokens         join tokens, OIDC, the seam for Kubernetes
//!        |  PublicKey                    request        of the request only its key is believed
//!        |  Issued                       authority      leaf, intermediates, roots
//!   certificates as PEM                  trust          what verifies them, in other meshes too
//!                                        rotation       which root signs, which are trusted
//! ```
//!
//! The crate knows neither Envoy nor the configuration of a mesh, and opens no sockets. It reads no clock:
//! every function that needs the time is told it. Files are read and written in [`store`] and in the loaders
//! that are named after their files, and nowhere else. Randomness is taken where a key, a serial number or a
//! token is made.
//!
//! What is secret is in a [`Secret`], which prints as `[redacted]` and is wiped when it is dropped.

pub mod audit;
pub mod authenticate;
pub mod authority;
pub mod certificate;
pub mod limit;
pub mod pem;
pub mod renewal;
pub mod request;
pub mod rotation;
pub mod secret;
pub mod service;
pub mod store;
pub mod time;
pub mod tokens;
pub mod trust;

pub use authenticate::{Authenticator, Caller, Presented};
pub use authority::Authority;
pub use secret::Secret;
pub use time::Timestamp;
