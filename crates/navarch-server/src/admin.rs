//! The admin port: health, metrics, and what the control plane knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use navarch_envoy::XdsType;
use navarch_envoy::json::any_to_json;
use navarch_kubernetes::remote::{self, Remotes};
use navarch_kubernetes::{StatusReport, Writer};
use navarch_model::ObjectKey;
use navarch_model::fact::SecretAccess;
use navarch_model::finding::{Finding, Severity};
use navarch_snapshot::Snapshot;
use navarch_sources::health::{Health, Report};
use navarch_translate::sds::{WORKLOAD_CERTIFICATE, WORKLOAD_ROOTS};
use navarch_xds::{Registry, StreamStatus, SyncState as XdsSyncState, TypeStatus as XdsTypeStatus};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::debug::Access;
use crate::fleet::Fleet;
use crate::guard::{self, Guard};
use crate::identity::{Identity, pages};
use crate::keys::Keys;
use crate::metrics::{Metrics, bring_to};
use crate::object_status;
use crate::provenance;
use crate::reach;
use crate::refresh::{Refresh, Refreshed};
use crate::reports::Reports;
use crate::status::{
    ConfirmedRemovals, FleetStatus, HeldRemovals, ObjectReach, ProxyStatus, RefreshedSources,
    RejectedResource, Rejection, RunningStatus, SourceStatus, SyncState, TypeStatus, content_name,
};

/// What the pages are made from.
pub struct Admin {
    pub fleet: Arc<Fleet>,
    pub refresh: Refresh,
    pub registry: Arc<Registry>,
    pub metrics: Metrics,
    pub findings: Arc<ArcSwap<Vec<Finding>>>,
    /// The newest world, for what became of objects.
    pub latest: Arc<ArcSwap<Snapshot>>,
    /// Sources that may be out of reach, by name.
    pub sources: Vec<(String, Health)>,
    /// What the cluster is called whose configuration counts.
    pub cluster_name: String,
    /// The other clusters that are followed, if any are.
    pub remotes: Option<Remotes>,
    /// Who writes to the cluster, if anybody does.
    pub writer: Option<Writer>,
    pub reports: Arc<Reports>,
    /// The certificate authority, if there is one.
    pub identity: Option<Arc<Identity>>,
    /// Keys of issuers of tokens.
    pub keys: Arc<Keys>,
    /// Name of this replica.
    pub replica: String,
    /// Set once streams are being closed, see [`Admin::drain`].
    pub draining: AtomicBool,
}

/// Serves the pages until the listener breaks.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let pages = Router::new()
        .route("/", get(index))
        .route("/debug", get(index))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/debug/proxies", get(proxies))
        .route("/debug/syncz", get(syncz))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/explain", get(explain))
        .route("/debug/object", get(object))
        .route("/debug/reach", get(reach_of))
        .route("/debug/checksum", get(checksum))
        .route("/debug/findings", get(findings))
        .route(
            "/debug/sources",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.source_statuses()) }),
        )
        .route(
            "/debug/remote-clusters",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.remote_clusters()) }),
        )
        .route(
            "/debug/clusterz",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.clusterz()) }),
        )
        .route(
            "/debug/writer",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.writer_status()) }),
        )
        .route("/debug/status", get(|State(admin): State<Arc<Admin>>| async move { Json(admin.statuses()) }))
        .route(
            "/debug/removals",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.removals()) }),
        )
        .route("/debug/removals/confirm", post(confirm_removals))
        .route("/debug/refresh", post(refresh))
        .route(
            "/debug/loads",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.reports.page()) }),
        )
        .route(
            "/debug/issuers",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.keys.status()) }),
        )
        .route("/debug/configz", get(|State(admin): State<Arc<Admin>>| async move { Json(admin.configz()) }))
        .route(
            "/debug/registryz",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.registryz()) }),
        )
        .merge(pages::routes())
        .layer(middleware::from_fn_with_state(Guard::new(&listener, admin.clone()), guard::check))
        .with_state(admin);
    let pages = pages.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, pages).await {
        tracing::error!(%error, "the admin port is closed");
    }
}

