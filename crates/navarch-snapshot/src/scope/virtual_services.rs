//! Which VirtualServices apply to a client, in the order in which they decide conflicts.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::service::Visibility;
use navarch_model::{Hashed, Name};

use super::{EgressListener, Scope};
use crate::bound::BoundVirtualService;
use crate::host::by_specificity;
use crate::part::Bucket;
use crate::view::View;

/// Annotation that tells which API a VirtualService stems from.
const SEMANTICS_ANNOTATION: &str = "internal.istio.io/route-semantics";

type SharedVirtualService = Arc<Hashed<BoundVirtualService>>;

impl Scope {
    /// VirtualServices for exactly this host that the client uses, the one that counts first; those after it have lost.
    ///
    /// Private ones of the client's namespace come before those exported to the namespace, and those before public ones; each
    /// oldest first.
    pub fn virtual_services(&self, view: &View<'_>, host: &str) -> Vec<SharedVirtualService> {
        self.ordered(view, view.virtual_services(host), |rule| self.imports_virtual_service(rule))
    }

    /// As [`Scope::virtual_services`], for what one egress listener imports.
    pub fn listener_virtual_services(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
        host: &str,
    ) -> Vec<SharedVirtualService> {
        self.ordered(view, view.virtual_services(host), |rule| listener.imports_virtual_service(rule))
    }

    /// VirtualServices by exact host, for all hosts of a bucket, also those that no service has.
    pub fn listener_virtual_services_in(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
        bucket: Bucket,
    ) -> BTreeMap<Name, Vec<SharedVirtualService>> {
        let hosts = view.virtual_services_in(bucket).iter().map(|(host, rules)| {
            (host.clone(), self.ordered(view, rules, |rule| listener.imports_virtual_service(rule)))
        });
        hosts.filter(|(_, rules)| !rules.is_empty()).collect()
    }

    /// VirtualServices with a wildcard host that the client uses, in the order of precedence.
    pub fn wildcard_virtual_services(&self, view: &View<'_>) -> Vec<SharedVirtualService> {
        self.ordered(view, view.wildcard_virtual_services(), |rule| self.imports_virtual_service(rule))
    }

    /// As [`Scope::wildcard_virtual_services`], for what one egress listener imports.
    pub fn listener_wildcard_virtual_services(
        &self,
        view: &View<'_>,
        listener: &EgressListener,
    ) -> Vec<SharedVirtualService> {
        self.ordered(view, view.wildcard_virtual_services(), |rule| listener.imports_virtual_service(rule))
    }

    /// The VirtualService that routes a service's traffic: the first for its exact host, else the first of the most specific
    /// wildcard. Without a listener: of all that the client imports.
    pub fn virtual_service_for(
        &self,
        view: &View<'_>,
        listener: Option<&EgressListener>,
        host: &str,
    ) -> Option<SharedVirtualService> {
        let imported = |rule: &BoundVirtualService| match listener {
            Some(listener) => listener.imports_virtual_service(rule),
            None => self.imports_virtual_service(rule),
        };
        if let Some(rule) = self.ordered(view, view.virtual_services(host), imported).into_iter().next() {
            return Some(rule);
        }
        let mut best: Option<(Name, SharedVirtualService)> = None;
        for rule in self.ordered(view, view.wildcard_virtual_services(), imported) {
            let covering = rule
                .hosts
                .iter()
                .filter(|pattern| crate::host::is_wildcard(pattern) && crate::host::covers(pattern, host));
            let Some(pattern) = covering.min_by(|a, b| by_specificity(a, b)).cloned() else { continue };
            if best.as_ref().is_none_or(|(known, _)| by_specificity(&pattern, known).is_lt()) {
                best = Some((pattern, rule));
            }
        }
        best.map(|(_, rule)| rule)
    }

    /// VirtualServices bound to a gateway `<namespace>/<name>` that this client uses, in the order in which they are put together.
    pub fn gateway_virtual_services(&self, view: &View<'_>, gateway: &str) -> Vec<SharedVirtualService> {
        self.ordered(view, view.gateway_virtual_services(gateway), |_| true)
    }

    fn imports_virtual_service(&self, rule: &BoundVirtualService) -> bool {
        !self.is_sidecar() || self.egress.iter().any(|listener| listener.imports_virtual_service(rule))
    }

    fn ordered(
        &self,
        view: &View<'_>,
        rules: &[SharedVirtualService],
        accept: impl Fn(&BoundVirtualService) -> bool,
    ) -> Vec<SharedVirtualService> {
        let visible = rules.iter().filter(|rule| self.may_use(view, &rule.export_to) && accept(rule));
        let mut visible: Vec<SharedVirtualService> = visible.cloned().collect();
        // Stable: within a class the oldest stays first.
        visible.sort_by_key(|rule| self.class(view, rule));
        visible
    }

    /// Private rules first, then rules exported to the client's namespace, then public ones; of these, routes of the Gateway API
    /// that the client's namespace made for itself come first.
    fn class(&self, view: &View<'_>, rule: &BoundVirtualService) -> u8 {
        let gateway_api = || {
            rule.config
                .annotations
                .get(SEMANTICS_ANNOTATION)
                .is_some_and(|semantics| &**semantics == "gateway")
        };
        match &rule.export_to {
            Visibility::Public if gateway_api() && self.is_in(view, &rule.config.namespace) => 2,
            Visibility::Public => 3,
            _ if self.is_in(view, &rule.config.namespace) => 0,
            _ => 1,
        }
    }
}

impl EgressListener {
    fn imports_virtual_service(&self, rule: &BoundVirtualService) -> bool {
        self.hosts.includes_virtual_service(&rule.hosts, &rule.config.namespace)
    }
}
