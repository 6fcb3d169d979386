//! DestinationRule, and the parts of it that MeshConfig and Sidecar share.

use std::collections::BTreeSet;

use super::checks::{self, ExportTo, at_most_hundred, duration, labels, missing, not_negative, port};
use super::hosts::{fqdn_problem, is_ip, is_label, wildcard_domain_problem};
use super::{Report, Validate};
use crate::finding::Code;
use crate::networking::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, DestinationRule,
    H2UpgradePolicy, HashAlgorithm, HashKey, HttpSettings, LbPolicy, LoadBalancerSettings, LocalityFailover,
    LocalityLoadBalancerSetting, OutlierDetection, PortTrafficPolicy, TrafficPolicy, TunnelSettings,
    ZoneAwareLoadBalancerSetting,
};

/// Envoy's limit on the size of a Maglev table.
const LARGEST_MAGLEV: u64 = 5_000_011;
/// Localities of one list; each is compared with each.
const MOST_LOCALITIES: usize = 1000;
/// Labels whose order failover follows on its own.
const TOPOLOGY_LABELS: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

impl Validate for DestinationRule {
    fn validate(&self, report: &mut Report<'_>) {
        if let Some(problem) = wildcard_domain_problem(&self.host) {
            report.within("host", |report| {
                let message = format!("{:?} is not a valid host: {problem}", self.host);
                report.error(Code::InvalidHost, message, "name the service that the rule is for");
            });
        }
        report.each_set("trafficPolicy", self.traffic_policy.as_ref(), traffic_policy);
        let mut names = BTreeSet::new();
        report.each("subsets", &self.subsets, |report, subset| {
            if !is_label(&subset.name) {
                report.within("name", |report| {
                    let message = format!("{:?} is not a valid subset name", subset.name);
                    report.error(
                        Code::InvalidName,
                        message,
                        "use letters, digits and inner hyphens, at most 63",
                    );
                });
            } else if !names.insert(subset.name.as_str()) {
                report.within("name", |report| {
                    let message = format!("the subset {:?} is there twice", subset.name);
                    report.error(Code::DuplicateItem, message, "remove or rename one of the two");
                });
            }
            labels(report, "labels", &subset.labels);
            report.each_set("trafficPolicy", subset.traffic_policy.as_ref(), traffic_policy);
        });
        let private = self.workload_selector.is_some();
        checks::export_to(report, &ExportTo { values: &self.export_to, allow_none: false, private });
        report.each_set("workloadSelector", self.workload_selector.as_ref(), |report, selector| {
            let everything = "every workload in the namespace";
            checks::selector_labels(report, "matchLabels", &selector.match_labels, everything);
        });
    }
}

fn traffic_policy(report: &mut Report<'_>, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        report.error(Code::MissingField, "the traffic policy is empty", "set a field, or remove the policy");
        return;
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        let message = "tunnel and proxyProtocol exclude each other";
        report.error(Code::ExclusiveFields, message, "keep one of the two");
    }
    let outlier = policy.outlier_detection.as_ref();
    report.each_set("loadBalancer", policy.load_balancer.as_ref(), |report, lb| {
        load_balancer(report, lb, outlier)
    });
    report.each_set("connectionPool", policy.connection_pool.as_ref(), connection_pool);
    report.each_set("outlierDetection", outlier, outlier_detection);
    report.each_set("tls", policy.tls.as_ref(), client_tls);
    report.each("portLevelSettings", &policy.port_level_settings, port_policy);
    report.each_set("tunnel", policy.tunnel.as_ref(), tunnel);
}

fn port_policy(report: &mut Report<'_>, policy: &PortTrafficPolicy) {
    match &policy.port {
        Some(selector) => port(report, "port.number", selector.number),
        None => missing(report, "port", "say which port the settings are for"),
    }
    let empty = PortTrafficPolicy { port: policy.port.clone(), ..PortTrafficPolicy::default() };
    if *policy == empty {
        report.error(Code::MissingField, "the port's policy is empty", "set a field, or remove the item");
    }
    let outlier = policy.outlier_detection.as_ref();
    report.each_set("loadBalancer", policy.load_balancer.as_ref(), |report, lb| {
        load_balancer(report, lb, outlier)
    });
    report.each_set("connectionPool", policy.connection_pool.as_ref(), connection_pool);
    report.each_set("outlierDetection", outlier, outlier_detection);
    report.each_set("tls", policy.tls.as_ref(), client_tls);
}

