//! Istio's standard metrics, from stock Envoys on the pages of their agents.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use common::minute::Mesh;
use navarch_testkit::agent::Agent;
use navarch_testkit::grpc::Backend;
use navarch_testkit::http::Call;
use navarch_testkit::{ports, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Label values by name.
type Labels = BTreeMap<String, String>;

/// The series of a metric, on the page of an agent.
fn series(page: &str, name: &str) -> Vec<(Labels, f64)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let read = |line: &str| {
        let (labels, value) = line.rsplit_once("} ")?;
        let pairs = labels.trim_end_matches('"').split("\",").filter_map(|pair| pair.split_once("=\""));
        let labels = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some((labels, value.parse().ok()?))
    };
    lines.filter_map(read).collect()
}

/// The sum of the series that have these labels.
fn sum(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |found: &Labels| {
        labels.iter().all(|(name, value)| found.get(*name).map_or("", String::as_str) == *value)
    };
    series(page, name).into_iter().filter(|(found, _)| has(found)).map(|(_, value)| value).sum()
}

/// Waits until the series of an agent with these labels add up to a number.
async fn counted(agent: &Agent, name: &str, labels: &[(&str, &str)], expected: f64) -> Result<()> {
    wait::until(&format!("{name} to be {expected}"), wait::STEP, || async {
        let page = agent.get("/stats/prometheus").await?.ok()?.text();
        let found = sum(&page, name, labels);
        let all: Vec<&str> = page.lines().filter(|line| line.starts_with(name)).collect();
        ensure!(found == expected, "{found} of {labels:?} among {}", all.join("\n"));
        Ok(())
    })
    .await
}

/// Answers every request with its own head.
async fn echo(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let start =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", head.len());
                stream.write_all(start.as_bytes()).await?;
                stream.write_all(&head).await
            });
        }
    });
    Ok(())
}

/// Answers each connection's `ping` with `pong!`, as often as it comes.
async fn pong() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut ping = [0; 4];
                while stream.read_exact(&mut ping).await.is_ok() {
                    stream.write_all(b"pong!").await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    Ok(address)
}

/// Ports of the machine that stand for those of a service: where its sidecar takes calls, and where that of
/// the client does.
struct Way {
    inbound: u16,
    outbound: u16,
}

impl Way {
    fn new() -> Result<Way> {
        Ok(Way { inbound: ports::free_port()?, outbound: ports::free_port()? })
    }
}

/// A service with gRPC and bytes, one where nobody is, a client of them and of the greeter, and a gateway in
/// front of the greeter.
fn more(ways: [&Way; 3], backend: SocketAddr, pong: SocketAddr, http: u16, edge: u16) -> String {
    let [(grpc_in, grpc_out), (bytes_in, bytes_out), (gone_in, gone_out)] =
        ways.map(|way| (way.inbound, way.outbound));
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: books, namespace: shop}}
spec:
  hosts: [books.shop]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
    - {{number: {grpc_out}, name: grpc, protocol: GRPC}}
    - {{number: {bytes_out}, name: tcp, protocol: TCP}}
  workloadSelector: {{labels: {{app: books}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: gone, namespace: shop}}
spec:
  hosts: [gone.shop]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports:
    - {{number: {gone_out}, name: tcp, protocol: TCP}}
  endpoints:
    - {{address: 127.0.0.1, ports: {{tcp: {gone_in}}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: books, namespace: shop}}
spec:
  address: 127.0.0.1
  ports: {{grpc: {grpc_in}, tcp: {bytes_in}}}
  serviceAccount: books
  labels: {{app: books, version: v2, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: books, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: books}}}}
  ingress:
    - port: {{number: {grpc_in}, name: grpc, protocol: GRPC}}
      bind: 127.0.0.1
      defaultEndpoint: {backend}
    - port: {{number: {bytes_in}, name: tcp, protocol: TCP}}
      bind: 127.0.0.1
      defaultEndpoint: {pong}
  egress:
    - hosts: ['~/*']
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: client}}}}
  egress:
    - port: {{number: {http}, name: http, protocol: HTTP}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ['./*']
    - port: {{number: {grpc_out}, name: grpc, protocol: GRPC}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ['./*']
    - port: {{number: {bytes_out}, name: tcp, protocol: TCP}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ['./*']
    - port: {{number: {gone_out}, name: tcp-gone, protocol: TCP}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ['./*']
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{istio: edge}}
  servers:
    - port: {{number: {edge}, name: http, protocol: HTTP}}
      bind: 127.0.0.1
      hosts: ['*']
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge, namespace: shop}}
spec:
  hosts: ['*']
  gateways: [edge]
  http: [{{route: [{{destination: {{host: greeter.shop}}}}]}}]
"
    )
}