async fn index() -> &'static str {
    "navarch\n\n\
     /healthz                            alive\n\
     /ready                              serving configuration\n\
     /version                            version of this server\n\
     /metrics                            Prometheus metrics\n\
     /debug/proxies                      sync state of every proxy (navarch proxy-status)\n\
     /debug/syncz                        the same in istiod's form\n\
     /debug/config_dump?proxyID=NAME     what a proxy gets\n\
     /debug/explain?proxyID=&type=&name= why a resource is what it is (navarch explain)\n\
     /debug/object?object=KIND/NS/NAME   whether an object is in force, and where it is\n\
     /debug/reach?object=KIND/NS/NAME    whom an object reaches, and with what (navarch explain -f)\n\
     /debug/checksum?proxyID=NAME        content hashes of what a proxy should hold, planned from scratch\n\
     /debug/findings                     what is wrong with the configuration\n\
     /debug/sources                      how well sources are heard that may be out of reach\n\
     /debug/remote-clusters              other clusters, and how they are heard (navarch remote-clusters)\n\
     /debug/clusterz                     the same in istiod's form\n\
     /debug/writer                       who writes to the cluster, and how that goes\n\
     /debug/status                       what became of each object that configures the mesh\n\
     /debug/removals                     removals that are held back, because too much would go at once\n\
     /debug/removals/confirm             POST: they are meant (navarch confirm-removals)\n\
     /debug/refresh                      POST: look at the sources of configuration now (navarch wait)\n\
     /debug/ca                           roots, which of them signs, and how a rotation goes (navarch ca status)\n\
     /debug/ca/rotate|pause|resume|undo  POST: what to do about it (navarch ca)\n\
     /debug/issuers                      keys of issuers and roots of other trust domains: when they were fetched, and why they could not be\n\
     /debug/loads                        what clients report of their load (LRS)\n\
     /debug/configz                      objects in force\n\
     /debug/registryz                    services\n"
}

/// Whether new proxies are welcome: not while the server closes its streams.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.draining.load(Ordering::Relaxed) {
        false => "ready\n".into_response(),
        true => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response(),
    }
}

async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.fleet.planner().inspect(|engine| {
        let counts = engine.memo().counts();
        bring_to(&admin.metrics.memo.with_label_values(&["hit"]), counts.hits);
        bring_to(&admin.metrics.memo.with_label_values(&["miss"]), counts.misses);
        for (gather, runs) in engine.runs() {
            bring_to(&admin.metrics.gathers.with_label_values(&[gather]), runs);
        }
    });
    for source in admin.source_statuses() {
        let label = [source.name.as_str()];
        admin.metrics.source_unheard.with_label_values(&label).set(source.unheard.len() as i64);
        let seconds = source.unheard_for_ms.unwrap_or(0) / 1000;
        admin.metrics.source_unheard_seconds.with_label_values(&label).set(seconds as i64);
        bring_to(&admin.metrics.source_failures.with_label_values(&label), source.failures);
        bring_to(&admin.metrics.source_relists.with_label_values(&label), source.relists);
    }
    // Those that are not followed any more go.
    admin.metrics.remote_clusters.reset();
    admin.metrics.remote_cluster_objects.reset();
    for cluster in admin.remote_clusters() {
        for state in remote::State::ALL {
            let labels = [cluster.name.as_str(), state.as_str()];
            let gauge = admin.metrics.remote_clusters.with_label_values(&labels);
            gauge.set((state == cluster.state).into());
        }
        let objects = admin.metrics.remote_cluster_objects.with_label_values(&[cluster.name.as_str()]);
        objects.set(cluster.objects as i64);
    }
    if let Some(writer) = &admin.writer {
        let StatusReport { pending, written, failed } = writer.statuses();
        admin.metrics.writer.set(writer.leadership().is_held().into());
        admin.metrics.statuses_pending.set(pending as i64);
        bring_to(&admin.metrics.statuses.with_label_values(&["written"]), written);
        bring_to(&admin.metrics.statuses.with_label_values(&["failed"]), failed);
    }
    admin.metrics.removals_held.set(admin.registry.holding() as i64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics.render()).into_response()
}

