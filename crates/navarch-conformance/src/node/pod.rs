//! A pod that runs.

use super::{container::Container, volumes::Volumes};
use crate::{
    objects::{is_ready, items, name, namespace, text},
    programs::Programs,
};
use anyhow::{Context, Result};
use http::Method;
use navarch_testkit::{
    http::Call,
    kubernetes::ApiServer,
    network::{Machine, Network},
    process::Process,
};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

/// How long a probe waits for its answer. While it does, nothing else on the node goes on.
const PROBE: Duration = Duration::from_millis(500);

/// A pod that runs; it ends when dropped.
#[derive(Debug)]
pub struct Pod {
    /// Which machine of the network it is.
    pub host: u8,
    processes: Vec<Process>,
    /// After its processes: what they have left behind ends with it.
    machine: Machine,
    is_told: bool,
}

impl Pod {
    /// Starts the containers of a pod, one after the other as they are written, those that initialise first.
    pub async fn start(
        api: &ApiServer,
        network: &Network,
        programs: &Programs,
        dir: &Path,
        host: u8,
        pod: &Value,
    ) -> Result<Pod> {
        let machine = network.machine(&format!("pod{host}"), host)?;
        // As container runtimes do.
        machine.run(&["/bin/sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start"])?;
        let dir = dir.join(namespace(pod)).join(name(pod));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Volumes { api, pod, address: machine.address }.fill(&dir.join("volumes")).await?;
        names(pod, machine.address, &dir)?;
        let mut started = Pod { host, processes: Vec::new(), machine, is_told: false };
        let list = |at: &str| items(pod, at).to_vec();
        for container in list("/spec/initContainers").iter().chain(&list("/spec/containers")) {
            let initialises = items(pod, "/spec/initContainers").contains(container);
            let container = Container { machine: &started.machine, programs, pod, container, dir: &dir };
            if initialises && container.container["restartPolicy"] != "Always" {
                container.run().with_context(|| container.name().to_owned())?;
            } else {
                started.processes.push(container.start().with_context(|| container.name().to_owned())?);
            }
        }
        Ok(started)
    }

    /// An error if one of its programs has ended.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check_running)
    }

    /// Says in the status of the pod where it is, and whether it is ready.
    pub async fn tell(&mut self, api: &ApiServer, pod: &Value) -> Result<()> {
        if self.is_told && is_ready(pod) {
            return Ok(());
        }
        let is_ready = self.answers(pod).await;
        if self.is_told && !is_ready {
            return Ok(());
        }
        let word = if is_ready { "True" } else { "False" };
        let of_type = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let containers = items(pod, "/spec/containers").iter().map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0, "ready": is_ready,
                "started": true, "state": {"running": {}},
            })
        });
        let address = self.machine.address;
        let status = json!({
            "phase": "Running",
            "hostIP": Ipv4Addr::from(Network::HUB),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                of_type("PodScheduled", "True"), of_type("Initialized", "True"),
                of_type("ContainersReady", word), of_type("Ready", word),
            ],
            "containerStatuses": containers.collect::<Vec<_>>(),
        });
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", namespace(pod), name(pod));
        let body = json!({"status": status}).to_string();
        api.send(Method::PATCH, &path, ("application/merge-patch+json", &body)).await?;
        self.is_told = true;
        Ok(())
    }

    /// Whether all readiness probes over HTTP succeed. Others are taken to.
    async fn answers(&self, pod: &Value) -> bool {
        let all = ["/spec/containers", "/spec/initContainers"].into_iter().flat_map(|at| items(pod, at));
        for probe in all.filter_map(|container| container.pointer("/readinessProbe/httpGet")) {
            let path = text(probe, "/path");
            let url = format!("http://{}:{}{path}", self.machine.address, probe["port"]);
            let answer = Call::get(url).within(PROBE).send().await;
            if !answer.is_ok_and(|answer| answer.status.is_success()) {
                return false;
            }
        }
        true
    }
}

/// Writes the files by which a pod finds names: its own, and the control plane's.
fn names(pod: &Value, address: IpAddr, dir: &Path) -> Result<()> {
    let hub = Ipv4Addr::from(Network::HUB);
    let (name, server) = (name(pod), crate::names::SERVER);
    std::fs::write(dir.join("hosts"), format!("127.0.0.1 localhost\n{address} {name}\n{hub} {server}\n"))?;
    let space = namespace(pod);
    let search = format!("search {space}.svc.cluster.local svc.cluster.local cluster.local\n");
    std::fs::write(dir.join("resolv.conf"), format!("{search}nameserver {hub}\noptions ndots:5\n"))?;
    Ok(())
}
