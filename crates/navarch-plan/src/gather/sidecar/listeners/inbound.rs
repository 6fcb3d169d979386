//! Inbound listeners of a sidecar.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::networking::{CaptureMode, IstioIngressListener};
use navarch_model::proxy::InterceptionMode;
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Kind, Name, ObjectKey};
use navarch_snapshot::Scope;
use navarch_snapshot::authn::{MtlsMode, PeerPolicy, peer_policy};
use navarch_snapshot::bound::Instance;
use navarch_translate::clusters::stat_pattern;
use navarch_translate::listeners::address::{names, wildcards};
use navarch_translate::listeners::inbound::{
    BoundPort, BoundPortInput, InboundPort, InboundSettings, MutualTlsMode, VirtualInbound,
    VirtualInboundInput,
};
use navarch_translate::names;

use super::view::own_ports;
use crate::class::Class;
use crate::engine::Cx;

/// The inbound listeners of a sidecar.
pub fn inbound(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Vec<Arc<Resource>> {
    let settings = super::settings::inbound(cx, class);
    let policy = peer_policy(cx.view(), scope.namespace(), class.labels());
    let ports = Ports { class, scope, settings: &settings, policy: &policy };
    let (bound, redirected): (Vec<_>, Vec<_>) = ports.all(cx).into_iter().partition(|port| port.bind_to_port);
    let mut listeners: Vec<Arc<Resource>> = bound
        .into_iter()
        .map(|port| BoundPortInput { settings: settings.clone(), port: port.port })
        .map(|input| cx.get::<BoundPort>(&input).made.clone())
        .collect();
    if class.facts.interception != InterceptionMode::None {
        let input = VirtualInboundInput {
            settings: settings.clone(),
            other_ports: mode(policy.mode_for(0)),
            policy_ports: ports.policy_ports(),
            ports: redirected.into_iter().map(|port| port.port).collect(),
        };
        listeners.push(cx.get::<VirtualInbound>(&input).made.clone());
    }
    listeners
}

/// A port of the workload, and whether it has a socket of its own.
struct InboundPortBinding {
    port: InboundPort,
    bind_to_port: bool,
}

struct Ports<'a> {
    class: &'a Class,
    scope: &'a Scope,
    settings: &'a InboundSettings,
    policy: &'a PeerPolicy,
}

