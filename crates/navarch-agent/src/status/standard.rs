//! Istio's standard metrics (`istio_requests_total` and its like), out of what Envoy has counted.
//!
//! The control plane has Envoy count by what only Envoy knows (`navarch_translate::standard_metrics`), in
//! tags that hold several things each. Here they become Istio's labels, with those of the own workload;
//! series that have the same labels then are added up.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use navarch_model::standard_metrics::{
    DESTINATION, GRPC_STATUS, HOST, OWN_TAGS, PEER, PRINCIPALS, REMOVED, REPORTER, REQUEST_PROTOCOL, SERVICE,
    SOURCE,
};
use serde::Deserialize;

use crate::workload::Workload;

/// What names of Envoy's statistics begin with, on its page.
const PREFIX: &str = "envoy_istiocustom_";

const UNKNOWN: &str = "unknown";
const LATEST: &str = "latest";

/// Labels by name, which is the order they are written in.
type Labels<'a> = BTreeMap<&'a str, Cow<'a, str>>;

/// The metrics, while the page of Envoy is read.
#[derive(Debug)]
pub struct Standard<'w> {
    own: &'w Workload,
    families: BTreeMap<String, Family>,
    /// The tags of the line before and what they became: a distribution has them on each of its lines.
    last: (String, Arc<str>),
    bounds: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Family {
    kind: String,
    /// By labels, as they are written.
    series: BTreeMap<Arc<str>, Series>,
}

/// The numbers of one set of labels; of a counter there is only the sum.
#[derive(Debug, Default)]
struct Series {
    buckets: Vec<(Arc<str>, f64)>,
    sum: f64,
    count: f64,
}

/// A line with a number.
struct Sample<'l> {
    name: &'l str,
    tags: &'l str,
    bound: Option<&'l str>,
    value: f64,
}

impl<'w> Standard<'w> {
    /// Nothing has been read yet.
    #[must_use]
    pub fn new(own: &'w Workload) -> Self {
        Standard {
            own,
            families: BTreeMap::new(),
            last: (String::new(), Arc::from("")),
            bounds: BTreeSet::new(),
        }
    }

    /// Whether the line is about standard metrics, and so is written with them.
    pub fn takes(&mut self, line: &str) -> bool {
        if let Some(said) = line.strip_prefix("# TYPE ").and_then(|said| said.strip_prefix(PREFIX)) {
            if let Some((name, kind)) = said.split_once(' ') {
                let family = Family { kind: kind.to_owned(), series: BTreeMap::new() };
                self.families.entry(name.to_owned()).or_insert(family);
            }
            return true;
        }
        let Some(said) = line.strip_prefix(PREFIX) else { return false };
        if let Some(sample) = sample(said) {
            self.add(&sample);
        }
        true
    }

    fn add(&mut self, sample: &Sample<'_>) {
        if self.last.0 != sample.tags || self.last.1.is_empty() {
            self.last = (sample.tags.to_owned(), Arc::from(written(&labels(self.own, &tags(sample.tags)))));
        }
        let labels = self.last.1.clone();
        let parts = ["_bucket", "_sum", "_count"].map(|part| (part, sample.name.strip_suffix(part)));
        let part = parts.into_iter().find_map(|(part, name)| Some((part, name?)));
        let (part, name) =
            part.filter(|(_, name)| self.families.contains_key(*name)).unwrap_or(("", sample.name));
        let Some(family) = self.families.get_mut(name) else { return };
        let series = family.series.entry(labels).or_default();
        match (part, sample.bound) {
            ("_bucket", Some(bound)) => {
                match series.buckets.iter_mut().find(|(known, _)| **known == *bound) {
                    Some((_, value)) => *value += sample.value,
                    None => {
                        let bound = self.bounds.get(bound).cloned().unwrap_or_else(|| Arc::from(bound));
                        self.bounds.insert(bound.clone());
                        series.buckets.push((bound, sample.value));
                    }
                }
            }
            ("_count", _) => series.count += sample.value,
            _ => series.sum += sample.value,
        }
    }

