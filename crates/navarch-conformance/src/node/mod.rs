//! A node without a container runtime: pods are processes, each pod in a network namespace of its own.

mod container;
mod fields;
mod pod;
mod volumes;

use crate::{names::NODE, objects, programs::Programs};
use anyhow::{Context, Result};
use navarch_testkit::{kubernetes::ApiServer, network::Network};
use pod::Pod;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// The addresses that pods have in the network of the rig.
const HOSTS: std::ops::RangeInclusive<u8> = 10..=250;

/// The pods that run.
#[derive(Debug)]
pub struct Node {
    network: Network,
    programs: Programs,
    /// `<namespace>/<pod>/` with what is kept of each.
    dir: PathBuf,
    running: BTreeMap<String, Pod>,
    last_host: u8,
}

impl Node {
    pub fn new(network: Network, programs: Programs, dir: PathBuf) -> Node {
        Node { network, programs, dir, running: BTreeMap::new(), last_host: *HOSTS.end() }
    }

    /// Ends pods that are gone, starts those that have come, and says what is ready. What goes wrong with one
    /// pod is tried again the next time, and told.
    pub async fn follow(&mut self, api: &ApiServer, pods: &[Value]) -> Vec<anyhow::Error> {
        let here = |pod: &&Value| objects::text(pod, "/spec/nodeName") == NODE && !objects::is_leaving(pod);
        let pods: BTreeMap<&str, &Value> =
            pods.iter().filter(here).map(|pod| (objects::uid(pod), pod)).collect();
        self.running.retain(|uid, _| pods.contains_key(uid.as_str()));
        let mut problems = Vec::new();
        for (uid, pod) in pods {
            if let Err(problem) = self.advance(api, uid, pod).await {
                let name = format!("{}/{}", objects::namespace(pod), objects::name(pod));
                problems.push(problem.context(name));
            }
        }
        problems
    }

    /// One step for one pod: it is started, or becomes ready, or is ended if one of its programs has.
    async fn advance(&mut self, api: &ApiServer, uid: &str, pod: &Value) -> Result<()> {
        if let Some(running) = self.running.get_mut(uid) {
            if let Err(ended) = running.check() {
                self.running.remove(uid);
                return Err(ended);
            }
            return running.tell(api, pod).await;
        }
        let host = self.free_host()?;
        let started = Pod::start(api, &self.network, &self.programs, &self.dir, host, pod).await?;
        self.running.insert(uid.to_owned(), started);
        Ok(())
    }

    /// The next address that no pod has. What has just been freed comes last, since the kernel takes its
    /// time.
    fn free_host(&mut self) -> Result<u8> {
        let used: BTreeSet<u8> = self.running.values().map(|pod| pod.host).collect();
        let turn = (self.last_host..*HOSTS.end()).map(|host| host + 1).chain(HOSTS);
        self.last_host = turn.into_iter().find(|host| !used.contains(host)).context("no address is free")?;
        Ok(self.last_host)
    }
}
