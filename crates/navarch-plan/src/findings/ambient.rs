//! Who asks for what ambient mode does: nobody does it here, and nothing but a finding says so.

use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::service::Registry;
use navarch_model::{Labels, Name};
use navarch_snapshot::{BUCKETS, Bucket};

use super::problem::Problem;
use crate::engine::{Cx, Gather};

/// Names the waypoint that calls go through (Istio: "Configure waypoint proxies").
const USE_WAYPOINT: &str = "istio.io/use-waypoint";

/// Says that traffic is taken at the node.
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// Namespaces and services that ask for ambient mode.
pub(super) struct Ambient;

impl Gather for Ambient {
    const NAME: &'static str = "findings.ambient";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, namespace) in cx.view().namespaces() {
            let key = ObjectKey::new(Kind::Namespace, "", name);
            problems.extend(waypoint(&key, &namespace.labels));
            if namespace.labels.get(DATAPLANE_MODE).is_some_and(|mode| &**mode == "ambient") {
                let message =
                    "there is no ambient mode: the traffic of its pods without a sidecar is in no mesh";
                let finding = Finding::warning(Code::NoEffect, message)
                    .hint("inject sidecars (istio-injection: enabled), or leave it to the control plane that has ambient mode");
                problems.push(Problem { key, path: path(DATAPLANE_MODE), finding });
            }
        }
        for bucket in 0..BUCKETS {
            problems.extend(cx.gather::<InBucket>(&bucket).iter().cloned());
        }
        problems
    }
}

/// Services of a bucket that name a waypoint.
struct InBucket;

impl Gather for InBucket {
    const NAME: &'static str = "findings.ambient_in_bucket";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        let services = cx.view().services_in(*bucket).values().flatten();
        let named = services.filter_map(|service| {
            let kind = match service.registry {
                Registry::Kubernetes => Kind::Service,
                Registry::ServiceEntry => Kind::ServiceEntry,
            };
            waypoint(&ObjectKey::new(kind, &service.namespace, &service.name), &service.labels)
        });
        named.collect()
    }
}

fn path(label: &str) -> String {
    format!("metadata.labels[{label:?}]")
}

/// What is wrong with an object that names a waypoint.
fn waypoint(key: &ObjectKey, labels: &Labels) -> Option<Problem> {
    let name = labels.get(USE_WAYPOINT).map(Name::as_ref).filter(|name| !matches!(*name, "" | "none"))?;
    let message = format!(
        "there are no waypoints: calls do not go through {name}, and what is to be enforced or routed there is not"
    );
    let finding = Finding::warning(Code::NoEffect, message)
        .hint("enforce it at sidecars (selector), or leave it to the control plane that has ambient mode");
    Some(Problem { key: key.clone(), path: path(USE_WAYPOINT), finding })
}
