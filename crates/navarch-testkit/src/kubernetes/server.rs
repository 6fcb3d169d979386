//! etcd and kube-apiserver, started and stopped.

use super::{
    obtain,
    store::{self, Store},
    trust::{TOKEN, Trust},
};
use crate::{
    http::{Answer, Call},
    ports,
    process::Process,
    wait, workspace,
};
use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

/// Whom tokens are for that API servers believe.
const AUDIENCE: &str = "https://kubernetes.default.svc";

/// How long an API server may take to start on a busy machine.
const START: Duration = Duration::from_secs(180);

/// An API server with an etcd of its own. Both are killed when dropped.
#[derive(Debug)]
pub struct ApiServer {
    /// Before etcd, so that it goes first: without its store it does not end by itself.
    server: Option<Process>,
    _etcd: Process,
    store: Store,
    address: SocketAddr,
    trust: Trust,
    dir: PathBuf,
    /// The collections of the definitions that it has been given.
    collections: Vec<String>,
}

/// One more kube-apiserver over the store of an [`ApiServer`]. It is killed when dropped.
#[derive(Debug)]
pub struct Another {
    pub address: SocketAddr,
    _server: Process,
}

impl ApiServer {
    /// Starts one on free ports, creates the given CustomResourceDefinitions in it and nothing else, and
    /// waits until it serves them.
    pub async fn start(name: &str, definitions: &[Value]) -> Result<ApiServer> {
        let binaries = obtain::binaries()?;
        let dir = workspace::scratch(name)?;
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (client, peer) = (local(ports::free_port()?), local(ports::free_port()?));
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new(&binaries.etcd);
        command.args(["--unsafe-no-fsync", "--log-level=warn", "--data-dir"]).arg(dir.join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let mut etcd = Process::start("etcd", &mut command, &dir.join("etcd.log"))?;
        let store = Store { url: client };
        wait::until("etcd to answer", START, || {
            let (running, call) = (etcd.check_running(), Call::get(format!("{}/health", store.url)));
            async move {
                running?;
                call.send().await?.ok()
            }
        })
        .await?;
        let trust = Trust::make(&dir)?;
        let address = local(ports::free_port()?);
        let mut started =
            ApiServer { server: None, _etcd: etcd, store, address, trust, dir, collections: Vec::new() };
        started.write_kubeconfig("kubeconfig", &json!({"token": TOKEN}))?;
        started.start_again().await?;
        for definition in definitions {
            started.define(definition).await?;
        }
        started.wait_served().await?;
        Ok(started)
    }

    /// Starts kube-apiserver after [`ApiServer::stop`], on the same address with the same objects.
    pub async fn start_again(&mut self) -> Result<()> {
        self.server = Some(self.launch(self.address).await?);
        self.wait_served().await
    }

    /// Starts another kube-apiserver with the same objects, on an address of its own.
    pub async fn start_another(&self) -> Result<Another> {
        self.start_another_at(SocketAddr::from(([127, 0, 0, 1], ports::free_port()?))).await
    }

    /// The same on a given address: that of one that was dropped.
    pub async fn start_another_at(&self, address: SocketAddr) -> Result<Another> {
        Ok(Another { address, _server: self.launch(address).await? })
    }

    async fn launch(&self, address: SocketAddr) -> Result<Process> {
        let mut command = Command::new(&obtain::binaries()?.kube_apiserver);
        let (port, trust) = (address.port().to_string(), &self.trust);
        for (flag, value) in [
            ("etcd-servers", self.store.url.as_str()),
            ("bind-address", "127.0.0.1"),
            ("advertise-address", "127.0.0.1"),
            ("secure-port", &port),
            ("tls-cert-file", &trust.file("server.crt")),
            ("tls-private-key-file", &trust.file("server.key")),
            ("client-ca-file", &trust.file("ca.crt")),
            ("token-auth-file", &trust.file("tokens.csv")),
            ("authorization-mode", "RBAC"),
            ("service-cluster-ip-range", "10.96.0.0/16"),
            ("service-account-issuer", AUDIENCE),
            ("service-account-key-file", &trust.file("accounts.pub")),
            ("service-account-signing-key-file", &trust.file("accounts.key")),
            ("api-audiences", AUDIENCE),
            // Endpoints of the service `kubernetes` may not be on loopback.
            ("endpoint-reconciler-type", "none"),
            // There is nobody who makes them.
            ("disable-admission-plugins", "ServiceAccount"),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        let log = self.dir.join(format!("kube-apiserver-{port}.log"));
        let mut server = Process::start("kube-apiserver", &mut command, &log)?;
        wait::until("kube-apiserver to be ready", START, || {
            let (running, call) = (server.check_running(), self.call_at(address, Method::GET, "/readyz"));
            async move {
                running?;
                call.send().await?.ok()
            }
        })
        .await?;
        Ok(server)
    }

    /// Creates a CustomResourceDefinition.
    async fn define(&mut self, definition: &Value) -> Result<()> {
        let answer = self.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        answer.with_context(|| text(&definition["metadata"]["name"]))?;
        let spec = &definition["spec"];
        let (group, version, plural) =
            (&spec["group"], &spec["versions"][0]["name"], &spec["names"]["plural"]);
        self.collections.push(format!("/apis/{}/{}/{}", text(group), text(version), text(plural)));
        Ok(())
    }

    async fn wait_served(&self) -> Result<()> {
        for collection in &self.collections {
            wait::until(&format!("{collection} to be served"), START, || self.get(collection)).await?;
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends kube-apiserver with SIGKILL. What it has stored stays.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// A kubeconfig of an administrator. Its only context is `under-test`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A token of a service account (TokenRequest) for an audience.
    pub async fn token(&self, namespace: &str, account: &str, audience: &str) -> Result<String> {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience]},
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.create(&path, &request).await?.json()?;
        Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
    }

    /// A kubeconfig of a service account, which may do what roles say.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.token(namespace, account, AUDIENCE).await?;
        self.write_kubeconfig(&format!("kubeconfig-{namespace}-{account}"), &json!({"token": token}))
    }

    /// A kubeconfig of an administrator who reaches it at another address.
    pub fn kubeconfig_at(&self, address: SocketAddr) -> Result<PathBuf> {
        self.write_kubeconfig_at(address, &format!("kubeconfig-{}", address.port()), &json!({"token": TOKEN}))
    }

    /// Writes a kubeconfig of somebody else, whose `user` says how they prove who they are.
    pub fn write_kubeconfig(&self, name: &str, user: &Value) -> Result<PathBuf> {
        self.write_kubeconfig_at(self.address, name, user)
    }

    fn write_kubeconfig_at(&self, address: SocketAddr, name: &str, user: &Value) -> Result<PathBuf> {
        let cluster = json!({
            "server": format!("https://{address}"),
            "certificate-authority": self.trust.file("ca.crt"),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "under-test",
            "clusters": [{"name": "under-test", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "under-test", "context": {"cluster": "under-test", "user": "user"}}],
        });
        let path = self.dir.join(name);
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// A call of an administrator.
    fn call(&self, method: Method, path: &str) -> Call {
        self.call_at(self.address, method, path)
    }

    fn call_at(&self, address: SocketAddr, method: Method, path: &str) -> Call {
        let call = Call::get(format!("https://{address}{path}")).method(method);
        call.tls(self.trust.client.clone()).header("authorization", &format!("Bearer {TOKEN}"))
    }

    /// Reads an object, or a list of them.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path).send().await?.ok()?.json()
    }

    /// Creates an object below the path of its collection.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Answer> {
        let call = self.call(Method::POST, path).header("content-type", "application/json");
        call.body(object.to_string()).within(wait::STEP).send().await?.ok()
    }

