//! The table of configuration kinds. A kind is one row here and one type; the enums, the look-up by API group
//! and the reading of documents follow from the row.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::hashed::Hashed;
use crate::validation::{Report, Validate};
use crate::yaml::{Decode, Decoder, Fields, Node};
use crate::{extensions, gateway_api, inference, kubernetes, multicluster, networking, security, telemetry};

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// Which part of a document a kind's type reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `spec`, whose fields are all known.
    Spec,
    /// The whole object, only some of whose fields are known.
    Whole,
}

/// A type that specifies objects of one kind.
pub trait ConfigKind: Decode + Validate + Default + Hash + Sized {
    const KIND: Kind;

    /// The value in `spec`, if it is of this kind.
    fn of(spec: &Spec) -> Option<&Arc<Hashed<Self>>>;

    fn into_spec(self) -> Spec;
}

macro_rules! kinds {
    ($(
        $(#[$meta:meta])*
        $kind:ident $text:literal : $type:ty, $group:literal [ $($version:literal),+ ] $plural:literal $scope:ident $layout:ident;
    )+) => {
        /// A kind of configuration object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $( $(#[$meta])* $kind, )+
        }

        /// The specification of an object, by kind.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Spec {
            $( $kind(Arc<Hashed<$type>>), )+
        }

        impl Kind {
            pub const ALL: &'static [Kind] = &[ $( Kind::$kind, )+ ];

            /// The kind as objects state it. Kinds of two API groups may have the same name.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$kind => $text, )+ }
            }

            /// The API group; empty for Kubernetes' core group.
            pub const fn group(self) -> &'static str {
                match self { $( Self::$kind => $group, )+ }
            }

            /// The versions that are read, the preferred one first. They have the same fields.
            pub const fn versions(self) -> &'static [&'static str] {
                match self { $( Self::$kind => &[ $($version),+ ], )+ }
            }

            /// The name in URLs and on command lines.
            pub const fn plural(self) -> &'static str {
                match self { $( Self::$kind => $plural, )+ }
            }

            pub const fn scope(self) -> Scope {
                match self { $( Self::$kind => Scope::$scope, )+ }
            }

            pub const fn layout(self) -> Layout {
                match self { $( Self::$kind => Layout::$layout, )+ }
            }

            /// Which fields are read of the part of an object that its kind's type covers.
            pub fn fields(self) -> Fields {
                match self { $( Self::$kind => <$type as Decode>::fields(), )+ }
            }

            /// Reads the part of an object that its kind's type covers.
            pub(crate) fn decode(self, node: Option<&Node>, decoder: &mut Decoder) -> Option<Draft> {
                match self {
                    $( Self::$kind => match node {
                        Some(node) => <$type as Decode>::decode(node, decoder).map(Draft::$kind),
                        None => Some(Draft::$kind(<$type>::default())),
                    }, )+
                }
            }
        }

        impl Spec {
            pub const fn kind(&self) -> Kind {
                match self { $( Self::$kind(_) => Kind::$kind, )+ }
            }

            /// Feeds the specification to a hasher field by field, where hashing it feeds its fingerprint.
            pub(crate) fn feed(&self, hasher: &mut impl std::hash::Hasher) {
                match self { $( Self::$kind(spec) => Hash::hash::<_>(&***spec, hasher), )+ }
            }
        }

        /// A specification that is not validated yet.
        #[expect(clippy::large_enum_variant, reason = "lives on the stack of one call")]
        pub(crate) enum Draft {
            $( $kind($type), )+
        }

        impl Draft {
            pub(crate) fn validate(&self, report: &mut Report<'_>) {
                match self { $( Self::$kind(spec) => Validate::validate(spec, report), )+ }
            }

            pub(crate) fn into_spec(self) -> Spec {
                match self { $( Self::$kind(spec) => spec.into_spec(), )+ }
            }
        }

        $(
            impl ConfigKind for $type {
                const KIND: Kind = Kind::$kind;

                fn of(spec: &Spec) -> Option<&Arc<Hashed<Self>>> {
                    match spec {
                        Spec::$kind(spec) => Some(spec),
                        _ => None,
                    }
                }

                fn into_spec(self) -> Spec {
                    Spec::$kind(Arc::new(Hashed::new(self)))
                }
            }
        )+
    };
}

