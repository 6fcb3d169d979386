//! What became of the patches of EnvoyFilters: those that were left out, and those that hit nothing.

use std::fmt::Write as _;

use navarch_model::finding::{Code, Finding};
use navarch_model::networking::{
    ApplyTo, EnvoyConfigObjectPatch, EnvoyFilter, FilterMatch, ObjectTypes, PatchContext, PatchOperation,
};
use navarch_snapshot::View;
use navarch_translate::patch_values;
use navarch_translate::patching::{Fate, Fates, Reach, Refusal};

use super::problem::Problem;

/// What there is to say of patches whose values are good: whoever planned for proxies knows what became of
/// them.
pub(super) fn problems(view: &View<'_>, fates: &Fates) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (origin, fate) in fates.iter() {
        let filters = view.objects::<EnvoyFilter>(&origin.key.namespace);
        let filter = filters.iter().find(|filter| filter.name == origin.key.name);
        let patch = filter.and_then(|filter| {
            let patches = filter.spec.config_patches.iter().enumerate();
            let mut patches = patches.map(|(index, patch)| (format!("spec.configPatches[{index}]"), patch));
            Some(patches.find(|(field, _)| *field == *origin.field)?.1)
        });
        let Some(patch) = patch else { continue };
        // Whatever is wrong with the patch itself has been said. Who has a bootstrap is not looked at: it is
        // asked for once, before there is anything else.
        if patch.apply_to == ApplyTo::Bootstrap || !patch_values::problems(patch).iter().all(is_harmless) {
            continue;
        }
        if let Some((below, finding)) = problem(patch, fate) {
            problems.push(Problem {
                key: origin.key.clone(),
                path: format!("{}{below}", origin.field),
                finding,
            });
        }
    }
    problems
}

fn is_harmless(problem: &patch_values::PatchProblem) -> bool {
    problem.kind == patch_values::PatchProblemKind::UnknownField
}

/// What is wrong, and the field below the patch that says so.
fn problem(patch: &EnvoyConfigObjectPatch, fate: &Fate) -> Option<(&'static str, Finding)> {
    if let Some(Refusal { resource, words }) = &fate.refused {
        let message =
            format!("with it, Envoy would refuse the {resource}: {words}; the patch is left out there");
        let finding = Finding::error(Code::RefusedByEnvoy, message)
            .hint("change the patch, or narrow its match to where it fits");
        return Some((".patch", finding));
    }
    let (below, message) = match fate.reach {
        Reach::Done => return None,
        Reach::Workload => {
            // Without a selector it is for whoever comes; there may be none of the kind.
            return None;
        }
        Reach::Kind => (".match.proxy", format!("of the proxies that it selects, {}", proxy_words(patch))),
        Reach::Proxy => (".match", format!("no proxy that it selects has {}", resource_words(patch))),
        Reach::Resource => (".match", format!("what it matches has {}", chain_words(patch))),
        Reach::Chain => (".match", format!("what it matches has {}", filter_words(patch))),
        Reach::Filter => (".match", format!("what it matches has {}", http_filter_words(patch))),
    };
    let message = format!("the patch changes nothing: {message}");
    let finding = Finding::warning(Code::NoEffect, message)
        .hint("compare the match with what `navarch render` or Envoy's /config_dump shows");
    Some((below, finding))
}

fn proxy_words(patch: &EnvoyConfigObjectPatch) -> String {
    let proxy = patch.match_.as_ref().and_then(|matches| matches.proxy.as_ref());
    let Some(proxy) = proxy else { return "none is of its kind".to_owned() };
    if proxy.metadata.is_empty() {
        return format!("none states an ISTIO_VERSION that {:?} matches", proxy.proxy_version);
    }
    let metadata: Vec<String> = proxy.metadata.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let mut words = format!("none states the metadata {{{}}}", metadata.join(", "));
    if !proxy.proxy_version.is_empty() {
        let _ = write!(words, " and an ISTIO_VERSION that {:?} matches", proxy.proxy_version);
    }
    words
}

