//! What translation finds wrong: objects that are valid, and yet do not do what they say.

mod ambient;
mod analyze;
pub(crate) mod credentials;
mod metrics;
mod no_effect;
mod patches;
mod presumed;
mod problem;
mod references;
mod unmatched;

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::extensions::TrafficExtension;
use navarch_model::fact::Rejected;
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::mesh::{CertificateSource, bundle_url};
use navarch_model::networking::{ApplyTo, EnvoyFilter, PatchOperation, ProxyConfig, Sidecar};
use navarch_model::object::ObjectKey;
use navarch_model::security::{
    ActionDetail, AuthorizationAction, AuthorizationPolicy, RequestAuthentication,
};
use navarch_model::telemetry::Telemetry;
use navarch_model::{Config, Name};
use navarch_snapshot::{Places, Reads, Snapshot, View};
use navarch_translate::extensions::script_problem;
use navarch_translate::patch_values::{self, PatchProblemKind};
use navarch_translate::patching::Fates;
use navarch_translate::security::jwt::key_source;

use self::ambient::Ambient;
use self::analyze::Analyzers;
pub use self::presumed::presumed_fates;
use self::problem::Problem;
use self::references::References;
use crate::engine::{Cx, Engine, Gather, Root};
use crate::gather::shared::rejected::is_current;
use crate::gather::shared::security::authorizer;
use crate::gather::shared::telemetry::{find, find_upstream};

/// Findings about a snapshot, looked for again only where something that they depend on has changed.
#[derive(Default)]
pub struct TranslationFindings {
    checks: Option<(Engine, Root<Checks>)>,
    patches: Option<(Reads, Arc<Fates>, Vec<Problem>)>,
    places: Places,
}

impl TranslationFindings {
    /// The findings about a snapshot, sorted by place. `fates` say what became of the patches of EnvoyFilters
    /// where somebody planned for proxies.
    pub fn about(&mut self, snapshot: &Arc<Snapshot>, fates: &Arc<Fates>) -> Vec<Finding> {
        let (engine, checks) = self.checks.get_or_insert_with(|| {
            let engine = Engine::new(snapshot.clone());
            let checks = engine.root(&());
            (engine, checks)
        });
        engine.advance(snapshot.clone());
        let (problems, _) = checks.get(engine);
        if engine.needs_sweep() {
            engine.sweep();
        }
        let known = self.patches.as_ref();
        if !known.is_some_and(|(reads, of, _)| Arc::ptr_eq(of, fates) && reads.hold_in(snapshot)) {
            let view = snapshot.view();
            let problems = patches::problems(&view, fates);
            self.patches = Some((view.into_reads(), fates.clone(), problems));
        }
        let of_patches = self.patches.iter().flat_map(|(_, _, problems)| problems);
        let placed = problems.iter().chain(of_patches);
        let places = &mut self.places;
        let mut findings: Vec<Finding> = placed.map(|problem| located(snapshot, problem, places)).collect();
        places.sweep();
        findings.sort();
        findings
    }
}

/// Everything that is looked for.
struct Checks;

impl Gather for Checks {
    const NAME: &'static str = "findings.all";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut problems = (*cx.gather::<OfMesh>(&())).clone();
        for namespace in &*cx.gather::<CheckedNamespaces>(&()) {
            problems.extend(cx.gather::<InNamespace>(namespace).iter().cloned());
        }
        problems.extend(cx.gather::<References>(&()).iter().cloned());
        problems.extend(cx.gather::<Analyzers>(&()).iter().cloned());
        problems.extend(cx.gather::<Ambient>(&()).iter().cloned());
        problems
    }
}

/// What is wrong with a snapshot if the workloads that it lists are all there are: selectors that select none
/// of them, and ports that nobody leads to.
pub fn unmatched(snapshot: &Snapshot) -> Vec<Finding> {
    let (problems, mut places) = (unmatched::problems(snapshot), Places::default());
    let mut findings: Vec<Finding> =
        problems.iter().map(|problem| located(snapshot, problem, &mut places)).collect();
    findings.sort();
    findings
}

fn located(snapshot: &Snapshot, problem: &Problem, places: &mut Places) -> Finding {
    let finding = problem.finding.clone().of(problem.key.clone()).path(problem.path.clone());
    let finding = finding.at(places.locate(snapshot, &problem.key, &problem.path));
    finding.locate_other(|key, path| places.locate(snapshot, key, path))
}

/// The namespaces with objects that are looked at one by one.
struct CheckedNamespaces;

impl Gather for CheckedNamespaces {
    const NAME: &'static str = "findings.namespaces";
    type Key = ();
    type Output = BTreeSet<Name>;

