//! What istiod answers over xDS beside configuration: who is in sync, what a proxy gets, pages for people.
//! And who may ask.

use std::sync::Arc;

use navarch_envoy::any::{any, unpack};
use navarch_envoy::hosts::joined;
use navarch_envoy::json::any_to_json;
use navarch_envoy::proto::envoy::admin::v3 as admin;
use navarch_envoy::proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use navarch_envoy::{Any, ProxyResources, Resource, XdsType};
use navarch_xds::{Answers, Peer, Question, Registry, Rejection, SYNCZ, StreamStatus, syncz};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::client::Client;
use crate::fleet::Fleet;

/// A page, as JSON. The name of the resource says which: `configz`, `config_dump?proxyID=web.shop`.
const PAGE: &str = "istio.io/debug";

/// What a proxy gets, in the form of Envoy's own dump. The name of the resource is the proxy.
const CONFIG_DUMP: &str = "istio.io/debug/config_dump";

/// What stands in place of private keys.
const REDACTED: &[u8] = b"[redacted]";

/// What somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything: who asks is on the same machine, or of the root namespace.
    Everything,
    /// Proxies of this namespace.
    Namespace(String),
}

impl Access {
    /// What a peer may see.
    ///
    /// # Errors
    /// If it is on another machine and has not proven who it is, or is of another mesh.
    pub fn of(peer: &Peer, fleet: &Fleet) -> Result<Self, Rejection> {
        let snapshot = fleet.snapshot();
        if peer.identities.is_empty() {
            return match peer.address.ip().to_canonical().is_loopback() {
                true => Ok(Access::Everything),
                false => Err(Rejection::Unauthenticated(
                    "ask on the machine of the control plane, or over TLS with a certificate of the mesh"
                        .into(),
                )),
            };
        }
        let Some(namespace) = Client::namespace_of(peer, &snapshot) else {
            return Err(Rejection::PermissionDenied(format!(
                "{} is no workload of this mesh",
                peer.identities.join(", ")
            )));
        };
        let view = snapshot.view();
        let is_root = *namespace == *view.mesh().config.root_namespace;
        Ok(if is_root { Access::Everything } else { Access::Namespace(namespace) })
    }

    fn namespace(&self) -> Option<&str> {
        match self {
            Access::Everything => None,
            Access::Namespace(namespace) => Some(namespace),
        }
    }

    /// Whether a stream is in access.
    #[must_use]
    pub fn covers(&self, stream: &StreamStatus) -> bool {
        self.namespace().is_none_or(|namespace| stream.node.metadata_str("NAMESPACE") == Some(namespace))
    }
}

/// Answers a question; `None` if it is none of these.
///
/// # Errors
/// If the peer may not ask, or asks for what there is not.
pub fn answer(
    fleet: &Arc<Fleet>,
    pages: Option<&Admin>,
    question: &Question<'_>,
) -> Result<Option<Answers>, Rejection> {
    if ![SYNCZ, CONFIG_DUMP, PAGE].contains(&question.type_url) {
        return Ok(None);
    }
    let access = Access::of(question.peer, fleet)?;
    match (question.type_url, question.names) {
        (SYNCZ, _) => Ok(Some(syncz(question.streams, access.namespace()))),
        // Nothing rather than an error, as from istiod: another replica may have the proxy.
        (CONFIG_DUMP, [proxy]) => {
            let dump = dump_of(fleet, question.streams, proxy, &access, false).unwrap_or_default();
            Ok(Some(dump.into_iter().map(|any| (String::new(), any)).collect()))
        }
        (CONFIG_DUMP, _) => Ok(Some(Vec::new())),
        (_, [page]) => {
            let body = self::page(fleet, pages, question.streams, page, &access)?;
            let any = Any { type_url: PAGE.to_owned(), value: body.to_string().into() };
            Ok(Some(vec![(page.clone(), any)]))
        }
        _ => Err(Rejection::InvalidRequest("exactly one debug page has to be named".into())),
    }
}

