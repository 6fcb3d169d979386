//! Istio's Gateways and VirtualServices, and Ingresses, as objects of the Gateway API.
//!
//! In: a snapshot, in which all of them are lowered to the same listeners and sets of routes. Out: objects,
//! and a finding at each field that has no counterpart, or one that means something else. Without findings,
//! proxies do with every request and connection what they did.
//!
//! ```text
//!   Gateway, Ingress ──────────> ListenerSet ──> Gateway (and ListenerSet)
//!   VirtualService, Ingress ───> RouteSet ─────> HTTPRoute, TLSRoute, TCPRoute, ReferenceGrant
//! ```
//!
//! This crate knows no Envoy and no files.

mod condition;
mod filters;
mod gateway;
mod http;
pub mod manifest;
mod order;
mod report;
mod services;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::finding::Finding;
use navarch_model::route::RouteSet;
use navarch_model::{Hashed, Kind, Precedence};
use navarch_snapshot::{BUCKETS, Snapshot};

use crate::gateway::Gateways;
use crate::http::{Routes, https_redirect, route_name};
use crate::manifest::Manifest;
use crate::order::Order;
use crate::report::Report;
use crate::services::Services;

/// What was converted.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    pub manifests: Vec<Manifest>,
    /// What does not fit. Errors are about what is left out, warnings about what means something else.
    pub findings: Vec<Finding>,
}

impl Conversion {
    /// The objects as YAML, a document each.
    ///
    /// # Errors
    ///
    /// None that can be brought about by input: the values are plain.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        let mut text = String::new();
        for manifest in &self.manifests {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(manifest)?);
        }
        Ok(text)
    }
}

/// Converts what a snapshot has. `class` is the GatewayClass of the Gateways that are made.
pub fn convert(snapshot: &Snapshot, class: &str) -> Conversion {
    let view = snapshot.view();
    let mut report = Report::new(snapshot);
    let mut services = Services::of(snapshot);
    let (gateways, mut manifests) =
        Gateways { class, services: &services, report: &mut report }.make(view.gateways());
    manifests.extend(gateways.values().filter_map(https_redirect));
    let mut order = Order::default();
    let mut routes = Routes { gateways: &gateways, services: &mut services, report: &mut report };
    for set in route_sets(snapshot).values() {
        let name = route_name(set);
        let converted = routes.convert(set, &name);
        order.add(set, &converted.placed);
        manifests.extend(converted.manifests);
        manifests.extend(routes.convert_streams(set, &name));
    }
    order.check(&mut report);
    manifests.extend(services.grants());
    Conversion { manifests, findings: report.into_findings() }
}

/// All sets of routes of VirtualServices and Ingresses, in the order of precedence.
fn route_sets(snapshot: &Snapshot) -> BTreeMap<Precedence, Arc<Hashed<RouteSet>>> {
    let view = snapshot.view();
    let mesh = (0..BUCKETS).flat_map(|bucket| view.routes_in(bucket).values().flatten());
    let at_gateways = view.gateways_named().flat_map(|parent| view.gateway_routes(parent));
    let all = mesh.chain(view.wildcard_routes()).cloned().chain(at_gateways);
    let ours = all.filter(|set| matches!(set.key().kind, Kind::VirtualService | Kind::Ingress));
    ours.map(|set| (set.precedence.clone(), set)).collect()
}
