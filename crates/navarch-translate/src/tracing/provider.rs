//! Tracing providers: how spans reach a collector.

use std::collections::BTreeMap;
use std::time::Duration;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use navarch_envoy::proto::envoy::config::core::v3::{
    GrpcService, HeaderValue as EnvoyHeader, HeaderValueOption, HttpService, HttpUri, TypedExtensionConfig,
    http_uri,
};
use navarch_envoy::proto::envoy::config::trace::v3::{
    DatadogConfig, OpenTelemetryConfig, SkyWalkingConfig, ZipkinConfig, tracing, zipkin_config,
};
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use navarch_envoy::proto::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::{
    DynatraceResourceDetectorConfig, EnvironmentResourceDetectorConfig,
};
use navarch_envoy::proto::envoy::extensions::tracers::opentelemetry::samplers::v3::DynatraceSamplerConfig;
use navarch_envoy::wkt;
use navarch_model::mesh::{
    DynatraceSampler, ExtensionProvider, HeaderValue, HttpHeader, OpenTelemetrySampling,
    OpenTelemetryTracingProvider, Provider, ProxyConfig, ServiceAttributeEnrichment, TraceContextOption,
    ZipkinTracingProvider,
};
use navarch_model::proxy::{IstioVersion, ProxyFacts, ProxyKind};
use navarch_model::{Labels, Name, telemetry, values};

use super::{Identity, custom, sampled, sampling, telemetry_tag};
use crate::access_log::{Upstream, grpc_service};
use crate::encoded::Encoded;

/// How long a collector may take to accept spans, unless stated.
const ZIPKIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What tracers need to know of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracee {
    pub is_gateway: bool,
    pub version: IstioVersion,
    /// `node.cluster`: the name of the service that produces spans.
    pub service_name: Name,
    /// The same by OpenTelemetry's conventions for Kubernetes.
    pub conventional_name: Name,
}

impl Tracee {
    /// A proxy whose labels are `labels`.
    pub fn of(facts: &ProxyFacts, labels: &Labels) -> Self {
        Tracee {
            is_gateway: facts.kind == ProxyKind::Router,
            version: facts.istio_version,
            service_name: facts.service_cluster.clone(),
            conventional_name: conventional_name(facts, labels),
        }
    }

    fn at_least(&self, minor: u16) -> bool {
        (self.version.major, self.version.minor) >= (1, minor)
    }
}

/// The name of a service by OpenTelemetry's semantic conventions ("Kubernetes attributes", service
/// attributes): annotation, labels, owner.
fn conventional_name(facts: &ProxyFacts, labels: &Labels) -> Name {
    let annotation = facts.annotations.get("resource.opentelemetry.io/service.name").map(|value| &**value);
    let label = |key: &str| labels.get(key).map(|value| &**value);
    let candidates = [
        annotation,
        label("app.kubernetes.io/instance"),
        label("app.kubernetes.io/name"),
        Some(&*facts.workload_name),
        facts.id.split_once('.').map(|(pod, _)| pod),
    ];
    let found = candidates.into_iter().flatten().find(|name| !name.is_empty());
    Name::from(found.unwrap_or("unknown_service"))
}

/// The host and the port of a service.
pub type Target<'a> = (&'a str, u32);

/// Host and port of a service, as a provider states them.
pub type Service<'a> = (&'a str, u32);

/// The services and ports that a tracing provider sends to: the collector, and the service that decides on
/// sampling if that is elsewhere. Nothing if the provider does not trace.
pub fn services(provider: &ExtensionProvider) -> Option<(Target<'_>, Option<Target<'_>>)> {
    Some(match provider.provider.as_ref()? {
        Provider::Zipkin(zipkin) => ((&zipkin.service, zipkin.port), None),
        Provider::Datadog(datadog) => ((&datadog.service, datadog.port), None),
        Provider::Skywalking(skywalking) => ((&skywalking.service, skywalking.port), None),
        Provider::Opentelemetry(otel) => {
            let sampler = match &otel.sampling {
                Some(OpenTelemetrySampling::DynatraceSampler(sampler)) => {
                    sampler.http_service.as_ref().map(|api| (api.service.as_str(), api.port))
                }
                None => None,
            };
            ((&otel.service, otel.port), sampler)
        }
        _ => return None,
    })
}

/// A tracer: Envoy's message without sampling and tags, and whether the tracer itself decides which spans are
/// kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracer {
    pub tracing: hcm::Tracing,
    pub samples: bool,
}