fn page(
    fleet: &Arc<Fleet>,
    pages: Option<&Admin>,
    streams: &Registry,
    page: &str,
    access: &Access,
) -> Result<Value, Rejection> {
    let (name, query) = page.split_once('?').unwrap_or((page, ""));
    let parameter = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    if name == "config_dump" {
        let proxy = parameter("proxyID").unwrap_or_default();
        let with_endpoints = query.split('&').any(|pair| pair.split('=').next() == Some("include_eds"));
        let dump = dump_of(fleet, streams, proxy, access, with_endpoints).ok_or_else(|| {
            Rejection::InvalidRequest(format!("no proxy named {proxy:?} is connected to this replica"))
        })?;
        let configs = dump.iter().map(|any| any_to_json(&any.type_url, &any.value));
        return Ok(json!({ "configs": configs.collect::<Vec<_>>() }));
    }
    if *access != Access::Everything {
        return Err(Rejection::PermissionDenied(format!("{name} is for the root namespace")));
    }
    let pages = pages.ok_or_else(|| Rejection::NotReady("the pages are not there yet".into()))?;
    match name {
        "syncz" => Ok(pages.syncz(access)),
        "configz" => Ok(pages.configz()),
        "clusterz" => Ok(pages.clusterz()),
        "registryz" => Ok(pages.registryz()),
        "findings" => Ok(json!(**pages.findings.load())),
        "status" => Ok(pages.statuses()),
        "removals" => Ok(pages.removals()),
        "list" => {
            let pages = ["clusterz", "config_dump", "configz", "findings", "registryz", "removals"];
            Ok(json!([pages.as_slice(), &["status", "syncz"]].concat()))
        }
        _ => Err(Rejection::InvalidRequest(format!("there is no page {name:?}; see the page \"list\""))),
    }
}

/// What a connected proxy gets, if it is in access.
fn dump_of(
    fleet: &Arc<Fleet>,
    streams: &Registry,
    proxy: &str,
    access: &Access,
    with_endpoints: bool,
) -> Option<Vec<Any>> {
    let streams = streams.streams();
    let is_meant = |stream: &&StreamStatus| {
        let id = stream.node.id.as_str();
        !stream.types.is_empty()
            && (id == proxy || id.split('~').nth(2) == Some(proxy) || stream.connection_id() == proxy)
    };
    let stream = streams.iter().filter(is_meant).find(|stream| access.covers(stream))?;
    let client = fleet.client_of(stream)?;
    Some(dump(&joined(&*fleet.resources(&client)?), with_endpoints))
}

