//! What a real API server serves means what it means in files.

mod common;

use anyhow::{Context, Result, ensure};
use common::cluster::{differences, objects, objects_in, options};
use navarch_identity::tokens::review::Review;
use navarch_kubernetes::Kubernetes;
use navarch_model::{Kind, definition::definition, parse_text};
use navarch_sources::{Batch, Settled, Source, SourceError, Update};
use navarch_testkit::{
    golden::{self, Case},
    kubernetes::ApiServer,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, future::Future, path::Path, pin::Pin};

#[tokio::test(flavor = "multi_thread")]
async fn golden_cases_mean_the_same_in_an_api_server() -> Result<()> {
    let definitions: Vec<_> = Kind::ALL.iter().filter_map(|kind| definition(*kind)).collect();
    let server = ApiServer::start("api-server-golden", &definitions).await?;
    let mut report = String::new();
    for case in golden::cases(common::root())? {
        serve(&server, &case).await.with_context(|| case.name.clone())?;
        let source = OfUsers(Kubernetes::follow(&options(server.kubeconfig())).await?);
        report += &differences(&case, Box::new(source)).await?;
    }
    ensure!(report.is_empty(), "{report}");
    Ok(())
}

/// Every field that is read of the kinds that are listed in Protobuf.
const ALL_FIELDS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  uid: 2d5c4f9e-0d8e-4d4c-9df0-8d3c4c0f6a11
  generation: 3
  creationTimestamp: "2026-01-31T12:00:00Z"
  deletionTimestamp: "2026-02-01T12:00:00Z"
  deletionGracePeriodSeconds: 30
  labels: {app: web, version: v1}
  annotations: {note: 'of "two" lines\nand ü'}
spec:
  serviceAccountName: reader
  nodeName: node-1
  hostNetwork: true
  hostname: web
  subdomain: pods
  containers:
  - {name: a, image: a, ports: [{name: http, containerPort: 80, protocol: TCP}, {containerPort: 53, protocol: UDP}]}
  - {name: b, image: b}
  initContainers: [{name: c, image: c, restartPolicy: Always, ports: [{containerPort: 15090, protocol: TCP}]}]
status:
  phase: Running
  hostIP: 10.1.0.1
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: "2001:db8::1"}]
  conditions: [{type: Initialized, status: "True"}, {type: Ready, status: "False"}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1, 10.0.0.2]
  conditions: {ready: false, serving: true, terminating: true}
  hostname: web
  nodeName: node-1
  zone: zone-1
  targetRef: {kind: Pod, namespace: default, name: web}
- {addresses: [10.0.0.3], conditions: {}}
ports: [{name: http, port: 8080, protocol: TCP, appProtocol: http2}, {name: "", port: 53, protocol: UDP}, {name: any, protocol: SCTP}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_in_protobuf_is_what_was_written() -> Result<()> {
    let server = ApiServer::start("api-server-protobuf", &[]).await?;
    for (kind, object) in objects_in(ALL_FIELDS)? {
        server.put(kind.group(), kind.plural(), &[object]).await?;
    }
    let written = parse_text("all.yaml", ALL_FIELDS).objects;
    let mut source = Kubernetes::follow(&options(server.kubeconfig())).await?;
    let mut read = BTreeMap::new();
    loop {
        source.changed().await;
        let Batch { places, complete, .. } = source.read()?;
        let said = places.into_iter().filter_map(|(_, update)| match update {
            Update::Says(parsed) => Some(parsed.objects),
            _ => None,
        });
        read.extend(said.flatten().map(|object| (object.key.clone(), object)));
        if complete {
            break;
        }
    }
    assert_eq!(written.len(), 2);
    for written in written {
        let read = read.get(&written.key).with_context(|| format!("no {}", written.key))?;
        assert_eq!(read.spec, written.spec);
        assert_eq!(read.metadata, written.metadata);
    }
    Ok(())
}

/// A token of a service account proves what the API server says of it, to whom it is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_service_account_is_believed_for_its_audience() -> Result<()> {
    let server = ApiServer::start("api-server-tokens", &[]).await?;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}});
    server.create(accounts, &account).await?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["istio-ca"], "expirationSeconds": 600},
    });
    let made: Value = server.create(&format!("{accounts}/web/token"), &request).await?.json()?;
    let token = made["status"]["token"].as_str().context("a token")?;
    let questions = Kubernetes::follow(&options(server.kubeconfig())).await?.questions();
    let identity = async |token: &str, audience: &str| -> Result<String> {
        let audiences = [audience.to_owned()];
        let review = Review::parse(&questions.token_review(token, &audiences).await?)?;
        Ok(review.identity(&audiences, "cluster.local")?.to_string())
    };
    ensure!(identity(token, "istio-ca").await? == "spiffe://cluster.local/ns/default/sa/web");
    ensure!(identity(token, "other").await.is_err(), "it is for somebody else");
    let (signed, _) = token.rsplit_once('.').context("three parts")?;
    ensure!(identity(&format!("{signed}.AAAA"), "istio-ca").await.is_err(), "nobody has signed it");
    Ok(())
}

/// Has the API server serve what is in the case's files, and nothing else but what it makes itself.
async fn serve(server: &ApiServer, case: &Case) -> Result<()> {
    let mut of_kind: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
    for (kind, object) in objects(case)? {
        of_kind.entry(kind).or_default().push(object);
    }
    for kind in Kind::ALL {
        server.clear(kind.group(), kind.plural()).await?;
        if let Some(objects) = of_kind.get(kind) {
            server.put(kind.group(), kind.plural(), objects).await?;
        }
    }
    Ok(())
}

/// A cluster without what the API server makes itself, which no file has.
struct OfUsers(Kubernetes);

impl OfUsers {
    /// The service by which pods find the API server, and the namespaces and ConfigMaps that are
    /// always there.
    fn is_made_by_the_server(place: &Path) -> bool {
        let place = place.to_string_lossy();
        place == "Service/default/kubernetes" || place.contains("/kube-")
    }
}

impl Source for OfUsers {
    fn name(&self) -> String {
        self.0.name()
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.changed()
    }

    fn settled(&self) -> Settled {
        self.0.settled()
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        let mut batch = self.0.read()?;
        batch.places.retain(|(place, _)| !OfUsers::is_made_by_the_server(place));
        Ok(batch)
    }
}
