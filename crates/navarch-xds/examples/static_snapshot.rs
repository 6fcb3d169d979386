//! A control plane with one fixed snapshot: a listener that sends everything to one cluster.
//!
//! ```text
//! cargo run -p navarch-xds --example static_snapshot -- 127.0.0.1:18000
//! ```
//!
//! Point an Envoy at it whose bootstrap has `ads_config` and reads clusters and listeners from `ads`.

use std::error::Error;
use std::sync::Arc;

use navarch_envoy::wire::put_field;
use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType};
use navarch_xds::{Class, Connection, Discovery, Node, Peer, Rejection, Server, Settings};
use tokio::net::TcpListener;

/// Every client gets the same.
struct Static(Arc<Class>);

impl Discovery for Static {
    fn connect(&self, node: &Arc<Node>, peer: &Arc<Peer>) -> Result<Connection, Rejection> {
        println!("{} from {}", node.id, peer.address);
        Ok(Connection::to(self.0.clone()))
    }
}

/// `Cluster { name, type: EDS, eds_cluster_config: { eds_config: { ads: {}, resource_api_version: V3 } } }`.
fn cluster(name: &str) -> Resource {
    let mut config_source = Vec::new();
    put_field(&mut config_source, 0x1a, &[]);
    config_source.extend([0x30, 2]);
    let mut eds_cluster_config = Vec::new();
    put_field(&mut eds_cluster_config, 0x0a, &config_source);
    let mut cluster = Vec::new();
    put_field(&mut cluster, 0x0a, name.as_bytes());
    cluster.extend([0x10, 3]);
    put_field(&mut cluster, 0x1a, &eds_cluster_config);
    Resource::of(XdsType::Cds, name, &cluster)
}

/// `ClusterLoadAssignment { cluster_name }`: no endpoints.
fn assignment(name: &str) -> Resource {
    let mut assignment = Vec::new();
    put_field(&mut assignment, 0x0a, name.as_bytes());
    Resource::of(XdsType::Eds, name, &assignment)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:18000".into());
    let class = Class::new();
    class.publish(Arc::new(
        ProxyResources::new(1)
            .with(XdsType::Cds, ResourceSet::of([Arc::new(cluster("one"))]))
            .with(XdsType::Eds, ResourceSet::of([Arc::new(assignment("one"))])),
    ));
    let server = Server::new(Static(class), Settings { identifier: "static".into(), ..Settings::default() });
    server.serve(TcpListener::bind(address).await?, None).await?;
    Ok(())
}
