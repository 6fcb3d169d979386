//! A mesh in which a workload registers itself.

use std::path::Path;

use anyhow::Result;

use super::minute::Mesh;

/// What the greeter says to register itself.
pub const GROUP: [&str; 4] = ["--metadata", "AUTO_REGISTER_GROUP=greeters", "--ip", "127.0.0.1"];

/// A mesh whose greeter registers itself; it is well as long as there is no such file.
pub async fn mesh(name: &str, marker: &Path, arguments: &[&str]) -> Result<Mesh> {
    let arguments = [&["--registration-grace", "2s"], arguments].concat();
    let mesh = Mesh::start_with(name, "", &arguments).await?;
    // The example has an entry of its own; here the group makes it.
    let text = std::fs::read_to_string(mesh.server.config().join("mesh.yaml"))?;
    let documents = text.split("---\n").filter(|document| !document.contains("kind: WorkloadEntry"));
    mesh.server.write("mesh.yaml", &documents.collect::<Vec<_>>().join("---\n"))?;
    let group = format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: greeters, namespace: shop}}
spec:
  metadata: {{labels: {{app: greeter, security.istio.io/tlsMode: istio}}}}
  template: {{serviceAccount: greeter, ports: {{http: {}}}}}
  probe:
    periodSeconds: 1
    failureThreshold: 1
    exec: {{command: [/bin/sh, -c, 'test ! -e {}']}}
",
        mesh.inbound.port(),
        marker.display()
    );
    mesh.server.write("more.yaml", &group)?;
    Ok(mesh)
}
