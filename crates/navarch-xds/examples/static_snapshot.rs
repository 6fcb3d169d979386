//! A control plane with one fixed snapshot: a listener that sends everything to one cluster.
//!
//! ```text
//! cargo run -p navarch-xds --example static_snapshot -- 127.0.0.1:18000 127.0.0.1:10000 127.0.0.1:8080
//! envoy -c crates/navarch-xds/examples/envoy.yaml
//! ```
//!
//! serves xDS on the first address; the Envoy listens on the second and calls the third.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType, dynamic, json as protojson};
use navarch_xds::{Class, Connection, Dialect, Discovery, Node, Peer, Rejection, Server, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Every client gets the same.
struct Static(Arc<Class>);

impl Discovery for Static {
    fn connect(&self, node: &Arc<Node>, peer: &Arc<Peer>, _: Dialect) -> Result<Connection, Rejection> {
        println!("{} from {}", node.id, peer.address);
        Ok(Connection::to(self.0.clone()))
    }
}

/// A set of one resource, from its JSON.
fn one(ty: XdsType, name: &str, value: &Value) -> Result<ResourceSet, Box<dyn Error>> {
    let message = protojson::from_json(ty.type_url().trim_start_matches("type.googleapis.com/"), value)?;
    Ok(ResourceSet::of([Arc::new(Resource::of(ty, name, &dynamic::encode(&message)))]))
}

/// A server for Envoys that listen on `front` and call `upstream`.
pub fn server(front: SocketAddr, upstream: SocketAddr) -> Result<Server, Box<dyn Error>> {
    let address = |of: SocketAddr| json!({"socket_address": {"address": of.ip(), "port_value": of.port()}});
    let config_source = json!({"ads": {}, "resource_api_version": "V3"});
    let cluster = json!({"name": "app", "type": "EDS", "eds_cluster_config": {"eds_config": config_source}});
    let endpoints = json!({"cluster_name": "app", "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": address(upstream)}}]}]});
    let proxy = json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "front", "cluster": "app"});
    let filters = json!([{"name": "proxy", "typed_config": proxy}]);
    let listener =
        json!({"name": "front", "address": address(front), "filter_chains": [{"filters": filters}]});
    let class = Class::new();
    class.publish(Arc::new(
        ProxyResources::new(1)
            .with(XdsType::Cds, one(XdsType::Cds, "app", &cluster)?)
            .with(XdsType::Eds, one(XdsType::Eds, "app", &endpoints)?)
            .with(XdsType::Lds, one(XdsType::Lds, "front", &listener)?),
    ));
    let settings = Settings { identifier: "static".into(), ..Settings::default() };
    Ok(Server::builder(Static(class)).settings(settings).build())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = |port| arguments.next().unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let (xds, front, upstream) = (address(18000), address(10000), address(8080));
    let server = server(front.parse()?, upstream.parse()?)?;
    Ok(server.serve(TcpListener::bind(xds).await?).await?)
}