// A row starts with the name in this program, which no two kinds share, and the name that objects state,
// which two kinds of different groups may share.
kinds! {
    HttpRoute "HTTPRoute": gateway_api::HttpRoute,
        "gateway.networking.k8s.io" ["v1", "v1beta1"] "httproutes" Namespaced Spec;
    GrpcRoute "GRPCRoute": gateway_api::GrpcRoute,
        "gateway.networking.k8s.io" ["v1", "v1alpha2"] "grpcroutes" Namespaced Spec;
    TlsRoute "TLSRoute": gateway_api::TlsRoute,
        "gateway.networking.k8s.io" ["v1", "v1alpha3", "v1alpha2"] "tlsroutes" Namespaced Spec;
    TcpRoute "TCPRoute": gateway_api::TcpRoute,
        "gateway.networking.k8s.io" ["v1", "v1alpha2"] "tcproutes" Namespaced Spec;
    UdpRoute "UDPRoute": gateway_api::UdpRoute,
        "gateway.networking.k8s.io" ["v1", "v1alpha2"] "udproutes" Namespaced Spec;
    VirtualService "VirtualService": networking::VirtualService,
        "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "virtualservices" Namespaced Spec;
    DestinationRule "DestinationRule": networking::DestinationRule,
        "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "destinationrules" Namespaced Spec;
    Gateway "Gateway": networking::Gateway,
        "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "gateways" Namespaced Spec;
    ServiceEntry "ServiceEntry": networking::ServiceEntry,
        "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "serviceentries" Namespaced Spec;
    WorkloadEntry "WorkloadEntry": networking::WorkloadEntry,
        "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadentries" Namespaced Spec;
    WorkloadGroup "WorkloadGroup": networking::WorkloadGroup,
        "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadgroups" Namespaced Spec;
    Sidecar "Sidecar": networking::Sidecar,
        "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "sidecars" Namespaced Spec;
    EnvoyFilter "EnvoyFilter": networking::EnvoyFilter,
        "networking.istio.io" ["v1alpha3"] "envoyfilters" Namespaced Spec;
    ProxyConfig "ProxyConfig": networking::ProxyConfig,
        "networking.istio.io" ["v1beta1"] "proxyconfigs" Namespaced Spec;
    PeerAuthentication "PeerAuthentication": security::PeerAuthentication,
        "security.istio.io" ["v1", "v1beta1"] "peerauthentications" Namespaced Spec;
    AuthorizationPolicy "AuthorizationPolicy": security::AuthorizationPolicy,
        "security.istio.io" ["v1", "v1beta1"] "authorizationpolicies" Namespaced Spec;
    RequestAuthentication "RequestAuthentication": security::RequestAuthentication,
        "security.istio.io" ["v1", "v1beta1"] "requestauthentications" Namespaced Spec;
    Telemetry "Telemetry": telemetry::Telemetry,
        "telemetry.istio.io" ["v1", "v1alpha1"] "telemetries" Namespaced Spec;
    WasmPlugin "WasmPlugin": extensions::WasmPlugin,
        "extensions.istio.io" ["v1alpha1"] "wasmplugins" Namespaced Spec;
    TrafficExtension "TrafficExtension": extensions::TrafficExtension,
        "extensions.istio.io" ["v1alpha1"] "trafficextensions" Namespaced Spec;
    GatewayClass "GatewayClass": gateway_api::GatewayClass,
        "gateway.networking.k8s.io" ["v1", "v1beta1"] "gatewayclasses" Cluster Spec;
    KubernetesGateway "Gateway": gateway_api::Gateway,
        "gateway.networking.k8s.io" ["v1", "v1beta1"] "gateways" Namespaced Spec;
    ListenerSet "ListenerSet": gateway_api::ListenerSet,
        "gateway.networking.k8s.io" ["v1"] "listenersets" Namespaced Spec;
    ReferenceGrant "ReferenceGrant": gateway_api::ReferenceGrant,
        "gateway.networking.k8s.io" ["v1", "v1beta1"] "referencegrants" Namespaced Spec;
    BackendTlsPolicy "BackendTLSPolicy": gateway_api::BackendTlsPolicy,
        "gateway.networking.k8s.io" ["v1", "v1alpha3"] "backendtlspolicies" Namespaced Spec;
    BackendTrafficPolicy "XBackendTrafficPolicy": gateway_api::BackendTrafficPolicy,
        "gateway.networking.x-k8s.io" ["v1alpha1"] "xbackendtrafficpolicies" Namespaced Spec;
    ServiceImport "ServiceImport": multicluster::ServiceImport,
        "multicluster.x-k8s.io" ["v1alpha1", "v1beta1"] "serviceimports" Namespaced Spec;
    ServiceExport "ServiceExport": multicluster::ServiceExport,
        "multicluster.x-k8s.io" ["v1alpha1", "v1beta1"] "serviceexports" Namespaced Spec;
    InferencePool "InferencePool": inference::InferencePool,
        "inference.networking.k8s.io" ["v1"] "inferencepools" Namespaced Spec;
    Ingress "Ingress": kubernetes::Ingress,
        "networking.k8s.io" ["v1"] "ingresses" Namespaced Spec;
    IngressClass "IngressClass": kubernetes::IngressClass,
        "networking.k8s.io" ["v1"] "ingressclasses" Cluster Spec;
    Namespace "Namespace": kubernetes::Namespace,
        "" ["v1"] "namespaces" Cluster Whole;
    Node "Node": kubernetes::Node,
        "" ["v1"] "nodes" Cluster Whole;
    Service "Service": kubernetes::Service,
        "" ["v1"] "services" Namespaced Whole;
    EndpointSlice "EndpointSlice": kubernetes::EndpointSlice,
        "discovery.k8s.io" ["v1"] "endpointslices" Namespaced Whole;
    Endpoints "Endpoints": kubernetes::Endpoints,
        "" ["v1"] "endpoints" Namespaced Whole;
    Pod "Pod": kubernetes::Pod,
        "" ["v1"] "pods" Namespaced Whole;
    Secret "Secret": kubernetes::Secret,
        "" ["v1"] "secrets" Namespaced Whole;
    ConfigMap "ConfigMap": kubernetes::ConfigMap,
        "" ["v1"] "configmaps" Namespaced Whole;
}

