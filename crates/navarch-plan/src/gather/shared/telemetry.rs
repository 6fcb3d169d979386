//! Access logs and traces as Telemetry objects and default providers ask for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::mesh::{ExtensionProvider, MeshConfig, ProxyConfig};
use navarch_model::proxy::ProxyFacts;
use navarch_model::telemetry::{AccessLogging, Telemetry, Tracing, WorkloadMode};
use navarch_model::{Config, Hashed, Name, Origin};
use navarch_snapshot::View;
use navarch_translate::access_log::{self, ProviderLog, Upstream};
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::listeners::settings::ListenerSettings;
use navarch_translate::names;
use navarch_translate::tracing::provider;

use super::attachment::{Attachment, Workload};
use super::rejected;
use crate::engine::{Cx, Gather};

pub type Object = Arc<Hashed<Config<Telemetry>>>;

/// Puts what Telemetry objects and default providers say over the mesh's own settings, which `settings` hold.
pub fn apply(cx: &Cx<'_>, facts: &ProxyFacts, proxy: &ProxyConfig, settings: &mut ListenerSettings) {
    let mesh = &cx.view().mesh().config;
    let objects = applicable(cx, facts, mesh);
    let mode = mode(settings.http.direction);
    apply_logging(cx, mesh, &objects, mode, settings);
    apply_tracing(cx, facts, proxy, &objects, mode, settings);
}

/// Which side of calls the proxy is on.
pub fn mode(direction: Direction) -> WorkloadMode {
    match direction {
        Direction::Inbound => WorkloadMode::Server,
        Direction::Outbound | Direction::Gateway => WorkloadMode::Client,
    }
}

/// The objects for a workload, from the widest to the narrowest: of the mesh, of the namespace, and those
/// that select it. Later ones override earlier ones.
pub fn applicable(cx: &Cx<'_>, facts: &ProxyFacts, mesh: &MeshConfig) -> Vec<Object> {
    let wide = |namespace: &str| {
        let objects = cx.view().objects::<Telemetry>(namespace);
        objects.iter().find(|object| attachment(&object.spec).is_general()).cloned()
    };
    let root = mesh.root_namespace.as_str();
    let mut found: Vec<Object> = wide(root).into_iter().collect();
    if *facts.namespace != *root {
        found.extend(wide(&facts.namespace));
    }
    let own = cx.view().objects::<Telemetry>(&facts.namespace).iter();
    let workload = Workload::of(facts);
    let is_meant = |attachment: Attachment<'_>| {
        !attachment.is_general() && workload.is_meant_by(&facts.namespace, attachment)
    };
    found.extend(own.filter(|object| is_meant(attachment(&object.spec))).cloned());
    found.retain(|object| {
        let origin = Origin::object(object.key());
        !rejected::is_left_out(cx.view(), &facts.namespace, &origin, &object.spec)
    });
    found
}

fn attachment(telemetry: &Telemetry) -> Attachment<'_> {
    Attachment {
        selector: telemetry.selector.as_ref().map(|selector| &selector.match_labels),
        target_ref: telemetry.target_ref.as_ref(),
        target_refs: &telemetry.target_refs,
    }
}

/// What is logged through one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Logging {
    disabled: bool,
    /// CEL expression.
    filter: Option<String>,
}

fn apply_logging(
    cx: &Cx<'_>,
    mesh: &MeshConfig,
    objects: &[Object],
    mode: WorkloadMode,
    settings: &mut ListenerSettings,
) {
    let stated: Vec<&[AccessLogging]> = objects
        .iter()
        .map(|object| object.spec.access_logging.as_slice())
        .filter(|l| !l.is_empty())
        .collect();
    let defaults = mesh.default_providers.as_ref().map_or(&[][..], |providers| &providers.access_logging);
    let mut found: Vec<(&ExtensionProvider, Logging, ProviderLog)> = merged_logging(&stated, defaults, mode)
        .into_iter()
        .filter_map(|(name, logging)| {
            let provider = find(mesh, &name)?;
            let upstream = access_log::provider_service(provider).and_then(|service| upstream(cx, service));
            let log = ProviderLog::new(provider, mesh, upstream.as_ref(), logging.filter.as_deref())?;
            Some((provider, logging, log))
        })
        .collect();
    // Nothing usable: the mesh's own settings stay.
    if found.is_empty() {
        return;
    }
    found.retain(|(_, logging, _)| !logging.disabled);
    found.sort_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
    let logs = || found.iter().map(|(.., log)| log);
    settings.http.access_log = logs().map(ProviderLog::of_everything).collect();
    settings.tcp_access_log.clone_from(&settings.http.access_log);
    if !mesh.disable_envoy_listener_log {
        settings.listener_access_log = logs().map(ProviderLog::of_listener).collect();
    }
}