    /// Writes all that was read.
    pub fn write(&self, text: &mut String) {
        for (name, Family { kind, series }) in &self.families {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (labels, Series { buckets, sum, count }) in series {
                if kind != "histogram" {
                    let _ = writeln!(text, "{name}{{{labels}}} {sum}");
                    continue;
                }
                for (bound, value) in buckets {
                    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {value}");
                }
                let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
            }
        }
    }
}

/// Reads a line, without what its name begins with.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, tags) = series.strip_suffix('}')?.split_once('{')?;
    // Quotation marks in values are escaped, so that none of them ends like this.
    let (tags, bound) = match tags.rsplit_once("le=\"") {
        Some((tags, bound)) if tags.is_empty() || tags.ends_with(',') => {
            (tags.trim_end_matches(','), bound.strip_suffix('"'))
        }
        _ => (tags, None),
    };
    Some(Sample { name, tags, bound, value })
}

/// The tags of a line.
fn tags(mut text: &str) -> BTreeMap<&str, String> {
    let mut found = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut escaped = false;
        let mut end = rest.len();
        for (index, c) in rest.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                c if escaped => value.push(c),
                '"' => {
                    end = index + 1;
                    break;
                }
                '\\' => {}
                c => value.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        found.insert(name.trim_start_matches(','), value);
        text = rest.get(end..).unwrap_or_default();
    }
    found
}

/// Labels as they stand on the page.
fn written(labels: &Labels<'_>) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        let separator = if text.is_empty() { "" } else { "," };
        text.push_str(separator);
        push_label(&mut text, name, value);
    }
    text
}

/// Adds a label as it stands on the page.
pub(super) fn push_label(text: &mut String, name: &str, value: &str) {
    let _ = write!(text, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

/// A service, as clusters say whose they are.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    host: String,
    name: String,
    namespace: String,
}

impl Service {
    /// The service that calls are for: of the first service of the cluster, or what the cluster is called, or
    /// else the host that was asked for.
    fn of(text: &str, host: &str) -> Self {
        if let Ok(services) = serde_json::from_str::<Vec<Service>>(text)
            && let Some(service) = services.into_iter().next()
        {
            // Of a ServiceEntry istiod says the host as its name, too.
            let of_kubernetes = format!("{}.{}.svc.", service.name, service.namespace);
            let name =
                if service.host.starts_with(&of_kubernetes) { service.name } else { service.host.clone() };
            return Service { name, ..service };
        }
        let name = match text {
            "block_all" => "BlackHoleCluster",
            "allow_any" => "PassthroughCluster",
            "BlackHoleCluster" | "PassthroughCluster" | "InboundPassthroughCluster" => text,
            _ => host,
        };
        Service { host: host.to_owned(), name: name.to_owned(), namespace: String::new() }
    }
}

/// The namespace in an identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
fn namespace_in(principal: &str) -> &str {
    principal.split_once("/ns/").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default())
}

