//! What a stock Envoy refuses and the model of it passes: it is learned, so that who comes later is well.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use navarch_testkit::{
    envoy::Envoy,
    http::Call,
    navarch::{self, Server},
    ports, wait, workspace,
};
use serde_json::Value;

/// A gateway without routes; of two patches the second is refused, since its script does what it cannot when
/// it is loaded. The grammar, which the model knows, is right.
fn configuration(port: u16, script: &str) -> String {
    let at = "{context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}";
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: edge}}
  servers: [{{bind: 127.0.0.1, port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: patches, namespace: default}}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {at}
    patch:
      operation: INSERT_BEFORE
      value: {{name: good, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, inline_code: 'function envoy_on_response(r) r:headers():add(\"x-good\", \"1\") end'}}}}
  - applyTo: HTTP_FILTER
    match: {at}
    patch:
      operation: INSERT_BEFORE
      value: {{name: bad, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, inline_code: '{script}'}}}}
"
    )
}

async fn gateway(name: &str, pod: &str, server: &Server) -> Result<Envoy> {
    let node = format!("router~127.0.3.7~{pod}.default~default.svc.cluster.local");
    let metadata =
        [("NAMESPACE", "default"), ("INSTANCE_IPS", "127.0.3.7"), ("LABELS", r#"{"istio":"edge"}"#)];
    let mut envoy = Envoy::start(name, navarch::bootstrap(&node, &metadata, server.xds(), &[])?).await?;
    envoy.wait_live().await?;
    Ok(envoy)
}

/// The HTTP filters of a gateway's only listener that the patches add.
async fn added_filters(envoy: &Envoy) -> Result<Vec<String>> {
    let dump: Value = envoy.config_dump().await?;
    let text = dump.to_string();
    let has = |name: &&&str| text.contains(&format!("\"name\":\"{name}\""));
    Ok(["good", "bad"].iter().filter(has).map(|name| (*name).to_owned()).collect())
}

async fn findings(server: &Server) -> Result<String> {
    Ok(server.admin_get("/debug/findings").await?.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_proxy_refuses_the_next_one_does_not_get() -> Result<()> {
    let directory = workspace::scratch("learned")?;
    let config = directory.join("config");
    std::fs::create_dir_all(&config)?;
    let port = ports::free_port()?;
    navarch::replace(&config.join("edge.yaml"), &configuration(port, "nobody()"))?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (xds, admin, secure) =
        (local(ports::free_port()?), local(ports::free_port()?), local(ports::free_port()?));
    let state = directory.join("state").display().to_string();
    let arguments = ["--state", &state, "--secure-addr", &secure.to_string()];
    let mut server = Server::start_on("learned-server", &config, xds, admin, &arguments).await?;

    let first = gateway("learned-first", "a", &server).await?;
    let answers = || async {
        let answer = Call::get(format!("http://127.0.0.1:{port}/")).send().await?;
        ensure!(answer.headers.contains_key("x-good"), "without the other patch");
        Ok(())
    };
    wait::until("the listener without the patch", wait::STEP, answers).await?;
    server.command(&["wait"])?;
    server.command(&["proxy-status"])?;
    wait::until("the finding", wait::STEP, || async {
        let said = findings(&server).await?;
        for part in ["NAV0318", "edge.yaml", "spec.configPatches[1].patch", "nobody"] {
            ensure!(said.contains(part), "no {part} in {said}");
        }
        Ok(())
    })
    .await?;
    let explained = server.command(&["explain", "a.def", "LDS", &format!("127.0.0.1_{port}")])?;
    ensure!(
        explained.contains("not   ") && explained.contains("spec.configPatches[1]: left out"),
        "{explained}"
    );
    first.terminate().await?;

    // Who comes later is well from the start, after a restart of the server too.
    for restart in [false, true] {
        if restart {
            server.restart().await?;
        }
        let later = gateway("learned-later", "b", &server).await?;
        wait::until("the listener", wait::STEP, answers).await?;
        assert_eq!(later.rejections().await?, Default::default(), "restarted: {restart}");
        assert_eq!(added_filters(&later).await?, ["good"]);
        later.terminate().await?;
    }

    // What is changed is tried at once, and what was refused stays so.
    let last = gateway("learned-last", "c", &server).await?;
    server.write("edge.yaml", &configuration(port, "x = 1"))?;
    wait::until("the changed patch", wait::STEP, || async {
        let found = added_filters(&last).await?;
        ensure!(found == ["good", "bad"], "{found:?}");
        ensure!(!findings(&server).await?.contains("NAV0318"), "still a finding");
        Ok(())
    })
    .await?;
    server.write("edge.yaml", &configuration(port, "nobody_else()"))?;
    wait::until("the other script", wait::STEP, || async {
        let said = findings(&server).await?;
        ensure!(said.contains("NAV0318") && said.contains("nobody_else"), "{said}");
        Ok(())
    })
    .await?;
    server.command(&["wait"])?;
    assert_eq!(added_filters(&last).await?, ["good"]);
    Ok(())
}