fn tunnel(report: &mut Report<'_>, tunnel: &TunnelSettings) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        report.within("protocol", |report| {
            let message = format!("{:?} cannot open a tunnel", tunnel.protocol);
            report.error(Code::InvalidValue, message, "use CONNECT or POST");
        });
    }
    if let Some(problem) = fqdn_problem(&tunnel.target_host)
        && !is_ip(&tunnel.target_host)
    {
        report.within("targetHost", |report| {
            report.error(
                Code::InvalidHost,
                format!("{:?} is no host or address: {problem}", tunnel.target_host),
                "",
            );
        });
    }
    port(report, "targetPort", tunnel.target_port);
}

/// Checks outlier detection.
pub(crate) fn outlier_detection(report: &mut Report<'_>, outlier: &OutlierDetection) {
    duration(report, "baseEjectionTime", outlier.base_ejection_time);
    duration(report, "interval", outlier.interval);
    if outlier.consecutive_errors != 0 {
        report.within("consecutiveErrors", |report| {
            let message = "consecutiveErrors is deprecated";
            report.warning(Code::Deprecated, message, "use consecutiveGatewayErrors or consecutive5xxErrors");
        });
    }
    let local = outlier.consecutive_local_origin_failures.unwrap_or(0) > 0;
    if local && !outlier.split_external_local_origin_errors {
        report.within("consecutiveLocalOriginFailures", |report| {
            let message = "local failures are not counted on their own";
            report.error(Code::InvalidCombination, message, "set splitExternalLocalOriginErrors: true");
        });
    }
    at_most_hundred(report, "maxEjectionPercent", outlier.max_ejection_percent);
    at_most_hundred(report, "minHealthPercent", outlier.min_health_percent);
}

/// Checks connection pool settings.
pub(crate) fn connection_pool(report: &mut Report<'_>, pool: &ConnectionPoolSettings) {
    if pool.http.is_none() && pool.tcp.is_none() {
        report.error(Code::MissingField, "the connection pool is empty", "set http or tcp, or remove it");
    }
    report.each_set("http", pool.http.as_ref(), http_pool);
    report.each_set("tcp", pool.tcp.as_ref(), |report, tcp| {
        not_negative(report, "maxConnections", tcp.max_connections);
        duration(report, "connectTimeout", tcp.connect_timeout);
        duration(report, "maxConnectionDuration", tcp.max_connection_duration);
        // 0 turns the idle timeout off.
        duration(report, "idleTimeout", tcp.idle_timeout.filter(|timeout| timeout.as_millis() != 0));
        report.each_set("tcpKeepalive", tcp.tcp_keepalive.as_ref(), |report, keepalive| {
            duration(report, "time", keepalive.time);
            duration(report, "interval", keepalive.interval);
        });
    });
}

fn http_pool(report: &mut Report<'_>, http: &HttpSettings) {
    for (field, value) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        not_negative(report, field, value);
    }
    duration(report, "idleTimeout", http.idle_timeout);
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        report.within("useClientProtocol", |report| {
            let message = "the protocol cannot both follow the client and be upgraded";
            report.error(
                Code::ExclusiveFields,
                message,
                "remove useClientProtocol or h2UpgradePolicy: UPGRADE",
            );
        });
    }
    report.each_set("http2KeepAlive", http.http2_keep_alive.as_ref(), |report, keepalive| {
        for (field, value) in [("interval", keepalive.interval), ("timeout", keepalive.timeout)] {
            match value {
                Some(_) => duration(report, field, value),
                None => missing(report, field, "set both interval and timeout"),
            }
        }
    });
}

fn load_balancer(
    report: &mut Report<'_>,
    settings: &LoadBalancerSettings,
    outlier: Option<&OutlierDetection>,
) {
    if let Some(LbPolicy::ConsistentHash(hash)) = &settings.lb_policy {
        report.within("consistentHash", |report| consistent_hash(report, hash));
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        let message = "localityLbSetting and zoneAwareLbSetting exclude each other";
        report.error(Code::ExclusiveFields, message, "keep one of the two");
    }
    report.each_set("localityLbSetting", settings.locality_lb_setting.as_ref(), |report, setting| {
        locality(report, setting, outlier.is_some());
    });
    report.each_set("zoneAwareLbSetting", settings.zone_aware_lb_setting.as_ref(), |report, setting| {
        zone_aware(report, setting, outlier.is_some());
    });
    report.each_set("warmup", settings.warmup.as_ref(), |report, warmup| {
        match warmup.duration {
            Some(_) => duration(report, "duration", warmup.duration),
            None => missing(report, "duration", "say how long a new endpoint warms up"),
        }
        if warmup.aggression.is_some_and(|aggression| aggression.billionths <= 0) {
            report.within("aggression", |report| {
                report.error(Code::OutOfRange, "aggression must be more than 0", "1 is linear");
            });
        }
    });
}

