//! The table of xDS types: everything that differs between CDS, EDS, ... and is not in a message body.
//!
//! Adding a type is adding one row. The order of the rows is the order in which one push is sent (xDS spec,
//! "Eventual consistency considerations": clusters, endpoints, listeners, scoped routes, routes, then what
//! hangs on them).

use std::fmt;

/// What a client does when a delta response lists a name in `removed_resources`.
///
/// The protocol document says "remove the resource"; Envoy 1.40 does something different for each type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The resource goes away, and what it configures with it.
    Deletes,
    /// A resource that is being waited for counts as absent and the waiting ends; one in use stays in use.
    /// Taking endpoints away from an active cluster therefore needs an empty assignment, not a removal.
    EndsWaiting,
    /// A resource in use stays in use, and one that is being waited for is still waited for. The only way to
    /// end the waiting is to send a resource.
    Ignored,
    /// Whoever uses the resource is broken by it: an HTTP filter answers 500. Must never be sent.
    Breaks,
}

macro_rules! xds_types {
    ($( $(#[$doc:meta])* $variant:ident {
        short: $short:literal,
        type_url: $url:literal,
        root: $root:literal,
        removal: $removal:ident,
        service: $service:expr,
        sotw: $sotw:expr,
        delta: $delta:expr,
    } )*) => {
        /// One type of resource served over xDS. The order of the variants is the push order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum XdsType { $( $(#[$doc])* $variant, )* }

        impl XdsType {
            /// All types in push order.
            pub const ALL: [XdsType; [$( XdsType::$variant ),*].len()] = [$( XdsType::$variant ),*];

            /// The name operators use, for example `CDS`.
            #[must_use]
            pub const fn short(self) -> &'static str {
                match self { $( XdsType::$variant => $short, )* }
            }

            /// The type URL of the resource.
            #[must_use]
            pub const fn type_url(self) -> &'static str {
                match self { $( XdsType::$variant => $url, )* }
            }

            /// The type with this URL, if it is served.
            #[must_use]
            pub fn from_type_url(url: &str) -> Option<Self> {
                match url { $( $url => Some(XdsType::$variant), )* _ => None }
            }

            /// Whether a client may ask for everything at once. In state-of-the-world xDS a response of such
            /// a type is the whole state: a resource that is not in it is deleted.
            #[must_use]
            pub const fn root(self) -> bool {
                match self { $( XdsType::$variant => $root, )* }
            }

            /// What `removed_resources` means to the client.
            #[must_use]
            pub const fn removal(self) -> Removal {
                match self { $( XdsType::$variant => Removal::$removal, )* }
            }

            /// Full name of the gRPC service that serves only this type.
            #[must_use]
            pub const fn service(self) -> Option<&'static str> {
                match self { $( XdsType::$variant => $service, )* }
            }

            /// Method of [`XdsType::service`] that speaks state-of-the-world.
            #[must_use]
            pub const fn sotw_method(self) -> Option<&'static str> {
                match self { $( XdsType::$variant => $sotw, )* }
            }

            /// Method of [`XdsType::service`] that speaks delta.
            #[must_use]
            pub const fn delta_method(self) -> Option<&'static str> {
                match self { $( XdsType::$variant => $delta, )* }
            }
        }
    };
}

