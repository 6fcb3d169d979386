//! Route configurations out of encoded virtual hosts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use navarch_envoy::proto::envoy::config::route::v3 as envoy;
use navarch_envoy::proto::envoy::config::route::v3::route::Action;
use navarch_envoy::proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use navarch_envoy::wire::put_field;
use navarch_envoy::{Resource, XdsType, wkt};
use navarch_model::{Hashed, Name, Precedence};
use prost::Message;

use super::domains::Domain;
use super::input::EncodedRoute;
use super::route_match;
use super::virtual_host::{Content, VirtualHost};
use crate::http_connection_manager::ads_without_timeout;
use crate::pure::{Pure, Sealed};

/// Tag byte of `virtual_hosts` in `envoy.config.route.v3.RouteConfiguration`.
const VIRTUAL_HOSTS: u8 = 0x12;

/// Largest body of a direct response; Istio's validation refuses larger ones.
const DIRECT_RESPONSE_BODY_MAX_BYTES: u32 = 1024 * 1024;

/// What becomes of requests to hosts that no virtual host names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CatchAll {
    /// `ALLOW_ANY`: forwarded to where the client wanted to go, or to an egress proxy.
    Allow { cluster: Name },
    /// `ALLOW_ANY_DYNAMIC_DNS`: forwarded to what the host resolves to.
    AllowDynamicDns { cluster: Name },
    /// `REGISTRY_ONLY`: refused.
    Block,
}

/// The virtual host for hosts that nobody else has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CatchAllHost {
    pub kind: CatchAll,
    pub include_request_attempt_count: bool,
    pub append_x_forwarded_host: bool,
}

/// Virtual hosts of one bucket for one route configuration.
pub type Contribution = Arc<Hashed<Vec<Ranked>>>;

/// A virtual host and where it stands where several claim a domain: the first has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ranked {
    pub rank: Rank,
    pub host: Arc<Hashed<VirtualHost>>,
    /// By namespace, what its clients have instead: the same with shorter domains.
    pub short_names: Vec<(Name, Arc<Hashed<VirtualHost>>)>,
}

impl Ranked {
    /// The virtual host for clients in a namespace.
    pub fn host_for(&self, namespace: &str) -> &Arc<Hashed<VirtualHost>> {
        let short_names = self.short_names.iter().find(|(known, _)| **known == *namespace);
        short_names.map_or(&self.host, |(_, host)| host)
    }
}

/// Routes that somebody wrote go before default routes; older ones before newer; hosts before services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    Routes { precedence: Precedence, is_service: bool, position: u32 },
    Default { host: Name, position: u32 },
}

/// The key of [`RouteConfiguration`].
#[derive(Clone, Debug)]
pub struct RouteConfigurationInput {
    pub name: Name,
    /// Empty contributions may be left out.
    pub contributions: Vec<Contribution>,
    /// Namespace of the clients, if some virtual host differs for them; else empty.
    pub namespace: Name,
    pub catch_all: Option<CatchAllHost>,
    /// The listener serves all ports: of ports other than 80 only domains that name the port are kept.
    pub all_ports: bool,
    /// gRPC clients without Envoy compare the port of the host too.
    pub ignore_port_in_host_matching: bool,
}

impl Hash for RouteConfigurationInput {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let RouteConfigurationInput {
            name,
            contributions,
            namespace,
            catch_all,
            all_ports,
            ignore_port_in_host_matching,
        } = self;
        (name, contributions, namespace, catch_all, all_ports, ignore_port_in_host_matching).hash(state);
    }
}

/// A route configuration: the virtual hosts of all buckets, every domain once, and the catch-all host last.
pub struct RouteConfiguration;

impl Sealed for RouteConfiguration {}

impl Pure for RouteConfiguration {
    const NAME: &'static str = "routes.configuration";
    type Input = RouteConfigurationInput;
    type Output = Resource;

