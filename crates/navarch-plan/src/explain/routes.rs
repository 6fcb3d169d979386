//! Sets of routes behind route configurations: the ones that apply, and the ones that do not.

use std::collections::{BTreeMap, BTreeSet};

use navarch_envoy::hosts;
use navarch_model::Origin;
use navarch_model::route::RouteSet;
use navarch_snapshot::host::covers;
use serde_json::Value;

use super::{Explainer, Part};
use crate::gather::route_origins;

impl Explainer<'_> {
    /// A part for each virtual host of a route configuration.
    pub(super) fn route_configuration(&self, name: &str, body: &Value) -> Vec<Part> {
        let origins = self.engine.ask(|cx| route_origins(cx, &self.class, &self.scope, name));
        let hosts = body.get("virtualHosts").and_then(Value::as_array);
        hosts.into_iter().flatten().map(|host| self.virtual_host(host, &origins)).collect()
    }

    /// The part of a virtual host that is a resource of its own.
    pub(super) fn host_of_routes(&self, name: &str, mut body: Value) -> Vec<Part> {
        let routes = hosts::routes_of(name).unwrap_or_default();
        let origins = self.engine.ask(|cx| route_origins(cx, &self.class, &self.scope, routes));
        body["name"] = Value::from(&*hosts::host_of(name));
        vec![self.virtual_host(&body, &origins)]
    }

    fn virtual_host(&self, virtual_host: &Value, origins: &BTreeMap<String, BTreeSet<Origin>>) -> Part {
        let name = virtual_host.get("name").and_then(Value::as_str).unwrap_or_default();
        let domains = virtual_host.get("domains").and_then(Value::as_array).into_iter().flatten();
        let mut part = Part::new(format!("virtual host {name}"));
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        if let Some(service) = self.scope.service(&self.view, host) {
            part = part.from(super::declared::key_of(&service), "", format!("declares {host}"));
        }
        let names = domains.filter_map(Value::as_str).chain([name]);
        for origin in names.filter_map(|name| origins.get(name)).flatten() {
            part.add(origin.key.clone(), &*origin.field, "says where requests go");
        }
        if matches!(name, "allow_any" | "block_all") {
            self.add_sidecar(&mut part, "says what happens to unknown destinations");
            self.add_mesh(&mut part, "says what happens to unknown destinations");
        }
        let exact = self.view.routes(host).iter();
        let wildcard = self.view.wildcard_routes().iter();
        let candidates =
            exact.chain(wildcard.filter(|set| set.hosts.iter().any(|pattern| covers(pattern, host))));
        for set in candidates {
            let objects = set.objects();
            if objects.iter().any(|key| part.sources.iter().any(|source| source.object == **key)) {
                // With delegates, the routes are those of others.
                part.add_unknown(set.key(), "has routes for the host");
            } else {
                let reason = self.why_no_route(set, host);
                objects.into_iter().for_each(|key| part.lose(key.clone(), reason.clone()));
            }
        }
        part
    }

    fn why_no_route(&self, set: &RouteSet, host: &str) -> String {
        let client = self.scope.namespace();
        if !set.export_to.includes(client) {
            return format!("exportTo does not include namespace {client}");
        }
        match self.scope.route_set_for(&self.view, None, host) {
            Some(winner) if winner.precedence != set.precedence => {
                let why = self.scope.why_before(&self.view, host, &winner, set);
                format!("{} is used for the host: {why}", winner.key())
            }
            Some(_) => "none of its routes applies to this proxy and port (labels, namespace, gateway, port)"
                .to_owned(),
            None => "the Sidecar of the workload does not import it".to_owned(),
        }
    }
}
