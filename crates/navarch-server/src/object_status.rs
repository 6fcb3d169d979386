//! What became of objects, for people and for sources that tell their authors.

use navarch_model::Place;
use navarch_model::object::ObjectKey;
use navarch_model::status::Status;
use navarch_snapshot::Snapshot;
use navarch_sources::Written;
use serde::Serialize;

/// The status of an object as pages and commands show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectStatus {
    pub object: ObjectKey,
    /// Where it is written; empty if no version of it can be used.
    pub place: String,
    #[serde(flatten)]
    pub status: Status,
}

/// The statuses of all objects that configure the mesh, by kind, namespace and name.
pub fn of_all(snapshot: &Snapshot) -> Vec<ObjectStatus> {
    let statuses = snapshot.statuses().iter().map(|(object, status)| {
        let position = snapshot.object(&object).and_then(|object| object.position());
        let place = position.map(|position| position.to_string()).unwrap_or_default();
        ObjectStatus { object, place, status }
    });
    statuses.collect()
}

/// Statuses that have to be written: all, or those that have changed. Nothing is written to what is gone.
pub fn to_write(snapshot: &Snapshot, before: Option<&Snapshot>) -> Vec<Written> {
    let changed: Vec<(ObjectKey, Option<Status>)> = match before {
        Some(before) => snapshot.statuses().changed_since(before),
        None => snapshot.statuses().iter().map(|(key, status)| (key, Some(status))).collect(),
    };
    let written = changed.into_iter().filter_map(|(object, status)| {
        let resource_version = match snapshot.object(&object).map(|object| &object.place) {
            Some(Place::Cluster { resource_version, .. }) => resource_version.clone(),
            Some(Place::File(_) | Place::None) | None => Default::default(),
        };
        let status = status?;
        let parents = status.parents.iter();
        let controllers = parents.map(|parent| snapshot.statuses().controller(&parent.parent)).collect();
        Some(Written { object, resource_version, status, controllers })
    });
    written.collect()
}
