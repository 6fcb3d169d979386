//! A scripted control plane made of the server alone, and an Envoy that follows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use navarch_envoy::proto::envoy::config::endpoint::v3::ClusterStats;
use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType, dynamic, json as protojson};
use navarch_testkit::apps::{App, Role, Running};
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{http, ports, wait};
use navarch_xds::{
    Class, Connection, Dialect, Discovery, LoadReports, Node, Observer, Peer, Registry, Rejection, Server,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use navarch_xds::{Protocol, Settings};

/// The bound of one test, for a machine that has much else to do.
const TEST: Duration = Duration::from_secs(150);

pub async fn bounded(test: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(TEST, test).await.with_context(|| format!("not done after {TEST:?}"))?
}

/// What the control plane serves: resources by type and name.
#[derive(Clone, Default)]
pub struct Config(BTreeMap<XdsType, BTreeMap<String, Arc<Resource>>>);

impl Config {
    /// Adds a resource in proto3 JSON, or replaces the one of that name.
    pub fn with(self, ty: XdsType, value: &Value) -> Self {
        let name = value["name"].as_str().or(value["cluster_name"].as_str()).expect("a name").to_owned();
        self.with_named(ty, &name, value)
    }

    /// [`Config::with`] for a resource that is asked for by another name than the one inside it.
    pub fn with_named(self, ty: XdsType, name: &str, value: &Value) -> Self {
        let message = ty.type_url().trim_start_matches("type.googleapis.com/");
        let message = protojson::from_json(message, value).unwrap_or_else(|error| panic!("{value}: {error}"));
        self.with_encoded(ty, name, &dynamic::encode(&message))
    }

    /// [`Config::with`] for a message that is encoded already.
    pub fn with_encoded(mut self, ty: XdsType, name: &str, message: &[u8]) -> Self {
        let resource = Arc::new(Resource::of(ty, name, message));
        self.0.entry(ty).or_default().insert(name.to_owned(), resource);
        self
    }

    /// [`Config::with`] for a resource that only who names it gets.
    pub fn with_on_demand(mut self, ty: XdsType, value: &Value) -> Self {
        let name = value["name"].as_str().expect("a name").to_owned();
        let message = ty.type_url().trim_start_matches("type.googleapis.com/");
        let message = protojson::from_json(message, value).unwrap_or_else(|error| panic!("{value}: {error}"));
        let message = dynamic::encode(&message);
        let builder = Resource::builder(ty.type_url(), name.as_str(), &message);
        self.0.entry(ty).or_default().insert(name.clone(), Arc::new(builder.on_demand().build()));
        self
    }

    pub fn without_all(mut self, ty: XdsType) -> Self {
        self.0.remove(&ty);
        self
    }

    pub fn without(mut self, ty: XdsType, name: &str) -> Self {
        let removed = self.0.get_mut(&ty).and_then(|set| set.remove(name));
        assert!(removed.is_some(), "there was no {name}");
        self
    }

    fn resources(&self, revision: u64) -> Arc<ProxyResources> {
        let start = ProxyResources::new(revision);
        Arc::new(
            self.0
                .iter()
                .fold(start, |plan, (ty, set)| plan.with(*ty, ResourceSet::of(set.values().cloned()))),
        )
    }
}

/// Everybody follows the same class.
struct Script(Arc<Class>);

impl Discovery for Script {
    fn connect(&self, _: &Arc<Node>, _: &Arc<Peer>, _: Dialect) -> Result<Connection, Rejection> {
        Ok(Connection::to(self.0.clone()))
    }
}

/// What the control plane heard, over all its incarnations.
#[derive(Default)]
pub struct Heard {
    /// When a stream came (`true`) or went.
    streams: Mutex<Vec<bool>>,
    /// Per cluster: the sums of all load reports.
    loads: Mutex<BTreeMap<String, Load>>,
    /// Streams whose load reports have ended.
    ended: AtomicUsize,
}

/// Requests to one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub succeeded: u64,
    pub failed: u64,
    pub dropped: u64,
}

impl Heard {
    /// How often a stream came after one had ended.
    pub fn returns(&self) -> usize {
        let streams = self.streams.lock().expect("not poisoned");
        streams.windows(2).filter(|pair| *pair == [false, true]).count()
    }

    /// The most streams there were at one time.
    pub fn most_at_once(&self) -> usize {
        let streams = self.streams.lock().expect("not poisoned");
        let (mut now, mut most) = (0_usize, 0);
        for came in streams.iter() {
            now = if *came { now + 1 } else { now.saturating_sub(1) };
            most = most.max(now);
        }
        most
    }

    pub fn load(&self, cluster: &str) -> Load {
        self.loads.lock().expect("not poisoned").get(cluster).copied().unwrap_or_default()
    }