    fn run((): &(), cx: &Cx<'_>) -> BTreeSet<Name> {
        let view = cx.view();
        let patching =
            view.namespaces_with::<EnvoyFilter>().chain(view.namespaces_with::<TrafficExtension>());
        let deciding = view
            .namespaces_with::<AuthorizationPolicy>()
            .chain(view.namespaces_with::<RequestAuthentication>());
        let proxies = view.namespaces_with::<ProxyConfig>().chain(view.namespaces_with::<Sidecar>());
        patching.chain(deciding).chain(proxies).chain(view.namespaces_with::<Telemetry>()).cloned().collect()
    }
}

/// What is wrong with the objects of a namespace, each by itself.
struct InNamespace;

impl Gather for InNamespace {
    const NAME: &'static str = "findings.namespace";
    type Key = Name;
    type Output = Vec<Problem>;

    fn run(namespace: &Name, cx: &Cx<'_>) -> Vec<Problem> {
        let view = cx.view();
        let mut found = Found::default();
        for filter in view.objects::<EnvoyFilter>(namespace) {
            found.patches(filter);
        }
        for extension in view.objects::<TrafficExtension>(namespace) {
            if let Some(problem) = script_problem(&extension.spec) {
                let message = format!("is not a Lua script: {problem}; the extension is left out");
                let finding = Finding::error(Code::InvalidExtension, message).hint("correct the script");
                found.add(Kind::TrafficExtension, extension, "spec.lua.inlineCode".to_owned(), finding);
            }
        }
        for policy in view.objects::<AuthorizationPolicy>(namespace) {
            found.provider_of_policy(view, policy);
        }
        for policy in view.objects::<RequestAuthentication>(namespace) {
            found.keys(view, policy);
        }
        for telemetry in view.objects::<Telemetry>(namespace) {
            found.providers_of_telemetry(view, telemetry);
            found.metrics(view, telemetry);
        }
        found.without_effect(view, namespace);
        found.0
    }
}

/// What is wrong with what holds for all of the mesh.
struct OfMesh;