async fn proxies(State(admin): State<Arc<Admin>>, Extension(access): Extension<Access>) -> Json<FleetStatus> {
    Json(admin.fleet_status(&access))
}

async fn syncz(State(admin): State<Arc<Admin>>, Extension(access): Extension<Access>) -> Json<Value> {
    Json(admin.syncz(&access))
}

/// All removals up to the newest revision are meant.
async fn confirm_removals(State(admin): State<Arc<Admin>>) -> Json<ConfirmedRemovals> {
    let revision = admin.fleet.planned_revision();
    let proxies = admin.registry.confirm_removals(revision);
    tracing::warn!(revision, proxies, "removals are confirmed");
    Json(ConfirmedRemovals { revision, proxies })
}

/// Everything that was written before the request is in the revision of the answer.
async fn refresh(State(admin): State<Arc<Admin>>) -> Response {
    match admin.refresh.now().await {
        Some(Refreshed { revision, errors }) => Json(RefreshedSources { revision, errors }).into_response(),
        None => {
            (StatusCode::SERVICE_UNAVAILABLE, "changes are no longer followed; see the log\n").into_response()
        }
    }
}

async fn findings(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(json!(**admin.findings.load()))
}

/// Which proxy a page is about.
#[derive(Deserialize)]
struct ProxyQuery {
    #[serde(alias = "proxyID")]
    proxy: Option<String>,
}

/// Which resource a page is about.
#[derive(Deserialize)]
struct ResourceQuery {
    #[serde(alias = "proxyID")]
    proxy: String,
    #[serde(rename = "type")]
    ty: String,
    name: String,
}

async fn explain(
    State(admin): State<Arc<Admin>>,
    Extension(access): Extension<Access>,
    Query(query): Query<ResourceQuery>,
) -> Response {
    let Some(ty) = XdsType::ALL.into_iter().find(|ty| ty.short().eq_ignore_ascii_case(&query.ty)) else {
        return (
            StatusCode::BAD_REQUEST,
            format!("{} is no type; try CDS, EDS, LDS, RDS, ECDS or SDS\n", query.ty),
        )
            .into_response();
    };
    let client = match admin.client_named(&query.proxy, &access) {
        Ok(client) => client,
        Err(response) => return response,
    };
    match provenance::explained(&admin.fleet, &client, ty, &query.name) {
        Some(explained) => Json(explained).into_response(),
        None => {
            let names = admin.fleet.resources(&client).map(|resources| {
                let set = resources.set(ty).iter().map(|resource| format!("  {}\n", resource.name()));
                set.collect::<String>()
            });
            let known = names.unwrap_or_default();
            (
                StatusCode::NOT_FOUND,
                format!("{} has no {} {}; it has\n{known}", query.proxy, ty.short(), query.name),
            )
                .into_response()
        }
    }
}

/// Which object a page is about.
#[derive(Deserialize)]
struct ObjectQuery {
    object: String,
}

impl ObjectQuery {
    #[expect(clippy::result_large_err, reason = "the error is the HTTP answer")]
    fn key(&self) -> Result<ObjectKey, Response> {
        reach::key_named(&self.object).ok_or_else(|| {
            let message = format!("{} is not Kind/namespace/name of a kind that is read\n", self.object);
            (StatusCode::BAD_REQUEST, message).into_response()
        })
    }
}

async fn object(State(admin): State<Arc<Admin>>, Query(query): Query<ObjectQuery>) -> Response {
    match query.key() {
        Ok(key) => Json(reach::in_force(&admin.fleet.snapshot(), &key)).into_response(),
        Err(response) => response,
    }
}

