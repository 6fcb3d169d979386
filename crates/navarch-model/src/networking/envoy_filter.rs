//! EnvoyFilter: changes to the generated Envoy configuration.

use std::collections::BTreeMap;

use super::WorkloadSelector;
use crate::types::PolicyTargetReference;
use crate::values::Json;
use crate::yaml::{closed_enum, message, oneof};

message! {
    /// Patches to the generated configuration. Later ones see what earlier ones did.
    pub struct EnvoyFilter {
        workload_selector: Option<WorkloadSelector>,
        target_refs: Vec<PolicyTargetReference>,
        config_patches: Vec<EnvoyConfigObjectPatch>,
        /// Lower ones are applied first.
        priority: i32,
    }
}

closed_enum! {
    /// Which part of the configuration a patch changes. Istio: `EnvoyFilter.ApplyTo`.
    pub enum ApplyTo {
        Invalid = 0 "INVALID",
        Listener = 1 "LISTENER",
        FilterChain = 2 "FILTER_CHAIN",
        NetworkFilter = 3 "NETWORK_FILTER",
        HttpFilter = 4 "HTTP_FILTER",
        RouteConfiguration = 5 "ROUTE_CONFIGURATION",
        VirtualHost = 6 "VIRTUAL_HOST",
        HttpRoute = 7 "HTTP_ROUTE",
        Cluster = 8 "CLUSTER",
        ExtensionConfig = 9 "EXTENSION_CONFIG",
        Bootstrap = 10 "BOOTSTRAP",
        ListenerFilter = 11 "LISTENER_FILTER",
    }
}

closed_enum! {
    /// Which kind of proxy, and which direction, a patch is for. `Any` includes all. Istio:
    /// `EnvoyFilter.PatchContext`.
    pub enum PatchContext {
        Any = 0 "ANY",
        SidecarInbound = 1 "SIDECAR_INBOUND",
        SidecarOutbound = 2 "SIDECAR_OUTBOUND",
        Gateway = 3 "GATEWAY",
        Waypoint = 4 "WAYPOINT",
    }
}

message! {
    /// Which proxies a patch is for. Istio: `EnvoyFilter.ProxyMatch`.
    pub struct ProxyMatch {
        proxy_version: String,
        metadata: BTreeMap<String, String>,
    }
}

message! {
    /// Which clusters a patch changes. Unset fields match everything. Istio: `EnvoyFilter.ClusterMatch`.
    pub struct ClusterMatch {
        port_number: u32,
        service: String,
        subset: String,
        name: String,
    }
}

message! {
    /// Which route configurations a patch changes. Unset fields match everything. Istio:
    /// `EnvoyFilter.RouteConfigurationMatch`.
    pub struct RouteConfigurationMatch {
        port_number: u32,
        port_name: String,
        gateway: String,
        vhost: Option<VirtualHostMatch>,
        name: String,
    }
}

message! {
    /// Which routes of a virtual host a patch changes. Istio:
    /// `EnvoyFilter.RouteConfigurationMatch.RouteMatch`.
    pub struct RouteMatch {
        name: String,
        action: RouteMatchAction,
    }
}

closed_enum! {
    /// What a route does, as a condition. Istio: `EnvoyFilter.RouteConfigurationMatch.RouteMatch.Action`.
    pub enum RouteMatchAction {
        Any = 0 "ANY",
        Route = 1 "ROUTE",
        Redirect = 2 "REDIRECT",
        DirectResponse = 3 "DIRECT_RESPONSE",
    }
}

message! {
    /// Which virtual hosts of a route configuration a patch changes.
    ///
    /// Istio: `EnvoyFilter.RouteConfigurationMatch.VirtualHostMatch`.
    pub struct VirtualHostMatch {
        name: String,
        domain_name: String,
        route: Option<RouteMatch>,
    }
}

message! {
    /// Which listeners a patch changes. Unset fields match everything. Istio: `EnvoyFilter.ListenerMatch`.
    pub struct ListenerMatch {
        port_number: u32,
        port_name: String,
        filter_chain: Option<FilterChainMatch>,
        listener_filter: String,
        name: String,
    }
}

