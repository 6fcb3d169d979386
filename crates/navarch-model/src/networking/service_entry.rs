//! ServiceEntry: services that no registry knows.

use super::{WorkloadEntry, WorkloadSelector};
use crate::yaml::{closed_enum, message};

message! {
    /// A service that no registry knows: outside of the mesh, or on machines.
    pub struct ServiceEntry {
        hosts: Vec<String>,
        addresses: Vec<String>,
        ports: Vec<ServicePort>,
        location: Location,
        resolution: Resolution,
        endpoints: Vec<WorkloadEntry>,
        workload_selector: Option<WorkloadSelector>,
        /// Empty means the default of the mesh settings.
        export_to: Vec<String>,
        subject_alt_names: Vec<String>,
        /// `status.addresses`: what a controller allocated, not part of the specification.
        status_addresses as "(status.addresses)": Vec<ServiceEntryAddress>,
    }
}

closed_enum! {
    /// Whether the service is part of the mesh, and so speaks mutual TLS. Istio: `ServiceEntry.Location`.
    pub enum Location {
        MeshExternal = 0 "MESH_EXTERNAL",
        MeshInternal = 1 "MESH_INTERNAL",
    }
}

closed_enum! {
    /// How the addresses of the service are found. Istio: `ServiceEntry.Resolution`.
    pub enum Resolution {
        None = 0 "NONE",
        Static = 1 "STATIC",
        Dns = 2 "DNS",
        DnsRoundRobin = 3 "DNS_ROUND_ROBIN",
        DynamicDns = 4 "DYNAMIC_DNS",
    }
}

message! {
    /// A port of the service.
    pub struct ServicePort {
        number: u32,
        protocol: String,
        name: String,
        /// 0 means `number`.
        target_port: u32,
    }
}

message! {
    /// An address that was allocated for one host of a ServiceEntry.
    pub struct ServiceEntryAddress {
        value: String,
        host: String,
    }
}