/// Istio's labels, from the tags of a statistic. The rules are those of `istio.stats`.
fn labels<'a>(own: &'a Workload, tags: &'a BTreeMap<&'a str, String>) -> Labels<'a> {
    let tag = |name: &str| tags.get(name).map_or("", String::as_str);
    let is_source = tag(REPORTER) == "source";
    let (local, peer_principal) = tag(PRINCIPALS).split_once(' ').unwrap_or_default();
    // A certificate may have several names; the first is who it is.
    let first = |names: &'a str| names.split(',').next().unwrap_or_default();
    let (local, peer_principal) = (first(local), first(peer_principal));
    let proven = namespace_in(peer_principal);
    let peer = match tag(PEER) {
        said if is_source => Workload::of_endpoint(said),
        // Who has not proven anything is not believed.
        _ if peer_principal.is_empty() => None,
        // Nor is who names another namespace than the proven one: a proxy that does not count passes on what
        // others have put into the header.
        said => Workload::of_header(said).filter(|peer| proven.is_empty() || peer.namespace == proven),
    };
    let mut peer = peer.unwrap_or_default();
    if !proven.is_empty() {
        proven.clone_into(&mut peer.namespace);
    }
    let mut service = Service::of(tag(SERVICE), tag(HOST));
    if service.namespace.is_empty() {
        let of = if is_source { &peer } else { own };
        service.namespace.clone_from(&of.namespace);
    }
    if !is_source && service.host.is_empty() {
        service.host.clone_from(&own.service);
        service.name =
            Some(service.name).filter(|name| !name.is_empty()).unwrap_or_else(|| own.service.clone());
    }
    let mut made = Labels::new();
    let mut put = |name: &'a str, value: Cow<'a, str>, without: &'static str| {
        made.insert(name, if value.is_empty() { Cow::Borrowed(without) } else { value });
    };
    put("reporter", tag(REPORTER).into(), UNKNOWN);
    put("destination_service", service.host.into(), UNKNOWN);
    put("destination_service_name", service.name.into(), UNKNOWN);
    put("destination_service_namespace", service.namespace.into(), UNKNOWN);
    let Workload { name, namespace, app, version, service, revision, cluster } = peer;
    let other = [name, namespace, app, version, service, revision, cluster].map(Cow::from);
    let Workload { name, namespace, app, version, service, revision, cluster } = own;
    let this =
        [name, namespace, app, version, service, revision, cluster].map(|text| Cow::from(text.as_str()));
    let (source, destination) = if is_source { (this, other) } else { (other, this) };
    let both = SOURCE.into_iter().zip(source).chain(DESTINATION.into_iter().zip(destination));
    for (name, value) in both {
        put(name, value, if name.ends_with("_revision") { LATEST } else { UNKNOWN });
    }
    let (source, destination) = if is_source { (local, peer_principal) } else { (peer_principal, local) };
    put("source_principal", source.into(), UNKNOWN);
    put("destination_principal", destination.into(), UNKNOWN);
    let policy = match () {
        // The client does not know what the server demands.
        () if is_source => UNKNOWN,
        () if local.is_empty() || peer_principal.is_empty() => "none",
        () => "mutual_tls",
    };
    put("connection_security_policy", policy.into(), UNKNOWN);
    put(REQUEST_PROTOCOL, if tag(GRPC_STATUS).is_empty() { "http" } else { "grpc" }.into(), UNKNOWN);
    for (name, value) in tags.iter().filter(|(name, _)| !name.starts_with(OWN_TAGS)) {
        if *name != GRPC_STATUS || !value.is_empty() {
            put(name, value.as_str().into(), UNKNOWN);
        }
    }
    for removed in tag(REMOVED).split(',') {
        made.remove(removed);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Workload {
        Workload::of_endpoint("web-v1;shop;web;v1;east").expect("an endpoint")
    }

    /// The page of an Envoy, and the standard metrics on the page of its agent.
    #[track_caller]
    fn check(page: &str, expected: &str) {
        let own = own();
        let mut standard = Standard::new(&own);
        let rest: Vec<&str> = page.lines().filter(|line| !standard.takes(line)).collect();
        assert_eq!(rest, Vec::<&str>::new());
        let mut text = String::new();
        standard.write(&mut text);
        assert_eq!(text, expected);
    }

    /// Some of the labels that tags become.
    #[track_caller]
    fn check_labels(tagged: &str, expected: &[(&str, &str)]) {
        let own = own();
        let tags = tags(tagged);
        let made = labels(&own, &tags);
        for (name, value) in expected {
            assert_eq!(made.get(name).map_or("", |value| &**value), *value, "{name} of {tagged}");
        }
    }

    #[test]
    fn what_is_not_counted_for_them_is_left_alone() {
        let own = own();
        let mut standard = Standard::new(&own);
        for line in
            ["envoy_cluster_upstream_rq{a=\"b\"} 1", "# TYPE envoy_x counter", "", "istio_requests_total 1"]
        {
            assert!(!standard.takes(line), "{line}");
        }
        for line in ["envoy_istiocustom_x{a=\"b} 1", "envoy_istiocustom_x", "# TYPE envoy_istiocustom_x"] {
            assert!(standard.takes(line), "{line}");
        }
        let mut text = String::new();
        standard.write(&mut text);
        assert_eq!(text, "");
    }

    #[test]
    fn series_of_the_same_labels_are_added_up() {
        let removed = r#"navarch_removed="reporter,source_workload,source_workload_namespace,source_app,source_version,source_canonical_service,source_canonical_revision,source_cluster,source_principal,destination_workload,destination_workload_namespace,destination_app,destination_version,destination_canonical_service,destination_canonical_revision,destination_cluster,destination_principal,destination_service,destination_service_name,destination_service_namespace,connection_security_policy""#;
        let of = |pod: &str| format!(r#"{{navarch_reporter="source",navarch_peer="{pod};;;;",{removed}"#);
        let (a, b) = (of("a"), of("b"));
        check(
            &format!(
                "# TYPE envoy_istiocustom_istio_requests_total counter\n\
                 envoy_istiocustom_istio_requests_total{a}}} 9007199254740991\n\
                 envoy_istiocustom_istio_requests_total{b},response_code=\"503\"}} 2\n\
                 envoy_istiocustom_istio_requests_total{b}}} 1\n\
                 # TYPE envoy_istiocustom_istio_request_bytes histogram\n\
                 envoy_istiocustom_istio_request_bytes_bucket{a},le=\"0.5\"}} 1\n\
                 envoy_istiocustom_istio_request_bytes_bucket{a},le=\"+Inf\"}} 2\n\
                 envoy_istiocustom_istio_request_bytes_sum{a}}} 3.5\n\
                 envoy_istiocustom_istio_request_bytes_count{a}}} 2\n\
                 envoy_istiocustom_istio_request_bytes_bucket{b},le=\"0.5\"}} 0\n\
                 envoy_istiocustom_istio_request_bytes_bucket{b},le=\"+Inf\"}} 5\n\
                 envoy_istiocustom_istio_request_bytes_sum{b}}} 7\n\
                 envoy_istiocustom_istio_request_bytes_count{b}}} 5\n"
            ),
            "# TYPE istio_request_bytes histogram\n\
             istio_request_bytes_bucket{request_protocol=\"http\",le=\"0.5\"} 1\n\
             istio_request_bytes_bucket{request_protocol=\"http\",le=\"+Inf\"} 7\n\
             istio_request_bytes_sum{request_protocol=\"http\"} 10.5\n\
             istio_request_bytes_count{request_protocol=\"http\"} 7\n\
             # TYPE istio_requests_total counter\n\
             istio_requests_total{request_protocol=\"http\"} 9007199254740992\n\
             istio_requests_total{request_protocol=\"http\",response_code=\"503\"} 2\n",
        );
    }

    #[test]
    fn a_client_says_where_its_requests_went() {
        let service = r#"navarch_service="[{\"host\":\"db.shop.svc.cluster.local\",\"name\":\"db\",\"namespace\":\"shop\"}]""#;
        check_labels(
            &format!(
                r#"navarch_reporter="source",navarch_peer="db-v2;shop;db;v2;west",{service},navarch_principals="spiffe://td/ns/shop/sa/web spiffe://td/ns/data/sa/db",response_code="200",grpc_response_status="",response_flags="-""#
            ),
            &[
                ("reporter", "source"),
                ("source_workload", "web-v1"),
                ("source_workload_namespace", "shop"),
                ("source_cluster", "east"),
                ("source_principal", "spiffe://td/ns/shop/sa/web"),
                ("destination_workload", "db-v2"),
                // What is proven counts before what is said.
                ("destination_workload_namespace", "data"),
                ("destination_canonical_service", "db"),
                ("destination_canonical_revision", "v2"),
                ("destination_cluster", "west"),
                ("destination_principal", "spiffe://td/ns/data/sa/db"),
                ("destination_service", "db.shop.svc.cluster.local"),
                ("destination_service_name", "db"),
                ("destination_service_namespace", "shop"),
                ("request_protocol", "http"),
                ("response_code", "200"),
                ("grpc_response_status", ""),
                ("connection_security_policy", "unknown"),
            ],
        );
        let entry =
            r#"navarch_service="[{\"host\":\"api.example.com\",\"name\":\"api\",\"namespace\":\"shop\"}]""#;
        check_labels(
            &format!(r#"navarch_reporter="source",{entry}"#),
            &[
                ("destination_service", "api.example.com"),
                ("destination_service_name", "api.example.com"),
                ("destination_service_namespace", "shop"),
            ],
        );
        let passed =
            r#"navarch_reporter="source",navarch_service="PassthroughCluster",navarch_host="example.com:80""#;
        check_labels(
            passed,
            &[
                ("destination_service", "example.com:80"),
                ("destination_service_name", "PassthroughCluster"),
                ("destination_service_namespace", "unknown"),
                ("destination_workload", "unknown"),
                ("destination_canonical_revision", "latest"),
            ],
        );
        check_labels(
            r#"navarch_reporter="source",navarch_service="block_all",grpc_response_status="12""#,
            &[("destination_service_name", "BlackHoleCluster"), ("request_protocol", "grpc")],
        );
    }

    #[test]
    fn a_server_says_who_its_clients_were_if_they_have_proven_it() {
        let client = Workload::of_endpoint("edge;ingress;gateway;;east").expect("an endpoint").to_header();
        let from = |principals: &str| {
            format!(
                r#"navarch_reporter="destination",navarch_peer="{client}",navarch_principals="{principals}""#
            )
        };
        check_labels(
            &from("spiffe://td/ns/shop/sa/web spiffe://td/ns/ingress/sa/edge,spiffe://other/ns/x/sa/y"),
            &[
                ("source_workload", "edge"),
                ("source_workload_namespace", "ingress"),
                ("source_canonical_service", "gateway"),
                ("source_canonical_revision", "latest"),
                ("source_version", "unknown"),
                ("source_principal", "spiffe://td/ns/ingress/sa/edge"),
                ("destination_workload", "web-v1"),
                ("destination_principal", "spiffe://td/ns/shop/sa/web"),
                // Nobody says which service the port is of.
                ("destination_service", "web"),
                ("connection_security_policy", "mutual_tls"),
            ],
        );
        // It speaks for a namespace that is not its own.
        check_labels(
            &from("spiffe://td/ns/shop/sa/web spiffe://td/ns/other/sa/old"),
            &[
                ("source_workload", "unknown"),
                ("source_workload_namespace", "other"),
                ("source_canonical_service", "unknown"),
                ("source_cluster", "unknown"),
                ("source_principal", "spiffe://td/ns/other/sa/old"),
                ("connection_security_policy", "mutual_tls"),
            ],
        );
        // An identity of another form names none.
        check_labels(
            &from("spiffe://td/ns/shop/sa/web spiffe://td/edge"),
            &[("source_workload", "edge"), ("source_workload_namespace", "ingress")],
        );
        check_labels(
            &from("spiffe://td/ns/shop/sa/web "),
            &[
                ("source_workload", "unknown"),
                ("source_principal", "unknown"),
                ("connection_security_policy", "none"),
            ],
        );
        check_labels(
            r#"navarch_reporter="destination",navarch_peer="nonsense",navarch_principals="a b",request_protocol="tcp""#,
            &[("source_workload", "unknown"), ("source_principal", "b"), ("request_protocol", "tcp")],
        );
    }

    #[test]
    fn what_telemetry_changes_goes_over_what_is_usual() {
        check_labels(
            r#"navarch_reporter="source",navarch_peer="a;b;c;d;e",destination_app="x \"y\" \\ z",tier="",navarch_removed="source_app,response_flags""#,
            &[
                ("destination_app", "x \"y\" \\ z"),
                ("tier", "unknown"),
                ("source_app", ""),
                ("source_version", "v1"),
            ],
        );
        assert_eq!(written(&Labels::from([("a", "x \"y\"\n\\".into())])), r#"a="x \"y\"\n\\""#);
    }
}