/// Which providers log, and how: providers of a narrower level replace those of wider ones, and what is said
/// about a provider is what was said last.
fn merged_logging(
    levels: &[&[AccessLogging]],
    defaults: &[String],
    mode: WorkloadMode,
) -> BTreeMap<String, Logging> {
    let mut result: BTreeMap<String, Logging> = BTreeMap::new();
    if levels.is_empty() {
        return defaults.iter().map(|name| (name.clone(), Logging::default())).collect();
    }
    let matches = |stated: &AccessLogging| {
        let wanted = stated.match_.as_ref().map_or(WorkloadMode::ClientAndServer, |m| m.mode);
        wanted == WorkloadMode::ClientAndServer || wanted == mode
    };
    let names = |stated: &AccessLogging| -> Vec<String> {
        stated.providers.iter().map(|provider| provider.name.clone()).collect()
    };
    let mut in_scope: BTreeSet<String> = defaults.iter().cloned().collect();
    let mut filters: BTreeMap<String, Option<String>> = BTreeMap::new();
    for level in levels {
        let mut stated_here = BTreeSet::new();
        for stated in level.iter().filter(|stated| matches(stated)) {
            for name in names(stated) {
                let filter = stated.filter.as_ref().map(|filter| filter.expression.clone());
                filters.insert(name.clone(), filter);
                stated_here.insert(name);
            }
        }
        if !stated_here.is_empty() {
            in_scope = stated_here;
        }
    }
    let mut inherited = defaults.to_vec();
    for stated in levels.iter().flat_map(|level| level.iter()) {
        let own = names(stated);
        let current = if own.is_empty() { inherited.clone() } else { own };
        inherited.clone_from(&current);
        for name in current.iter().filter(|name| in_scope.contains(*name)) {
            if !matches(stated) {
                continue;
            }
            let logging = if stated.disabled == Some(true) {
                Logging { disabled: true, filter: None }
            } else {
                Logging { disabled: false, filter: filters.get(name).cloned().flatten() }
            };
            result.insert(name.clone(), logging);
        }
    }
    result
}

/// How requests are traced.
#[derive(Clone, Debug)]
struct TraceSettings {
    provider: Option<String>,
    disabled: bool,
    request_id_samples: bool,
    what: provider::Traced,
}

fn apply_tracing(
    cx: &Cx<'_>,
    facts: &ProxyFacts,
    proxy: &ProxyConfig,
    objects: &[Object],
    mode: WorkloadMode,
    settings: &mut ListenerSettings,
) {
    let mesh = &cx.view().mesh().config;
    let default = mesh.default_providers.as_ref().and_then(|providers| providers.tracing.first());
    let stated: Vec<&Tracing> = objects.iter().flat_map(|object| &object.spec.tracing).collect();
    if stated.is_empty() && default.is_none() {
        return;
    }
    let merged = merged_tracing(&stated, default, mode);
    settings.http.tracing = None;
    if merged.disabled {
        return;
    }
    let Some(tracer) = merged.provider.as_deref().and_then(|name| tracer(cx, facts, find(mesh, name)?))
    else {
        return;
    };
    settings.http.tracing = Some(provider::through(tracer, &merged.what, facts, proxy));
    settings.http.request_id_samples_traces = merged.request_id_samples;
}

fn merged_tracing(stated: &[&Tracing], default: Option<&String>, mode: WorkloadMode) -> TraceSettings {
    let mut merged = TraceSettings {
        provider: default.cloned(),
        disabled: false,
        request_id_samples: true,
        what: provider::Traced::default(),
    };
    for tracing in stated {
        let wanted = tracing.match_.as_ref().map_or(WorkloadMode::ClientAndServer, |m| m.mode);
        if wanted != WorkloadMode::ClientAndServer && wanted != mode {
            continue;
        }
        // One provider per direction: the first.
        if let Some(provider) = tracing.providers.first() {
            merged.provider = Some(provider.name.clone());
        }
        merged.disabled = tracing.disable_span_reporting.unwrap_or(merged.disabled);
        let what = &mut merged.what;
        what.sampling = tracing.random_sampling_percentage.or(what.sampling);
        if !tracing.custom_tags.is_empty() {
            what.tags.clone_from(&tracing.custom_tags);
        }
        what.istio_tags = tracing.enable_istio_tags.unwrap_or(what.istio_tags);
        what.no_propagation = tracing.disable_context_propagation.unwrap_or(what.no_propagation);
        merged.request_id_samples =
            tracing.use_request_id_for_trace_sampling.unwrap_or(merged.request_id_samples);
    }
    merged
}

