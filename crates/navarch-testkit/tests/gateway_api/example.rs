//! `examples/gateway-api`, with ports that are free here.

use super::rig::{apply, expect, expect_from, name_of, nothing_rejected, start};
use crate::backend::{Backend, Behaviour};
use anyhow::{Context, Result, ensure};
use navarch_testkit::{http::Call, ports, workspace};
use std::net::Ipv4Addr;

const NODE: &str = "router~127.0.4.1~edge.shop~shop.svc.cluster.local";
const METADATA: [(&str, &str); 3] =
    [("NAMESPACE", "shop"), ("INSTANCE_IPS", "127.0.4.1"), ("LABELS", r#"{"app":"edge"}"#)];

pub async fn does_what_it_says() -> Result<()> {
    let file = |name: &str| {
        let path = workspace::root().join("examples/gateway-api").join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let port = ports::free_port()?;
    let gateway = file("gateway.yaml")?.replace("8080", &port.to_string());
    let mut services = file("services.yaml")?;
    let mut backends = Vec::new();
    for (host, name) in [(2, "shop"), (3, "next"), (4, "catalogue")] {
        let address = Ipv4Addr::new(127, 0, 4, host);
        let backend = Backend::start_at(address, name, Behaviour::Echo).await?;
        // The port is the first after the address.
        let (before, after) = services.split_once(&address.to_string()).context("an address is missing")?;
        let after = after.replacen("9080", &backend.address.port().to_string(), 1);
        services = format!("{before}{address}{after}");
        backends.push(backend);
    }
    let (server, envoy) = start("gateway-api-example", &gateway, NODE, &METADATA).await?;
    apply(&server, "services", &services).await?;
    apply(&server, "routes", &file("routes.yaml")?).await?;
    let call = |host: &str, path: &str| {
        Call::get(format!("http://127.0.0.1:{port}{path}")).header("host", &format!("{host}.shop.example"))
    };

    expect_from(&call("www", "/").header("x-version", "next"), "next").await?;
    let mut next = 0;
    for _ in 0..200 {
        next += usize::from(name_of(&call("www", "/").send().await?.ok()?)? == "next");
    }
    // 20 are expected; the deviation is above 4.
    ensure!((1..=60).contains(&next), "{next} of 200 calls to a tenth");
    let page = expect_from(&call("api", "/v1/catalogue/7"), "catalogue").await?;
    ensure!(page["path"] == "/catalogue/7", "{page}");
    let moved = expect(&call("api", "/catalogue/7"), 301).await?;
    let expected = format!("http://api.shop.example:{port}/v1/catalogue/7");
    ensure!(moved.header("location") == expected, "{moved:?}");
    expect(&call("other", "/"), 404).await?;
    nothing_rejected(&envoy).await
}
