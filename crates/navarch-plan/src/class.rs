//! Classes: proxies that get the same configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use navarch_model::endpoint::Locality;
use navarch_model::fact::Account;
use navarch_model::proxy::{InterceptionMode, ProxyFacts};
use navarch_model::{Labels, Name};
use navarch_snapshot::bound::Instance;
use navarch_snapshot::client_node::NODE_LABEL;
use navarch_snapshot::workload::of_proxy;
use navarch_snapshot::{Scope, View};

/// Everything translation may know of a proxy.
///
/// Proxies of equal class are planned once, however many they are: typically all replicas of a Deployment.
/// What tells replicas apart (addresses, names, the node they run on) is removed unless it shapes
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// The node's facts without what is unique to one replica: the id is empty, addresses are unspecified
    /// addresses of the same families, and metadata and the Kubernetes node it runs on are left out as long
    /// as nothing looks at them. Labels and locality are those of the registry where it knows the workload.
    pub facts: ProxyFacts,
    /// The service ports that the workload serves, in the order that decides conflicts.
    pub instances: Vec<Instance>,
    /// The real addresses, where they matter: nothing is intercepted, so listeners bind them; the proxy backs
    /// a headless service, whose listeners leave out its own address; or its Sidecar accepts inbound traffic
    /// on the address of the instance, or sends it there.
    pub own_addresses: Vec<IpAddr>,
    /// Which secrets may be sent. Part of the class, so that secrets cannot be shared by accident.
    pub secrets: Secrets,
}

/// Which secrets a proxy may have of those that configuration names for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Secrets {
    /// All: it runs on the machine of the control plane, or has proven who it is where nobody else keeps
    /// secrets.
    #[default]
    Given,
    /// Keys that are no more than named only if its service account may read Secrets itself
    /// ([`SecretAccess`](navarch_model::fact::SecretAccess)): it has proven who it is, and an API server
    /// keeps them.
    Reviewed,
    /// None: it has proven nothing.
    Withheld,
}

impl Class {
    /// The class of a proxy, as the world stands.
    pub fn of(facts: &ProxyFacts, view: &View<'_>) -> Self {
        let mut class = Self::exact(facts, view);
        class.facts.metadata = facts.metadata.only(view.node_metadata_keys());
        class.facts.annotations = shaping_annotations(&facts.annotations);
        if !view.client_nodes_matter() {
            class.facts.node_name = Name::default();
            class.facts.labels.remove(NODE_LABEL);
        }
        class
    }

    /// The class with everything that a proxy states, whether or not somebody looks at it: what leaving it
    /// out must not change.
    pub fn exact(facts: &ProxyFacts, view: &View<'_>) -> Self {
        let workload = of_proxy(view, facts);
        let own_addresses = if facts.interception == InterceptionMode::None
            || workload.instances.iter().any(|instance| instance.service.headless)
            || sends_to_own_address(&Scope::resolve(view, facts, &workload.labels))
        {
            facts.addresses.clone()
        } else {
            Vec::new()
        };
        let mut anonymous = facts.clone();
        anonymous.id = Name::default();
        anonymous.addresses = facts.addresses.iter().map(unspecified).collect();
        anonymous.labels = workload.labels;
        anonymous.locality = workload.locality;
        Class { facts: anonymous, instances: workload.instances, own_addresses, secrets: Secrets::Given }
    }

    /// The class of proxies that are alike but may have these secrets.
    #[must_use]
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        Class { secrets, ..self }
    }

    /// The service account whose permissions decide which secrets it gets.
    pub fn secret_reader(&self) -> Option<Account> {
        let (namespace, name) = (self.facts.namespace.clone(), self.facts.service_account.clone());
        (self.secrets == Secrets::Reviewed).then_some(Account { namespace, name })
    }

    /// The labels of the workload.
    pub fn labels(&self) -> &Labels {
        &self.facts.labels
    }

    /// Where the workload runs.
    pub fn locality(&self) -> &Locality {
        &self.facts.locality
    }
}

/// Annotations of the pod that somebody reads. Networks annotate each pod with its own address, for example.
fn shaping_annotations(annotations: &Labels) -> Labels {
    let is_read = |key: &str| {
        key.split_once('/')
            .is_some_and(|(domain, _)| domain.ends_with("istio.io") || domain.ends_with("opentelemetry.io"))
    };
    let read = annotations.iter().filter(|(key, _)| is_read(key));
    read.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// `defaultEndpoint: 0.0.0.0:<port>` and `[::]:<port>` stand for the address of the instance, and an ingress
/// listener that does not say where it listens listens there.
fn sends_to_own_address(scope: &Scope) -> bool {
    scope.ingress().iter().any(|listener| {
        listener.bind.is_empty()
            || ["0.0.0.0:", "[::]:"]
                .iter()
                .any(|unspecified| listener.default_endpoint.starts_with(unspecified))
    })
}

fn unspecified(address: &IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