/// The dump in the order of Envoy's. Private keys are left out.
fn dump(resources: &ProxyResources, with_endpoints: bool) -> Vec<Any> {
    let mut configs = vec![
        any(&admin::BootstrapConfigDump::default()),
        any(&admin::ClustersConfigDump {
            version_info: resources.set(XdsType::Cds).version().to_string(),
            dynamic_active_clusters: each(resources, XdsType::Cds, |version_info, cluster, _| {
                admin::clusters_config_dump::DynamicCluster { version_info, cluster, ..Default::default() }
            }),
            ..Default::default()
        }),
    ];
    if with_endpoints {
        configs.push(any(&admin::EndpointsConfigDump {
            dynamic_endpoint_configs: each(resources, XdsType::Eds, |version_info, endpoint_config, _| {
                admin::endpoints_config_dump::DynamicEndpointConfig {
                    version_info,
                    endpoint_config,
                    ..Default::default()
                }
            }),
            ..Default::default()
        }));
    }
    configs.push(any(&admin::ListenersConfigDump {
        version_info: resources.set(XdsType::Lds).version().to_string(),
        dynamic_listeners: each(resources, XdsType::Lds, |version_info, listener, resource| {
            let state = admin::listeners_config_dump::DynamicListenerState {
                version_info,
                listener,
                ..Default::default()
            };
            admin::listeners_config_dump::DynamicListener {
                name: resource.name().to_string(),
                active_state: Some(state),
                ..Default::default()
            }
        }),
        ..Default::default()
    }));
    configs.push(any(&admin::ScopedRoutesConfigDump::default()));
    configs.push(any(&admin::RoutesConfigDump {
        dynamic_route_configs: each(resources, XdsType::Rds, |version_info, route_config, _| {
            admin::routes_config_dump::DynamicRouteConfig { version_info, route_config, ..Default::default() }
        }),
        ..Default::default()
    }));
    configs.push(any(&admin::SecretsConfigDump {
        dynamic_active_secrets: each(resources, XdsType::Sds, |version_info, _, resource| {
            admin::secrets_config_dump::DynamicSecret {
                name: resource.name().to_string(),
                version_info,
                secret: Some(redacted(resource)),
                ..Default::default()
            }
        }),
        ..Default::default()
    }));
    configs.push(any(&admin::EcdsConfigDump {
        ecds_filters: each(resources, XdsType::Ecds, |version_info, ecds_filter, _| {
            admin::ecds_config_dump::EcdsFilterConfig { version_info, ecds_filter, ..Default::default() }
        }),
    }));
    configs
}

/// One entry per resource, from its version, its message and itself.
fn each<T>(
    resources: &ProxyResources,
    ty: XdsType,
    entry: impl Fn(String, Option<Any>, &Resource) -> T,
) -> Vec<T> {
    let message = |r: &Resource| Any { type_url: ty.type_url().to_owned(), value: r.body() };
    let set = resources.set(ty);
    set.iter().map(|r| entry(r.version().to_string(), Some(message(r)), r)).collect()
}

