//! Policies at a gateway, as calls feel them: a stock Envoy enforces what the control plane made of them.

mod common;

use anyhow::{Result, ensure};
use common::Fixture;
use navarch_testkit::{
    apps::{App, Role, Running},
    envoy::Envoy,
    http::Call,
    navarch::{self, Server},
    ports, wait, workspace,
};
use serde_json::{Value, json};
use std::net::SocketAddr;

const NODE: &str = "router~127.0.3.2~edge.default~default.svc.cluster.local";
const METADATA: [(&str, &str); 3] =
    [("NAMESPACE", "default"), ("INSTANCE_IPS", "127.0.3.2"), ("LABELS", r#"{"istio":"edge"}"#)];

/// The public key of `issuer.test`; its private key was thrown away after signing the tokens below.
const MODULUS: &str = concat!(
    "zpiWTgTRfEHKpWlFKhvIwTZ8RHABPGnrjNabUn1JkuvW_sVp6VXyWLHrIarbqPtT3EEblZkiFvCuy69YeGGnRONbLk",
    "WSz9Fr4wy6jTXG3T5DRzTyXHYhhJtwqR6WZ8VOBnJtn8DpQjp7gvL1Hf2p_exmjy8lLnNJnQ-vYF_t6OjSTUu8vgie",
    "LtCUGUp_nUtuWBt99-h7pXBYN0odBf8hNiaYpxNeJgtVJxkVp6-8s_bzAAnKcKYweI1zAYOGAalLA4sB32VlEnKMXm",
    "u7F2Qbt5yrk2lPA_t7jy7en4blQWAOzSpFDSM7CFDlN4o1yMaSZ7gaKi_IpAz25ixFR17PGw",
);
/// Of `reader`, who is in the group `readers`; valid until 2100.
const READER: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InRlc3QifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN",
    "0Iiwic3ViIjoicmVhZGVyIiwiZ3JvdXBzIjpbInJlYWRlcnMiXSwiZXhwIjo0MTAyNDQ0ODAwfQ.vCDXD_UIhWsUuI",
    "7msSxRKukHVnUh0mgqMB2BgVgWItpV82iwzK1EUw-BNrTNP3Ouo-g-qa6Cqrmo5RMDrwdI7-W9Ydesqg1cEqLRh23P",
    "uKCbH_psATBX6j1d26EArLmtSJuVJxOJnl8_z0jxUciUYaIMk9E50Hd-rHO6ko_FSFnLJH70gFYn9Uaq5eyjrkdWLd",
    "XyJeKBx-VTLOmntQe9CZhtfVs4LVjyvl7_aDmPa6mUg6R46Pj55c-tIH-VfkPzcblz9LGFp5Vii8fPIif_GlcS8g7c",
    "COPfQKbh-bDQ89sGnw92ddkOaVLSIX0OCMts2kFBb9xlpowC8Xhck9w7eg",
);
/// Of `other`, who is in no group; valid until 2100.
const OTHER: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InRlc3QifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN",
    "0Iiwic3ViIjoib3RoZXIiLCJleHAiOjQxMDI0NDQ4MDB9.ZYRTgHT7aieqrnQ9ROqPB64yjAP-zgtD6s3G8g9VEr6_",
    "bGJnFIAqkbyAbfgc71EspSqBnYZGazB3fuBS5iXFAv8iz_jZO1oykaA6nORs5IOCO0CbDuf-3Ue7gOFVRcByXoT7C3",
    "8PrfSui-ikebS3pv8QHTLkTq4mcXZETd-HXn7HN39rxPJKvEn_mAXYPT9zrjTKozaDyKL6Ff-VR1CZgk09BhDJ45ZC",
    "2-jhGhbFhqHy5nr48vN-bC0mbPXj0Lj3XjDFgrOfzMBD_3oun3y6U81VzbnTRliWcS96CY3VznJ3LAJNsbAFFH1h8I",
    "t0-S17vz3UBr34_JlVXpUz3cwPJw",
);
/// Of `reader`, expired in 2000.
const EXPIRED: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InRlc3QifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN",
    "0Iiwic3ViIjoicmVhZGVyIiwiZXhwIjo5NDY2ODQ4MDB9.LAdAZbtwL_yITn5__iBUuJcse3gdas-CnjfHmc7sjjLu",
    "EOn2HcOgHjS1ji6xP2O5ArkzNp2VDoqXQ83bg13INmPkCcgRDmMQrnayZ5aKjfrZFcyg6FbVjmqjH6ACu6IarEQa6U",
    "8QMxw-yrSwsuNbX0tRN4pQ01WZ02-Ik0VgIbgveQ-UVEt1H2i_jrX5YlcrW9YCQ9HYIwg_kc9a4w4pWjql8mYC5PFK",
    "1FkjKgy5eWH6WrFVLDinC52P9ctROW_cTPk9TL9kdWrRJe9jy_WiGbuwVcqz0FxUGHbXFEzdOMRcVwnBL7KHUTdPSI",
    "KWEFoD898MsKZlKnvUPs7iF4b2cw",
);

