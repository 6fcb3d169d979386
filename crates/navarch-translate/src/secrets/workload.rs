//! The secrets of a workload itself: its key and certificate, and the roots that it verifies others by.

use std::sync::Arc;

use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, TlsCertificate, secret,
};
use navarch_envoy::{Resource, XdsType};

use super::{encode, encode_secret, inline};
use crate::pure::{Pure, Sealed};
use crate::sds::{WORKLOAD_CERTIFICATE, WORKLOAD_ROOTS};

/// A certificate and its key, both in PEM, for the one proxy that has just proven that it is their workload.
///
/// This is not a [`Pure`]: keys are made for one stream, and nothing remembers them.
pub fn workload_certificate(chain: &str, key: &[u8]) -> Resource {
    let pair = secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(chain.as_bytes())),
        private_key: Some(inline(key)),
        ..TlsCertificate::default()
    });
    let message = encode_secret(WORKLOAD_CERTIFICATE, pair);
    Resource::builder(XdsType::Sds.type_url(), WORKLOAD_CERTIFICATE, &message).secret().build()
}

/// The roots of the mesh, as Envoy verifies workloads by them.
pub struct WorkloadRoots;

impl Sealed for WorkloadRoots {}

impl Pure for WorkloadRoots {
    const NAME: &'static str = "secrets.workload_roots";
    /// In PEM: those of the authority first, then those that the mesh trusts besides.
    type Input = Vec<Arc<str>>;
    type Output = Arc<Resource>;

    fn run(roots: &Vec<Arc<str>>) -> Arc<Resource> {
        let mut text = String::new();
        for pem in roots {
            text.push_str(pem.trim_end());
            text.push('\n');
        }
        let context = secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(text.as_bytes())),
            ..CertificateValidationContext::default()
        });
        encode(WORKLOAD_ROOTS.into(), context)
    }
}
