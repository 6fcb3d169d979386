//! Routes for clients of services.

use super::rig::{apply, expect, expect_from, name_of, nothing_rejected, route, service, start};
use crate::backend::Backend;
use anyhow::{Result, ensure};
use http::Method;
use navarch_testkit::{envoy::Envoy, http::Call, navarch::Server, ports};

const NODE: &str = "sidecar~127.0.3.5~client.front~front.svc.cluster.local";
const METADATA: [(&str, &str); 3] =
    [("NAMESPACE", "front"), ("INSTANCE_IPS", "127.0.3.5"), ("INTERCEPTION_MODE", "NONE")];

/// A stock Envoy beside a client in the namespace `front`, and services in `shop`.
pub struct Mesh {
    server: Server,
    envoy: Envoy,
    /// The port of all services, at which the sidecar listens for them.
    port: u16,
}

impl Mesh {
    pub async fn new(name: &str) -> Result<Mesh> {
        let port = ports::free_port()?;
        let sidecar = format!(
            "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: front}}
spec:
  egress:
  - port: {{number: {port}, name: http, protocol: HTTP}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ['*/*']
"
        );
        let (server, envoy) = start(name, &sidecar, NODE, &METADATA).await?;
        Ok(Mesh { server, envoy, port })
    }

    /// Writes services, and an HTTPRoute in a namespace for clients of the first of them; `PORT` stands for
    /// the port. Returns the host.
    async fn route(&self, namespace: &str, rules: &str, services: &[(&str, &Backend)]) -> Result<String> {
        self.route_of("HTTPRoute", namespace, rules, services).await
    }

    async fn route_of(
        &self,
        kind: &str,
        namespace: &str,
        rules: &str,
        services: &[(&str, &Backend)],
    ) -> Result<String> {
        let (name, _) = services.first().ok_or_else(|| anyhow::anyhow!("no service"))?;
        let spec = format!(
            "{{parentRefs: [{{group: '', kind: Service, name: {name}, namespace: shop}}], rules: {}}}",
            rules.replace("PORT", &self.port.to_string())
        );
        let file = format!("{name}-{namespace}");
        let objects: String =
            services.iter().map(|(name, backend)| service(name, "shop", self.port, backend)).collect();
        apply(&self.server, &file, &(objects + &route(kind, name, namespace, &spec))).await?;
        Ok(format!("{name}.shop.svc.cluster.local"))
    }

    /// A call of the client to `host`.
    fn call(&self, host: &str, path: &str) -> Call {
        let host = format!("{host}:{}", self.port);
        Call::get(format!("http://127.0.0.1:{}{path}", self.port)).header("host", &host)
    }

    pub async fn nothing_rejected(&self) -> Result<()> {
        nothing_rejected(&self.envoy).await
    }
}

pub async fn producer(mesh: &Mesh) -> Result<()> {
    let (old, new) = (Backend::echo("old").await?, Backend::echo("new").await?);
    let rules = "[{matches: [{path: {value: /new}}], backendRefs: [{name: p-new, port: PORT}]}, \
                 {backendRefs: [{name: p-old, port: PORT}]}]";
    let host = mesh.route("shop", rules, &[("p-old", &old), ("p-new", &new)]).await?;
    expect_from(&mesh.call(&host, "/new"), "new").await?;
    expect_from(&mesh.call(&host, "/"), "old").await.map(drop)
}

pub async fn consumer(mesh: &Mesh) -> Result<()> {
    let backend = Backend::echo("shared").await?;
    let set = |value: &str| {
        format!(
            "[{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: \
             {{set: [{{name: x-by, value: {value}}}]}}}}], \
             backendRefs: [{{name: c-one, namespace: shop, port: PORT}}]}}]"
        )
    };
    let host = mesh.route("shop", &set("producer"), &[("c-one", &backend)]).await?;
    let page = expect_from(&mesh.call(&host, "/"), "shared").await?;
    ensure!(page["headers"]["x-by"] == "producer", "{page}");
    // Of another namespace than the client's, it counts for nobody here; that of the client comes first.
    let spec = |namespace: &str| {
        let rules = set(namespace).replace("PORT", &mesh.port.to_string());
        let spec = format!(
            "{{parentRefs: [{{group: '', kind: Service, name: c-one, namespace: shop}}], rules: {rules}}}"
        );
        route("HTTPRoute", "c-one", namespace, &spec)
    };
    apply(&mesh.server, "consumers", &(spec("front") + &spec("elsewhere"))).await?;
    navarch_testkit::wait::until("the consumer's route", navarch_testkit::wait::STEP, || async {
        let page = mesh.call(&host, "/").send().await?.ok()?.json()?;
        ensure!(page["headers"]["x-by"] == "front", "{page}");
        Ok(())
    })
    .await
}

pub async fn rewrite_path(mesh: &Mesh) -> Result<()> {
    let backend = Backend::echo("rewritten").await?;
    let rules = "[{matches: [{path: {value: /old}}], filters: [{type: URLRewrite, \
                 urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}], \
                 backendRefs: [{name: rw, port: PORT}]}]";
    let host = mesh.route("shop", rules, &[("rw", &backend)]).await?;
    let page = expect_from(&mesh.call(&host, "/old/x"), "rewritten").await?;
    ensure!(page["path"] == "/new/x", "{page}");
    Ok(())
}

async fn redirects(mesh: &Mesh, name: &str, redirect: &str, expected: &str) -> Result<()> {
    let backend = Backend::echo("never").await?;
    let rules = format!("[{{filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}]");
    let host = mesh.route("shop", &rules, &[(name, &backend)]).await?;
    let location = expect(&mesh.call(&host, "/x"), 302).await?.header("location").to_owned();
    let expected = expected.replace("HOST", &host).replace("PORT", &mesh.port.to_string());
    ensure!(location == expected, "{location} instead of {expected}");
    Ok(())
}

pub async fn redirect_port(mesh: &Mesh) -> Result<()> {
    redirects(mesh, "rd-port", "{port: 8083}", "http://HOST:8083/x").await
}

pub async fn redirect_path(mesh: &Mesh) -> Result<()> {
    let path = "{path: {type: ReplaceFullPath, replaceFullPath: /all}}";
    redirects(mesh, "rd-path", path, "http://HOST:PORT/all").await
}

pub async fn redirect_scheme(mesh: &Mesh) -> Result<()> {
    // The request states the port of plain HTTP, which is not that of HTTPS.
    redirects(mesh, "rd-scheme", "{scheme: https}", "https://HOST:443/x").await?;
    let elsewhere = "{scheme: https, hostname: example.org}";
    redirects(mesh, "rd-elsewhere", elsewhere, "https://example.org/x").await
}

/// A call of a gRPC method is a POST to its path, over HTTP/2.
fn grpc(mesh: &Mesh, host: &str, path: &str) -> Call {
    mesh.call(host, path).method(Method::POST).header("content-type", "application/grpc").http2()
}

pub async fn grpc_weights(mesh: &Mesh) -> Result<()> {
    let (heavy, light) = (Backend::echo("heavy").await?, Backend::echo("light").await?);
    let rules = "[{backendRefs: [{name: mg-heavy, port: PORT, weight: 70}, \
                 {name: mg-light, port: PORT, weight: 30}, {name: mg-none, port: PORT, weight: 0}]}]";
    let services = [("mg-heavy", &heavy), ("mg-light", &light)];
    let host = mesh.route_of("GRPCRoute", "shop", rules, &services).await?;
    expect_from(&grpc(mesh, &host, "/a.B/C"), "light").await?;
    let mut second = 0;
    for _ in 0..100 {
        second += usize::from(name_of(&grpc(mesh, &host, "/a.B/C").send().await?.ok()?)? == "light");
    }
    // 30 are expected; the deviation is below 5.
    ensure!((10..=55).contains(&second), "{second} of 100 calls to the weight 30");
    Ok(())
}

pub async fn grpc_methods(mesh: &Mesh) -> Result<()> {
    let (add, any) = (Backend::echo("add").await?, Backend::echo("any").await?);
    let rules = "[{backendRefs: [{name: mm-any, port: PORT}]}, \
                 {matches: [{method: {service: shop.Cart, method: Add}}], \
                 filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: a}]}}], \
                 backendRefs: [{name: mm-add, port: PORT}]}]";
    let services = [("mm-any", &any), ("mm-add", &add)];
    let host = mesh.route_of("GRPCRoute", "shop", rules, &services).await?;
    let page = expect_from(&grpc(mesh, &host, "/shop.Cart/Add"), "add").await?;
    ensure!(page["headers"]["x-set"] == "a", "{page}");
    expect_from(&grpc(mesh, &host, "/shop.Cart/Remove"), "any").await.map(drop)
}

pub async fn backend_headers(mesh: &Mesh) -> Result<()> {
    let backend = Backend::echo("with-header").await?;
    let rules = "[{backendRefs: [{name: bh, port: PORT, filters: [{type: RequestHeaderModifier, \
                 requestHeaderModifier: {set: [{name: x-backend, value: bh}]}}]}]}]";
    let host = mesh.route("shop", rules, &[("bh", &backend)]).await?;
    let page = expect_from(&mesh.call(&host, "/"), "with-header").await?;
    ensure!(page["headers"]["x-backend"] == "bh", "{page}");
    Ok(())
}

pub async fn query_params(mesh: &Mesh) -> Result<()> {
    let backend = Backend::echo("queried").await?;
    let rules =
        "[{matches: [{queryParams: [{name: a, value: '1'}]}], backendRefs: [{name: qp, port: PORT}]}]";
    let host = mesh.route("shop", rules, &[("qp", &backend)]).await?;
    expect(&mesh.call(&host, "/?a=1"), 200).await?;
    expect(&mesh.call(&host, "/?a=2"), 404).await.map(drop)
}

pub async fn named_rule(mesh: &Mesh) -> Result<()> {
    let backend = Backend::echo("named").await?;
    let rules = "[{name: the-rule, backendRefs: [{name: nr, port: PORT}]}]";
    let host = mesh.route("shop", rules, &[("nr", &backend)]).await?;
    expect_from(&mesh.call(&host, "/"), "named").await.map(drop)
}

/// A route for another port of the service is for nobody who calls this one.
pub async fn ports(mesh: &Mesh) -> Result<()> {
    let backend = Backend::echo("ported").await?;
    let spec = |port: u16| {
        format!(
            "{{parentRefs: [{{group: '', kind: Service, name: pt, namespace: shop, port: {port}}}], \
             rules: [{{matches: [{{path: {{value: /only}}}}], backendRefs: [{{name: pt, port: {}}}]}}]}}",
            mesh.port
        )
    };
    let objects =
        |port| service("pt", "shop", mesh.port, &backend) + &route("HTTPRoute", "pt", "shop", &spec(port));
    let host = "pt.shop.svc.cluster.local";
    apply(&mesh.server, "pt", &objects(mesh.port)).await?;
    expect(&mesh.call(host, "/only"), 200).await?;
    expect(&mesh.call(host, "/else"), 404).await?;
    apply(&mesh.server, "pt", &objects(1)).await?;
    expect(&mesh.call(host, "/else"), 200).await.map(drop)
}
