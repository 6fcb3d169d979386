//! The filters of a chain, up to the one that ends it.

use navarch_envoy::any::unpack;
use navarch_envoy::proto::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use navarch_envoy::proto::envoy::config::listener::v3::{FilterChain, filter::ConfigType};
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use navarch_envoy::proto::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy, tcp_proxy::ClusterSpecifier,
};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use navarch_envoy::{Any, ProxyResources};

use crate::outcome::{Action, Outcome, Stage};
use crate::{Call, Protocol, endpoints, http};

/// Follows the call through the filters of its chain.
pub fn run(
    resources: &ProxyResources,
    call: &Call,
    chain: &FilterChain,
    outcome: &mut Outcome,
) -> Result<Action, Action> {
    outcome.tls_terminated = handshake(call, chain)?;
    let mut cluster_from_sni = false;
    for filter in &chain.filters {
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
            return Err(Action::Unknown(format!(
                "the configuration of filter {} is discovered",
                filter.name
            )));
        };
        if config.is::<HttpConnectionManager>() {
            let manager: HttpConnectionManager = decoded(config)?;
            plain_http(call, outcome.tls_terminated)?;
            return http::run(resources, call, &manager, outcome);
        }
        if config.is::<TcpProxy>() {
            return tcp(resources, call, &decoded(config)?, cluster_from_sni, outcome);
        }
        match config.message_name() {
            "envoy.extensions.filters.network.sni_cluster.v3.SniCluster" => cluster_from_sni = true,
            name if passes(name) => {}
            name if denies(name) => outcome.unevaluated.push(filter.name.clone()),
            name => {
                return Err(Action::Unknown(format!("filter {} ({name}) is not simulated", filter.name)));
            }
        }
    }
    Err(Action::blocked(Stage::FilterChain, None, "the filter chain has no filter that takes the connection"))
}

fn decoded<M>(config: &Any) -> Result<M, Action>
where
    Any: Decoded<M>,
{
    config.message().ok_or_else(|| Action::Unknown(format!("{} does not decode", config.message_name())))
}

/// The messages unpacked here; the generic bound would name the protobuf library.
trait Decoded<M> {
    fn message(&self) -> Option<M>;
}

macro_rules! decoded {
    ($($message:ty),*) => {
        $(impl Decoded<$message> for Any {
            fn message(&self) -> Option<$message> {
                unpack(self).ok()
            }
        })*
    };
}

decoded!(HttpConnectionManager, TcpProxy, DownstreamTlsContext);

/// Filters that watch and annotate connections.
fn passes(message: &str) -> bool {
    const WATCHERS: &[&str] = &[
        "stats.PluginConfig",
        "io.istio.network.metadata_exchange.Config",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        "envoy.extensions.filters.network.set_filter_state.v3.Config",
        "envoy.extensions.filters.network.mysql_proxy.v3.MySQLProxy",
        "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy",
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "udpa.type.v1.TypedStruct",
        "xds.type.v3.TypedStruct",
    ];
    WATCHERS.contains(&message)
}

/// Filters that close connections or let them pass.
fn denies(message: &str) -> bool {
    const GUARDS: &[&str] = &[
        "envoy.extensions.filters.network.rbac.v3.RBAC",
        "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
        "envoy.extensions.filters.network.ratelimit.v3.RateLimit",
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
        "envoy.extensions.filters.network.wasm.v3.Wasm",
    ];
    GUARDS.contains(&message)
}

/// Whether the chain terminates TLS, if the handshake can succeed.
fn handshake(call: &Call, chain: &FilterChain) -> Result<bool, Action> {
    let socket = chain.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref());
    let Some(SocketConfig::TypedConfig(config)) = socket else { return Ok(false) };
    if config.message_name().ends_with(".RawBuffer") {
        return Ok(false);
    }
    if !config.is::<DownstreamTlsContext>() {
        return Err(Action::Unknown(format!("transport socket {} is not simulated", config.message_name())));
    }
    let context: DownstreamTlsContext = decoded(config)?;
    match &call.tls {
        None => {
            Err(Action::blocked(Stage::Tls, None, "the filter chain expects TLS, the client speaks none"))
        }
        Some(tls) if context.require_client_certificate == Some(true) && !tls.client_certificate => {
            let reason = "the filter chain requires a client certificate, the client has none";
            Err(Action::blocked(Stage::Tls, None, reason))
        }
        Some(_) => Ok(true),
    }
}

fn plain_http(call: &Call, terminated: bool) -> Result<(), Action> {
    if call.tls.is_some() && !terminated {
        return Err(Action::blocked(Stage::Protocol, None, "the chain parses HTTP, the client speaks TLS"));
    }
    if call.protocol == Protocol::Tcp {
        let reason = "the chain parses HTTP, the client speaks another protocol";
        return Err(Action::blocked(Stage::Protocol, Some(400), reason));
    }
    Ok(())
}

fn tcp(
    resources: &ProxyResources,
    call: &Call,
    proxy: &TcpProxy,
    cluster_from_sni: bool,
    outcome: &mut Outcome,
) -> Result<Action, Action> {
    let sni = call.tls.as_ref().map_or("", |tls| tls.sni.as_str());
    outcome.changes.timeout = None;
    let shares = match &proxy.cluster_specifier {
        _ if cluster_from_sni && !sni.is_empty() => vec![(sni.to_owned(), 1)],
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.clone(), 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            weighted.clusters.iter().map(|cluster| (cluster.name.clone(), cluster.weight)).collect()
        }
        None => return Err(Action::Unknown("the TCP proxy names no cluster".to_owned())),
    };
    endpoints::forward(resources, shares, None)
}
