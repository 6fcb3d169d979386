//! Which objects a resource was made from, with their places: for rejections and `navarch explain`.

use navarch_envoy::XdsType;
use navarch_model::{Kind, Object, Origin};
use navarch_plan::explain::{Explanation, Part, Source};
use navarch_plan::rejected::patch_at;
use navarch_snapshot::Snapshot;

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
    let ranked = ranked(&snapshot, &explanation, name, words);
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

/// What may be left out of a resource that a proxy refused, the most suspicious first: of several patches the
/// last one. Nothing if its words are about something that cannot be left out.
pub fn suspects(fleet: &Fleet, client: &Client, ty: XdsType, name: &str, words: &str) -> Vec<Origin> {
    let snapshot = fleet.snapshot();
    // What is shared by the hosts of a route configuration is applied to it as a whole.
    let Some(explanation) = explain_resource(fleet, client, ty, name) else { return Vec::new() };
    let ranked = ranked(&snapshot, &explanation, name, words);
    let can_go = |source: &Source| {
        use Kind::{EnvoyFilter, Telemetry, TrafficExtension, WasmPlugin};
        matches!(source.object.kind, EnvoyFilter | Telemetry | TrafficExtension | WasmPlugin)
    };
    let named = ranked.iter().filter(|(suspicion, _)| *suspicion == Suspicion::Named);
    let (theirs, others) = named.fold((0, 0), |(theirs, others), (_, source)| match can_go(source) {
        true => (theirs + 1, others),
        false => (theirs, others + 1),
    });
    if theirs == 0 && others > 0 {
        return Vec::new();
    }
    let mut origins: Vec<Origin> = Vec::new();
    for suspicion in [Suspicion::Named, Suspicion::Foreign, Suspicion::Possible] {
        let of_rank = ranked.iter().rev().filter(|(rank, source)| *rank == suspicion && can_go(source));
        for (_, source) in of_rank {
            let field = if source.object.kind == Kind::EnvoyFilter { &*source.field } else { "" };
            let origin = Origin::field(source.object.clone(), field);
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
    }
    origins
}

/// The sources of a resource, the most suspicious first.
fn ranked<'e>(
    snapshot: &Snapshot,
    explanation: &'e Explanation,
    name: &str,
    words: &str,
) -> Vec<(Suspicion, &'e Source)> {
    let quoted: Vec<&str> = quoted(words).filter(|quoted| *quoted != name).collect();
    let view = snapshot.view();
    let says_quoted = |source: &Source| {
        let origin = Origin::field(source.object.clone(), &source.field);
        let value = patch_at(&view, &origin).and_then(|patch| patch.patch.as_ref()?.value.as_ref());
        let text = value.map(|value| value.to_serde().to_string());
        text.is_some_and(|text| quoted.iter().any(|quoted| text.contains(quoted)))
    };
    let words = words.to_lowercase();
    let rank = |source: &Source| match says_quoted(source) {
        true => Suspicion::Named,
        false => Suspicion::of(source, &words),
    };
    let sources = explanation.parts.iter().flat_map(|part| &part.sources);
    let mut ranked: Vec<(Suspicion, &Source)> = sources.map(|source| (rank(source), source)).collect();
    ranked.sort_by_key(|(suspicion, _)| *suspicion);
    ranked
}

/// What stands between quotation marks in a proxy's words, and says something.
pub fn quoted(words: &str) -> impl Iterator<Item = &str> {
    let parts = words.split(['\'', '"', '`']).skip(1).step_by(2);
    parts.filter(|part| part.len() > 2 && !part.contains(char::is_whitespace))
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
    let parts = explained_parts(&snapshot, &explanation.parts);
    Some(ExplainedResource { resource: name.to_owned(), ty: ty.short().to_owned(), parts })
}

/// Parts of explanations, with places.
pub fn explained_parts(snapshot: &Snapshot, parts: &[Part]) -> Vec<ExplainedPart> {
    let place = |key: &navarch_model::ObjectKey, field: &str, text: &str| Place {
        place: snapshot.object(key).map(|object| place_of(object, field)).unwrap_or_default(),
        object: key.to_string(),
        field: field.to_owned(),
        text: text.to_owned(),
    };
    let explained = |part: &Part| ExplainedPart {
        what: part.what.clone(),
        sources: part
            .sources
            .iter()
            .map(|source| place(&source.object, &source.field, &source.role))
            .collect(),
        lost: part.lost.iter().map(|lost| place(&lost.object, &lost.field, &lost.reason)).collect(),
    };
    parts.iter().map(explained).collect()
}

/// Where a field of an object is, for people; the object, if no field is named.
pub fn place_of(object: &Object, field: &str) -> String {
    let position = if field.is_empty() { object.position() } else { object.locate(field) };
    position.map(|position| position.to_string()).unwrap_or_default()
}

fn explain_resource(fleet: &Fleet, client: &Client, ty: XdsType, name: &str) -> Option<Explanation> {
    let resources = fleet.resources(client)?;
    fleet.planner().explain(&client.facts, &resources, ty, name)
}
