//! The ProxyConfig that holds for a proxy.

use navarch_model::mesh::{MeshConfig, ProxyConfig, parse_proxy_config};
use navarch_model::proxy::ProxyFacts;

/// The configuration that the proxy itself states (`PROXY_CONFIG`, which its agent has merged with the mesh's), else the mesh's.
pub fn proxy_config(facts: &ProxyFacts, mesh: &MeshConfig) -> ProxyConfig {
    let stated = facts.metadata("PROXY_CONFIG");
    if stated.is_empty() {
        return mesh.default_config.clone().unwrap_or_default();
    }
    // Problems are the agent's to report; what can be read counts.
    parse_proxy_config(&ProxyConfig::default(), stated, "PROXY_CONFIG", 1).0
}