fn consistent_hash(report: &mut Report<'_>, hash: &ConsistentHashLb) {
    if let Some(HashKey::HttpCookie(cookie)) = &hash.hash_key {
        report.within("httpCookie", |report| {
            if cookie.name.is_empty() {
                missing(report, "name", "name the cookie");
            }
            for (index, attribute) in cookie.attributes.iter().enumerate() {
                if attribute.name.is_empty() {
                    missing(report, &format!("attributes[{index}].name"), "name the attribute");
                }
            }
            let names = cookie
                .attributes
                .iter()
                .map(|attribute| attribute.name.as_str())
                .filter(|name| !name.is_empty());
            checks::unique(report, "attributes", names, "the attribute");
        });
    }
    if hash.minimum_ring_size != 0 {
        report.within("minimumRingSize", |report| {
            let message = "minimumRingSize is deprecated here";
            report.warning(Code::Deprecated, message, "use ringHash.minimumRingSize");
            if hash.hash_algorithm.is_some() {
                let message = "minimumRingSize and a hash algorithm exclude each other";
                report.error(Code::ExclusiveFields, message, "use ringHash.minimumRingSize");
            }
        });
    }
    if let Some(HashAlgorithm::Maglev(maglev)) = &hash.hash_algorithm {
        report.within("maglev.tableSize", |report| {
            let size = maglev.table_size;
            if size == 0 {
                report.error(Code::MissingField, "is required", "65537 is a good size");
            } else if size >= LARGEST_MAGLEV {
                let message = format!("{size} is too large");
                report.error(
                    Code::OutOfRange,
                    message,
                    format!("the table must be smaller than {LARGEST_MAGLEV}"),
                );
            } else if !is_prime(size) {
                report.error(
                    Code::OutOfRange,
                    format!("{size} is not a prime number"),
                    "65537 is a good size",
                );
            }
        });
    }
}

/// Trial division; callers have bounded `number` by [`LARGEST_MAGLEV`].
fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

/// Checks locality load balancing. `outlier` says whether outlier detection is configured next to it.
pub(crate) fn locality(report: &mut Report<'_>, setting: &LocalityLoadBalancerSetting, outlier: bool) {
    if !setting.distribute.is_empty() && !setting.failover.is_empty() {
        let message = "distribute and failover exclude each other";
        report.error(Code::ExclusiveFields, message, "keep one of the two");
    }
    report.each("distribute", &setting.distribute, |report, distribute| {
        for (locality, weight) in &distribute.to {
            if !(1..=100).contains(weight) {
                report.within_key("to", locality, |report| {
                    report.error(Code::InvalidWeight, format!("{weight} is not a share"), "use 1 to 100");
                });
            }
        }
        let total: u64 = distribute.to.values().map(|weight| u64::from(*weight)).sum();
        if total != 100 {
            report.within("to", |report| {
                report.error(
                    Code::InvalidWeight,
                    format!("the shares add up to {total}"),
                    "they must add up to 100",
                );
            });
        }
        localities(report, "to", distribute.to.keys().map(String::as_str));
    });
    localities(report, "distribute", setting.distribute.iter().map(|distribute| distribute.from.as_str()));
    if !setting.failover.is_empty() {
        for (index, label) in setting.failover_priority.iter().enumerate() {
            if TOPOLOGY_LABELS.contains(&label.as_str()) {
                report.within(&format!("failoverPriority[{index}]"), |report| {
                    let message = format!("failover already orders by {label}");
                    report.error(Code::ExclusiveFields, message, "remove the label, or failover");
                });
            }
        }
    }
    failover(report, &setting.failover, !setting.failover_priority.is_empty(), outlier);
}

