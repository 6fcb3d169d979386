//! `navarch serve` as the service account that `navarch install` makes, with an API server that decides by
//! roles (RBAC).

mod common;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::pki::Authority;
use navarch_testkit::agent::Agent;
use navarch_testkit::kubernetes::ApiServer;
use navarch_testkit::navarch::{self, Server};
use navarch_testkit::{ports, wait, workspace};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/edge/gateways";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/navarch-default";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/edge";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A control plane that is installed in an API server, and runs as the account that was installed.
struct Rig {
    cluster: ApiServer,
    server: Server,
    secure: SocketAddr,
    /// What it trusts and is trusted by.
    authority: PathBuf,
    directory: PathBuf,
}

impl Rig {
    /// `installed` are arguments of the installation, `more` of the server.
    async fn start(name: &str, installed: &[&str], more: &[&str]) -> Result<Rig> {
        let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
        let definitions = printed["items"].as_array().context("a list")?;
        let cluster = ApiServer::start(&format!("{name}-cluster"), definitions).await?;
        let admin = cluster.kubeconfig();
        let admin = ["--kubeconfig", admin.to_str().context("a path")?];
        let install = ["install", "--image", "registry.example.com/navarch:1"];
        navarch::stdout(install.iter().chain(installed).chain(&admin))?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "edge"}});
        cluster.apply("/api/v1/namespaces/edge", &namespace).await?;

        // What the Deployment gives a pod, there being nobody who runs pods.
        let directory = workspace::scratch(name)?;
        let authority = directory.join("ca");
        std::fs::create_dir_all(&authority)?;
        std::fs::create_dir_all(directory.join("config"))?;
        let secret = cluster.get("/api/v1/namespaces/istio-system/secrets/cacerts").await?;
        for (file, bytes) in secret["data"].as_object().context("data")? {
            std::fs::write(authority.join(file), STANDARD.decode(bytes.as_str().context("a text")?)?)?;
        }
        let settings = cluster.get("/api/v1/namespaces/istio-system/configmaps/navarch").await?;
        let settings_file = directory.join("injection");
        std::fs::write(&settings_file, settings["data"]["injection"].as_str().context("settings")?)?;
        let text = |path: PathBuf| path.display().to_string();
        let kubeconfig = text(cluster.kubeconfig_of("istio-system", "navarch").await?);
        let (state, ca, settings) =
            (text(directory.join("state")), text(authority.clone()), text(settings_file));
        let (secure, hooks) = (local(ports::free_port()?), local(ports::free_port()?));
        let (secure_text, hooks_text) = (secure.to_string(), hooks.to_string());
        let usual = [
            "--kubernetes",
            "--kubeconfig",
            &kubeconfig,
            "--state",
            &state,
            "--ca-dir",
            &ca,
            "--secure-addr",
            &secure_text,
            "--webhook-addr",
            &hooks_text,
            "--inject-settings",
            &settings,
            "--tls-name",
            "localhost",
        ];
        let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
        let arguments = [&usual[..], more].concat();
        let server = Server::start_on(name, &directory.join("config"), xds, admin, &arguments).await?;
        Ok(Rig { cluster, server, secure, authority, directory })
    }

    async fn gateway(&self, name: &str) -> Result<()> {
        let gateway = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": name, "namespace": "edge"},
            "spec": {
                "gatewayClassName": "navarch",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        });
        self.cluster.apply(&format!("{GATEWAYS}/{name}"), &gateway).await.map(|_| ())
    }

    /// Waits until a Gateway's status says that it is accepted.
    async fn accepted(&self, name: &str) -> Result<()> {
        wait::until("the status of the Gateway", wait::STEP, || async {
            let found = self.cluster.get(&format!("{GATEWAYS}/{name}")).await?;
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_accepted = |condition: &Value| {
                condition["type"] == "Accepted"
                    && condition["status"] == "True"
                    && condition["observedGeneration"] == 1
            };
            ensure!(conditions.iter().any(is_accepted), "{conditions:?}");
            Ok(())
        })
        .await
    }

    /// The agent of a gateway, with a token of its service account.
    async fn agent(&self, account: &str) -> Result<Agent> {
        let token = self.directory.join(format!("{account}.token"));
        std::fs::write(&token, self.cluster.token("edge", account, "istio-ca").await?)?;
        let root = self.authority.join("ca.crt").display().to_string();
        let server = format!("localhost:{}", self.secure.port());
        let token = token.display().to_string();
        let arguments = [
            "gateway",
            "--service",
            account,
            "--name",
            account,
            "-n",
            "edge",
            "--service-account",
            account,
            "--label",
            "istio=edge",
            "--ip",
            "127.0.0.1",
            "--server",
            &server,
            "--root",
            &root,
            "--token",
            &token,
            "--drain-min",
            "0s",
        ];
        Agent::start(&format!("agent-{account}"), &arguments, &[])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_is_permitted() -> Result<()> {
    let configurations = "mutating/navarch-istio-system-injector,validating/navarch-istio-system-validator";
    let more = ["--deploy-gateways", "--events", "--webhook-configuration", configurations];
    let rig = Rig::start("permissions", &[], &more).await?;
    let Rig { cluster, server, .. } = &rig;
    rig.gateway("web").await?;
    rig.accepted("web").await?;
    for (group, plural) in
        [("api/v1", "serviceaccounts"), ("apis/apps/v1", "deployments"), ("api/v1", "services")]
    {
        wait::until("what runs the Gateway", wait::STEP, || {
            let path = format!("/{group}/namespaces/edge/{plural}/web-navarch");
            async move { cluster.get(&path).await }
        })
        .await?;
    }
    let lease = cluster.get(LEASE).await?;
    ensure!(lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty()), "{lease}");
    for plural in [
        "mutatingwebhookconfigurations/navarch-istio-system-injector",
        "validatingwebhookconfigurations/navarch-istio-system-validator",
    ] {
        wait::until("our roots in the configurations of webhooks", wait::STEP, || async {
            let found = cluster.get(&format!("{ADMISSION}/{plural}")).await?;
            ensure!(found["webhooks"][0]["clientConfig"]["caBundle"].is_string(), "{found}");
            Ok(())
        })
        .await?;
    }
    wait::until("the roots of the mesh in every namespace", wait::STEP, || {
        cluster.get("/api/v1/namespaces/edge/configmaps/istio-ca-root-cert")
    })
    .await?;
    // A warning about it is an Event at it.
    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "web", "namespace": "edge"}, "spec": {"host": "nobody.example.com", "hots": "x"},
    });
    cluster.apply("/apis/networking.istio.io/v1/namespaces/edge/destinationrules/web", &rule).await.ok();
    let waypoint = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": "edge"},
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    });
    cluster.apply(&format!("{GATEWAYS}/waypoint"), &waypoint).await?;
    wait::until("an Event at the waypoint", wait::STEP, || async {
        let events = cluster.get("/apis/events.k8s.io/v1/namespaces/edge/events").await?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let is_told = |event: &Value| {
            event["regarding"]["name"] == "waypoint"
                && event["note"].as_str().is_some_and(|note| note.contains("there is no ambient mode here"))
        };
        ensure!(events.iter().any(is_told), "{events:?}");
        Ok(())
    })
    .await?;
    ensure!(
        cluster.get("/apis/apps/v1/namespaces/edge/deployments/waypoint-istio-waypoint").await.is_err(),
        "a waypoint is deployed"
    );
    let log = server.log();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("forbidden")).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_is_said_and_keeps_nothing_else_from_working() -> Result<()> {
    // As somebody who changes the arguments of the server and not its role.
    let rig =
        Rig::start("less-permissions", &["--no-gateways", "--no-injection"], &["--deploy-gateways"]).await?;
    rig.gateway("web").await?;
    rig.accepted("web").await?;
    let Rig { cluster, server, .. } = &rig;
    wait::until("what is not permitted to be said", wait::STEP, || async {
        let log = server.log();
        let said = log.lines().any(|line| line.contains("forbidden") && line.contains("serviceaccounts"));
        ensure!(said, "{log}");
        Ok(())
    })
    .await?;
    ensure!(
        cluster.get("/apis/apps/v1/namespaces/edge/deployments/web-navarch").await.is_err(),
        "it is made"
    );
    ensure!(
        cluster
            .get(&format!("{ADMISSION}/mutatingwebhookconfigurations/navarch-istio-system-injector"))
            .await
            .is_err()
    );
    // Another change is told all the same.
    rig.gateway("later").await?;
    rig.accepted("later").await?;
    ensure!(server.metric("navarch_gateways_pending").await? >= 1.0, "nothing is pending");
    ensure!(server.metric("navarch_source_unheard").await? == 0.0, "something is not heard");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_to_accounts_that_may_read_them() -> Result<()> {
    let rig = Rig::start("secret-readers", &["--no-gateways"], &[]).await?;
    let Rig { cluster, server, directory, .. } = &rig;
    let authority = Authority::new(directory, "issuer")?;
    let (certificate, key) = authority.sign("web", rcgen::SanType::DnsName("web.example.com".try_into()?))?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "web", "namespace": "edge"},
        "stringData": {
            "tls.crt": std::fs::read_to_string(certificate)?,
            "tls.key": std::fs::read_to_string(key)?,
        },
    });
    cluster.apply("/api/v1/namespaces/edge/secrets/web", &secret).await?;
    let port = ports::free_port()?;
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "edge"},
        "spec": {"selector": {"istio": "edge"}, "servers": [{
            "port": {"number": port, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"],
            "tls": {"mode": "SIMPLE", "credentialName": "web"},
        }]},
    });
    cluster.apply("/apis/networking.istio.io/v1/namespaces/edge/gateways/edge", &gateway).await?;
    for account in ["reader", "other"] {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": "edge"}});
        cluster.apply(&format!("/api/v1/namespaces/edge/serviceaccounts/{account}"), &object).await?;
    }
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "read-secrets", "namespace": "edge"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
    });
    cluster.apply(&format!("{RBAC}/roles/read-secrets"), &role).await?;
    let bind = |account: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": account, "namespace": "edge"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "read-secrets"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "edge"}],
        })
    };
    cluster.apply(&format!("{RBAC}/rolebindings/reader"), &bind("reader")).await?;

    let has_key = async |agent: &Agent| -> Result<()> {
        let dump = agent.envoy("/config_dump?resource=dynamic_active_secrets").await?.text();
        ensure!(dump.contains("kubernetes://web"), "{dump}");
        Ok(())
    };
    let reader = rig.agent("reader").await?;
    wait::until("the key", wait::STEP, || has_key(&reader)).await?;

    let other = rig.agent("other").await?;
    wait::until("the refusal to be shown", wait::STEP, || async {
        let said = server.command(&["proxy-status"])?;
        ensure!(
            said.contains("the service account edge/other may not list Secrets in its namespace"),
            "{said}"
        );
        Ok(())
    })
    .await?;
    ensure!(has_key(&other).await.is_err(), "it has the key");
    wait::until("a finding", wait::STEP, || async {
        let findings = server.admin_get("/debug/findings").await?.text();
        ensure!(findings.contains("Secret edge/web is withheld from proxies of edge/other"), "{findings}");
        ensure!(!findings.contains("edge/reader"), "{findings}");
        Ok(())
    })
    .await?;
    // Once it may, it gets the key; nobody has to connect again.
    cluster.apply(&format!("{RBAC}/rolebindings/other"), &bind("other")).await?;
    wait::until("the key of the other", 5 * wait::STEP, || has_key(&other)).await?;
    let said = server.command(&["proxy-status"])?;
    ensure!(!said.contains("may not list Secrets"), "{said}");
    has_key(&reader).await
}
