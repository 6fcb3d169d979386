//! Which objects a resource was made from, with their places: for rejections and `navarch explain`.

use navarch_envoy::XdsType;
use navarch_model::{Kind, Object};
use navarch_plan::explain::{Explanation, Source};

use crate::client::Client;
use crate::fleet::Fleet;
use crate::status::{ExplainedPart, ExplainedResource, Place};

/// More sources of a rejected resource would be a list of everything.
const SOURCES_MAX: usize = 8;

/// `file:line:column Kind namespace/name` of what a proxy refused a resource for, going by its words: the
/// contributions that the words name, if there are any; else all of them, those first that change what others
/// made.
pub fn sources(fleet: &Fleet, client: &Client, ty: XdsType, name: &str, words: &str) -> Vec<String> {
    let snapshot = fleet.snapshot();
    let Some(explanation) = explain_resource(fleet, client, ty, name) else { return Vec::new() };
    let words = words.to_lowercase();
    let mut ranked: Vec<(Suspicion, &Source)> = explanation
        .parts
        .iter()
        .flat_map(|part| &part.sources)
        .map(|source| (Suspicion::of(source, &words), source))
        .collect();
    ranked.sort_by_key(|(suspicion, _)| *suspicion);
    let most = ranked.first().map(|(suspicion, _)| *suspicion);
    let named = ranked
        .into_iter()
        .filter(|(suspicion, _)| most != Some(Suspicion::Named) || *suspicion == Suspicion::Named);
    let mut lines: Vec<String> = Vec::new();
    for (_, source) in named {
        let Some(object) = snapshot.object(&source.object) else { continue };
        // Whole objects say more of what is configured; of patches each is one's own.
        let field = if object.key.kind == Kind::EnvoyFilter { &*source.field } else { "" };
        let line = format!("{} {} {field}", place_of(object, field), object.key);
        let line = line.trim_end().to_owned();
        if !lines.contains(&line) && lines.len() < SOURCES_MAX {
            lines.push(line);
        }
    }
    lines
}

/// How likely something is what a proxy refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suspicion {
    /// The proxy names what it made.
    Named,
    /// It adds what users write in Envoy's own language, or in others.
    Foreign,
    Possible,
}

impl Suspicion {
    /// `words` are those of the proxy, in lower case.
    fn of(source: &Source, words: &str) -> Self {
        let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let (named, foreign) = match source.object.kind {
            Kind::EnvoyFilter => (made_names(&source.role).any(|name| words.contains(&name)), true),
            Kind::TrafficExtension | Kind::WasmPlugin => {
                (says(&["lua", "wasm", "script"]) || words.contains(&*source.object.name), true)
            }
            Kind::AuthorizationPolicy => (says(&["rbac", "ext_authz", "cel"]), false),
            Kind::RequestAuthentication => (says(&["jwt", "jwks", "issuer"]), false),
            Kind::Telemetry => {
                (says(&["access log", "accesslog", "access_log", "formatter", "tracing", "tracer"]), false)
            }
            Kind::Gateway => (says(&["certificate", "cipher", "ecdh", "private key", "tls_"]), false),
            _ => (false, false),
        };
        match (named, foreign) {
            (true, _) => Suspicion::Named,
            (false, true) => Suspicion::Foreign,
            (false, false) => Suspicion::Possible,
        }
    }
}

/// Names in what a patch made, such as "adds the HTTP filter envoy.filters.http.lua", and what their last
/// part says.
fn made_names(role: &str) -> impl Iterator<Item = String> + '_ {
    let made = role.split(" in the filter chain ").next().unwrap_or_default();
    let names = made.split_whitespace().skip(2).map(str::to_lowercase);
    let telling = names
        .filter(|name| !["the", "filter", "http", "network", "listener", "route"].contains(&name.as_str()));
    telling.flat_map(|name| {
        let last = name.rsplit('.').next().filter(|last| last.len() > 2).map(str::to_owned);
        [Some(name.clone()), last].into_iter().flatten()
    })
}

/// A resource explained, with places.
pub fn explained(fleet: &Fleet, client: &Client, ty: XdsType, name: &str) -> Option<ExplainedResource> {
    let snapshot = fleet.snapshot();
    let explanation = explain_resource(fleet, client, ty, name)?;
    let place = |key: &navarch_model::ObjectKey, field: &str, text: &str| Place {
        place: snapshot.object(key).map(|object| place_of(object, field)).unwrap_or_default(),
        object: key.to_string(),
        field: field.to_owned(),
        text: text.to_owned(),
    };
    let parts = explanation.parts.iter().map(|part| ExplainedPart {
        what: part.what.clone(),
        sources: part
            .sources
            .iter()
            .map(|source| place(&source.object, &source.field, &source.role))
            .collect(),
        lost: part.lost.iter().map(|lost| place(&lost.object, &lost.field, &lost.reason)).collect(),
    });
    Some(ExplainedResource { resource: name.to_owned(), ty: ty.short().to_owned(), parts: parts.collect() })
}

/// Where a field of an object is, for people; the object, if no field is named.
fn place_of(object: &Object, field: &str) -> String {
    let position = if field.is_empty() { object.position() } else { object.locate(field) };
    position.map(|position| position.to_string()).unwrap_or_default()
}

fn explain_resource(fleet: &Fleet, client: &Client, ty: XdsType, name: &str) -> Option<Explanation> {
    let resources = fleet.resources(client)?;
    fleet.planner().explain(&client.facts, &resources, ty, name)
}
