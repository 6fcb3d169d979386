//! Tracing of HTTP requests.

pub mod provider;

use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use navarch_envoy::proto::envoy::r#type::metadata::v3::{
    MetadataKey, MetadataKind, metadata_key, metadata_kind,
};
use navarch_envoy::proto::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use navarch_envoy::proto::envoy::r#type::v3::Percent;
use navarch_model::mesh::{self, MeshConfig, ProxyConfig};
use navarch_model::proxy::{IstioVersion, ProxyFacts};
use navarch_model::{Labels, Name};
use navarch_model::{telemetry, values};

/// Share of requests that are traced unless configuration says otherwise, in percent.
const DEFAULT_SAMPLING: f64 = 1.0;

/// Tags that name the policy behind a dry-run verdict, and the verdict.
const DRY_RUN_TAGS: [(&str, &str); 4] = [
    ("istio.authorization.dry_run.allow_policy.name", "istio_dry_run_allow_shadow_effective_policy_id"),
    ("istio.authorization.dry_run.allow_policy.result", "istio_dry_run_allow_shadow_engine_result"),
    ("istio.authorization.dry_run.deny_policy.name", "istio_dry_run_deny_shadow_effective_policy_id"),
    ("istio.authorization.dry_run.deny_policy.result", "istio_dry_run_deny_shadow_engine_result"),
];

/// Who produces spans: the values of the tags that every span carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub canonical_revision: Name,
    pub canonical_service: Name,
    pub mesh_id: Name,
    pub namespace: Name,
    pub cluster_id: Name,
}

impl Identity {
    /// The identity of a proxy whose labels are `labels`.
    pub fn of(facts: &ProxyFacts, labels: &Labels) -> Self {
        let label = |key: &str, default: &str| or(labels.get(key).map_or("", |value| value), default);
        Identity {
            canonical_revision: label("service.istio.io/canonical-revision", "latest"),
            canonical_service: label("service.istio.io/canonical-name", "unknown"),
            mesh_id: or(&facts.mesh_id, "unknown"),
            namespace: or(&facts.stated_namespace, "default"),
            cluster_id: or(&facts.cluster_id, "unknown"),
        }
    }

    /// The tags of this identity and of dry-run policies.
    pub fn tags(&self) -> Vec<CustomTag> {
        let own = [
            ("istio.canonical_revision", &self.canonical_revision),
            ("istio.canonical_service", &self.canonical_service),
            ("istio.mesh_id", &self.mesh_id),
            ("istio.namespace", &self.namespace),
            ("istio.cluster_id", &self.cluster_id),
        ];
        let own = own.into_iter().map(|(name, value)| literal(name, value));
        own.chain(DRY_RUN_TAGS.into_iter().map(|(name, key)| dry_run(name, key))).collect()
    }
}

/// Tracing as the mesh's own settings ask for it, without a provider: the proxy's bootstrap names the
/// collector. Used where neither Telemetry nor default providers say anything.
pub fn from_mesh(mesh: &MeshConfig, proxy: &ProxyConfig, identity: &Identity) -> Option<hcm::Tracing> {
    if !mesh.enable_tracing {
        return None;
    }
    let settings = proxy.tracing.clone().unwrap_or_default();
    let mut tags = if settings.enable_istio_tags.unwrap_or(true) { identity.tags() } else { Vec::new() };
    tags.extend(settings.custom_tags.iter().map(|(name, tag)| custom(name, tag)));
    Some(sampled(tags, sampling(proxy), settings.max_path_tag_length))
}

/// The share of requests that the proxy's settings ask to trace, in percent.
pub fn sampling(proxy: &ProxyConfig) -> f64 {
    match &proxy.tracing {
        Some(settings) if settings.sampling != values::Percent::ZERO => settings.sampling.as_f64(),
        _ => DEFAULT_SAMPLING,
    }
}

/// Tracing with these tags, in the order of their names; clients that ask for a trace get one.
pub fn sampled(mut tags: Vec<CustomTag>, percent: f64, max_path_tag_length: u32) -> hcm::Tracing {
    tags.sort_by(|a, b| a.tag.cmp(&b.tag));
    hcm::Tracing {
        client_sampling: Some(Percent { value: 100.0 }),
        overall_sampling: Some(Percent { value: 100.0 }),
        random_sampling: Some(Percent { value: percent }),
        max_path_tag_length: (max_path_tag_length != 0).then_some(max_path_tag_length),
        custom_tags: tags,
        ..hcm::Tracing::default()
    }
}

/// A tag of the proxy's settings.
pub fn custom(name: &str, tag: &mesh::CustomTag) -> CustomTag {
    let value = match tag {
        mesh::CustomTag::Literal(literal) => {
            custom_tag::Type::Literal(custom_tag::Literal { value: literal.value.clone() })
        }
        mesh::CustomTag::Environment(variable) => custom_tag::Type::Environment(custom_tag::Environment {
            name: variable.name.clone(),
            default_value: variable.default_value.clone(),
        }),
        mesh::CustomTag::Header(header) => custom_tag::Type::RequestHeader(custom_tag::Header {
            name: header.name.clone(),
            default_value: header.default_value.clone(),
        }),
    };
    CustomTag { tag: name.to_owned(), r#type: Some(value) }
}

/// A tag of the Telemetry API; nothing if the proxy is too old for its kind.
pub fn telemetry_tag(name: &str, tag: &telemetry::CustomTag, version: IstioVersion) -> Option<CustomTag> {
    let value = match tag {
        telemetry::CustomTag::Literal(literal) => {
            custom_tag::Type::Literal(custom_tag::Literal { value: literal.value.clone() })
        }
        telemetry::CustomTag::Environment(variable) => {
            custom_tag::Type::Environment(custom_tag::Environment {
                name: variable.name.clone(),
                default_value: variable.default_value.clone(),
            })
        }
        telemetry::CustomTag::Header(header) => custom_tag::Type::RequestHeader(custom_tag::Header {
            name: header.name.clone(),
            default_value: header.default_value.clone(),
        }),
        telemetry::CustomTag::Formatter(formatter) if (version.major, version.minor) >= (1, 29) => {
            custom_tag::Type::Value(formatter.value.clone())
        }
        telemetry::CustomTag::Formatter(_) => return None,
    };
    Some(CustomTag { tag: name.to_owned(), r#type: Some(value) })
}

fn literal(name: &str, value: &str) -> CustomTag {
    let literal = custom_tag::Literal { value: value.to_owned() };
    CustomTag { tag: name.to_owned(), r#type: Some(custom_tag::Type::Literal(literal)) }
}

fn dry_run(name: &str, key: &str) -> CustomTag {
    let segment =
        metadata_key::PathSegment { segment: Some(metadata_key::path_segment::Segment::Key(key.to_owned())) };
    let metadata = custom_tag::Metadata {
        kind: Some(MetadataKind {
            kind: Some(metadata_kind::Kind::Request(metadata_kind::Request::default())),
        }),
        metadata_key: Some(MetadataKey { key: "envoy.filters.http.rbac".to_owned(), path: vec![segment] }),
        ..custom_tag::Metadata::default()
    };
    CustomTag { tag: name.to_owned(), r#type: Some(custom_tag::Type::Metadata(metadata)) }
}

fn or(stated: &str, default: &str) -> Name {
    Name::from(if stated.is_empty() { default } else { stated })
}
