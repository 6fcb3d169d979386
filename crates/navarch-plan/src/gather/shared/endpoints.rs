//! Endpoints of services.

use std::sync::Arc;

use navarch_model::Hashed;
use navarch_model::service::Protocol;
use navarch_snapshot::{Bucket, Scope};
use navarch_translate::clusters::{Discovery, discovery};
use navarch_translate::endpoints::{Endpoints, EndpointsInput};

use super::upstream::{EndpointSettings, FurtherClusters, UpstreamClient, seen};
use crate::class::Class;
use crate::composed::{BucketResources, Composed, InBucket, Seen};
use crate::engine::{Cx, Gather};

/// The endpoints of the services that a class sees.
pub fn endpoints(
    cx: &Cx<'_>,
    class: &Class,
    scope: &Arc<Hashed<Scope>>,
    further: FurtherClusters,
) -> Composed {
    let client = UpstreamClient::new(cx, &class.facts);
    let client = EndpointsClient { scope: scope.clone(), client, further };
    let (_, shared) = cx.narrow::<SeenEndpoints>(&client.client.labels, |labels| EndpointsClient {
        client: client.client.with(labels),
        ..client.clone()
    });
    Composed::seen(&shared, BucketResources::new())
}

/// What endpoints depend on of a proxy.
#[derive(Clone, Hash)]
struct EndpointsClient {
    scope: Arc<Hashed<Scope>>,
    client: UpstreamClient,
    further: FurtherClusters,
}

/// All endpoints that a client sees.
struct SeenEndpoints;

impl Gather for SeenEndpoints {
    const NAME: &'static str = "endpoints.seen";
    type Key = EndpointsClient;
    type Output = Seen;

    fn run(key: &EndpointsClient, cx: &Cx<'_>) -> Seen {
        seen::<SeenEndpoints, BucketEndpoints>(cx, &key.scope, &key.client, |scope, client| EndpointsClient {
            scope,
            client,
            ..key.clone()
        })
    }
}

/// The endpoints that a client sees of a bucket.
struct BucketEndpoints;

impl Gather for BucketEndpoints {
    const NAME: &'static str = "endpoints.bucket";
    type Key = (Arc<Hashed<EndpointsClient>>, Bucket);
    type Output = InBucket;

    fn run((key, bucket): &Self::Key, cx: &Cx<'_>) -> InBucket {
        let mut resources = BucketResources::new();
        let settings = EndpointSettings::new(cx);
        for service in key.scope.services_in(cx.view(), *bucket) {
            if discovery(&service, key.client.kind) != Discovery::Eds {
                continue;
            }
            let rule = key.scope.destination_rule(cx.view(), &service, Some(&key.client.labels));
            let sources = settings.sources(cx, &service, rule.as_deref().map(|rule| &**rule), &key.client);
            for port in service.ports.iter().filter(|port| key.further.includes(port)) {
                let assignments = cx.get::<Endpoints>(&EndpointsInput {
                    service: service.clone(),
                    port: port.port,
                    rule: rule.clone(),
                    sources: sources.clone(),
                    sni_clusters: key.further.mesh_tls && !service.mesh_external,
                    datagrams: port.protocol == Protocol::Udp,
                });
                resources.extend(assignments.iter().cloned());
            }
        }
        resources.sort_by(|a, b| a.name().cmp(b.name()));
        resources.dedup_by(|a, b| a.name() == b.name());
        resources.shrink_to_fit();
        InBucket { resources: Arc::new(resources), asked: cx.view().namespaces_asked() }
    }
}