/// "a listener with port 80".
fn resource_words(patch: &EnvoyConfigObjectPatch) -> String {
    let context = patch.match_.as_ref().map_or(PatchContext::Any, |matches| matches.context);
    let direction = match context {
        PatchContext::SidecarInbound => " for incoming traffic",
        PatchContext::SidecarOutbound => " for outgoing traffic",
        _ => "",
    };
    let mut wanted = Vec::new();
    let mut state = |word: &str, value: String| {
        if !value.is_empty() && value != "0" {
            wanted.push(format!("{word} {value}"));
        }
    };
    let noun = match patch.match_.as_ref().and_then(|matches| matches.object_types.as_ref()) {
        Some(ObjectTypes::Listener(listener)) => {
            state("port", listener.port_number.to_string());
            state("name", listener.name.clone());
            "listener"
        }
        Some(ObjectTypes::RouteConfiguration(routes)) => {
            state("port", routes.port_number.to_string());
            state("port name", routes.port_name.clone());
            state("gateway", routes.gateway.clone());
            state("name", routes.name.clone());
            "route configuration"
        }
        Some(ObjectTypes::Cluster(cluster)) => {
            state("name", cluster.name.clone());
            state("service", cluster.service.clone());
            state("subset", cluster.subset.clone());
            state("port", cluster.port_number.to_string());
            "cluster"
        }
        Some(ObjectTypes::Waypoint(_)) | None => match patch.apply_to {
            ApplyTo::Cluster => "cluster",
            ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => "route configuration",
            _ => "listener",
        },
    };
    let with = if wanted.is_empty() { String::new() } else { format!(" with {}", wanted.join(", ")) };
    format!("a {noun}{direction}{with}")
}

/// "no filter chain with SNI a.example".
fn chain_words(patch: &EnvoyConfigObjectPatch) -> String {
    let matches = patch.match_.as_ref().and_then(|matches| matches.object_types.as_ref());
    match matches {
        Some(ObjectTypes::RouteConfiguration(routes)) => {
            let Some(host) = &routes.vhost else { return operation_words(patch) };
            match (host.name.as_str(), host.domain_name.as_str()) {
                ("", domain) => format!("no virtual host with the domain {domain}"),
                (name, _) => format!("no virtual host {name}"),
            }
        }
        Some(ObjectTypes::Listener(listener)) if patch.apply_to == ApplyTo::ListenerFilter => {
            format!("no listener filter {}", listener.listener_filter)
        }
        Some(ObjectTypes::Listener(listener)) => {
            let Some(chain) = &listener.filter_chain else { return operation_words(patch) };
            let mut wanted = Vec::new();
            for (word, value) in [
                ("name", &chain.name),
                ("SNI", &chain.sni),
                ("transport protocol", &chain.transport_protocol),
                ("application protocols", &chain.application_protocols),
            ] {
                if !value.is_empty() {
                    wanted.push(format!("{word} {value}"));
                }
            }
            let ports = [listener.port_number, chain.destination_port];
            wanted.extend(ports.iter().filter(|port| **port != 0).map(|port| format!("port {port}")));
            if wanted.is_empty() {
                return operation_words(patch);
            }
            format!("no filter chain with {}", wanted.join(", "))
        }
        _ => operation_words(patch),
    }
}

/// "no network filter x".
fn filter_words(patch: &EnvoyConfigObjectPatch) -> String {
    let matches = patch.match_.as_ref().and_then(|matches| matches.object_types.as_ref());
    match matches {
        Some(ObjectTypes::RouteConfiguration(routes)) => {
            let route = routes.vhost.as_ref().and_then(|host| host.route.as_ref());
            match route {
                Some(route) if !route.name.is_empty() => format!("no route {}", route.name),
                Some(_) => "no route with the action".to_owned(),
                None => operation_words(patch),
            }
        }
        _ => match filter_of(patch) {
            Some(filter) if !filter.name.is_empty() => format!("no network filter {}", filter.name),
            _ => "no HTTP connection manager".to_owned(),
        },
    }
}

fn http_filter_words(patch: &EnvoyConfigObjectPatch) -> String {
    let inner = filter_of(patch).and_then(|filter| filter.sub_filter.as_ref());
    match inner {
        Some(inner) => format!("no HTTP filter {}", inner.name),
        None => operation_words(patch),
    }
}

fn filter_of(patch: &EnvoyConfigObjectPatch) -> Option<&FilterMatch> {
    match patch.match_.as_ref()?.object_types.as_ref()? {
        ObjectTypes::Listener(listener) => listener.filter_chain.as_ref()?.filter.as_ref(),
        _ => None,
    }
}

fn operation_words(patch: &EnvoyConfigObjectPatch) -> String {
    let operation = patch.patch.as_ref().map_or(PatchOperation::Invalid, |change| change.operation);
    format!("nothing that {operation:?} could be done to")
}
