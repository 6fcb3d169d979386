//! Gathering of endpoints.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_model::proxy::ProxyKind;
use navarch_model::service::Protocol;
use navarch_snapshot::{BUCKETS, Bucket, Scope};
use navarch_translate::clusters::{Discovery, discovery};
use navarch_translate::endpoints::{Endpoints, EndpointsInput};

use super::upstream::{Client, EndpointSettings, ForwardsMeshTls, RuleLabels};
use crate::class::Class;
use crate::engine::{Cx, Gather};
use crate::parts::{BucketResources, Parts};

/// The endpoints of a class.
pub fn endpoints(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    let client = Client::new(&class.facts);
    let sni_clusters =
        class.facts.kind == ProxyKind::Router && *cx.gather::<ForwardsMeshTls>(&class.facts.labels);
    let buckets = (0..BUCKETS).map(|bucket| {
        let client = client.for_bucket(&class.facts, &cx.gather::<RuleLabels>(&bucket));
        cx.gather::<BucketEndpoints>(&BucketKey { scope: scope.clone(), client, sni_clusters, bucket })
    });
    Parts { buckets: buckets.collect(), local: Vec::new() }
}

/// The endpoints that a client sees of a bucket.
struct BucketEndpoints;

#[derive(Clone, Hash)]
struct BucketKey {
    scope: Arc<Hashed<Scope>>,
    client: Client,
    sni_clusters: bool,
    bucket: Bucket,
}

impl Gather for BucketEndpoints {
    const NAME: &'static str = "endpoints.bucket";
    type Key = BucketKey;
    type Output = BucketResources;

    fn run(key: &BucketKey, cx: &Cx<'_>) -> BucketResources {
        let mut resources = BucketResources::new();
        let settings = EndpointSettings::new(cx);
        for service in key.scope.services_in(cx.view(), key.bucket) {
            if discovery(&service, key.client.kind) != Discovery::Eds {
                continue;
            }
            let rule = key.scope.destination_rule(cx.view(), &service, Some(&key.client.labels));
            let sources = settings.sources(cx, &service, rule.as_deref().map(|rule| &**rule), &key.client);
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                let assignments = cx.get::<Endpoints>(&EndpointsInput {
                    service: service.clone(),
                    port: port.port,
                    rule: rule.clone(),
                    sources: sources.clone(),
                    sni_clusters: key.sni_clusters && !service.mesh_external,
                });
                resources.extend(assignments.iter().cloned());
            }
        }
        resources.sort_by(|a, b| a.name().cmp(b.name()));
        resources.dedup_by(|a, b| a.name() == b.name());
        resources
    }
}