    fn run(input: &RouteConfigurationInput) -> Resource {
        let mut ranked: Vec<&Ranked> = input.contributions.iter().flat_map(|hosts| hosts.iter()).collect();
        ranked.sort_by(|a, b| a.rank.cmp(&b.rank));
        let hosts: Vec<&VirtualHost> =
            ranked.into_iter().map(|ranked| &***ranked.host_for(&input.namespace)).collect();
        let full_names: HashSet<&str> = hosts
            .iter()
            .flat_map(|host| host.service.iter().flat_map(|service| [&**service, host.name.as_str()]))
            .collect();
        let mut names = HashSet::new();
        let mut taken = HashSet::with_capacity(hosts.iter().map(|host| host.domains.len()).sum());
        let mut kept: Vec<(&str, Cow<'_, [u8]>)> = Vec::with_capacity(hosts.len());
        for host in hosts {
            if !names.insert(host.name.as_str()) {
                continue;
            }
            let only_with_port = input.all_ports && !host.name.ends_with(":80");
            let domains = free_domains(host, &full_names, &mut taken);
            let domains: Vec<&str> =
                domains.into_iter().filter(|domain| !only_with_port || domain.contains(':')).collect();
            if domains.is_empty() {
                continue;
            }
            let bytes = if domains.len() == host.domains.len() {
                host.bytes().as_ref().into()
            } else {
                host.with_domains(domains).into()
            };
            kept.push((&host.name, bytes));
        }
        kept.sort_by(|a, b| a.0.cmp(b.0));
        let size = kept.iter().map(|(_, bytes)| bytes.len() + 4).sum();
        let mut body = Vec::with_capacity(size);
        for (_, bytes) in &kept {
            put_field(&mut body, VIRTUAL_HOSTS, bytes);
        }
        if let Some(catch_all) = &input.catch_all {
            put_field(&mut body, VIRTUAL_HOSTS, catch_all.virtual_host().bytes());
        }
        finish(&input.name, &body, input.ignore_port_in_host_matching)
    }
}

/// The domains of a host that nobody has yet; they are taken from now on. Letter case does not count.
fn free_domains<'h>(
    host: &'h VirtualHost,
    full_names: &HashSet<&str>,
    taken: &mut HashSet<Cow<'h, str>>,
) -> Vec<&'h str> {
    let mut free = Vec::with_capacity(host.domains.len());
    for Domain { text, alternative } in &host.domains {
        if *alternative && full_names.contains(text.as_str()) {
            continue;
        }
        let key = if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::from(text.to_ascii_lowercase())
        } else {
            Cow::from(text.as_str())
        };
        if taken.insert(key) {
            free.push(text.as_str());
        }
    }
    free
}

impl CatchAllHost {
    /// The virtual host.
    pub fn virtual_host(&self) -> VirtualHost {
        let (name, action) = match &self.kind {
            CatchAll::Allow { cluster } => ("allow_any", self.forward(cluster)),
            CatchAll::AllowDynamicDns { cluster } => ("allow_any_dynamic_dns", self.forward(cluster)),
            CatchAll::Block => {
                let response =
                    envoy::DirectResponseAction { status: 502, ..envoy::DirectResponseAction::default() };
                ("block_all", Action::DirectResponse(response))
            }
        };
        let route = envoy::Route {
            name: name.to_owned(),
            r#match: Some(route_match::everything()),
            action: Some(action),
            ..envoy::Route::default()
        };
        let routes = [EncodedRoute::without_rule(route.encode_to_vec(), true)];
        let domains = vec![Domain { text: "*".to_owned(), alternative: false }];
        let content = Content {
            routes: &routes,
            include_request_attempt_count: self.include_request_attempt_count,
            ..Content::default()
        };
        VirtualHost::new(name.to_owned(), None, domains, &content)
    }

    fn forward(&self, cluster: &Name) -> Action {
        Action::Route(envoy::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_string())),
            timeout: Some(wkt::duration_secs(0)),
            max_grpc_timeout: Some(wkt::duration_secs(0)),
            append_x_forwarded_host: self.append_x_forwarded_host,
            ..envoy::RouteAction::default()
        })
    }
}

/// The route configuration of one service port whose protocol is detected: its virtual host has every domain.
pub fn of_detected_port(name: Name, host: &VirtualHost) -> Resource {
    let mut body = Vec::new();
    put_field(&mut body, VIRTUAL_HOSTS, &host.with_domains(["*"]));
    finish(&name, &body, true)
}

/// A route configuration out of encoded virtual hosts.
pub fn finish(name: &Name, virtual_hosts: &[u8], ignore_port_in_host_matching: bool) -> Resource {
    let mut message = shell(name, ignore_port_in_host_matching).encode_to_vec();
    message.extend_from_slice(virtual_hosts);
    Resource::of(XdsType::Rds, name.clone(), &message)
}