async fn reach_of(
    State(admin): State<Arc<Admin>>,
    Extension(access): Extension<Access>,
    Query(query): Query<ObjectQuery>,
) -> Response {
    let key = match query.key() {
        Ok(key) => key,
        Err(response) => return response,
    };
    let streams = admin.registry.streams();
    let proxies = streams.iter().filter(|stream| !stream.types.is_empty() && access.covers(stream));
    let clients: Vec<(String, Client)> = proxies
        .filter_map(|stream| Some((proxy_name(&stream.node.id).to_owned(), admin.fleet.client_of(stream)?)))
        .collect();
    let fleet = admin.fleet.clone();
    match tokio::task::spawn_blocking(move || reach::reach(&fleet, &key, &clients)).await {
        Ok(reach) => Json::<ObjectReach>(reach).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "it cannot be found out\n").into_response(),
    }
}

/// What a proxy gets, as Envoy's own dump would show it. Secrets are named, never shown.
async fn config_dump(
    State(admin): State<Arc<Admin>>,
    Extension(access): Extension<Access>,
    Query(query): Query<ProxyQuery>,
) -> Response {
    let Some(name) = query.proxy else {
        return (StatusCode::BAD_REQUEST, "which proxy? add ?proxyID=NAME, with a name of /debug/proxies\n")
            .into_response();
    };
    let client = match admin.client_named(&name, &access) {
        Ok(client) => client,
        Err(response) => return response,
    };
    let Some(resources) = admin.fleet.resources(&client) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "its configuration is being planned\n").into_response();
    };
    let mut dump = serde_json::Map::new();
    for (ty, set) in resources.iter().filter(|(_, set)| !set.is_empty()) {
        let show = |resource: &Arc<navarch_envoy::Resource>| match ty {
            XdsType::Sds => {
                json!({ "name": &**resource.name(), "version": resource.version().to_string() })
            }
            _ => any_to_json(ty.type_url(), &resource.body()),
        };
        dump.insert(ty.short().to_owned(), set.iter().map(show).collect());
    }
    Json(json!({ "proxy": name, "revision": resources.revision(), "resources": dump })).into_response()
}

/// Whose hashes, and whether each resource's.
#[derive(Deserialize)]
struct ChecksumQuery {
    #[serde(alias = "proxyID")]
    proxy: Option<String>,
    #[serde(default)]
    names: bool,
}

/// Content hashes of what a proxy should hold, from a plan that uses nothing that was planned before.
async fn checksum(
    State(admin): State<Arc<Admin>>,
    Extension(access): Extension<Access>,
    Query(query): Query<ChecksumQuery>,
) -> Response {
    let Some(name) = query.proxy else {
        return (StatusCode::BAD_REQUEST, "which proxy? add ?proxyID=NAME, with a name of /debug/proxies\n")
            .into_response();
    };
    let client = match admin.client_named(&name, &access) {
        Ok(client) => client,
        Err(response) => return response,
    };
    let fleet = admin.fleet.clone();
    let Ok(resources) = tokio::task::spawn_blocking(move || fleet.from_scratch(&client)).await else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "its configuration cannot be planned\n").into_response();
    };
    let types: serde_json::Map<String, Value> = resources
        .iter()
        .filter(|(_, set)| !set.is_empty())
        .map(|(ty, set)| {
            let mut said = json!({ "version": set.version().to_string(), "resources": set.len() });
            if query.names {
                let versions = set.iter().map(|resource| {
                    (resource.name().to_string(), Value::from(resource.version().to_string()))
                });
                said["names"] = Value::Object(versions.collect());
            }
            (ty.short().to_owned(), said)
        })
        .collect();
    Json(json!({ "proxy": name, "types": types })).into_response()
}

