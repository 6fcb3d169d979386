//! Services whose ports do not say what they mean, and ServiceEntries that cannot be told apart.

use std::collections::BTreeMap;

use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::service::{Protocol, Registry, Service, Visibility};
use navarch_snapshot::{BUCKETS, Bucket};

use crate::engine::{Cx, Gather};
use crate::findings::problem::Problem;

/// Port of HTTPS.
const HTTPS: u16 = 443;

/// Services of a bucket.
pub(super) struct InBucket;

impl Gather for InBucket {
    const NAME: &'static str = "analyzers.services";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for services in cx.view().services_in(*bucket).values() {
            for service in services {
                ports(service, &mut problems);
            }
            conflicting_protocols(services.iter().map(|service| &***service as &Service), &mut problems);
        }
        problems
    }
}

pub(super) fn key_of(service: &Service) -> ObjectKey {
    let kind = match service.registry {
        Registry::Kubernetes => Kind::Service,
        Registry::ServiceEntry => Kind::ServiceEntry,
    };
    ObjectKey::new(kind, &service.namespace, &service.name)
}

fn ports(service: &Service, problems: &mut Vec<Problem>) {
    for (index, port) in service.ports.iter().enumerate() {
        let mut add = |field: &str, finding: Finding| {
            problems.push(Problem {
                key: key_of(service),
                path: format!("spec.ports[{index}].{field}"),
                finding,
            });
        };
        let plain_http = matches!(port.protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc);
        if port.port == HTTPS && plain_http && service.registry == Registry::ServiceEntry {
            let message = "port 443 speaks HTTPS nearly everywhere, and the entry says HTTP: TLS of applications is not understood, and without a DestinationRule calls go out unencrypted";
            let finding = Finding::warning(Code::Risky, message)
                .hint("write HTTPS or TLS, or originate TLS with a DestinationRule (tls.mode SIMPLE)");
            add("protocol", finding);
        }
    }
}

/// ServiceEntries with one host and port, and different protocols: one of them is wrong about what is spoken.
fn conflicting_protocols<'a>(services: impl Iterator<Item = &'a Service>, problems: &mut Vec<Problem>) {
    let mut known: BTreeMap<u16, (&Service, Protocol)> = BTreeMap::new();
    for service in services.filter(|service| service.registry == Registry::ServiceEntry) {
        for (index, port) in service.ports.iter().enumerate() {
            match known.get(&port.port) {
                Some((first, protocol)) if *protocol != port.protocol => {
                    let message = format!(
                        "{} says that port {} of {} speaks {protocol:?}",
                        key_of(first),
                        port.port,
                        service.hostname
                    );
                    problems.push(Problem {
                        key: key_of(service),
                        path: format!("spec.ports[{index}].protocol"),
                        finding: Finding::warning(Code::InvalidCombination, message)
                            .hint("write the same protocol in both, or remove one")
                            .against(key_of(first), "spec.ports"),
                    });
                }
                Some(_) => {}
                None => {
                    known.insert(port.port, (service, port.protocol));
                }
            }
        }
    }
}

/// ServiceEntries for bytes on one port without addresses: connections do not say where they want to go.
pub(super) struct WithoutAddresses;

impl Gather for WithoutAddresses {
    const NAME: &'static str = "analyzers.without_addresses";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut all = Vec::new();
        for bucket in 0..BUCKETS {
            all.extend(cx.gather::<PortsOfBucket>(&bucket).iter().cloned());
        }
        if all_capture_dns(cx) {
            all.retain(|port| !port.is_allocated);
        }
        all.sort();
        let mut first: BTreeMap<u16, &PortWithoutAddress> = BTreeMap::new();
        let mut problems = Vec::new();
        for port in &all {
            let Some(winner) = first.get(&port.port) else {
                first.insert(port.port, port);
                continue;
            };
            if winner.host == port.host
                || !(winner.public && port.public) && winner.key.namespace != port.key.namespace
            {
                continue;
            }
            let message = format!(
                "connections to port {} say nothing of the host, and {} ({}) comes first; nothing reaches {} from proxies that see both",
                port.port, winner.key, winner.host, port.host
            );
            let hint = match winner.is_allocated && port.is_allocated {
                true => {
                    "give each entry addresses of its own, or another port, or let the proxies capture DNS (ISTIO_META_DNS_CAPTURE): then those that are allocated for the hosts tell them apart"
                }
                false => "give each entry addresses of its own, or another port; none are allocated for it",
            };
            let finding = Finding::warning(Code::Unreachable, message).hint(hint);
            let finding = finding.against(winner.key.clone(), format!("spec.ports[{}]", winner.position));
            problems.push(Problem {
                key: port.key.clone(),
                path: format!("spec.ports[{}]", port.position),
                finding,
            });
        }
        problems
    }
}

/// A port for bytes of a ServiceEntry without addresses. Ordered as listeners choose: the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PortWithoutAddress {
    created_at: i64,
    host: navarch_model::Name,
    key: ObjectKey,
    port: u16,
    position: usize,
    public: bool,
    /// An address is allocated for the host, for proxies that capture DNS.
    is_allocated: bool,
}

/// Whether the mesh's settings let all proxies capture DNS.
fn all_capture_dns(cx: &Cx<'_>) -> bool {
    let settings = cx.view().mesh();
    let metadata = settings.config.default_config.as_ref().map(|proxy| &proxy.proxy_metadata);
    metadata.and_then(|metadata| metadata.get("ISTIO_META_DNS_CAPTURE")).is_some_and(|value| value == "true")
}

struct PortsOfBucket;

impl Gather for PortsOfBucket {
    const NAME: &'static str = "analyzers.ports_without_addresses";
    type Key = Bucket;
    type Output = Vec<PortWithoutAddress>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<PortWithoutAddress> {
        let mut found = Vec::new();
        for service in cx.view().services_in(*bucket).values().flatten() {
            if service.registry != Registry::ServiceEntry || !service.addresses.is_empty() {
                continue;
            }
            for (position, port) in service.ports.iter().enumerate() {
                if port.protocol != Protocol::Tcp {
                    continue;
                }
                found.push(PortWithoutAddress {
                    created_at: service.created_at,
                    host: service.hostname.clone(),
                    key: key_of(service),
                    port: port.port,
                    position,
                    public: service.export_to == Visibility::Public,
                    is_allocated: !service.auto_allocated_addresses.is_empty(),
                });
            }
        }
        found
    }
}