/// A gateway in front of the fixture's service, and the control plane of both.
struct Edge {
    fixture: Fixture,
    envoy: Envoy,
    port: u16,
    server: Server,
}

/// A call: path, headers, and the status that it should get.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

impl Edge {
    async fn new(name: &str) -> Result<Edge> {
        Edge::with(name, &[]).await
    }

    /// The same, with more arguments for the server.
    async fn with(name: &str, more: &[&str]) -> Result<Edge> {
        let fixture = Fixture::new(name).await?;
        let port = ports::free_port()?;
        fixture.write("gateway.yaml", &gateway(port))?;
        let authorizer = format!(
            "extensionProviders:
  - name: checker
    envoyExtAuthzHttp: {{service: echo.test, port: {}, timeout: 5s}}
  - name: nowhere
    envoyExtAuthzHttp: {{service: absent.test, port: 80}}
",
            fixture.port
        );
        let mesh = fixture.config.with_file_name("mesh.yaml");
        std::fs::write(&mesh, authorizer)?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
        let mesh = mesh.display().to_string();
        let server = Server::start_on(
            &format!("{name}-server"),
            &fixture.config,
            xds,
            admin,
            &[&["--mesh-config", mesh.as_str()], more].concat(),
        )
        .await?;
        let bootstrap = navarch::bootstrap(NODE, &METADATA, xds, &[])?;
        let mut envoy = Envoy::start(&format!("{name}-envoy"), bootstrap).await?;
        envoy.wait_live().await?;
        Ok(Edge { fixture, envoy, port, server })
    }

    async fn status(&self, path: &str, headers: &[(&str, &str)]) -> Result<u16> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let call = headers.iter().fold(Call::get(url), |call, (name, value)| call.header(name, value));
        Ok(call.header("host", "echo.test").send().await?.status.as_u16())
    }

    /// Writes a policy and waits until all calls get the status they should.
    async fn expect(&self, policy: &str, calls: &[Expected<'_>]) -> Result<()> {
        self.fixture.write("policy.yaml", policy)?;
        wait::until("the policy to be enforced", wait::STEP, || async {
            for (path, headers, expected) in calls {
                let found = self.status(path, headers).await?;
                ensure!(
                    found == *expected,
                    "{path} {headers:?}: {found} instead of {expected} with {policy}"
                );
            }
            Ok(())
        })
        .await?;
        assert_eq!(self.envoy.rejections().await?, Default::default());
        Ok(())
    }
}

fn gateway(port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{istio: edge}}
  servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, bind: 127.0.0.1, hosts: [echo.test]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge, namespace: default}}
spec:
  hosts: [echo.test]
  gateways: [edge]
  http: [{{route: [{{destination: {{host: echo.test, subset: v1}}}}]}}]
"
    )
}