impl Admin {
    /// From now on the server says that it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Proxies whose removals are held back.
    pub fn removals(&self) -> Value {
        let status = self.fleet_status(&Access::Everything);
        let held = status.proxies.iter().filter_map(|proxy| {
            let held = proxy.held_removals.as_ref()?;
            Some(json!({ "proxy": proxy.name, "connection": proxy.connection, "held": held }))
        });
        json!({ "revision": status.revision, "proxies": held.collect::<Vec<_>>() })
    }

    /// How well sources are heard that may be out of reach.
    pub fn source_statuses(&self) -> Vec<SourceStatus> {
        let status = |(name, health): &(String, Health)| {
            let Report { parts, unheard, since, reason, failures, relists } = health.report();
            let unheard_for_ms = since.map(|since| since.as_millis() as u64);
            SourceStatus { name: name.clone(), parts, unheard, unheard_for_ms, reason, failures, relists }
        };
        let remotes = self.remotes.iter().flat_map(Remotes::healths).collect::<Vec<_>>();
        self.sources.iter().chain(&remotes).map(status).collect()
    }

    /// The other clusters that are followed.
    pub fn remote_clusters(&self) -> Vec<remote::Report> {
        self.remotes.as_ref().map(Remotes::reports).unwrap_or_default()
    }

    /// Who writes to the cluster, and how that goes; nothing if nobody does.
    pub fn writer_status(&self) -> Value {
        let Some(writer) = &self.writer else { return json!({}) };
        let StatusReport { pending, written, failed } = writer.statuses();
        let leadership = writer.leadership();
        json!({
            "writes": leadership.is_held(),
            "holder": leadership.holder(),
            "statuses": { "pending": pending, "written": written, "failed": failed },
        })
    }

    /// What became of each object that configures the mesh.
    pub fn statuses(&self) -> Value {
        json!(object_status::of_all(&self.latest.load()))
    }

    /// Objects in force.
    pub fn configz(&self) -> Value {
        let snapshot = self.fleet.snapshot();
        let objects = snapshot.objects().map(|object| {
            json!({
                "kind": object.key.kind.as_str(),
                "namespace": object.key.namespace,
                "name": object.key.name,
                "source": object.position().map(|position| position.to_string()),
            })
        });
        Value::Array(objects.collect())
    }

    /// Services.
    pub fn registryz(&self) -> Value {
        let snapshot = self.fleet.snapshot();
        let services = snapshot.services().map(|service| {
            let ports = service.ports.iter();
            json!({
                "hostname": service.hostname,
                "namespace": service.namespace,
                "registry": format!("{:?}", service.registry),
                "resolution": format!("{:?}", service.resolution),
                "addresses": service.addresses,
                "ports": ports.map(|port| json!({
                    "name": port.name, "port": port.port, "protocol": format!("{:?}", port.protocol),
                })).collect::<Vec<_>>(),
            })
        });
        Value::Array(services.collect())
    }

    /// `istiod`'s form of the clusters that are followed.
    pub fn clusterz(&self) -> Value {
        let local = json!({"id": self.cluster_name, "secretName": "", "syncStatus": "synced"});
        let remotes = self.remote_clusters();
        let remotes = remotes.iter().map(|cluster| {
            let status = match cluster.state {
                remote::State::Synced => "synced",
                remote::State::Syncing => "syncing",
                remote::State::Silent => "timeout",
                remote::State::Refused => "closed",
            };
            let secret = cluster.from.strip_prefix("Secret ").unwrap_or_default();
            json!({"id": cluster.name, "secretName": secret, "syncStatus": status})
        });
        [local].into_iter().chain(remotes).collect()
    }