    pub fn load_streams_ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Writes down what the server reports.
struct Notes(Arc<Heard>);

impl Observer for Notes {
    fn connected(&self, _: &Arc<Node>) {
        self.0.streams.lock().expect("not poisoned").push(true);
    }

    fn disconnected(&self, _: &Arc<Node>) {
        self.0.streams.lock().expect("not poisoned").push(false);
    }
}

impl LoadReports for Notes {
    fn report(&self, _: u64, _: &str, clusters: &[ClusterStats]) {
        let mut loads = self.0.loads.lock().expect("not poisoned");
        for cluster in clusters {
            let load = loads.entry(cluster.cluster_name.clone()).or_default();
            for locality in &cluster.upstream_locality_stats {
                load.succeeded += locality.total_successful_requests;
                load.failed += locality.total_error_requests;
            }
            load.dropped += cluster.total_dropped_requests;
        }
    }

    fn ended(&self, _: u64, _: &str) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A process of the control plane: what it knows ends with it.
struct Incarnation {
    runtime: Option<Runtime>,
    class: Arc<Class>,
    registry: Arc<Registry>,
    revision: u64,
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        // Its connections are cut, as by a crash.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A control plane at one address, over restarts.
pub struct Plane {
    address: SocketAddr,
    settings: Settings,
    heard: Arc<Heard>,
    running: Option<Incarnation>,
}

impl Plane {
    /// Serves `config`; with `None` the resources are not known yet, and clients wait.
    pub async fn start(config: Option<&Config>) -> Result<Plane> {
        Plane::start_with(Settings::default(), config).await
    }

    pub async fn start_with(settings: Settings, config: Option<&Config>) -> Result<Plane> {
        let mut plane = Plane::stopped(settings)?;
        plane.up(config).await?;
        Ok(plane)
    }

    /// It has an address and does not run.
    pub fn stopped(settings: Settings) -> Result<Plane> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port()?));
        Ok(Plane { address, settings, heard: Arc::default(), running: None })
    }

    /// Starts it again, as a new process that remembers nothing.
    pub async fn up(&mut self, config: Option<&Config>) -> Result<()> {
        ensure!(self.running.is_none(), "it runs already");
        let class = Class::new();
        let settings = Settings { identifier: self.identifier(), ..self.settings.clone() };
        let (observer, loads) = (Notes(self.heard.clone()), Notes(self.heard.clone()));
        let server =
            Server::builder(Script(class.clone())).settings(settings).observer(observer).loads(loads).build();
        let registry = server.registry();
        let mut incarnation = Incarnation { runtime: None, class, registry, revision: 0 };
        if let Some(config) = config {
            incarnation.publish(config);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = wait::until("the port of the control plane", wait::STEP, || async {
            // Bound in the runtime that serves it.
            let bind = runtime.spawn(TcpListener::bind(self.address));
            Ok(bind.await??)
        })
        .await?;
        runtime.spawn(async move { server.serve(listener).await });
        incarnation.runtime = Some(runtime);
        self.running = Some(incarnation);
        Ok(())
    }

    /// Crashes.
    pub fn down(&mut self) {
        self.running = None;
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `control_plane.identifier` of this one.
    pub fn identifier(&self) -> String {
        format!("script-{}", self.address.port())
    }

    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    pub fn publish(&mut self, config: &Config) {
        self.running.as_mut().expect("running").publish(config);
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.running.as_ref().expect("running").registry.clone()
    }

    /// Waits until every stream has accepted all of the newest revision.
    pub async fn accepted(&self) -> Result<()> {
        let running = self.running.as_ref().context("not running")?;
        wait::until("everything to be accepted", wait::STEP, || async {
            let streams = running.registry.streams();
            let behind = streams.iter().find(|stream| stream.watermark < running.revision);
            ensure!(!streams.is_empty() && behind.is_none(), "{streams:?}");
            Ok(())
        })
        .await
    }

    /// Starts an Envoy that follows this control plane; it need not become ready.
    pub async fn envoy(&self, name: &str, protocol: Protocol) -> Result<Envoy> {
        envoy(name, protocol, bootstrap(self.address, name, protocol)).await
    }

    /// [`Plane::envoy`], ready.
    pub async fn live_envoy(&self, name: &str, protocol: Protocol) -> Result<Envoy> {
        live_envoy(name, protocol, bootstrap(self.address, name, protocol)).await
    }
}

/// Starts an Envoy from a [`bootstrap`] of its own.
pub async fn envoy(name: &str, protocol: Protocol, bootstrap: Value) -> Result<Envoy> {
    // Within a drain time of one second, the gradual strategy closes nothing before its end.
    let args = ["--drain-strategy", "immediate"];
    Envoy::start_with(&format!("xds-{name}-{protocol:?}"), bootstrap, &args).await
}

/// [`envoy`], ready.
pub async fn live_envoy(name: &str, protocol: Protocol, bootstrap: Value) -> Result<Envoy> {
    let mut envoy = envoy(name, protocol, bootstrap).await?;
    envoy.wait_live().await?;
    Ok(envoy)
}

/// The bootstrap of an Envoy that takes everything from the control plane at `address`.
pub fn bootstrap(address: SocketAddr, name: &str, protocol: Protocol) -> Value {
    let api_type = match protocol {
        Protocol::Delta => "DELTA_GRPC",
        Protocol::Sotw => "GRPC",
    };
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    json!({
        "node": {"id": name, "cluster": "conformance"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [grpc_service("xds")],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [grpc_cluster("xds", address)]},
    })
}

/// A gRPC service at a static cluster. Asked soon again after an outage: a test has no herd.
pub fn grpc_service(cluster: &str) -> Value {
    let retry = json!({"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.3s"}});
    json!({"envoy_grpc": {"cluster_name": cluster, "retry_policy": retry}})
}

/// A static cluster that speaks HTTP/2.
pub fn grpc_cluster(name: &str, address: SocketAddr) -> Value {
    let address = json!({"address": address.ip().to_string(), "port_value": address.port()});
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": address}}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}},
    })
}