/// What Telemetry objects say of traces that go to a provider.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The share of requests; without it, that of the proxy's settings.
    pub sampling: Option<values::Percent>,
    /// Tags in place of those of the proxy's settings.
    pub tags: BTreeMap<String, telemetry::CustomTag>,
    pub istio_tags: bool,
    pub no_propagation: bool,
}

impl Default for Traced {
    fn default() -> Self {
        Traced { sampling: None, tags: BTreeMap::new(), istio_tags: true, no_propagation: false }
    }
}

/// Tracing through the tracer of a provider.
pub fn through(
    tracer: Tracer,
    wanted: &Traced,
    facts: &ProxyFacts,
    proxy: &ProxyConfig,
) -> Encoded<hcm::Tracing> {
    let own = proxy.tracing.clone().unwrap_or_default();
    let identity = Identity::of(facts, &facts.labels);
    let mut tags = if wanted.istio_tags { identity.tags() } else { Vec::new() };
    if wanted.tags.is_empty() {
        tags.extend(own.custom_tags.iter().map(|(name, tag)| custom(name, tag)));
    } else {
        let version = facts.istio_version;
        tags.extend(wanted.tags.iter().filter_map(|(name, tag)| telemetry_tag(name, tag, version)));
    }
    let percent = match wanted.sampling {
        // The tracer decides; it needs to see every request.
        _ if tracer.samples => 100.0,
        Some(percent) => percent.as_f64(),
        None => sampling(proxy),
    };
    let max_tag_length = tracer.tracing.max_path_tag_length.unwrap_or(own.max_path_tag_length);
    let version = (facts.istio_version.major, facts.istio_version.minor);
    Encoded::new(hcm::Tracing {
        provider: tracer.tracing.provider,
        spawn_upstream_span: tracer.tracing.spawn_upstream_span,
        no_context_propagation: wanted.no_propagation && version >= (1, 30),
        ..sampled(tags, percent, max_tag_length)
    })
}

/// The tracer of a provider whose services are found at `collector` and `sampler`; nothing if it cannot
/// trace.
pub fn tracer(
    provider: &ExtensionProvider,
    tracee: &Tracee,
    collector: &Upstream,
    sampler: Option<&Upstream>,
) -> Option<Tracer> {
    let mut samples = false;
    let mut child_spans = tracee.is_gateway;
    let (name, config, max_tag_length) = match provider.provider.as_ref()? {
        Provider::Zipkin(stated) => {
            ("envoy.tracers.zipkin", any(&zipkin(stated, tracee, collector)), stated.max_tag_length)
        }
        Provider::Datadog(stated) => {
            let config = DatadogConfig {
                collector_cluster: collector.cluster.clone(),
                collector_hostname: collector.host.clone(),
                service_name: tracee.service_name.to_string(),
                ..DatadogConfig::default()
            };
            ("envoy.tracers.datadog", any(&config), stated.max_tag_length)
        }
        Provider::Skywalking(_) => {
            child_spans = true;
            let config = SkyWalkingConfig {
                grpc_service: Some(grpc_service(collector)),
                ..SkyWalkingConfig::default()
            };
            ("envoy.tracers.skywalking", any(&config), 0)
        }
        Provider::Opentelemetry(stated) => {
            samples = stated.sampling.is_some();
            let config = open_telemetry(stated, tracee, collector, sampler)?;
            ("envoy.tracers.opentelemetry", any(&config), stated.max_tag_length)
        }
        _ => return None,
    };
    let tracing = hcm::Tracing {
        spawn_upstream_span: child_spans.then_some(true),
        max_path_tag_length: (max_tag_length != 0).then_some(max_tag_length),
        provider: Some(tracing::Http {
            name: name.to_owned(),
            config_type: Some(tracing::http::ConfigType::TypedConfig(config)),
        }),
        ..hcm::Tracing::default()
    };
    Some(Tracer { tracing, samples })
}

fn zipkin(stated: &ZipkinTracingProvider, tracee: &Tracee, collector: &Upstream) -> ZipkinConfig {
    let path = if stated.path.is_empty() { "/api/v2/spans" } else { &stated.path };
    let mut config = ZipkinConfig {
        collector_endpoint_version: zipkin_config::CollectorEndpointVersion::HttpJson as i32,
        trace_id_128bit: !stated.enable_64bit_trace_id,
        shared_span_context: Some(false),
        ..ZipkinConfig::default()
    };
    // Older proxies know neither the timeout nor headers.
    if tracee.at_least(29) {
        let timeout = stated.timeout.unwrap_or(ZIPKIN_TIMEOUT);
        let uri = format!("http://{}{path}", collector.host);
        config.collector_service = Some(http_service(uri, collector, Some(timeout), &stated.headers));
    } else {
        config.collector_cluster.clone_from(&collector.cluster);
        config.collector_hostname.clone_from(&collector.host);
        config.collector_endpoint = path.to_owned();
    }
    if tracee.at_least(28) {
        config.trace_context_option = match stated.trace_context_option {
            TraceContextOption::UseB3 => zipkin_config::TraceContextOption::UseB3,
            TraceContextOption::UseB3WithW3cPropagation => {
                zipkin_config::TraceContextOption::UseB3WithW3cPropagation
            }
        } as i32;
    }
    config
}

