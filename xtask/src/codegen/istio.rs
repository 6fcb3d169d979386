//! Messages that Istio defines itself and no package registry carries.
//!
//! Names, numbers and types are facts of the interface: the proxies, agents and certificate clients that talk to us
//! use them. A `.proto` file each would be a copy; a table is enough.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MessageOptions, MethodDescriptorProto, ServiceDescriptorProto,
};

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Bool,
    Int32,
    Int64,
    Text,
    /// A list of strings.
    Texts,
    /// A message, by its full name with a leading dot.
    Message(&'static str),
    /// A list of messages.
    Messages(&'static str),
    Enum(&'static str),
    /// A map from string to string.
    TextMap,
    /// A map from string to a message.
    MessageMap(&'static str),
}

use Holds::{Bool, Enum, Int32, Int64, Message, MessageMap, Messages, Text, TextMap, Texts};

/// Name and number of a field, and what it holds.
type Field = (&'static str, i32, Holds);

/// Descriptors to add to the set.
pub fn files() -> Vec<FileDescriptorProto> {
    vec![alpn(), stats(), name_table(), certificates()]
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

fn file(
    name: &str,
    package: &str,
    imports: &[&str],
    messages: Vec<DescriptorProto>,
    enums: Vec<EnumDescriptorProto>,
) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
        message_type: messages,
        enum_type: enums,
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

/// A message in `scope`, which is the package or the full name of the message around it.
fn message(scope: &str, name: &str, fields: &[Field]) -> DescriptorProto {
    let mut entries = Vec::new();
    let field = fields
        .iter()
        .map(|&(field_name, number, holds)| {
            let value = match holds {
                TextMap => Text,
                MessageMap(target) => Message(target),
                plain => return field(field_name, number, plain, None),
            };
            let entry_name = format!("{}Entry", camel_case(field_name));
            entries.push(DescriptorProto {
                name: Some(entry_name.clone()),
                field: vec![field("key", 1, Text, None), field("value", 2, value, None)],
                options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
                ..DescriptorProto::default()
            });
            field(field_name, number, holds, Some(format!(".{scope}.{name}.{entry_name}")))
        })
        .collect();
    DescriptorProto { name: Some(name.to_owned()), field, nested_type: entries, ..DescriptorProto::default() }
}

fn field(name: &str, number: i32, holds: Holds, entry: Option<String>) -> FieldDescriptorProto {
    let (kind, label, target) = match holds {
        Bool => (Type::Bool, Label::Optional, None),
        Int32 => (Type::Int32, Label::Optional, None),
        Int64 => (Type::Int64, Label::Optional, None),
        Text => (Type::String, Label::Optional, None),
        Texts => (Type::String, Label::Repeated, None),
        Message(target) => (Type::Message, Label::Optional, Some(target.to_owned())),
        Messages(target) => (Type::Message, Label::Repeated, Some(target.to_owned())),
        Enum(target) => (Type::Enum, Label::Optional, Some(target.to_owned())),
        TextMap | MessageMap(_) => (Type::Message, Label::Repeated, entry),
    };
    let mut json_name = camel_case(name);
    json_name[..1].make_ascii_lowercase();
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name: target,
        json_name: Some(json_name),
        ..FieldDescriptorProto::default()
    }
}

/// An enum whose values count up from 0.
fn numbered(name: &str, values: &[&str]) -> EnumDescriptorProto {
    let value = (0..)
        .zip(values)
        .map(|(number, value)| EnumValueDescriptorProto {
            name: Some((*value).to_owned()),
            number: Some(number),
            options: None,
        })
        .collect();
    EnumDescriptorProto { name: Some(name.to_owned()), value, ..EnumDescriptorProto::default() }
}

fn camel_case(snake: &str) -> String {
    let words = snake.split('_').map(|word| {
        let (first, rest) = word.split_at(1.min(word.len()));
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}