/// Labels that Istio's dashboards for services and workloads ask for, and what they are for calls of the
/// client to the greeter.
const GREETER: [(&str, &str); 16] = [
    ("source_workload", "client"),
    ("source_workload_namespace", "shop"),
    ("source_app", "client"),
    ("source_version", "v1"),
    ("source_canonical_service", "client"),
    ("source_canonical_revision", "v1"),
    ("source_cluster", "Kubernetes"),
    ("source_principal", "spiffe://cluster.local/ns/shop/sa/client"),
    ("destination_workload", "greeter"),
    ("destination_workload_namespace", "shop"),
    ("destination_app", "greeter"),
    ("destination_canonical_service", "greeter"),
    ("destination_principal", "spiffe://cluster.local/ns/shop/sa/greeter"),
    ("destination_service", "greeter.shop"),
    ("destination_service_name", "greeter.shop"),
    ("destination_service_namespace", "shop"),
];

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_count_http_grpc_and_bytes() -> Result<()> {
    let (grpc, bytes, gone, edge_port) = (Way::new()?, Way::new()?, Way::new()?, ports::free_port()?);
    let backend = Backend::start("books")?;
    let mesh = Mesh::start("metrics").await?;
    let ways = [&grpc, &bytes, &gone];
    let text = more(ways, backend.address(), pong().await?, mesh.outbound.port(), edge_port);
    mesh.server.write("more.yaml", &text)?;
    echo(mesh.application).await?;
    // Connections that there are keep the listener that they were made with until it has drained.
    let greeter = mesh.agent("greeter", &["--drain-duration", "1s"], &[])?;
    let books = mesh.agent("books", &["--label", "version=v2"], &[])?;
    let client = mesh.agent("client", &["--label", "version=v1"], &[])?;
    let edge = mesh.agent_of("gateway", "edge", &["--label", "istio=edge"], &[])?;

    http(&mesh, &client, &greeter).await?;
    through_the_gateway(&edge, &greeter, edge_port).await?;
    over_grpc(&client, &books, grpc.outbound).await?;
    over_tcp(&client, &books, bytes.outbound).await?;
    to_nobody(&client, gone.outbound).await?;
    boards(&client, &greeter, &books).await?;
    changed_by_telemetry(&mesh, &client, &greeter).await?;
    for agent in [&greeter, &books, &client, &edge] {
        let refused = agent.rejections().await?;
        ensure!(refused.is_empty(), "{refused:?}");
    }
    broken_by_telemetry(&mesh, &client).await
}

/// Calls to the greeter that are answered.
const CALLS: f64 = 5.0;

/// A call of the application to the greeter; what the greeter saw of it.
async fn greet(mesh: &Mesh) -> Result<String> {
    let call = Call::get(format!("http://{}/", mesh.outbound)).header("host", "greeter.shop");
    // Nobody speaks for his proxy.
    Ok(call.header("x-envoy-peer-metadata", "c3Bvb2Y=").send().await?.ok()?.text())
}

async fn http(mesh: &Mesh, client: &Agent, greeter: &Agent) -> Result<()> {
    let seen = wait::until("an answer", wait::STEP, || greet(mesh)).await?;
    ensure!(!seen.contains("peer-metadata") && seen.contains("x-forwarded-client-cert"), "{seen}");
    for _ in 1..CALLS as u32 {
        greet(mesh).await?;
    }
    let ok = [("response_code", "200"), ("response_flags", "-"), ("request_protocol", "http")];
    let of = |more: &[(&'static str, &'static str)]| [&GREETER[..], &ok[..], more].concat();
    let source = of(&[("reporter", "source"), ("connection_security_policy", "unknown")]);
    let destination = of(&[("reporter", "destination"), ("connection_security_policy", "mutual_tls")]);
    for (agent, labels) in [(client, &source), (greeter, &destination)] {
        for name in ["istio_requests_total", "istio_request_duration_milliseconds_count"] {
            counted(agent, name, labels, CALLS).await?;
        }
        let page = agent.get("/stats/prometheus").await?.ok()?.text();
        for name in ["istio_request_bytes_sum", "istio_response_bytes_sum"] {
            ensure!(sum(&page, name, labels) > 0.0, "{name} is nothing in {page}");
        }
        let all = [&labels[..], &[("le", "+Inf")]].concat();
        ensure!(sum(&page, "istio_request_bytes_bucket", &all) == CALLS, "{page}");
        ensure!(page.contains("# TYPE istio_requests_total counter\n"), "{page}");
        ensure!(!page.contains("navarch_peer"), "{page}");
    }
    // What the mesh does not know is counted, too.
    let call = Call::get(format!("http://{}/", mesh.outbound)).header("host", "nobody.shop");
    ensure!(!call.send().await?.status.is_success(), "somebody answers");
    let nowhere = [
        ("destination_service", "nobody.shop"),
        ("destination_service_name", "PassthroughCluster"),
        ("destination_workload", "unknown"),
    ];
    counted(client, "istio_requests_total", &nowhere, 1.0).await
}