xds_types! {
    /// Clusters.
    Cds {
        short: "CDS",
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        root: true,
        removal: Deletes,
        service: Some("envoy.service.cluster.v3.ClusterDiscoveryService"),
        sotw: Some("StreamClusters"),
        delta: Some("DeltaClusters"),
    }
    /// Endpoints of a cluster.
    Eds {
        short: "EDS",
        type_url: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        root: false,
        removal: EndsWaiting,
        service: Some("envoy.service.endpoint.v3.EndpointDiscoveryService"),
        sotw: Some("StreamEndpoints"),
        delta: Some("DeltaEndpoints"),
    }
    /// Endpoints of one locality, a collection that an assignment names. Delta only.
    Leds {
        short: "LEDS",
        type_url: "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint",
        root: false,
        removal: Deletes,
        service: Some("envoy.service.endpoint.v3.LocalityEndpointDiscoveryService"),
        sotw: None,
        delta: Some("DeltaLocalityEndpoints"),
    }
    /// Certificates, keys and trust bundles.
    Sds {
        short: "SDS",
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        root: false,
        removal: EndsWaiting,
        service: Some("envoy.service.secret.v3.SecretDiscoveryService"),
        sotw: Some("StreamSecrets"),
        delta: Some("DeltaSecrets"),
    }
    /// Listeners.
    Lds {
        short: "LDS",
        type_url: "type.googleapis.com/envoy.config.listener.v3.Listener",
        root: true,
        removal: Deletes,
        service: Some("envoy.service.listener.v3.ListenerDiscoveryService"),
        sotw: Some("StreamListeners"),
        delta: Some("DeltaListeners"),
    }
    /// Scoped routes: which route configuration a request's scope key selects.
    Srds {
        short: "SRDS",
        type_url: "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
        root: true,
        removal: Deletes,
        service: Some("envoy.service.route.v3.ScopedRoutesDiscoveryService"),
        sotw: Some("StreamScopedRoutes"),
        delta: Some("DeltaScopedRoutes"),
    }
    /// Route configurations.
    Rds {
        short: "RDS",
        type_url: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        root: false,
        removal: Ignored,
        service: Some("envoy.service.route.v3.RouteDiscoveryService"),
        sotw: Some("StreamRoutes"),
        delta: Some("DeltaRoutes"),
    }
    /// Virtual hosts of a route configuration, on demand. Delta only.
    Vhds {
        short: "VHDS",
        type_url: "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        root: false,
        removal: Deletes,
        service: Some("envoy.service.route.v3.VirtualHostDiscoveryService"),
        sotw: None,
        delta: Some("DeltaVirtualHosts"),
    }
    /// Filters whose configuration is discovered.
    Ecds {
        short: "ECDS",
        type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        root: false,
        removal: Breaks,
        service: Some("envoy.service.extension.v3.ExtensionConfigDiscoveryService"),
        sotw: Some("StreamExtensionConfigs"),
        delta: Some("DeltaExtensionConfigs"),
    }
    /// Runtime layers.
    Rtds {
        short: "RTDS",
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        root: false,
        removal: Deletes,
        service: Some("envoy.service.runtime.v3.RuntimeDiscoveryService"),
        sotw: Some("StreamRuntime"),
        delta: Some("DeltaRuntime"),
    }
    /// The name table of the agent's DNS proxy.
    Nds {
        short: "NDS",
        type_url: "type.googleapis.com/istio.networking.nds.v1.NameTable",
        root: true,
        removal: Deletes,
        service: None,
        sotw: None,
        delta: None,
    }
    /// Workloads and services for ztunnel.
    Address {
        short: "WDS",
        type_url: "type.googleapis.com/istio.workload.Address",
        root: true,
        removal: Deletes,
        service: None,
        sotw: None,
        delta: None,
    }
    /// Authorization policies for ztunnel.
    Authorization {
        short: "WADS",
        type_url: "type.googleapis.com/istio.security.Authorization",
        root: true,
        removal: Deletes,
        service: None,
        sotw: None,
        delta: None,
    }
    /// What an agent starts its Envoy with; Envoy itself does not ask for it.
    Bootstrap {
        short: "BDS",
        type_url: "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap",
        root: true,
        removal: Deletes,
        service: None,
        sotw: None,
        delta: None,
    }
}

impl XdsType {
    /// How many types there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`XdsType::ALL`], for arrays with one slot per type.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for XdsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct_and_in_push_order() {
        let mut urls: Vec<_> = XdsType::ALL.iter().map(|t| t.type_url()).collect();
        urls.sort_unstable();
        urls.dedup();
        assert_eq!(urls.len(), XdsType::COUNT);
        for (position, ty) in XdsType::ALL.into_iter().enumerate() {
            assert_eq!(ty.index(), position);
            assert_eq!(XdsType::from_type_url(ty.type_url()), Some(ty));
        }
        use XdsType::*;
        assert!(
            Cds < Eds
                && Eds < Leds
                && Leds < Sds
                && Sds < Lds
                && Lds < Srds
                && Srds < Rds
                && Rds < Vhds
                && Rds < Ecds
        );
    }

    #[test]
    fn eighteen_per_type_methods() {
        let methods = XdsType::ALL
            .iter()
            .map(|t| usize::from(t.sotw_method().is_some()) + usize::from(t.delta_method().is_some()))
            .sum::<usize>();
        assert_eq!(methods, 18);
    }
}
