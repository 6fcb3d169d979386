//! Gateways whose proxies are to be made, instead of being there already.

use navarch_model::gateway_api::{Gateway, GatewayClass};
use navarch_model::listener::ListenerSet;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::{Kind, Name};

use crate::bind::{controller_of, made_name};
use crate::changed_keys::changed_keys;
use crate::snapshot::Snapshot;

/// A gateway of ours that names no host to be reached at: proxies are made for it.
#[derive(Clone, Debug)]
pub struct Provisioned<'s> {
    pub object: &'s Object,
    pub spec: &'s Gateway,
    /// The controller of its class, as the author of the class calls it.
    pub controller: &'static str,
    /// What is made for it is called this, its Service above all.
    pub name: String,
    /// The ports of its listeners, its own first; each once.
    pub ports: Vec<ProvisionedPort>,
}

/// A port that clients of a gateway connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionedPort {
    /// The first listener that opens it.
    pub listener: Name,
    pub port: u16,
    /// As that listener states it.
    pub protocol: Name,
}

impl ProvisionedPort {
    /// Whether it takes datagrams: a port for those is another one than that for connections.
    pub fn is_datagrams(&self) -> bool {
        &*self.protocol == "UDP"
    }
}

impl Snapshot {
    /// The gateways whose proxies are to be made, by namespace and name.
    pub fn provisioned(&self) -> impl Iterator<Item = Provisioned<'_>> {
        self.objects_of(Kind::KubernetesGateway).filter_map(|object| {
            let own: &ListenerSet = self.gateways.get(&object.key).filter(|set| set.provisioned)?;
            let spec: &Gateway = object.spec::<Gateway>()?;
            let added = self.gateways.sets_for(&object.key).map(|set| -> &ListenerSet { set });
            Some(Provisioned {
                object,
                spec,
                controller: self.controller_of_class(&spec.gateway_class_name),
                name: made_name(object, spec),
                ports: ports([own].into_iter().chain(added)),
            })
        })
    }

    /// Whether what runs gateways is made of the same things as in `before`, without looking at what they
    /// share: listeners, gateways, their classes and namespaces, and ConfigMaps with parameters.
    pub fn provisions_as(&self, before: &Snapshot) -> bool {
        let is_read = |key: &ObjectKey| {
            use Kind::{ConfigMap, GatewayClass, KubernetesGateway, Namespace};
            matches!(key.kind, KubernetesGateway | GatewayClass | Namespace | ConfigMap)
        };
        self.gateways.fingerprint() == before.gateways.fingerprint()
            && !changed_keys(&self.objects, &before.objects).any(is_read)
    }

    /// The controller of a class that is ours.
    pub(crate) fn controller_of_class(&self, name: &str) -> &'static str {
        let class = self.objects.get(&ObjectKey::new(Kind::GatewayClass, "", name));
        controller_of(name, class.and_then(|class| class.spec::<GatewayClass>()).map(|class| &***class))
    }
}

fn ports<'s>(sets: impl Iterator<Item = &'s ListenerSet>) -> Vec<ProvisionedPort> {
    let mut ports: Vec<ProvisionedPort> = Vec::new();
    for listener in sets.flat_map(|set| &set.listeners) {
        let port = ProvisionedPort {
            listener: listener.section().cloned().unwrap_or_default(),
            port: listener.port,
            protocol: listener.protocol.clone(),
        };
        let is_same =
            |known: &ProvisionedPort| known.port == port.port && known.is_datagrams() == port.is_datagrams();
        if !ports.iter().any(is_same) {
            ports.push(port);
        }
    }
    ports
}
