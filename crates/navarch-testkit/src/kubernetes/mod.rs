//! A real API server of Kubernetes under control: etcd and kube-apiserver as processes on loopback.

mod obtain;
#[cfg(feature = "kubernetes")]
mod server;
#[cfg(feature = "kubernetes")]
mod store;
#[cfg(feature = "kubernetes")]
mod trust;

pub use obtain::{Binaries, VERSION, binaries, build_all};
#[cfg(feature = "kubernetes")]
pub use server::{Another, ApiServer};
#[cfg(feature = "kubernetes")]
pub use trust::USER_TOKEN;