message! {
    /// Which filter chains of a listener a patch changes. Istio:
    /// `EnvoyFilter.ListenerMatch.FilterChainMatch`.
    pub struct FilterChainMatch {
        name: String,
        sni: String,
        transport_protocol: String,
        application_protocols: String,
        filter: Option<FilterMatch>,
        destination_port: u32,
    }
}

message! {
    /// Next to which network filter a patch works. Istio: `EnvoyFilter.ListenerMatch.FilterMatch`.
    pub struct FilterMatch {
        name: String,
        sub_filter: Option<SubFilterMatch>,
    }
}

message! {
    /// Next to which HTTP filter inside a network filter a patch works. Istio:
    /// `EnvoyFilter.ListenerMatch.SubFilterMatch`.
    pub struct SubFilterMatch {
        name: String,
    }
}

message! {
    /// Which part of a waypoint's configuration a patch changes. Istio: `EnvoyFilter.WaypointMatch`.
    pub struct WaypointMatch {
        port_number: u32,
        route: Option<WaypointRouteMatch>,
        filter: Option<WaypointFilterMatch>,
    }
}

message! {
    /// Which routes of a waypoint a patch changes. Istio: `EnvoyFilter.WaypointMatch.RouteMatch`.
    pub struct WaypointRouteMatch {
        name: String,
    }
}

message! {
    /// Next to which filter of a waypoint a patch works. Istio: `EnvoyFilter.WaypointMatch.FilterMatch`.
    pub struct WaypointFilterMatch {
        name: String,
        sub_filter: Option<WaypointSubFilterMatch>,
    }
}

message! {
    /// Next to which HTTP filter of a waypoint a patch works. Istio:
    /// `EnvoyFilter.WaypointMatch.FilterMatch.SubFilterMatch`.
    pub struct WaypointSubFilterMatch {
        name: String,
    }
}

message! {
    /// The change. Istio: `EnvoyFilter.Patch`.
    pub struct Patch {
        operation: PatchOperation,
        value: Option<Json>,
        filter_class: FilterClass,
    }
}

closed_enum! {
    /// How the value is applied. Istio: `EnvoyFilter.Patch.Operation`.
    pub enum PatchOperation {
        Invalid = 0 "INVALID",
        Merge = 1 "MERGE",
        Add = 2 "ADD",
        Remove = 3 "REMOVE",
        InsertBefore = 4 "INSERT_BEFORE",
        InsertAfter = 5 "INSERT_AFTER",
        InsertFirst = 6 "INSERT_FIRST",
        Replace = 7 "REPLACE",
        MergeAndReplaceList = 8 "MERGE_AND_REPLACE_LIST",
    }
}

closed_enum! {
    /// Where an added filter goes relative to the mesh's own. Istio: `EnvoyFilter.Patch.FilterClass`.
    pub enum FilterClass {
        Unspecified = 0 "UNSPECIFIED",
        Authn = 1 "AUTHN",
        Authz = 2 "AUTHZ",
        Stats = 3 "STATS",
    }
}

message! {
    /// Conditions of a patch; all that are set must hold. Istio: `EnvoyFilter.EnvoyConfigObjectMatch`.
    pub struct EnvoyConfigObjectMatch {
        context: PatchContext,
        proxy: Option<ProxyMatch>,
        ;
        oneof object_types: ObjectTypes,
    }
}

oneof! {
    /// The object a patch looks for, by kind.
    pub enum ObjectTypes {
        listener => Listener(ListenerMatch),
        route_configuration => RouteConfiguration(RouteConfigurationMatch),
        cluster => Cluster(ClusterMatch),
        waypoint => Waypoint(WaypointMatch),
    }
}

message! {
    /// One patch with its conditions. Istio: `EnvoyFilter.EnvoyConfigObjectPatch`.
    pub struct EnvoyConfigObjectPatch {
        apply_to: ApplyTo,
        match_: Option<EnvoyConfigObjectMatch>,
        patch: Option<Patch>,
    }
}