impl Gather for OfMesh {
    const NAME: &'static str = "findings.mesh";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut found = Found::default();
        found.roots(cx.view());
        found.rejected(cx.view());
        found.mesh_without_effect(cx.view());
        found.0
    }
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add<T>(&mut self, kind: Kind, object: &Config<T>, path: String, finding: Finding) {
        let key = ObjectKey::new(kind, &object.namespace, &object.name);
        self.0.push(Problem { key, path, finding });
    }

    fn patches(&mut self, filter: &Config<EnvoyFilter>) {
        for (index, patch) in filter.spec.config_patches.iter().enumerate() {
            let operation = patch.patch.as_ref().map(|change| change.operation);
            if patch.apply_to == ApplyTo::Bootstrap && operation != Some(PatchOperation::Merge) {
                let message = "only MERGE changes a bootstrap; the patch changes nothing";
                let finding = Finding::warning(Code::NoEffect, message).hint("use operation: MERGE");
                let path = format!("spec.configPatches[{index}].patch.operation");
                self.add(Kind::EnvoyFilter, filter, path, finding);
            }
            for problem in patch_values::problems(patch) {
                let refused = problem.kind == PatchProblemKind::Refused;
                let (code, hint) = match problem.kind {
                    PatchProblemKind::Unusable => {
                        (Code::InvalidExtension, "correct the value; Envoy's API reference names the fields")
                    }
                    PatchProblemKind::UnknownField => {
                        (Code::UnknownField, "check the spelling, and whether the field is of a newer Envoy")
                    }
                    PatchProblemKind::Refused if problem.path == "patch.operation" => {
                        (Code::RefusedByEnvoy, "use INSERT_BEFORE and name the last filter, or INSERT_FIRST")
                    }
                    PatchProblemKind::Refused => {
                        (Code::RefusedByEnvoy, "correct the value; Envoy's API reference says what it needs")
                    }
                    PatchProblemKind::NoTarget => {
                        (Code::NoEffect, "remove the patch, or match a filter that Envoy has")
                    }
                };
                let path = format!("spec.configPatches[{index}].{}", problem.path);
                let finding = match refused {
                    true => Finding::error(code, problem.message),
                    false => Finding::warning(code, problem.message),
                };
                self.add(Kind::EnvoyFilter, filter, path, finding.hint(hint));
            }
        }
    }

    /// What proxies have refused. Once it is changed, that says nothing of it any more.
    fn rejected(&mut self, view: &View<'_>) {
        for rejected in view.rejected().iter().filter(|rejected| is_current(view, rejected)) {
            let Rejected { namespace, origin, resource, words, .. } = rejected;
            let message = format!(
                "proxies of namespace {namespace} refuse the {resource} with it: {words}; it is left out of what they get until it \
                 is changed"
            );
            let finding = Finding::error(Code::RefusedByEnvoy, message)
                .hint("correct it, and see `navarch proxy-status` for whether proxies take it then");
            let path = match origin.key.kind {
                Kind::EnvoyFilter => format!("{}.patch", origin.field),
                _ => "spec".to_owned(),
            };
            self.0.push(Problem { key: origin.key.clone(), path, finding });
        }
    }

    fn provider_of_policy(&mut self, view: &View<'_>, policy: &Config<AuthorizationPolicy>) {
        if policy.spec.action != AuthorizationAction::Custom {
            return;
        }
        let Some(ActionDetail::Provider(provider)) = &policy.spec.action_detail else { return };
        let mesh = &view.mesh().config;
        let known = authorizer(mesh, &provider.name, |service, port| find_upstream(view, service, port));
        if let Err(problem) = known.checks() {
            let message =
                format!("{:?} cannot be asked: {problem}; what the policy matches is denied", provider.name);
            let finding = Finding::warning(Code::InvalidReference, message)
                .hint("name a provider in extensionProviders of the mesh settings");
            self.add(Kind::AuthorizationPolicy, policy, "spec.provider.name".to_owned(), finding);
        }
    }

    /// Keys that could not be fetched. Where nothing is fetched, as in a look at files, nothing is known.
    fn keys(&mut self, view: &View<'_>, policy: &Config<RequestAuthentication>) {
        for (index, rule) in policy.spec.jwt_rules.iter().enumerate() {
            let Some(source) = key_source(rule) else { continue };
            let Some(reason) = view.unfetched(&source) else { continue };
            let field = if rule.jwks_uri.is_empty() { "issuer" } else { "jwksUri" };
            let consequence = match view.jwks(&source) {
                Some(_) => "the keys that were fetched before stay in use".to_owned(),
                None => format!("every token of {:?} is refused", rule.issuer),
            };
            let message = format!("keys cannot be fetched from {source}: {reason}; {consequence}");
            let finding = Finding::warning(Code::InvalidReference, message)
                .hint("see that the URL can be reached from the control plane, or put the keys into jwks");
            let path = format!("spec.jwtRules[{index}].{field}");
            self.add(Kind::RequestAuthentication, policy, path, finding);
        }
    }

    /// Roots of other trust domains that could not be fetched.
    fn roots(&mut self, view: &View<'_>) {
        let mesh = &view.mesh().config;
        for data in &mesh.ca_certificates {
            let Some(CertificateSource::SpiffeBundleUrl(url)) = &data.certificate_data else { continue };
            let url = bundle_url(url);
            let Some(reason) = view.unfetched(&url) else { continue };
            let consequence = match view.trust_bundle(&url) {
                Some(_) => "the roots that were fetched before stay in use",
                None => "certificates that lead to them are refused",
            };
            let message = format!("roots cannot be fetched from {url}: {reason}; {consequence}");
            let finding = Finding::warning(Code::InvalidReference, message)
                .hint("see that the URL can be reached from the control plane, or state the roots as pem");
            let key = ObjectKey::new(Kind::ConfigMap, &mesh.root_namespace, "istio");
            self.0.push(Problem { key, path: "data.mesh".to_owned(), finding });
        }
    }

    fn providers_of_telemetry(&mut self, view: &View<'_>, telemetry: &Config<Telemetry>) {
        let spec = &telemetry.spec;
        let logging = spec.access_logging.iter().map(|entry| &entry.providers);
        let tracing = spec.tracing.iter().map(|entry| &entry.providers);
        for (field, lists) in
            [("accessLogging", logging.collect::<Vec<_>>()), ("tracing", tracing.collect::<Vec<_>>())]
        {
            for (index, providers) in lists.into_iter().enumerate() {
                for (position, provider) in providers.iter().enumerate() {
                    let Some(message) = unusable(view, &provider.name) else { continue };
                    let path = format!("spec.{field}[{index}].providers[{position}].name");
                    let finding = Finding::warning(Code::InvalidReference, message)
                        .hint("name a provider in extensionProviders of the mesh settings");
                    self.add(Kind::Telemetry, telemetry, path, finding);
                }
            }
        }
    }
}

/// Why a provider of logs or traces is not used; nothing if it is.
fn unusable(view: &View<'_>, name: &str) -> Option<String> {
    let Some(provider) = find(&view.mesh().config, name) else {
        return Some(format!("there is no extension provider {name:?}; nothing is sent to it"));
    };
    let service = navarch_translate::access_log::provider_service(provider).or_else(|| {
        navarch_translate::tracing::provider::services(provider).map(|(collector, _)| collector)
    })?;
    let (host, port) = service;
    find_upstream(view, host, port).is_none().then(|| {
        format!(
            "the service {host:?} of provider {name:?} is not known in one namespace; nothing is sent to it"
        )
    })
}
