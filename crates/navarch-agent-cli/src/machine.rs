//! What is true of every proxy on this machine.

use std::path::Path;

use navarch_agent::node::Node;
use navarch_model::proxy::{COMPATIBLE_ISTIO_VERSION, SYSTEM_ROOTS};

/// Where this machine has the roots of the operating system: the places that distributions use.
fn system_roots() -> Option<&'static str> {
    const PLACES: [&str; 6] = [
        SYSTEM_ROOTS,
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/tls/cacert.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    PLACES.into_iter().find(|path| Path::new(path).is_file())
}

/// Adds it to a node.
pub fn state_facts(node: &mut Node) {
    // EnvoyFilters match by it, and take a proxy without one for none of theirs.
    node.metadata.entry("ISTIO_VERSION").or_insert_with(|| COMPATIBLE_ISTIO_VERSION.into());
    if let Some(path) = system_roots().filter(|path| *path != SYSTEM_ROOTS) {
        node.metadata.entry("SYSTEM_ROOTS").or_insert_with(|| path.into());
    }
}
