//! Gateway: ports that gateway proxies open.

use std::collections::BTreeMap;

use crate::yaml::{closed_enum, message};

message! {
    /// Ports that gateway proxies open. An empty selector means every gateway proxy.
    pub struct Gateway {
        servers: Vec<Server>,
        selector: BTreeMap<String, String>,
    }
}

message! {
    /// One port with the hosts that are served on it.
    pub struct Server {
        port: Option<Port>,
        bind: String,
        hosts: Vec<String>,
        tls: Option<ServerTlsSettings>,
        default_endpoint: String,
        name: String,
    }
}

message! {
    /// A port of a gateway.
    pub struct Port {
        number: u32,
        protocol: String,
        name: String,
        target_port: u32,
    }
}

message! {
    /// TLS of connections that a proxy accepts. Istio: `ServerTLSSettings`.
    pub struct ServerTlsSettings {
        https_redirect: bool,
        mode: ServerTlsMode,
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
        ca_crl: String,
        credential_name: String,
        credential_names: Vec<String>,
        ca_cert_credential_name: String,
        tls_certificates: Vec<TlsCertificate>,
        subject_alt_names: Vec<String>,
        verify_certificate_spki: Vec<String>,
        verify_certificate_hash: Vec<String>,
        min_protocol_version: TlsProtocol,
        max_protocol_version: TlsProtocol,
        cipher_suites: Vec<String>,
        /// Key-exchange groups, most wanted first.
        ecdh_curves: Vec<String>,
        insecure_skip_verify: Option<bool>,
    }
}

closed_enum! {
    /// What a server does with TLS. Istio: `ServerTLSSettings.TLSmode`.
    pub enum ServerTlsMode {
        Passthrough = 0 "PASSTHROUGH",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        AutoPassthrough = 3 "AUTO_PASSTHROUGH",
        IstioMutual = 4 "ISTIO_MUTUAL",
        OptionalMutual = 5 "OPTIONAL_MUTUAL",
    }
}

message! {
    /// A certificate with its key, as file paths. Istio: `ServerTLSSettings.TLSCertificate`.
    pub struct TlsCertificate {
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
    }
}

closed_enum! {
    /// A version of TLS; `TlsAuto` leaves it to Envoy, with 1.2 as the lowest for servers.
    ///
    /// Istio: `ServerTLSSettings.TLSProtocol`.
    pub enum TlsProtocol {
        TlsAuto = 0 "TLS_AUTO",
        Tlsv10 = 1 "TLSV1_0",
        Tlsv11 = 2 "TLSV1_1",
        Tlsv12 = 3 "TLSV1_2",
        Tlsv13 = 4 "TLSV1_3",
    }
}