/// A secret with what everybody may know: certificates and roots, no keys.
fn redacted(resource: &Resource) -> Any {
    let message = Any { type_url: XdsType::Sds.type_url().to_owned(), value: resource.body() };
    let known: Secret = unpack(&message).unwrap_or_default();
    let public = match known.r#type {
        Some(secret::Type::TlsCertificate(mut certificate)) => {
            let hidden = || {
                Some(DataSource {
                    specifier: Some(Specifier::InlineBytes(REDACTED.to_vec().into())),
                    ..Default::default()
                })
            };
            certificate.private_key = certificate.private_key.and_then(|_| hidden());
            certificate.password = certificate.password.and_then(|_| hidden());
            certificate.pkcs12 = certificate.pkcs12.and_then(|_| hidden());
            certificate.private_key_provider = None;
            Some(secret::Type::TlsCertificate(certificate))
        }
        Some(secret::Type::ValidationContext(context)) => Some(secret::Type::ValidationContext(context)),
        Some(secret::Type::SessionTicketKeys(_) | secret::Type::GenericSecret(_)) | None => None,
    };
    any(&Secret { name: resource.name().to_string(), r#type: public })
}

#[cfg(test)]
mod tests {
    use navarch_envoy::ResourceSet;
    use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::TlsCertificate;

    use super::*;
    use crate::client::RouteForm;

    #[test]
    fn keys_are_not_in_the_dump() {
        let inline = |text: &str| {
            Some(DataSource {
                specifier: Some(Specifier::InlineBytes(text.as_bytes().to_vec().into())),
                ..Default::default()
            })
        };
        let certificate = TlsCertificate {
            certificate_chain: inline("the chain"),
            private_key: inline("the key"),
            password: inline("the password"),
            ..Default::default()
        };
        let secret = Secret { name: "s".into(), r#type: Some(secret::Type::TlsCertificate(certificate)) };
        let resource = Resource::of(XdsType::Sds, "s", &any(&secret).value);
        let resources = ProxyResources::new(1).with(XdsType::Sds, ResourceSet::of([Arc::new(resource)]));
        let bytes: Vec<u8> = dump(&resources, true).iter().flat_map(|any| any.value.to_vec()).collect();
        let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(contains("the chain") && contains("[redacted]"));
        assert!(!contains("the key") && !contains("the password"));
    }

    #[test]
    fn who_may_see_what() {
        let world = navarch_snapshot::World::new(Default::default());
        let metrics = crate::metrics::Metrics::new().expect("distinct names");
        let fleet = Fleet::start(world.snapshot().clone(), metrics, RouteForm::default()).expect("a thread");
        let check = |address: &str, identities: &[&str], expected: Option<Access>| {
            let identities = identities.iter().map(|id| (*id).to_owned()).collect();
            let peer = Peer { identities, ..Peer::plaintext(address.parse().expect("an address")) };
            assert_eq!(Access::of(&peer, &fleet).ok(), expected, "{peer:?}");
        };
        let of = |namespace: &str| Some(Access::Namespace(namespace.to_owned()));
        check("127.0.0.1:1", &[], Some(Access::Everything));
        check("[::ffff:127.0.0.1]:1", &[], Some(Access::Everything));
        check("10.0.0.1:1", &[], None);
        check("10.0.0.1:1", &["spiffe://cluster.local/ns/shop/sa/web"], of("shop"));
        check("127.0.0.1:1", &["spiffe://cluster.local/ns/shop/sa/web"], of("shop"));
        check("10.0.0.1:1", &["spiffe://cluster.local/ns/istio-system/sa/istiod"], Some(Access::Everything));
        check("10.0.0.1:1", &["spiffe://other/ns/istio-system/sa/istiod"], None);
        check("10.0.0.1:1", &["spiffe://cluster.local/nobody"], None);
    }

    #[test]
    fn questions_are_answered_or_refused() {
        let world = navarch_snapshot::World::new(Default::default());
        let metrics = crate::metrics::Metrics::new().expect("distinct names");
        let fleet = Fleet::start(world.snapshot().clone(), metrics, RouteForm::default()).expect("a thread");
        let streams = Registry::default();
        let check = |type_url: &str, names: &[&str], peer: &Peer, expected: Result<Option<usize>, &str>| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let (node, peer) = (Arc::default(), Arc::new(peer.clone()));
            let question = Question { type_url, names: &names, node: &node, peer: &peer, streams: &streams };
            match (answer(&fleet, None, &question), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found.map(|found| found.len()), expected, "{type_url}")
                }
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (found, expected) => panic!("{type_url} {names:?}: {found:?}, not {expected:?}"),
            }
        };
        let here = Peer::plaintext("127.0.0.1:1".parse().expect("an address"));
        let there = Peer::plaintext("10.0.0.1:1".parse().expect("an address"));
        let identities = vec!["spiffe://cluster.local/ns/shop/sa/web".to_owned()];
        let web = Peer { identities, ..there.clone() };
        check("type.googleapis.com/unknown", &[], &there, Ok(None));
        check(SYNCZ, &[], &here, Ok(Some(0)));
        check(SYNCZ, &[], &web, Ok(Some(0)));
        check(SYNCZ, &[], &there, Err("authentication required"));
        check(CONFIG_DUMP, &["nobody.shop"], &here, Ok(Some(0)));
        check(CONFIG_DUMP, &[], &here, Ok(Some(0)));
        check(CONFIG_DUMP, &["nobody.shop"], &there, Err("authentication required"));
        check(PAGE, &[], &here, Err("exactly one"));
        check(PAGE, &["a", "b"], &here, Err("exactly one"));
        check(PAGE, &["config_dump?proxyID=nobody.shop"], &here, Err("no proxy named"));
        check(PAGE, &["configz"], &web, Err("root namespace"));
        check(PAGE, &["config_dump?proxyID=nobody.shop"], &web, Err("no proxy named"));
    }
}
