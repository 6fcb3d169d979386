//! What is to be made for the gateways of a snapshot.

use std::sync::Arc;

use navarch_inject::Settings;
use navarch_install::gateway::{DEFAULTS_LABEL, Gateway, Parameters, Port, gateway_objects};
use navarch_model::gateway_api::GatewayClass;
use navarch_model::kubernetes::ConfigMap;
use navarch_model::{Kind, Name, ObjectKey, Revision};
use navarch_snapshot::Snapshot;
use navarch_snapshot::provisioned::Provisioned;
use serde_json::Value;

use crate::whose;

/// Which logic of istiod has a gateway in its hands: larger numbers win (istiod:
/// `ControllerVersionAnnotation`).
const VERSION_ANNOTATION: &str = "gateway.istio.io/controller-version";
const VERSION: u32 = 5;

/// What is to be made for a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub gateway: ObjectKey,
    /// Its own.
    pub uid: Name,
    /// The objects in the order in which they are applied, or why there are none.
    pub objects: Result<Arc<Vec<Value>>, String>,
}

/// What is to be made for the gateways that are ours to run. `namespace` is where the control plane runs, and
/// where parameters for all gateways of a class are.
pub fn wanted(snapshot: &Snapshot, settings: &Settings, namespace: &str) -> Vec<Wanted> {
    let revision = settings.called();
    let ours = snapshot.provisioned().filter(|gateway| is_ours(snapshot, &revision, gateway));
    let wanted = ours.map(|gateway| Wanted {
        gateway: gateway.object.key.clone(),
        uid: gateway.object.metadata.uid.clone(),
        objects: objects(snapshot, settings, namespace, &gateway).map(Arc::new),
    });
    wanted.collect()
}

/// Whether it is for us to run, and not for another revision, another control plane or nobody.
fn is_ours(snapshot: &Snapshot, revision: &Revision, gateway: &Provisioned<'_>) -> bool {
    let metadata = &gateway.object.metadata;
    let version = metadata.annotations.get(VERSION_ANNOTATION);
    metadata.deletion_timestamp.is_none()
        && whose::is_ours(snapshot, revision, &gateway.object.key)
        && version.is_none_or(|version| version.parse::<u32>().is_ok_and(|version| version <= VERSION))
}

fn objects(
    snapshot: &Snapshot,
    settings: &Settings,
    namespace: &str,
    gateway: &Provisioned<'_>,
) -> Result<Vec<Value>, String> {
    let ports = gateway.ports.iter().map(|port| Port {
        name: &port.listener,
        port: port.port,
        protocol: &port.protocol,
    });
    let gateway = Gateway {
        metadata: &gateway.object.metadata,
        spec: gateway.spec,
        controller: gateway.controller,
        name: &gateway.name,
        ports: ports.collect(),
        parameters: parameters(snapshot, namespace, gateway)?,
    };
    gateway_objects(settings, &gateway).map_err(|fault| fault.to_string())
}

/// The ConfigMaps that say how a gateway is run: for all of its class, as istiod has it; those that its class
/// names; and its own.
fn parameters<'s>(
    snapshot: &'s Snapshot,
    namespace: &str,
    gateway: &Provisioned<'s>,
) -> Result<Vec<Parameters<'s>>, String> {
    let class = gateway.spec.gateway_class_name.as_str();
    let labelled = snapshot
        .objects_in(Kind::ConfigMap, namespace)
        .filter(|object| object.metadata.labels.get(DEFAULTS_LABEL).is_some_and(|of| **of == *class));
    // Of several the oldest counts.
    let defaults =
        labelled.min_by_key(|object| (object.metadata.creation_timestamp, object.key.name.clone()));
    let mut keys: Vec<ObjectKey> = defaults.map(|object| object.key.clone()).into_iter().collect();
    let object = snapshot.object(&ObjectKey::new(Kind::GatewayClass, "", class));
    if let Some(reference) = object.and_then(|object| object.spec::<GatewayClass>()?.parameters_ref.as_ref())
    {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        keys.push(config_map(&reference.group, &reference.kind, namespace, &reference.name)?);
    }
    let own = gateway.spec.infrastructure.as_ref().and_then(|stated| stated.parameters_ref.as_ref());
    if let Some(reference) = own {
        let namespace = &gateway.object.key.namespace;
        keys.push(config_map(&reference.group, &reference.kind, namespace, &reference.name)?);
    }
    let parameters = keys.into_iter().map(|key| {
        let found = snapshot.object(&key).and_then(|object| object.spec::<ConfigMap>());
        let found = found.ok_or_else(|| format!("there is no {key}"))?;
        Ok(Parameters { from: key.to_string(), data: &found.data })
    });
    parameters.collect()
}

fn config_map(group: &str, kind: &str, namespace: &str, name: &str) -> Result<ObjectKey, String> {
    match (group, kind) {
        ("", "ConfigMap") => Ok(ObjectKey::new(Kind::ConfigMap, namespace, name)),
        _ => Err(format!("parameters are in a ConfigMap, not in a {kind}")),
    }
}
