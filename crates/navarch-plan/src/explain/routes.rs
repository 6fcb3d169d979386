//! VirtualServices behind route configurations: the ones that apply, and the ones that do not.

use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_snapshot::bound::BoundVirtualService;
use navarch_snapshot::host::covers;
use serde_json::Value;

use super::metadata::{add_sources, text};
use super::{Explainer, Part};

impl Explainer<'_> {
    /// A part for each virtual host.
    pub(super) fn route_configuration(&self, body: &Value) -> Vec<Part> {
        let hosts = body.get("virtualHosts").and_then(Value::as_array);
        hosts.into_iter().flatten().map(|host| self.virtual_host(host)).collect()
    }

    fn virtual_host(&self, virtual_host: &Value) -> Part {
        let name = text(virtual_host, "name");
        let mut part = Part::new(format!("virtual host {name}"));
        let host = name.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
        if let Some(service) = self.scope.service(&self.view, host) {
            part = part.from(super::services::key_of(&service), "", format!("declares {host}"));
        }
        add_sources(self, virtual_host, &mut part);
        if matches!(&*name, "allow_any" | "block_all") {
            self.add_sidecar(&mut part, "says what happens to unknown destinations");
            self.add_mesh(&mut part, "says what happens to unknown destinations");
        }
        let used: Vec<ObjectKey> = part.sources.iter().map(|source| source.object.clone()).collect();
        let exact = self.view.virtual_services(host).iter();
        let wildcard = self.view.wildcard_virtual_services().iter();
        let candidates =
            exact.chain(wildcard.filter(|rule| rule.hosts.iter().any(|pattern| covers(pattern, host))));
        for rule in candidates.filter(|rule| rule.for_mesh()) {
            let sources = rule.sources.iter();
            let keys = sources.map(|(namespace, name)| ObjectKey::new(Kind::VirtualService, namespace, name));
            let (used, unused): (Vec<_>, Vec<_>) = keys.partition(|key| used.contains(key));
            for key in unused {
                match used.is_empty() {
                    true => part.lose(key, self.why_no_route(rule, host)),
                    false => part.add(key, "spec.http", "routes are delegated to it"),
                }
            }
        }
        part
    }

    fn why_no_route(&self, rule: &BoundVirtualService, host: &str) -> String {
        let client = self.scope.namespace();
        if !rule.export_to.includes(client) {
            return format!("exportTo does not include namespace {client}");
        }
        match self.scope.virtual_service_for(&self.view, None, host) {
            Some(winner) if winner.sources != rule.sources => format!(
                "VirtualService {}/{} is used for the host: private before public, exact before wildcard, then the oldest",
                winner.config.namespace, winner.config.name
            ),
            Some(_) => "none of its routes applies to this proxy and port (sourceLabels, sourceNamespace, gateways, port)".to_owned(),
            None => "the Sidecar of the workload does not import it".to_owned(),
        }
    }
}