/// A route configuration whose virtual hosts are resources of their own.
pub fn without_hosts(name: &Name, ignore_port_in_host_matching: bool) -> Resource {
    let mut message = shell(name, ignore_port_in_host_matching);
    message.vhds = Some(discovered());
    Resource::of(XdsType::Rds, name.clone(), &message.encode_to_vec())
}

/// Where virtual hosts come from that are resources of their own: as routes do, and as long as they take.
pub fn discovered() -> envoy::Vhds {
    envoy::Vhds { config_source: Some(ads_without_timeout()) }
}

/// What is not a virtual host.
fn shell(name: &Name, ignore_port_in_host_matching: bool) -> envoy::RouteConfiguration {
    envoy::RouteConfiguration {
        name: name.to_string(),
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(DIRECT_RESPONSE_BODY_MAX_BYTES),
        ignore_port_in_host_matching,
        ..envoy::RouteConfiguration::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(position: u32, name: &str, service: bool, domains: &[(&str, bool)]) -> Ranked {
        let domains = domains
            .iter()
            .map(|(text, alternative)| Domain { text: (*text).into(), alternative: *alternative })
            .collect();
        let service = service.then(|| Name::from(name.rsplit_once(':').map_or(name, |(host, _)| host)));
        let host = VirtualHost::new(name.to_owned(), service, domains, &Content::default());
        Ranked {
            rank: Rank::Default { host: name.into(), position },
            host: Arc::new(Hashed::new(host)),
            short_names: Vec::new(),
        }
    }

    fn hosts(contributions: Vec<Vec<Ranked>>, all_ports: bool) -> Vec<(String, Vec<String>)> {
        let input = RouteConfigurationInput {
            name: "80".into(),
            contributions: contributions.into_iter().map(|hosts| Arc::new(Hashed::new(hosts))).collect(),
            namespace: Name::from(""),
            catch_all: None,
            all_ports,
            ignore_port_in_host_matching: true,
        };
        let resource = RouteConfiguration::run(&input);
        let message = envoy::RouteConfiguration::decode(resource.body()).expect("a route configuration");
        assert_eq!(message.name, "80");
        message.virtual_hosts.into_iter().map(|host| (host.name, host.domains)).collect()
    }

    #[test]
    fn a_domain_belongs_to_the_first_that_claims_it() {
        let got = hosts(
            vec![
                vec![ranked(0, "b:80", true, &[("b", false), ("10.0.0.1", false)])],
                vec![ranked(0, "a:80", true, &[("a", false), ("10.0.0.1", false)])],
            ],
            false,
        );
        assert_eq!(
            got,
            [("a:80".into(), vec!["a".into(), "10.0.0.1".into()]), ("b:80".into(), vec!["b".to_owned()])]
        );
    }

    #[test]
    fn a_short_form_gives_way_to_the_full_name_of_another_service() {
        let got = hosts(
            vec![vec![
                ranked(0, "a.com.svc:80", true, &[("a.com.svc", false), ("a.com", true)]),
                ranked(0, "a.com:80", true, &[("a.com", false)]),
            ]],
            false,
        );
        assert_eq!(
            got,
            [
                ("a.com.svc:80".into(), vec!["a.com.svc".into()]),
                ("a.com:80".into(), vec!["a.com".to_owned()])
            ]
        );
    }

    #[test]
    fn where_all_ports_are_served_only_port_80_may_go_unnamed() {
        let got = hosts(
            vec![vec![
                ranked(0, "a:80", true, &[("a", false), ("a:80", false)]),
                ranked(0, "b:81", true, &[("b", false), ("b:81", false)]),
                ranked(0, "c:82", true, &[("c", false)]),
            ]],
            true,
        );
        assert_eq!(
            got,
            [("a:80".into(), vec!["a".into(), "a:80".into()]), ("b:81".into(), vec!["b:81".to_owned()])]
        );
    }

    #[test]
    fn a_name_is_there_once() {
        let got = hosts(
            vec![vec![ranked(0, "a:80", false, &[("a", false)]), ranked(1, "a:80", true, &[("a", false)])]],
            false,
        );
        assert_eq!(got, [("a:80".to_owned(), vec!["a".to_owned()])]);
    }
}
