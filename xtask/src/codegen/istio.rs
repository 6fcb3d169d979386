//! Messages that Istio defines itself and no package registry carries.
//!
//! Names, numbers and types are facts of the interface: the proxies, agents and certificate clients that talk
//! to us use them. A `.proto` file each would be a copy; a table is enough.

mod ambient;
mod table;

use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

use table::Holds::{Bool, Enum, Int32, Int64, Message, MessageMap, Messages, Text, TextMap, Texts};
use table::{Field, file, message, numbered};

/// Descriptors to add to the set.
pub fn files() -> Vec<FileDescriptorProto> {
    vec![
        alpn(),
        stats(),
        name_table(),
        certificates(),
        mysql_proxy(),
        ambient::workload(),
        ambient::authorization(),
    ]
}

/// The HTTP filter `istio.alpn`.
fn alpn() -> FileDescriptorProto {
    let package = "istio.envoy.config.filter.http.alpn.v2alpha1";
    let mut config = message(package, "FilterConfig", &[("alpn_override", 1, Messages(OVERRIDE))]);
    const OVERRIDE: &str = ".istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig.AlpnOverride";
    const PROTOCOL: &str = ".istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig.Protocol";
    let scope = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
    config.nested_type.push(message(
        scope,
        "AlpnOverride",
        &[("upstream_protocol", 1, Enum(PROTOCOL)), ("alpn_override", 2, Texts)],
    ));
    config.enum_type.push(numbered("Protocol", &["HTTP10", "HTTP11", "HTTP2"]));
    file("envoy/config/filter/http/alpn/v2alpha1/config.proto", package, &[], vec![config], vec![])
}

/// The filter `istio.stats`.
fn stats() -> FileDescriptorProto {
    let metric: &[Field] = &[
        ("dimensions", 1, TextMap),
        ("name", 2, Text),
        ("tags_to_remove", 3, Texts),
        ("match", 4, Text),
        ("drop", 5, Bool),
    ];
    let definition: &[Field] =
        &[("name", 1, Text), ("value", 2, Text), ("type", 3, Enum(".stats.MetricType"))];
    let plugin: &[Field] = &[
        ("debug", 1, Bool),
        ("max_peer_cache_size", 2, Int32),
        ("stat_prefix", 3, Text),
        ("field_separator", 4, Text),
        ("value_separator", 5, Text),
        ("disable_host_header_fallback", 6, Bool),
        ("tcp_reporting_duration", 7, Message(".google.protobuf.Duration")),
        ("metrics", 8, Messages(".stats.MetricConfig")),
        ("definitions", 9, Messages(".stats.MetricDefinition")),
        ("reporter", 10, Enum(".stats.Reporter")),
        ("rotation_interval", 11, Message(".google.protobuf.Duration")),
        ("graceful_deletion_interval", 12, Message(".google.protobuf.Duration")),
    ];
    let messages = vec![
        message("stats", "MetricConfig", metric),
        message("stats", "MetricDefinition", definition),
        message("stats", "PluginConfig", plugin),
    ];
    let enums = vec![
        numbered("MetricType", &["COUNTER", "GAUGE", "HISTOGRAM"]),
        numbered("Reporter", &["UNSPECIFIED", "SERVER_GATEWAY"]),
    ];
    file("envoy/extensions/stats/config.proto", "stats", &["google/protobuf/duration.proto"], messages, enums)
}

/// The name table that a DNS proxy in the agent asks for (NDS).
fn name_table() -> FileDescriptorProto {
    const INFO: &str = ".istio.networking.nds.v1.NameTable.NameInfo";
    let package = "istio.networking.nds.v1";
    let mut table =
        message(package, "NameTable", &[("table", 1, MessageMap(INFO)), ("name_info", 2, Message(INFO))]);
    table.nested_type.push(message(
        "istio.networking.nds.v1.NameTable",
        "NameInfo",
        &[
            ("ips", 1, Texts),
            ("registry", 2, Text),
            ("shortname", 3, Text),
            ("namespace", 4, Text),
            ("alt_hosts", 5, Texts),
        ],
    ));
    file("dns/proto/nds.proto", package, &[], vec![table], vec![])
}

/// The certificate service that agents ask to sign their requests.
fn certificates() -> FileDescriptorProto {
    let package = "istio.v1.auth";
    let request: &[Field] = &[
        ("csr", 1, Text),
        ("validity_duration", 3, Int64),
        ("metadata", 4, Message(".google.protobuf.Struct")),
    ];
    let messages = vec![
        message(package, "IstioCertificateRequest", request),
        message(package, "IstioCertificateResponse", &[("cert_chain", 1, Texts)]),
    ];
    let mut file =
        file("security/v1alpha1/ca.proto", package, &["google/protobuf/struct.proto"], messages, vec![]);
    file.service.push(ServiceDescriptorProto {
        name: Some("IstioCertificateService".to_owned()),
        method: vec![MethodDescriptorProto {
            name: Some("CreateCertificate".to_owned()),
            input_type: Some(".istio.v1.auth.IstioCertificateRequest".to_owned()),
            output_type: Some(".istio.v1.auth.IstioCertificateResponse".to_owned()),
            ..MethodDescriptorProto::default()
        }],
        ..ServiceDescriptorProto::default()
    });
    file
}

/// A network filter of Envoy's contrib build, which no registry carries either.
fn mysql_proxy() -> FileDescriptorProto {
    let package = "envoy.extensions.filters.network.mysql_proxy.v3";
    let config = message(package, "MySQLProxy", &[("stat_prefix", 1, Text), ("access_log", 2, Text)]);
    let name = "contrib/envoy/extensions/filters/network/mysql_proxy/v3/mysql_proxy.proto";
    file(name, package, &[], vec![config], vec![])
}
