//! Services whose ports do not say what they mean, and ServiceEntries that cannot be told apart.

use std::collections::BTreeMap;

use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::service::{Protocol, Registry, Service, Visibility};
use navarch_snapshot::{BUCKETS, Bucket};
use navarch_translate::listeners::contribution::{ListenerProtocol, listener_protocol};

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

/// ServiceEntries for bytes without addresses: connections do not say where they want to go, so on a port
/// that several have, whoever comes first has them all.
pub(super) struct WithoutAddresses;

impl Gather for WithoutAddresses {
    const NAME: &'static str = "analyzers.without_addresses";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut ports: BTreeMap<u16, SharedPort> = BTreeMap::new();
        for bucket in 0..BUCKETS {
            for (port, found) in &*cx.gather::<PortsOfBucket>(&bucket) {
                ports.entry(*port).or_default().join(found);
            }
        }
        let is_allocated_for_all = all_capture_dns(cx);
        let mut problems = Vec::new();
        for (port, mut shared) in ports {
            if is_allocated_for_all {
                shared.bytes.retain(|asked| !asked.is_allocated);
            }
            shared.bytes.sort();
            problems.extend(shared.between_bytes(port));
            problems.extend(shared.between_protocols(port));
        }
        problems
    }
}

/// Who asks for a port, whatever the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SharedPort {
    /// ServiceEntries for bytes without addresses.
    bytes: Vec<AskedPort>,
    /// The first that speaks HTTP: with addresses too, for where traffic is not redirected those do not
    /// count.
    http: Option<AskedPort>,
}

impl SharedPort {
    fn join(&mut self, other: &SharedPort) {
        self.bytes.extend(other.bytes.iter().cloned());
        self.http = self.http.take().into_iter().chain(other.http.clone()).min();
    }

    fn between_bytes(&self, port: u16) -> impl Iterator<Item = Problem> + '_ {
        let (winner, losers) = match self.bytes.split_first() {
            Some((winner, losers)) => (Some(winner), losers),
            None => (None, [].as_slice()),
        };
        let pairs =
            winner.into_iter().flat_map(move |winner| losers.iter().map(move |loser| (winner, loser)));
        pairs.filter(|(winner, loser)| winner.meets(loser)).map(move |(winner, loser)| {
            let message = format!(
                "connections to port {port} say nothing of the host, and {} ({}) comes first; nothing reaches {} from proxies that see both",
                winner.key, winner.host, loser.host
            );
            let hint = match winner.is_allocated && loser.is_allocated {
                true => {
                    "give each entry addresses of its own, or another port, or let the proxies capture DNS (ISTIO_META_DNS_CAPTURE): then those that are allocated for the hosts tell them apart"
                }
                false => "give each entry addresses of its own, or another port; none are allocated for it",
            };
            loser.problem(winner, message, hint)
        })
    }

    /// Where traffic is redirected HTTP is told from bytes by how it begins.
    fn between_protocols(&self, port: u16) -> Option<Problem> {
        let (bytes, http) = (self.bytes.first()?, self.http.as_ref()?);
        if !bytes.meets(http) {
            return None;
        }
        let (winner, loser) = if bytes < http { (bytes, http) } else { (http, bytes) };
        let message = format!(
            "proxies without interception (INTERCEPTION_MODE NONE) listen on port {port} for HTTP or for bytes, and {} ({}) comes first; nothing reaches {} from those that see both",
            winner.key, winner.host, loser.host
        );
        Some(loser.problem(winner, message, "give the entry for bytes addresses of its own, or another port"))
    }
}

/// A port of a service. Ordered as listeners choose: the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AskedPort {
    created_at: i64,
    host: navarch_model::Name,
    key: ObjectKey,
    position: usize,
    public: bool,
    /// An address is allocated for the host, for proxies that capture DNS.
    is_allocated: bool,
}

impl AskedPort {
    fn of(service: &Service, position: usize) -> Self {
        AskedPort {
            created_at: service.created_at,
            host: service.hostname.clone(),
            key: key_of(service),
            position,
            public: service.export_to == Visibility::Public,
            is_allocated: !service.auto_allocated_addresses.is_empty(),
        }
    }

    /// Whether both are different hosts, and there are clients that see both.
    fn meets(&self, other: &AskedPort) -> bool {
        self.host != other.host && (self.public && other.public || self.key.namespace == other.key.namespace)
    }

    fn path(&self) -> String {
        format!("spec.ports[{}]", self.position)
    }

    fn problem(&self, winner: &AskedPort, message: String, hint: &str) -> Problem {
        let finding = Finding::warning(Code::Unreachable, message).hint(hint);
        let finding = finding.against(winner.key.clone(), winner.path());
        Problem { key: self.key.clone(), path: self.path(), finding }
    }
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
    type Output = BTreeMap<u16, SharedPort>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> BTreeMap<u16, SharedPort> {
        let mut found: BTreeMap<u16, SharedPort> = BTreeMap::new();
        for service in cx.view().services_in(*bucket).values().flatten() {
            let is_open = service.registry == Registry::ServiceEntry && service.addresses.is_empty();
            for (position, port) in service.ports.iter().enumerate() {
                let asked = match listener_protocol(port.protocol) {
                    Some(ListenerProtocol::Http) => {
                        SharedPort { bytes: Vec::new(), http: Some(AskedPort::of(service, position)) }
                    }
                    Some(ListenerProtocol::Tcp) if is_open && !port.protocol.is_tls() => {
                        SharedPort { bytes: vec![AskedPort::of(service, position)], http: None }
                    }
                    _ => continue,
                };
                found.entry(port.port).or_default().join(&asked);
            }
        }
        found
    }
}
