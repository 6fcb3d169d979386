//! `navarch serve --kubernetes` as a user with few permissions, of an API server that puts it off.

mod common;

use anyhow::{Context, Result, ensure};
use common::{Fixture, api_server::serve_as, applied::apply, received, routes, settled};
use http::Method;
use navarch_model::values::Json;
use navarch_testkit::{kubernetes, navarch, navarch::Server, wait, workspace};
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The namespace of the control plane.
const SYSTEM: &str = "istio-system";

/// Gives the user `navarch` what an installation gives to the control plane, and no more.
async fn permit(cluster: &kubernetes::ApiServer) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}});
    cluster.create("/api/v1/namespaces", &namespace).await?;
    let text = navarch::stdout(["install", "--image", "navarch:1", "-o", "yaml"])?;
    let user = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "navarch"}]);
    let mut bound = 0;
    for document in text.split("\n---\n") {
        let mut object = Json::parse(document).map_err(anyhow::Error::msg)?.to_serde();
        let plural = match object["kind"].as_str() {
            Some("ClusterRole") => "clusterroles".to_owned(),
            Some("ClusterRoleBinding") => "clusterrolebindings".to_owned(),
            Some("Role") => format!("namespaces/{SYSTEM}/roles"),
            Some("RoleBinding") => format!("namespaces/{SYSTEM}/rolebindings"),
            _ => continue,
        };
        if object["subjects"].is_array() {
            object["subjects"] = user.clone();
            bound += 1;
        }
        let group = "/apis/rbac.authorization.k8s.io/v1";
        cluster.create(&format!("{group}/{plural}"), &object).await?;
    }
    ensure!(bound == 2, "{bound} bindings in an installation");
    Ok(())
}

/// A program that gives out a token that is too old to be kept, notes that it was asked, and fails while a
/// file `silent` is there.
fn token_program(directory: &Path) -> Result<PathBuf> {
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": kubernetes::USER_TOKEN, "expirationTimestamp": "2026-01-01T00:00:00Z"},
    });
    let program = directory.join("token");
    let at = directory.display();
    let text = format!(
        "#!/bin/sh\necho asked >> '{at}/asked'\ntest ! -e '{at}/silent' || exit 1\necho '{credential}'\n"
    );
    std::fs::write(&program, text)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// Waits until the server does not hear the API server, and says why.
async fn until_unheard(server: &Server, why: &str) -> Result<()> {
    wait::until(why, wait::STEP, || async {
        let said = server.admin_get("/debug/sources").await?.text();
        ensure!(said.contains(why), "{said}");
        Ok(())
    })
    .await
}

async fn until_heard(server: &Server) -> Result<()> {
    wait::until("all kinds to be heard", wait::STEP, || async {
        let unheard = server.metric("navarch_source_unheard").await?;
        ensure!(unheard == 0.0, "{unheard} kinds are not heard: {}", server.command(&["proxy-status"])?);
        Ok(())
    })
    .await
}

const FLOW_CONTROL: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// Has the API server put off everything that the user asks for ("API Priority and Fairness").
async fn put_off(cluster: &kubernetes::ApiServer) -> Result<()> {
    let of = |kind: &str, spec: Value| {
        let version = "flowcontrol.apiserver.k8s.io/v1";
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": "later"}, "spec": spec})
    };
    let limited = json!({
        "nominalConcurrencyShares": 0,
        "lendablePercent": 0,
        "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"},
    });
    let level = of("PriorityLevelConfiguration", json!({"type": "Limited", "limited": limited}));
    cluster.create(&format!("{FLOW_CONTROL}/prioritylevelconfigurations"), &level).await?;
    let flow = json!({
        "priorityLevelConfiguration": {"name": "later"},
        "matchingPrecedence": 2,
        "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "navarch"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
        }],
    });
    cluster.create(&format!("{FLOW_CONTROL}/flowschemas"), &of("FlowSchema", flow)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_few_permissions_who_is_put_off_or_has_no_token_keeps_serving() -> Result<()> {
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    let definitions = printed["items"].as_array().context("a list")?;
    let mut cluster = kubernetes::ApiServer::start("permissions-cluster", definitions).await?;
    permit(&cluster).await?;
    let directory = workspace::scratch("permissions-token")?;
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": token_program(&directory)?,
        "interactiveMode": "Never",
    });
    let kubeconfig = cluster.write_kubeconfig("kubeconfig-of-a-user", &json!({"exec": exec}))?;
    let fixture = Fixture::new("permissions").await?;
    for file in ["service.yaml", "workload-v1.yaml", "workload-v2.yaml", "routes.yaml"] {
        apply(&cluster, &std::fs::read_to_string(fixture.config.join(file))?).await?;
    }
    let server = serve_as("permissions-server", &kubeconfig, SYSTEM).await?;
    let envoy = fixture.sidecar("permissions-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    until_heard(&server).await?;
    let asked = || std::fs::read_to_string(directory.join("asked")).map(|text| text.lines().count());
    let (before, asked_before) = (settled(&envoy).await?, asked()?);
    ensure!(asked_before > 1, "a token that has expired is asked for again");

    // Connections end, and whoever comes back is put off.
    put_off(&cluster).await?;
    cluster.stop();
    cluster.start_again().await?;
    until_unheard(&server, "the API server says 429").await?;
    let now = settled(&envoy).await?;
    ensure!(fixture.version().await? == "v1" && now.no_update_since(&before), "{before:?} {now:?}");
    cluster
        .send(Method::DELETE, &format!("{FLOW_CONTROL}/flowschemas/later"), ("application/json", ""))
        .await?;
    apply(&cluster, &routes("v2")).await?;
    fixture.wait_for("v2").await?;
    until_heard(&server).await?;

    // Nobody gives out tokens.
    let before = settled(&envoy).await?;
    std::fs::write(directory.join("silent"), "")?;
    cluster.stop();
    cluster.start_again().await?;
    until_unheard(&server, "auth exec command").await?;
    let now = received(&envoy).await?;
    ensure!(now.no_update_since(&before), "{before:?} {now:?}");
    std::fs::remove_file(directory.join("silent"))?;
    apply(&cluster, &routes("v1")).await?;
    fixture.wait_for("v1").await?;
    until_heard(&server).await?;
    ensure!(asked()? > asked_before, "nobody asked for a token");
    assert_eq!(envoy.rejections().await?, Default::default());
    Ok(())
}