async fn through_the_gateway(edge: &Agent, greeter: &Agent, port: u16) -> Result<()> {
    wait::until("an answer through the gateway", wait::STEP, || async {
        Call::get(format!("http://127.0.0.1:{port}/")).send().await?.ok()
    })
    .await?;
    let of = |reporter| {
        [
            ("reporter", reporter),
            ("source_workload", "edge"),
            ("source_principal", "spiffe://cluster.local/ns/shop/sa/edge"),
            ("destination_workload", "greeter"),
            ("destination_service", "greeter.shop"),
            ("response_code", "200"),
        ]
    };
    counted(edge, "istio_requests_total", &of("source"), 1.0).await?;
    counted(greeter, "istio_requests_total", &of("destination"), 1.0).await
}

async fn over_grpc(client: &Agent, books: &Agent, port: u16) -> Result<()> {
    let call = || {
        Call::post(format!("http://127.0.0.1:{port}/echo.Echo/Name"))
            .header("host", "books.shop")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(vec![0; 5])
            .http2()
    };
    wait::until("an answer of gRPC", wait::STEP, || async {
        let answer = call().send().await?.ok()?;
        ensure!(answer.text().ends_with("books"), "{}", answer.text());
        Ok(())
    })
    .await?;
    for (agent, reporter) in [(client, "source"), (books, "destination")] {
        let labels = [
            ("reporter", reporter),
            ("source_workload", "client"),
            ("destination_canonical_service", "books"),
            ("destination_canonical_revision", "v2"),
            ("destination_service", "books.shop"),
            ("request_protocol", "grpc"),
            ("grpc_response_status", "0"),
            ("response_code", "200"),
        ];
        counted(agent, "istio_requests_total", &labels, 1.0).await?;
    }
    Ok(())
}

async fn over_tcp(client: &Agent, books: &Agent, port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut pong = [0; 5];
    for _ in 0..3 {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut pong).await?;
    }
    ensure!(&pong == b"pong!", "{pong:?}");
    let labels = |reporter| {
        [
            ("reporter", reporter),
            ("source_principal", "spiffe://cluster.local/ns/shop/sa/client"),
            ("source_workload_namespace", "shop"),
            ("destination_principal", "spiffe://cluster.local/ns/shop/sa/books"),
            ("destination_workload_namespace", "shop"),
            ("destination_service", "books.shop"),
            ("request_protocol", "tcp"),
            ("response_flags", "-"),
        ]
    };
    let sides = [(client, "source", "unknown"), (books, "destination", "mutual_tls")];
    for (agent, reporter, policy) in sides {
        let labels = [&labels(reporter)[..], &[("connection_security_policy", policy)]].concat();
        counted(agent, "istio_tcp_connections_opened_total", &labels, 1.0).await?;
        counted(agent, "istio_tcp_connections_closed_total", &labels, 0.0).await?;
    }
    drop(stream);
    for (agent, reporter, policy) in sides {
        let labels = [&labels(reporter)[..], &[("connection_security_policy", policy)]].concat();
        counted(agent, "istio_tcp_connections_closed_total", &labels, 1.0).await?;
        counted(agent, "istio_tcp_received_bytes_total", &labels, 12.0).await?;
        counted(agent, "istio_tcp_sent_bytes_total", &labels, 15.0).await?;
        counted(agent, "istio_tcp_connections_opened_total", &labels, 1.0).await?;
    }
    Ok(())
}

/// A connection that reaches nobody is opened and closed.
async fn to_nobody(client: &Agent, port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // The client's Envoy ends it, in an orderly way or not.
    let ended = stream.read_u8().await;
    ensure!(ended.is_err(), "somebody says {ended:?}");
    let labels = [("reporter", "source"), ("destination_service", "gone.shop"), ("request_protocol", "tcp")];
    counted(client, "istio_tcp_connections_closed_total", &labels, 1.0).await?;
    counted(client, "istio_tcp_connections_opened_total", &labels, 1.0).await
}

/// What Istio's public dashboards for meshes, services and workloads ask for (August 2026): metrics of HTTP
/// and of bytes, and the labels that they select and group by.
const BOARDS_HTTP: [&str; 4] = [
    "istio_requests_total",
    "istio_request_duration_milliseconds_bucket",
    "istio_request_bytes_bucket",
    "istio_response_bytes_bucket",
];
const BOARDS_TCP: [&str; 2] = ["istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total"];
const BOARDS_LABELS: [&str; 10] = [
    "connection_security_policy",
    "destination_cluster",
    "destination_principal",
    "destination_service",
    "destination_workload",
    "destination_workload_namespace",
    "reporter",
    "source_cluster",
    "source_workload",
    "source_workload_namespace",
];

