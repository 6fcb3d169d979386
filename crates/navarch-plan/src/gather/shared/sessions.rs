//! Whether routes keep sessions, so that chains carry the filter that such routes configure.

use navarch_model::route::{Parent, RouteSet};
use navarch_snapshot::{BUCKETS, Bucket, HostBucket, Scope};

use super::routes::SharedRoutes;
use crate::engine::{Cx, Gather};

/// Whether routes of the mesh keep sessions that a client may use.
pub fn in_mesh(cx: &Cx<'_>, scope: &Scope) -> bool {
    let sets = cx.gather::<MeshSessions>(&());
    sets.iter().any(|set| scope.may_use(cx.view(), &set.export_to))
}

/// Whether routes of a listener or gateway keep sessions.
pub fn at(cx: &Cx<'_>, parent: &Parent) -> bool {
    *cx.gather::<ParentSessions>(parent)
}

fn keeps_sessions(set: &RouteSet) -> bool {
    set.http.iter().any(|rule| rule.session().is_some())
}

/// The sets of routes of the mesh that keep sessions; in most meshes there are none.
struct MeshSessions;

impl Gather for MeshSessions {
    const NAME: &'static str = "sessions.mesh";
    type Key = ();
    type Output = Vec<SharedRoutes>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<SharedRoutes> {
        let mut sets: Vec<SharedRoutes> = Vec::new();
        for bucket in 0..BUCKETS {
            sets.extend(cx.gather::<BucketSessions>(&bucket).iter().cloned());
        }
        let wildcards = cx.view().wildcard_routes();
        sets.extend(wildcards.iter().filter(|set| keeps_sessions(set)).cloned());
        sets
    }
}

struct BucketSessions;

impl Gather for BucketSessions {
    const NAME: &'static str = "sessions.bucket";
    type Key = Bucket;
    type Output = Vec<SharedRoutes>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<SharedRoutes> {
        let sets = cx.view().routes_in(*bucket).values().flatten();
        sets.filter(|set| keeps_sessions(set)).cloned().collect()
    }
}

struct ParentSessions;

impl Gather for ParentSessions {
    const NAME: &'static str = "sessions.parent";
    type Key = Parent;
    type Output = bool;

    fn run(parent: &Parent, cx: &Cx<'_>) -> bool {
        let mut places = cx.view().gateway_buckets(parent).iter();
        places.any(|place| *cx.gather::<SessionsAt>(&(parent.clone(), place)))
    }
}

struct SessionsAt;

impl Gather for SessionsAt {
    const NAME: &'static str = "sessions.parent_bucket";
    type Key = (Parent, HostBucket);
    type Output = bool;

    fn run((parent, place): &Self::Key, cx: &Cx<'_>) -> bool {
        let mut sets = cx.view().gateway_routes_in(parent, *place).values().flatten();
        sets.any(|set| keeps_sessions(set))
    }
}
