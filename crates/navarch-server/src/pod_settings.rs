//! What pods of proxies get: the settings that we were started with, and over them the MeshConfig as it is
//! now.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use navarch_inject::Settings;
use navarch_model::kubernetes::ConfigMap;
use navarch_model::{Kind, ObjectKey};
use navarch_snapshot::Snapshot;
use navarch_snapshot::world::MESH_CONFIG_MAP;
use parking_lot::Mutex;

/// What pods of proxies get, whoever makes them.
pub struct PodSettings {
    stated: Settings,
    /// A file with the MeshConfig, which counts before that of the cluster.
    mesh_config: Option<PathBuf>,
    latest: Arc<ArcSwap<Snapshot>>,
    /// The settings with the MeshConfig of a text, the last good one.
    current: Mutex<(String, Arc<Settings>)>,
}

impl PodSettings {
    pub fn new(
        stated: Settings,
        mesh_config: Option<PathBuf>,
        latest: Arc<ArcSwap<Snapshot>>,
    ) -> Arc<PodSettings> {
        let current = Mutex::new((String::new(), Arc::new(stated.clone())));
        Arc::new(PodSettings { stated, mesh_config, latest, current })
    }

    /// The settings, with what the MeshConfig says now. The same ones as long as it says the same.
    pub fn now(&self) -> Arc<Settings> {
        let text = match &self.mesh_config {
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(_) => return self.current.lock().1.clone(),
            },
            None => self.of_cluster(),
        };
        let text = text.unwrap_or_default();
        let mut current = self.current.lock();
        if current.0 != text {
            match self.stated.clone().with_mesh_config(&text) {
                Ok(settings) => current.1 = Arc::new(settings),
                Err(error) => tracing::warn!(%error, "pods are made with the last good MeshConfig"),
            }
            current.0 = text;
        }
        current.1.clone()
    }

    /// The MeshConfig of the cluster, as it is written.
    fn of_cluster(&self) -> Option<String> {
        let (namespace, name) = MESH_CONFIG_MAP;
        let snapshot = self.latest.load();
        let object = snapshot.object(&ObjectKey::new(Kind::ConfigMap, namespace, name))?;
        object.spec::<ConfigMap>()?.data.get("mesh").cloned()
    }
}