impl Ports<'_> {
    /// The ports of the workload, by number. The ingress listeners of a Sidecar replace those of the
    /// services.
    fn all(&self, cx: &Cx<'_>) -> Vec<InboundPortBinding> {
        let ingress = self.scope.ingress();
        let mut ports: BTreeMap<u16, InboundPortBinding> = BTreeMap::new();
        let add = |ports: &mut BTreeMap<u16, InboundPortBinding>, binding: InboundPortBinding| {
            // The oldest service decides, also about the protocol.
            ports.entry(binding.port.target_port).or_insert(binding);
        };
        if !ingress.is_empty() {
            for listener in ingress {
                if let Some(binding) = self.of_ingress(listener) {
                    add(&mut ports, binding);
                }
            }
        } else if self.class.facts.interception != InterceptionMode::None {
            // Without interception the workload itself listens on its ports.
            let mesh = &cx.view().mesh().config;
            let taken = own_ports(&self.class.facts, Some(mesh));
            for instance in &self.class.instances {
                if !taken.contains(&instance.target_port) {
                    add(&mut ports, self.of_instance(instance, &mesh.inbound_cluster_stat_name));
                }
            }
        }
        ports.into_values().collect()
    }

    fn of_instance(&self, instance: &Instance, stat_pattern_text: &str) -> InboundPortBinding {
        let cluster = names::inbound(u32::from(instance.target_port));
        let stat_prefix = match stat_pattern_text {
            "" => cluster.clone(),
            pattern => stat_pattern(
                pattern,
                &instance.service,
                "",
                u32::from(instance.port),
                &instance.port_name,
                u32::from(instance.target_port),
            ),
        };
        InboundPortBinding {
            bind_to_port: false,
            port: InboundPort {
                service_port: instance.port,
                target_port: instance.target_port,
                protocol: instance.protocol,
                cluster: Name::from(cluster),
                binds: names(wildcards(self.settings.listener.ip_mode)),
                host: instance.service.hostname.clone(),
                stat_prefix: Name::from(stat_prefix),
                mode: mode(self.policy.mode_for(u32::from(instance.target_port))),
                config: None,
            },
        }
    }

    fn of_ingress(&self, listener: &IstioIngressListener) -> Option<InboundPortBinding> {
        let facts = &self.class.facts;
        let stated = listener.port.as_ref()?;
        let number = u16::try_from(stated.number).ok()?;
        let bind_to_port = match listener.capture_mode {
            CaptureMode::Default => facts.interception == InterceptionMode::None,
            CaptureMode::None => true,
            CaptureMode::Iptables => false,
        };
        let protocol = Protocol::parse(&stated.protocol);
        if bind_to_port && facts.unprivileged && (1..1024).contains(&number) {
            return None;
        }
        let wildcards = names(wildcards(self.settings.listener.ip_mode));
        let any = match listener.bind.as_str() {
            "" => protocol.is_http(),
            bind => wildcards.first().is_some_and(|wildcard| **wildcard == *bind),
        };
        if any && own_ports(facts, None).contains(&number) {
            return None;
        }
        let sidecar = self.scope.sidecar()?;
        let cluster = names::inbound(stated.number);
        Some(InboundPortBinding {
            bind_to_port,
            port: InboundPort {
                service_port: number,
                target_port: number,
                protocol,
                binds: match listener.bind.as_str() {
                    "" => {
                        self.own_address().map_or(wildcards, |address| vec![Name::from(address.to_string())])
                    }
                    bind => vec![Name::from(bind)],
                },
                // There is no host; the name of the Sidecar stands in.
                host: Name::from(format!("{}.{}", sidecar.name, self.scope.namespace())),
                stat_prefix: Name::from(cluster.as_str()),
                cluster: Name::from(cluster),
                mode: mode(self.policy.mode_for(stated.number)),
                config: Some(ObjectKey::new(Kind::Sidecar, self.scope.namespace(), &sidecar.name)),
            },
        })
    }

    /// The address of the workload that others reach it under.
    fn own_address(&self) -> Option<IpAddr> {
        self.class.own_addresses.iter().copied().find(|address| match address {
            IpAddr::V4(ip) => {
                !ip.is_unspecified()
                    && !ip.is_loopback()
                    && !ip.is_link_local()
                    && !ip.is_multicast()
                    && !ip.is_broadcast()
            }
            IpAddr::V6(ip) => {
                !ip.is_unspecified() && !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_multicast()
            }
        })
    }

    /// Ports that only a policy names: they are not ports of a service, but their mode differs.
    fn policy_ports(&self) -> Vec<(u16, MutualTlsMode)> {
        let ingress = self.scope.ingress();
        let declared = |port: u32| {
            if ingress.is_empty() {
                self.class.instances.iter().any(|instance| u32::from(instance.target_port) == port)
            } else {
                ingress.iter().any(|listener| listener.port.as_ref().is_some_and(|own| own.number == port))
            }
        };
        let undeclared = self.policy.ports.iter().filter(|(port, _)| !declared(**port));
        undeclared.filter_map(|(port, stated)| Some((u16::try_from(*port).ok()?, mode(*stated)))).collect()
    }
}

fn mode(mode: MtlsMode) -> MutualTlsMode {
    match mode {
        MtlsMode::Disable => MutualTlsMode::Disable,
        MtlsMode::Permissive => MutualTlsMode::Permissive,
        MtlsMode::Strict => MutualTlsMode::Strict,
    }
}