fn tracer(cx: &Cx<'_>, facts: &ProxyFacts, stated: &ExtensionProvider) -> Option<provider::Tracer> {
    let (collector, sampler) = provider::services(stated)?;
    let collector = upstream(cx, collector)?;
    let sampler = sampler.and_then(|service| upstream(cx, service));
    let tracee = provider::Tracee::of(facts, &facts.labels);
    provider::tracer(stated, &tracee, &collector, sampler.as_ref())
}

/// The provider of a name; letter case does not count.
pub fn find<'m>(mesh: &'m MeshConfig, name: &str) -> Option<&'m ExtensionProvider> {
    mesh.extension_providers.iter().find(|provider| provider.name.eq_ignore_ascii_case(name))
}

/// Where the service of a provider is found.
pub fn upstream(cx: &Cx<'_>, (service, port): (&str, u32)) -> Option<Upstream> {
    (*cx.gather::<ProviderUpstream>(&(Name::from(service), port))).clone()
}

/// Where the service of a provider is, kept as long as it is used.
struct ProviderUpstream;

impl Gather for ProviderUpstream {
    const NAME: &'static str = "telemetry.provider_service";
    type Key = (Name, u32);
    type Output = Option<Upstream>;

    fn run((service, port): &Self::Key, cx: &Cx<'_>) -> Option<Upstream> {
        find_upstream(cx.view(), service, *port)
    }
}

/// Looks up the service of a provider: `<host>`, which must be in one namespace only, or
/// `<namespace>/<host>`.
pub fn find_upstream(view: &View<'_>, service: &str, port: u32) -> Option<Upstream> {
    let (namespace, host) = match service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, service),
    };
    let found = view.services(host);
    let namespaces: BTreeSet<&str> = found.iter().map(|service| &*service.namespace).collect();
    let known = match namespace {
        Some(namespace) => namespaces.contains(namespace),
        None => namespaces.len() == 1,
    };
    let port = u16::try_from(port).ok()?;
    known.then(|| Upstream { host: host.to_owned(), cluster: names::outbound(port, "", host) })
}

#[cfg(test)]
mod tests {
    use navarch_model::telemetry::{AccessLoggingFilter, AccessLoggingSelector, ProviderRef};

    use super::*;

    fn logging(providers: &[&str], mode: WorkloadMode, filter: &str, disabled: bool) -> AccessLogging {
        AccessLogging {
            match_: Some(AccessLoggingSelector { mode }),
            providers: providers.iter().map(|name| ProviderRef { name: (*name).to_owned() }).collect(),
            disabled: disabled.then_some(true),
            filter: (!filter.is_empty()).then(|| AccessLoggingFilter { expression: filter.to_owned() }),
        }
    }

    fn check(levels: &[Vec<AccessLogging>], defaults: &[&str], expected: &[&str]) {
        let levels: Vec<&[AccessLogging]> = levels.iter().map(Vec::as_slice).collect();
        let defaults: Vec<String> = defaults.iter().map(|name| (*name).to_owned()).collect();
        let merged = merged_logging(&levels, &defaults, WorkloadMode::Server);
        let lines: Vec<String> = merged
            .into_iter()
            .map(|(name, logging)| match (logging.disabled, logging.filter) {
                (true, _) => format!("{name} off"),
                (false, Some(filter)) => format!("{name} if {filter}"),
                (false, None) => name,
            })
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn narrower_levels_replace_providers_and_change_what_is_said_of_them() {
        use WorkloadMode::{Client, ClientAndServer, Server};
        check(&[], &["a"], &["a"]);
        let mesh = vec![logging(&["b"], ClientAndServer, "", false)];
        check(std::slice::from_ref(&mesh), &["a"], &["b"]);
        check(&[mesh.clone(), vec![logging(&["c"], ClientAndServer, "x", false)]], &[], &["c if x"]);
        check(&[mesh.clone(), vec![logging(&[], ClientAndServer, "", true)]], &[], &["b off"]);
        check(&[mesh.clone(), vec![logging(&[], Client, "", true)]], &[], &["b"]);
        check(
            &[mesh, vec![logging(&["c"], Client, "", false), logging(&["d"], Server, "", false)]],
            &[],
            &["d"],
        );
    }
}