impl Incarnation {
    fn publish(&mut self, config: &Config) {
        self.revision += 1;
        self.class.publish(config.resources(self.revision));
    }
}

/// An application that answers with its own name.
pub async fn backend(name: &str) -> Result<Running> {
    let app = App {
        service: "backend".into(),
        version: "v1".into(),
        instance: name.into(),
        role: Role::Leaf { facts: json!({}) },
    };
    app.start(SocketAddr::from(([127, 0, 0, 1], 0))).await
}

pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

/// The name of the backend that answers at `port`.
pub async fn instance(port: u16) -> Result<String> {
    let answer = http::get(url(port)).await?.ok()?.json()?;
    Ok(answer["instance"].as_str().context("no instance")?.to_owned())
}

pub async fn wait_instance(port: u16, name: &str) -> Result<()> {
    wait::until(&format!("answers of {name}"), wait::STEP, || async {
        let found = instance(port).await?;
        ensure!(found == name, "{found} answers");
        Ok(())
    })
    .await
}

pub async fn wait_body(port: u16, body: &str) -> Result<()> {
    wait::until(&format!("the answer {body}"), wait::STEP, || async {
        let found = http::get(url(port)).await?.ok()?.text();
        ensure!(found == body, "the answer is {found}");
        Ok(())
    })
    .await
}

/// Waits for a counter or gauge to be as `expected` says.
pub async fn wait_stat(envoy: &Envoy, name: &str, expected: impl Fn(u64) -> bool) -> Result<()> {
    wait::until(name, wait::STEP, || async {
        let found = envoy.stat(name).await?;
        ensure!(expected(found), "it is {found}");
        Ok(())
    })
    .await
}

/// The sum of all counters and gauges whose names match.
pub async fn sum(envoy: &Envoy, filter: &str) -> Result<u64> {
    Ok(envoy.stats(filter).await?.values().sum())
}

/// Names of the clusters in use that came over xDS.
pub async fn clusters(envoy: &Envoy) -> Result<Vec<String>> {
    let page = envoy.clusters().await?;
    let names = page["cluster_statuses"].as_array().into_iter().flatten();
    let mut names: Vec<String> =
        names.filter_map(|cluster| Some(cluster["name"].as_str()?.to_owned())).collect();
    names.retain(|name| name != "xds");
    names.sort();
    Ok(names)
}

pub async fn wait_clusters(envoy: &Envoy, expected: &[&str]) -> Result<()> {
    wait::until(&format!("clusters {expected:?}"), wait::STEP, || async {
        let found = clusters(envoy).await?;
        ensure!(found == expected, "there are {found:?}");
        Ok(())
    })
    .await
}

/// A section of `/config_dump`, for example `dynamic_active_clusters`.
pub async fn dump(envoy: &Envoy, section: &str) -> Result<Vec<Value>> {
    let page = envoy.admin_get(&format!("/config_dump?resource={section}")).await?.ok()?.json()?;
    Ok(page["configs"].as_array().cloned().unwrap_or_default())
}

/// Envoy never went on without an answer, and refused nothing.
pub async fn assert_clean(envoy: &Envoy) -> Result<()> {
    let stalls =
        sum(envoy, "(init_fetch_timeout|assignment_use_cached|assignment_timeout_received)$").await?;
    ensure!(stalls == 0, "{stalls} stalls");
    let rejections = envoy.rejections().await?;
    ensure!(rejections.is_empty(), "{rejections:?}");
    Ok(())
}