    /// `istiod`'s form of the sync state.
    pub fn syncz(&self, access: &Access) -> Value {
        let status = self.fleet_status(access);
        let proxies = status.proxies.iter().map(|proxy| {
            let of = |ty: &str| proxy.types.get(ty).cloned().unwrap_or_default();
            json!({
                "cluster_id": proxy.cluster,
                "proxy": proxy.name,
                "istio_version": proxy.version,
                "cluster_sent": of("CDS").sent, "cluster_acked": of("CDS").acked,
                "listener_sent": of("LDS").sent, "listener_acked": of("LDS").acked,
                "route_sent": of("RDS").sent + &of("VHDS").sent,
                "route_acked": of("RDS").acked + &of("VHDS").acked,
                "endpoint_sent": of("EDS").sent, "endpoint_acked": of("EDS").acked,
                "extensionconfig_sent": of("ECDS").sent, "extensionconfig_acked": of("ECDS").acked,
            })
        });
        Value::Array(proxies.collect())
    }

    /// A connected proxy, by its name or a part of it that no other one has; or the answer that there is
    /// none.
    #[expect(clippy::result_large_err, reason = "the error is the HTTP answer")]
    fn client_named(&self, name: &str, access: &Access) -> Result<Client, Response> {
        let streams = self.registry.streams();
        let is_meant = |stream: &&StreamStatus| {
            !stream.types.is_empty() && access.covers(stream) && proxy_name(&stream.node.id).contains(name)
        };
        let mut meant: Vec<&StreamStatus> = streams.iter().filter(is_meant).collect();
        if meant.iter().any(|stream| proxy_name(&stream.node.id) == name) {
            meant.retain(|stream| proxy_name(&stream.node.id) == name);
        }
        let names: BTreeSet<&str> = meant.iter().map(|stream| proxy_name(&stream.node.id)).collect();
        if names.len() > 1 {
            let names: Vec<String> = names.iter().take(10).map(|name| format!("  {name}\n")).collect();
            let message = format!("several proxies have {name} in their names, such as\n{}", names.concat());
            return Err((StatusCode::CONFLICT, message).into_response());
        }
        meant.first().and_then(|stream| self.fleet.client_of(stream)).ok_or_else(|| {
            let message = format!("no proxy named {name} is connected to this replica; see /debug/proxies\n");
            (StatusCode::NOT_FOUND, message).into_response()
        })
    }

    /// The streams in access.
    fn fleet_status(&self, access: &Access) -> FleetStatus {
        let revision = self.fleet.planned_revision();
        let now = Instant::now();
        // A client that only asks questions is not a proxy, and has nothing to be in sync with.
        let streams = self.registry.streams();
        let proxies = streams.iter().filter(|stream| !stream.types.is_empty() && access.covers(stream));
        let mut proxies: Vec<ProxyStatus> =
            proxies.map(|stream| self.proxy_status(stream, revision, now)).collect();
        proxies.sort_by(|a, b| (&a.name, &a.connection).cmp(&(&b.name, &b.connection)));
        let errors =
            self.findings.load().iter().filter(|finding| finding.severity == Severity::Error).count();
        FleetStatus {
            replica: self.replica.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sources: self.source_statuses(),
            revision,
            content: self.content_of(revision),
            contents: self
                .fleet
                .contents()
                .into_iter()
                .map(|(content, since)| (content_name(content), since))
                .collect(),
            errors,
            proxies,
        }
    }

    /// What is configured in a revision, if it is not too old.
    fn content_of(&self, revision: u64) -> String {
        let contents = self.fleet.contents();
        let known = contents.iter().rev().find(|(_, since)| *since <= revision);
        known.map(|(content, _)| content_name(*content)).unwrap_or_default()
    }