    /// Applies an object on the server's side, as `kubectl apply --server-side` does.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Answer> {
        let path = format!("{path}?fieldManager=test&force=true");
        let call = self.call(Method::PATCH, &path).header("content-type", "application/apply-patch+yaml");
        call.body(object.to_string()).within(wait::STEP).send().await?.ok()
    }

    /// Any request with a body: its media type and the body.
    pub async fn send(&self, method: Method, path: &str, body: (&str, &str)) -> Result<Answer> {
        let (media_type, body) = body;
        let call = self.call(method, path).header("content-type", media_type);
        call.body(body.to_owned()).within(wait::STEP).send().await?.ok()
    }

    /// The certificate and the key that it serves with.
    pub fn certificate(&self) -> [PathBuf; 2] {
        ["server.crt", "server.key"].map(|file| self.dir.join(file))
    }

    /// Has the server serve exactly these objects of a kind's plural from now on, beside what it
    /// has: see [`super::store`].
    pub async fn put(&self, group: &str, plural: &str, objects: &[Value]) -> Result<()> {
        let named = |object: &Value| {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            (store::key(group, plural, text("namespace"), text("name")), object.clone())
        };
        self.store.put(&objects.iter().map(named).collect::<Vec<_>>()).await
    }

    /// Removes all objects of a kind, however many, at once.
    pub async fn clear(&self, group: &str, plural: &str) -> Result<()> {
        self.store.remove_below(&format!("{}/", store::prefix(group, plural))).await
    }
}