fn authorization(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: edge}}}}
{spec}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn authorization_policies_allow_deny_and_ask() -> Result<()> {
    let edge = Edge::new("authorization").await?;
    let team = [("x-team", "a")];
    edge.expect("", &[("/", &[], 200)]).await?;
    edge.expect(
        &authorization(
            "  action: DENY\n  rules: [{to: [{operation: {paths: [/admin*], notMethods: [HEAD]}}]}]\n",
        ),
        &[("/", &[], 200), ("/admin/x?y=1", &[], 403)],
    )
    .await?;
    let by_header = "  rules: [{when: [{key: 'request.headers[x-team]', values: [a, b*]}]}]\n";
    edge.expect(
        &authorization(by_header),
        &[
            ("/", &[], 403),
            ("/", &team, 200),
            ("/", &[("x-team", "bc")], 200),
            ("/", &[("x-team", "c")], 403),
        ],
    )
    .await?;
    edge.expect(
        &authorization("  rules: [{to: [{operation: {paths: ['/a/{*}/c', '/d/{**}']}}]}]\n"),
        &[("/a/b/c", &[], 200), ("/a/b/b/c", &[], 403), ("/d/e/f", &[], 200), ("/", &[], 403)],
    )
    .await?;
    // A policy without rules allows nothing.
    edge.expect(&authorization("  action: ALLOW\n"), &[("/", &[], 403)]).await?;
    let custom = |provider| {
        let rules = "  rules: [{to: [{operation: {paths: [/asked]}}]}]\n";
        authorization(&format!("  action: CUSTOM\n  provider: {{name: {provider}}}\n{rules}"))
    };
    // The fixture's service says yes to everything.
    edge.expect(&custom("checker"), &[("/asked", &[], 200), ("/", &[], 200)]).await?;
    // Nobody can be asked: what the policy matches is denied.
    edge.expect(&custom("nowhere"), &[("/asked", &[], 403), ("/", &[], 200)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_checked_and_claims_authorize() -> Result<()> {
    let edge = Edge::new("tokens").await?;
    let bearer = |token: &str| format!("Bearer {token}");
    let (reader, other, expired) = (bearer(READER), bearer(OTHER), bearer(EXPIRED));
    let (reader, other, expired) = (
        [("authorization", reader.as_str())],
        [("authorization", other.as_str())],
        [("authorization", expired.as_str())],
    );
    let garbage = [("authorization", "Bearer none")];
    let keys = format!(r#"{{"keys":[{{"kty":"RSA","kid":"test","e":"AQAB","n":"{MODULUS}"}}]}}"#);
    let tokens = |keys: &str| {
        format!(
            "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: edge}}}}
  jwtRules: [{{issuer: https://issuer.test{keys}}}]
---
"
        )
    };
    let inline = tokens(&format!(", jwks: '{keys}'"));
    // A missing token is nobody's business but an authorization policy's.
    edge.expect(&inline, &[("/", &[], 200), ("/", &reader, 200), ("/", &expired, 401), ("/", &garbage, 401)])
        .await?;
    let principal = "  rules: [{from: [{source: {requestPrincipals: ['https://issuer.test/*']}}]}]\n";
    edge.expect(
        &format!("{inline}{}", authorization(principal)),
        &[("/", &[], 403), ("/", &reader, 200), ("/", &other, 200), ("/", &expired, 401)],
    )
    .await?;
    let group = "  rules: [{when: [{key: 'request.auth.claims[groups]', values: [readers]}]}]\n";
    edge.expect(
        &format!("{inline}{}", authorization(group)),
        &[("/", &[], 403), ("/", &reader, 200), ("/", &other, 403)],
    )
    .await?;
    // Keys that nobody fetched: no token is good enough.
    edge.expect(&tokens(", jwksUri: https://issuer.test/keys"), &[("/", &[], 200), ("/", &reader, 401)]).await
}

/// An issuer that publishes `facts` under every path.
async fn issuer(facts: Value) -> Result<Running> {
    let role = Role::Leaf { facts };
    let app = App { service: "issuer".into(), version: "v1".into(), instance: "issuer".into(), role };
    app.start(SocketAddr::from(([127, 0, 0, 1], 0))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_and_survive_their_issuer() -> Result<()> {
    let state = workspace::scratch("fetched-state")?.join("state");
    let state = state.display().to_string();
    let secure = format!("127.0.0.1:{}", ports::free_port()?);
    let allowed = ["--state", &state, "--secure-addr", &secure, "--fetch-allow", "127.0.0.1/32"];
    let mut edge = Edge::with("fetched", &allowed).await?;
    // One that cannot be read does not take the other with it.
    let key = json!({"kty": "RSA", "kid": "test", "e": "AQAB", "n": MODULUS});
    let keys = issuer(json!({"keys": [key, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}]})).await?;
    let discovery = issuer(json!({"jwks_uri": format!("http://{}/keys", keys.address())})).await?;
    let reader = format!("Bearer {READER}");
    let reader = [("authorization", reader.as_str())];
    let expired = format!("Bearer {EXPIRED}");
    let expired = [("authorization", expired.as_str())];
    let policy = |source: &str| {
        format!(
            "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: edge}}}}
  jwtRules: [{{issuer: https://issuer.test, jwksUri: '{source}'}}]
"
        )
    };
    let works: [Expected<'_>; 3] = [("/", &[], 200), ("/", &reader, 200), ("/", &expired, 401)];
    edge.expect(&policy(&format!("http://{}/keys", keys.address())), &works).await?;
    let discovered = policy(&format!("http://{}/.well-known/openid-configuration", discovery.address()));
    edge.expect(&discovered, &works).await?;
    // What Envoy has may be from before the policy named another place.
    let at = discovery.address().to_string();
    wait::until("the keys to be fetched from where the issuer says", wait::STEP, || async {
        let found = edge.server.admin_get("/debug/issuers").await?.text();
        let is_known = found.contains("\"has_keys\":true") && found.contains("\"error\":null");
        ensure!(is_known && found.contains(&at), "{found}");
        Ok(())
    })
    .await?;

    // The issuer is gone, and the server starts again: what it knew is good enough.
    drop((keys, discovery));
    edge.server.kill();
    edge.server.restart().await?;
    edge.expect(&discovered, &works).await?;
    wait::until("the failure to be said", wait::STEP, || async {
        let said = edge.server.admin_get("/debug/findings").await?.text();
        ensure!(said.contains("the keys that were fetched before stay in use"), "{said}");
        Ok(())
    })
    .await?;

    // What was never fetched is not made up, and an address that is near is not asked.
    let near = policy("http://[::1]:1/keys");
    edge.expect(&near, &[("/", &[], 200), ("/", &reader, 401)]).await?;
    wait::until("the refusal to be said", wait::STEP, || async {
        let said = edge.server.admin_get("/debug/findings").await?.text();
        ensure!(said.contains("it is loopback") && said.contains("--fetch-allow"), "{said}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_puts_a_script_into_the_chain() -> Result<()> {
    let edge = Edge::new("patch").await?;
    let patch = "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: edge, namespace: default}
spec:
  workloadSelector: {labels: {istio: edge}}
  configPatches:
    - applyTo: HTTP_FILTER
      match:
        context: GATEWAY
        listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}
      patch:
        operation: INSERT_BEFORE
        value:
          name: teapot
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
            default_source_code:
              inline_string: |
                function envoy_on_request(handle)
                  if handle:headers():get(':path') == '/tea' then handle:respond({[':status'] = '418'}, '') end
                end
    - applyTo: HTTP_ROUTE
      match: {context: GATEWAY, routeConfiguration: {vhost: {route: {action: ROUTE}}}}
      patch:
        operation: INSERT_BEFORE
        value: {name: gone, match: {path: /gone}, direct_response: {status: 410}}
";
    edge.expect(patch, &[("/", &[], 200), ("/tea", &[], 418), ("/gone", &[], 410)]).await?;
    edge.expect("", &[("/tea", &[], 200), ("/gone", &[], 200)]).await
}