    fn proxy_status(&self, stream: &StreamStatus, revision: u64, now: Instant) -> ProxyStatus {
        // A class that a revision leaves as it was is not published again: what counts is the last revision
        // that changed it.
        let client = self.fleet.client_of(stream);
        let wanted = client.as_ref().and_then(|client| self.fleet.class_revision(client));
        let live = match wanted {
            Some(wanted) if stream.watermark >= wanted => revision,
            _ => stream.watermark.min(revision),
        };
        ProxyStatus {
            name: proxy_name(&stream.node.id).to_owned(),
            cluster: stream.cluster_id().unwrap_or_default().to_owned(),
            connection: stream.connection_id(),
            version: stream.proxy_version().unwrap_or(&stream.node.user_agent_version).to_owned(),
            peer: stream.peer.address.to_string(),
            revision: live,
            lag: revision.saturating_sub(live),
            types: stream
                .types
                .iter()
                .map(|ty| self.type_status(client.as_ref(), ty, now))
                .collect::<BTreeMap<_, _>>(),
            running: RunningStatus::of(stream),
            held_removals: stream.held_removals.map(|held| HeldRemovals {
                for_ms: now.saturating_duration_since(held.since).as_millis() as u64,
                left_ms: held.until.saturating_duration_since(now).as_millis() as u64,
                resources: stream
                    .types
                    .iter()
                    .filter(|ty| ty.leaving > 0)
                    .map(|ty| (ty.ty.short().to_owned(), ty.leaving))
                    .collect(),
            }),
        }
    }

    fn type_status(&self, client: Option<&Client>, ty: &XdsTypeStatus, now: Instant) -> (String, TypeStatus) {
        let error = ty.error.as_ref().map(|rejected| Rejection {
            message: rejected.text.clone(),
            resources: rejected
                .names
                .iter()
                .map(|name| RejectedResource {
                    name: name.to_string(),
                    sources: client
                        .map(|client| provenance::sources(&self.fleet, client, ty.ty, name, &rejected.text))
                        .unwrap_or_default(),
                })
                .collect(),
        });
        let withheld = match client {
            Some(client) if ty.ty == XdsType::Sds && !ty.missing.is_empty() => self.withheld(client),
            _ => String::new(),
        };
        // "There is none" is an answer too, and nothing that was sent.
        let has_nothing = ty.error.is_none() && !ty.missing.is_empty() && ty.missing.len() == ty.names;
        let status = TypeStatus {
            state: match ty.state {
                _ if has_nothing => SyncState::NotSent,
                XdsSyncState::NotSent => SyncState::NotSent,
                XdsSyncState::Stale => SyncState::Stale,
                XdsSyncState::Synced => SyncState::Synced,
                XdsSyncState::Error => SyncState::Error,
            },
            sent: ty.sent.as_ref().map(|mark| mark.version.clone()).unwrap_or_default(),
            acked: ty.acked.as_ref().map(|mark| mark.version.clone()).unwrap_or_default(),
            sent_age_ms: ty
                .sent
                .as_ref()
                .map(|mark| now.duration_since(mark.at).as_millis() as u64)
                .unwrap_or_default(),
            error,
            missing: ty
                .missing
                .iter()
                .filter(|name| !is_of_workload(name))
                .map(ToString::to_string)
                .collect(),
            withheld,
        };
        (ty.ty.short().to_owned(), status)
    }

    /// Why a client gets no keys, if it is the permissions of its service account.
    fn withheld(&self, client: &Client) -> String {
        let snapshot = self.fleet.snapshot();
        let view = snapshot.view();
        let Some(account) = client.class(&view).secret_reader() else { return String::new() };
        match view.secret_access(&account) {
            Some(SecretAccess::Denied) => {
                format!("the service account {account} may not list Secrets in its namespace")
            }
            Some(SecretAccess::Unanswered { reason }) => {
                format!("it is not known whether the service account {account} may list Secrets: {reason}")
            }
            Some(SecretAccess::Allowed) | None => String::new(),
        }
    }
}

/// The third part of a node id: `<pod>.<namespace>`.
pub(crate) fn proxy_name(id: &str) -> &str {
    id.split('~').nth(2).unwrap_or(id)
}

/// Certificate and roots of the workload itself. Where nobody issues them, proxies ask for them all the same,
/// for clusters that may come to need them.
fn is_of_workload(name: &str) -> bool {
    [WORKLOAD_CERTIFICATE, WORKLOAD_ROOTS].contains(&name)
}