fn zone_aware(report: &mut Report<'_>, setting: &ZoneAwareLoadBalancerSetting, outlier: bool) {
    for (index, label) in setting.failover_priority.iter().enumerate() {
        if TOPOLOGY_LABELS.contains(&label.as_str()) {
            report.within(&format!("failoverPriority[{index}]"), |report| {
                let message = format!("zone-aware balancing already orders by {label}");
                report.error(Code::ExclusiveFields, message, "remove the label");
            });
        }
    }
    failover(report, &setting.failover, !setting.failover_priority.is_empty(), outlier);
}

fn failover(report: &mut Report<'_>, failover: &[LocalityFailover], priority: bool, outlier: bool) {
    if (!failover.is_empty() || priority) && !outlier {
        let message = "without outlierDetection there is no failover";
        report.warning(Code::NoEffect, message, "add outlierDetection to the same policy");
    }
    report.each("failover", failover, |report, rule| {
        if rule.from == rule.to {
            report.error(Code::InvalidValue, "from and to are the same region", "");
        }
        if [&rule.from, &rule.to].iter().any(|region| region.contains(['/', '*'])) {
            let message = format!("{:?} to {:?}: failover is between regions", rule.from, rule.to);
            report.error(Code::InvalidValue, message, "name regions only, without zones and wildcards");
        }
    });
}

/// Checks that localities (`region/zone/subzone`, `*` at the end) are well-formed and do not overlap.
fn localities<'l>(report: &mut Report<'_>, field: &str, localities: impl Iterator<Item = &'l str>) {
    let mut seen: Vec<&str> = Vec::new();
    for locality in localities {
        if seen.len() >= MOST_LOCALITIES {
            report.within(field, |report| {
                let message = format!("more than {MOST_LOCALITIES} localities");
                report.error(Code::OutOfRange, message, "group them with region/*");
            });
            return;
        }
        let problem = if locality.split('/').any(str::is_empty) {
            Some("a part is empty".to_owned())
        } else if locality.strip_suffix('*').unwrap_or(locality).contains('*') {
            Some("a wildcard is only allowed at the end".to_owned())
        } else {
            let covers = |wide: &str, narrow: &str| {
                let wide = wide.strip_suffix('*').unwrap_or(wide).trim_end_matches('/');
                wide.is_empty()
                    || narrow.strip_prefix(wide).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let other = seen.iter().find(|other| covers(other, locality) || covers(locality, other));
            other.map(|other| format!("it overlaps with {other:?}"))
        };
        if let Some(problem) = problem {
            report.within(field, |report| {
                let message = format!("the locality {locality:?} cannot be used: {problem}");
                report.error(
                    Code::InvalidValue,
                    message,
                    "write region/zone/subzone, region/zone/* or region/*",
                );
            });
        }
        seen.push(locality);
    }
}

/// Checks the TLS settings of a client.
pub(crate) fn client_tls(report: &mut Report<'_>, tls: &ClientTlsSettings) {
    let (simple, mutual) = (tls.mode == ClientTlsMode::Simple, tls.mode == ClientTlsMode::Mutual);
    if tls.insecure_skip_verify == Some(true) && (simple || mutual) {
        let pinned = !tls.ca_certificates.is_empty()
            || !tls.subject_alt_names.is_empty()
            || (simple && !tls.credential_name.is_empty());
        report.within("insecureSkipVerify", |report| {
            if pinned {
                let message = "what the server is verified with is set, and verification is off";
                report.error(Code::ExclusiveFields, message, "remove insecureSkipVerify");
            } else {
                let message = "the server's certificate is not verified";
                report.warning(Code::Risky, message, "set caCertificates or credentialName instead");
            }
        });
    }
    if (simple || mutual) && !tls.credential_name.is_empty() {
        for (field, set) in [
            ("clientCertificate", !tls.client_certificate.is_empty()),
            ("privateKey", !tls.private_key.is_empty()),
            ("caCertificates", !tls.ca_certificates.is_empty()),
            ("caCrl", !tls.ca_crl.is_empty()),
        ] {
            if set {
                report.within(field, |report| {
                    let message = "credentialName already names certificates";
                    report.error(Code::ExclusiveFields, message, "keep one of the two");
                });
            }
        }
        return;
    }
    if mutual {
        for (field, value) in
            [("clientCertificate", &tls.client_certificate), ("privateKey", &tls.private_key)]
        {
            if value.is_empty() {
                missing(report, field, "MUTUAL needs clientCertificate and privateKey, or credentialName");
            }
        }
    }
}
