//! What is read and checked and has no effect: kinds and fields that nothing is made from yet.

use navarch_model::Config;
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::mesh::MeshConfig;
use navarch_model::networking::{EnvoyFilter, ProxyConfig, Sidecar};
use navarch_model::object::ObjectKey;
use navarch_snapshot::View;

use super::{Found, Problem};

impl Found {
    /// Kinds and fields of the objects of a namespace.
    pub(super) fn without_effect(&mut self, view: &View<'_>, namespace: &str) {
        let configs = view.objects::<ProxyConfig>(namespace).iter();
        for config in configs.filter(|config| config.spec.image.is_some()) {
            let message = "nobody chooses images here; agents start the Envoy that their machine has";
            let hint = "remove it, or keep it for istiod";
            self.says_nothing(Kind::ProxyConfig, config, "spec.image", message, hint);
        }
        for sidecar in view.objects::<Sidecar>(namespace) {
            for (index, _) in
                sidecar.spec.ingress.iter().enumerate().filter(|(_, listener)| listener.tls.is_some())
            {
                let path = format!("spec.ingress[{index}].tls");
                let message = "TLS of ingress listeners is off, as in istiod by default; the listener takes mesh traffic and plaintext";
                self.says_nothing(Kind::Sidecar, sidecar, &path, message, "use a PeerAuthentication");
            }
        }
        for filter in view.objects::<EnvoyFilter>(namespace) {
            for (index, patch) in filter.spec.config_patches.iter().enumerate() {
                let stated =
                    patch.patch.as_ref().is_some_and(|patch| patch.filter_class != Default::default());
                if stated {
                    let path = format!("spec.configPatches[{index}].patch.filterClass");
                    let message =
                        "filterClass is ignored, as by istiod: the position is that of the operation";
                    self.says_nothing(
                        Kind::EnvoyFilter,
                        filter,
                        &path,
                        message,
                        "use INSERT_BEFORE or INSERT_AFTER and name a filter",
                    );
                }
            }
        }
    }

    fn says_nothing<T>(&mut self, kind: Kind, object: &Config<T>, path: &str, message: &str, hint: &str) {
        let finding = Finding::warning(Code::NoEffect, message).hint(hint);
        self.add(kind, object, path.to_owned(), finding);
    }

    /// Mesh settings.
    pub(super) fn mesh_without_effect(&mut self, view: &View<'_>) {
        let mesh = &view.mesh().config;
        let root = &mesh.root_namespace;
        for (field, reason) in unused(mesh) {
            let message = format!("{field} of the mesh settings has no effect: {reason}");
            let finding = Finding::warning(Code::NoEffect, message).hint("remove it, or keep it for istiod");
            let key = ObjectKey::new(Kind::ConfigMap, root, "istio");
            self.0.push(Problem { key, path: "data.mesh".to_owned(), finding });
        }
    }
}

/// Settings that are stated and that nothing reads, and why.
fn unused(mesh: &MeshConfig) -> impl Iterator<Item = (&'static str, &'static str)> {
    const OWN_CA: &str = "the authority is that of the state directory or of --ca-dir";
    const CONTRIB: &str = "stock Envoy does not have it";
    const ONE_CLUSTER: &str = "there is one cluster";
    let keys = mesh.default_config.as_ref().is_some_and(|config| config.private_key_provider.is_some());
    let stated = [
        ("defaultConfig.privateKeyProvider", keys, CONTRIB),
        ("ca", mesh.ca.is_some(), OWN_CA),
        ("certificates", !mesh.certificates.is_empty(), OWN_CA),
        (
            "verifyCertificateAtClient",
            mesh.verify_certificate_at_client.is_some(),
            "say caCertificates or system roots where TLS is set",
        ),
        (
            "configSources",
            !mesh.config_sources.is_empty(),
            "configuration comes from the directory that the server is started with",
        ),
        ("serviceSettings", !mesh.service_settings.is_empty(), ONE_CLUSTER),
        ("serviceScopeConfigs", !mesh.service_scope_configs.is_empty(), ONE_CLUSTER),
        ("serviceEntryVisibility", mesh.service_entry_visibility.is_some(), "exportTo alone decides"),
    ];
    stated.into_iter().filter(|(_, stated, _)| *stated).map(|(field, _, reason)| (field, reason))
}
