//! Which objects a resource was made from, with their places: for rejections and `navarch explain`.

use navarch_envoy::XdsType;
use navarch_model::Object;
use navarch_plan::explain::Explanation;

use crate::fleet::{Client, Fleet};
use crate::status::{ExplainedPart, ExplainedResource, Place};

/// More sources of a rejected resource would be a list of everything.
const SOURCES_MAX: usize = 8;

/// `file:line:column Kind namespace/name` of the objects behind a resource, in the order of their keys.
pub fn sources(fleet: &Fleet, client: &Client, ty: XdsType, name: &str) -> Vec<String> {
    let snapshot = fleet.snapshot();
    let Some(explanation) = explain_resource(fleet, client, ty, name) else { return Vec::new() };
    let objects = explanation.objects().into_iter().filter_map(|key| snapshot.object(key));
    objects.take(SOURCES_MAX).map(|object| format!("{} {}", place_of(object, ""), object.key)).collect()
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
        lost: part.lost.iter().map(|lost| place(&lost.object, "", &lost.reason)).collect(),
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