impl Kind {
    /// The kind with this group and name, if a service mesh reads it.
    pub fn find(group: &str, kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.as_str() == kind && k.group() == group)
    }

    /// Whether every API server of Kubernetes has the kind: the others are defined by
    /// [`crate::definition`].
    pub const fn is_built_in(self) -> bool {
        matches!(self.group().as_bytes(), b"" | b"discovery.k8s.io" | b"networking.k8s.io")
    }

    /// Whether the name means another kind unless the group is stated: the first kind with a name has it for
    /// itself.
    fn needs_group(self) -> bool {
        Self::ALL.iter().take_while(|kind| **kind != self).any(|kind| kind.as_str() == self.as_str())
    }

    /// `group/version` with the preferred version, as objects state it.
    pub fn api_version(self) -> String {
        let version = self.versions().first().copied().unwrap_or_default();
        match self.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }
}

/// The name alone where it says which kind is meant, else with the group, as kubectl writes it: `Gateway` is
/// Istio's, `Gateway.gateway.networking.k8s.io` that of the Gateway API.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        if self.needs_group() { write!(f, ".{}", self.group()) } else { Ok(()) }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_found_by_group_and_name_and_shown_by_a_name_of_its_own() {
        let shown: BTreeSet<String> = Kind::ALL.iter().map(Kind::to_string).collect();
        assert_eq!(shown.len(), Kind::ALL.len(), "{shown:?}");
        for kind in Kind::ALL {
            assert_eq!(Kind::find(kind.group(), kind.as_str()), Some(*kind));
        }
    }
}