async fn boards(client: &Agent, greeter: &Agent, books: &Agent) -> Result<()> {
    for (agent, metrics) in
        [(client, &BOARDS_HTTP[..]), (greeter, &BOARDS_HTTP), (client, &BOARDS_TCP), (books, &BOARDS_TCP)]
    {
        let page = agent.get("/stats/prometheus").await?.ok()?.text();
        for name in metrics {
            let found = series(&page, name);
            ensure!(!found.is_empty(), "no {name} in {page}");
            for (labels, _) in found {
                for label in BOARDS_LABELS {
                    ensure!(labels.contains_key(label), "no {label} in {labels:?} of {name}");
                }
                ensure!(labels.contains_key("response_code") != name.contains("tcp"), "{labels:?}");
                ensure!(labels.contains_key("le") == name.ends_with("_bucket"), "{labels:?}");
            }
        }
        ensure!(page.contains("istio_build{component=\"proxy\",tag=\"1."), "{page}");
    }
    Ok(())
}

/// Labels of Telemetry: one more, one less, and a metric that servers do not count.
const TELEMETRY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: metrics, namespace: istio-system}
spec:
  metrics:
    - providers: [{name: prometheus}]
      overrides:
        - match: {metric: REQUEST_COUNT}
          tagOverrides:
            path: {value: request.path}
            port: {value: string(destination.port)}
            response_code: {operation: REMOVE}
            destination_app: {operation: REMOVE}
        - match: {metric: REQUEST_SIZE, mode: SERVER}
          disabled: true
";

async fn changed_by_telemetry(mesh: &Mesh, client: &Agent, greeter: &Agent) -> Result<()> {
    let revision = mesh.server.revision().await?;
    mesh.server.write("telemetry.yaml", TELEMETRY)?;
    mesh.server.reached_since(revision).await?;
    let port = mesh.inbound.port().to_string();
    let sides = [("destination", port.as_str(), greeter), ("source", "", client)];
    wait::until("both sides to count by path", wait::STEP, || async {
        let url = format!("http://{}/tagged", mesh.outbound);
        Call::get(url).header("host", "greeter.shop").send().await?.ok()?;
        for (reporter, port, agent) in sides {
            let page = agent.get("/stats/prometheus").await?.ok()?.text();
            let labels = [("reporter", reporter), ("path", "/tagged"), ("port", port)];
            let labels = if port.is_empty() { &labels[..2] } else { &labels[..] };
            ensure!(sum(&page, "istio_requests_total", labels) > 0.0, "{page}");
        }
        Ok(())
    })
    .await?;
    // Whatever is counted is counted once for each call, but for the metric that is off.
    wait::until("sizes of requests to be counted no longer", wait::STEP, || async {
        let page = greeter.get("/stats/prometheus").await?.ok()?.text();
        let requests = sum(&page, "istio_request_bytes_count", &[]);
        ensure!(requests < sum(&page, "istio_response_bytes_count", &[]), "{page}");
        Ok(())
    })
    .await?;
    let page = greeter.get("/stats/prometheus").await?.ok()?.text();
    let tagged = series(&page, "istio_requests_total");
    let (tagged, _) = tagged.iter().find(|(labels, _)| labels.contains_key("path")).context("nothing")?;
    ensure!(!tagged.contains_key("response_code") && !tagged.contains_key("destination_app"), "{tagged:?}");
    ensure!(tagged["destination_workload"] == "greeter", "{tagged:?}");
    Ok(())
}

/// An expression that nobody but Envoy finds wrong.
const BROKEN: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: broken, namespace: shop}
spec:
  metrics:
    - overrides:
        - match: {metric: REQUEST_COUNT}
          tagOverrides: {broken: {value: request.host ==}}
";

/// A Telemetry whose expression Envoy refuses is left out, and said; everything goes on as without it.
async fn broken_by_telemetry(mesh: &Mesh, client: &Agent) -> Result<()> {
    mesh.server.write("broken.yaml", BROKEN)?;
    wait::until("the Telemetry to be blamed", wait::STEP, || async {
        let said = mesh.server.admin_get("/debug/findings").await?.text();
        ensure!(said.contains("NAV0318") && said.contains("broken.yaml"), "{said}");
        Ok(())
    })
    .await?;
    wait::until("listeners that are accepted", wait::STEP, || async {
        let fleet = mesh.server.fleet().await?;
        ensure!(!fleet.to_string().contains("ERROR"), "{fleet}");
        Ok(())
    })
    .await?;
    let labels = [("reporter", "source"), ("path", "/after")];
    let url = format!("http://{}/after", mesh.outbound);
    Call::get(url).header("host", "greeter.shop").send().await?.ok()?;
    counted(client, "istio_requests_total", &labels, 1.0).await
}