fn open_telemetry(
    stated: &OpenTelemetryTracingProvider,
    tracee: &Tracee,
    collector: &Upstream,
    sampler: Option<&Upstream>,
) -> Option<OpenTelemetryConfig> {
    let conventions =
        stated.service_attribute_enrichment == ServiceAttributeEnrichment::OtelSemanticConventions;
    let name = if conventions { &tracee.conventional_name } else { &tracee.service_name };
    let mut config = OpenTelemetryConfig { service_name: name.to_string(), ..OpenTelemetryConfig::default() };
    match &stated.http {
        Some(http) => {
            let uri = joined(&collector.host, &http.path);
            config.http_service = Some(http_service(uri, collector, http.timeout, &http.headers));
        }
        None => {
            let grpc = stated.grpc.clone().unwrap_or_default();
            config.grpc_service = Some(GrpcService {
                timeout: grpc.timeout.map(wkt::duration),
                initial_metadata: grpc.initial_metadata.iter().map(header).collect(),
                ..grpc_service(collector)
            });
        }
    }
    let detectors = stated.resource_detectors.as_ref();
    if conventions || detectors.is_some_and(|detectors| detectors.environment.is_some()) {
        let detector = any(&EnvironmentResourceDetectorConfig::default());
        config
            .resource_detectors
            .push(extension("envoy.tracers.opentelemetry.resource_detectors.environment", detector));
    }
    if detectors.is_some_and(|detectors| detectors.dynatrace.is_some()) {
        let detector = any(&DynatraceResourceDetectorConfig::default());
        config
            .resource_detectors
            .push(extension("envoy.tracers.opentelemetry.resource_detectors.dynatrace", detector));
    }
    if let Some(OpenTelemetrySampling::DynatraceSampler(settings)) = &stated.sampling {
        let decided = dynatrace(settings, stated, collector, sampler)?;
        config.sampler = Some(extension("envoy.tracers.opentelemetry.samplers.dynatrace", any(&decided)));
    }
    Some(config)
}

/// The sampler asks Dynatrace which share of spans to keep: through its own service, else through that of the
/// collector.
fn dynatrace(
    settings: &DynatraceSampler,
    provider: &OpenTelemetryTracingProvider,
    collector: &Upstream,
    sampler: Option<&Upstream>,
) -> Option<DynatraceSamplerConfig> {
    let service = match &settings.http_service {
        Some(api) => {
            let upstream = sampler?;
            let http = api.http.clone().unwrap_or_default();
            http_service(joined(&upstream.host, &http.path), upstream, http.timeout, &http.headers)
        }
        None => {
            let http = provider.http.as_ref()?;
            let uri = joined(&collector.host, "api/v2/samplingConfiguration");
            http_service(uri, collector, http.timeout, &http.headers)
        }
    };
    Some(DynatraceSamplerConfig {
        tenant: settings.tenant.clone(),
        cluster_id: settings.cluster_id,
        root_spans_per_minute: settings.root_spans_per_minute,
        http_service: Some(service),
    })
}

fn extension(name: &str, config: navarch_envoy::Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}

fn http_service(
    uri: String,
    upstream: &Upstream,
    timeout: Option<Duration>,
    headers: &[HttpHeader],
) -> HttpService {
    HttpService {
        http_uri: Some(HttpUri {
            uri,
            timeout: timeout.map(wkt::duration),
            http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(upstream.cluster.clone())),
        }),
        request_headers_to_add: headers
            .iter()
            .map(|stated| HeaderValueOption {
                header: Some(header(stated)),
                append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
                ..HeaderValueOption::default()
            })
            .collect(),
        ..HttpService::default()
    }
}

/// A header with its value. Values from the environment of the control plane are not supported: translation
/// reads nothing but its input, so such a header is empty.
fn header(stated: &HttpHeader) -> EnvoyHeader {
    let value = match &stated.header_value {
        Some(HeaderValue::Value(value)) => value.clone(),
        _ => String::new(),
    };
    EnvoyHeader { key: stated.name.clone(), value, ..EnvoyHeader::default() }
}

fn joined(host: &str, path: &str) -> String {
    match path.trim_start_matches('/') {
        "" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}
