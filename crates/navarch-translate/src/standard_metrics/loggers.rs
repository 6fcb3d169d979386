//! The access loggers that count.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, LogTypeFilter, access_log, access_log_filter,
};
use navarch_envoy::proto::envoy::data::accesslog::v3::AccessLogType;
use navarch_envoy::proto::envoy::extensions::access_loggers::stats::v3::Config;
use navarch_envoy::proto::envoy::extensions::access_loggers::stats::v3::config::{
    Counter, Histogram, Stat, histogram,
};
use navarch_envoy::proto::envoy::r#type::v3::Scope;
use navarch_model::telemetry::IstioMetric;

use super::input::{MetricChange, MetricLogs, MetricsInput};
use super::labels::{Traffic, tags};
use crate::access_log::{selected_by, with_filter};
use crate::encoded::Encoded;

const LOGGER: &str = "envoy.access_loggers.stats";

/// The scope of the statistics, and so what their names begin with. As in Istio's proxy, so that what people
/// write for it (`sidecar.istio.io/statsHistogramBuckets`) means the same. Shared, so that numbers go on when
/// a listener is replaced.
const SCOPE: &str = "istiocustom";

/// Series of each kind that Envoy keeps; more are not counted. Peers take part in what the labels say, and
/// must not be able to fill the memory. A request makes one counter and three histograms, and five thousand
/// of these should take about 20 MB (Envoy 1.40), and 100 MB of the agent while it writes its page.
const SERIES_MAX: u32 = 5_000;

/// Selects connections that ended before the server was reached, and were not counted as opened: Envoy sets
/// the address just before it logs that it is connected. Flags do not tell: some of these have none.
const NOT_CONNECTED: &str = "!has(upstream.local_address)";

/// The value of a metric for one request or connection.
enum Value {
    One,
    Sum(&'static str),
    Distribution(histogram::Unit, &'static str),
}

/// A metric: what it is called, and its value.
struct Metric {
    of: IstioMetric,
    name: &'static str,
    value: Value,
}

const HTTP: [Metric; 4] = [
    Metric { of: IstioMetric::RequestCount, name: "istio_requests_total", value: Value::One },
    Metric {
        of: IstioMetric::RequestDuration,
        name: "istio_request_duration_milliseconds",
        value: Value::Distribution(histogram::Unit::Milliseconds, "%DURATION%"),
    },
    Metric {
        of: IstioMetric::RequestSize,
        name: "istio_request_bytes",
        value: Value::Distribution(histogram::Unit::Bytes, "%DOWNSTREAM_WIRE_BYTES_RECEIVED%"),
    },
    Metric {
        of: IstioMetric::ResponseSize,
        name: "istio_response_bytes",
        value: Value::Distribution(histogram::Unit::Bytes, "%DOWNSTREAM_WIRE_BYTES_SENT%"),
    },
];

const OPENED: Metric = Metric {
    of: IstioMetric::TcpOpenedConnections,
    name: "istio_tcp_connections_opened_total",
    value: Value::One,
};

const CLOSED: [Metric; 3] = [
    Metric {
        of: IstioMetric::TcpClosedConnections,
        name: "istio_tcp_connections_closed_total",
        value: Value::One,
    },
    Metric {
        of: IstioMetric::TcpSentBytes,
        name: "istio_tcp_sent_bytes_total",
        value: Value::Sum("%DOWNSTREAM_WIRE_BYTES_SENT%"),
    },
    Metric {
        of: IstioMetric::TcpReceivedBytes,
        name: "istio_tcp_received_bytes_total",
        value: Value::Sum("%DOWNSTREAM_WIRE_BYTES_RECEIVED%"),
    },
];

/// The loggers of one direction.
pub(super) fn of(input: &MetricsInput) -> MetricLogs {
    let http = [logger(input, Traffic::Http, &HTTP, at(AccessLogType::DownstreamEnd))];
    let tcp = [
        logger(input, Traffic::Tcp, &[OPENED], at(AccessLogType::TcpUpstreamConnected)),
        logger(
            input,
            Traffic::Tcp,
            &[OPENED],
            all([at(AccessLogType::TcpConnectionEnd), selected_by(NOT_CONNECTED)]),
        ),
        logger(input, Traffic::Tcp, &CLOSED, at(AccessLogType::TcpConnectionEnd)),
    ];
    let encoded = |log: AccessLog| Encoded::new(log);
    MetricLogs {
        http: http.into_iter().flatten().map(encoded).collect(),
        tcp: tcp.into_iter().flatten().map(encoded).collect(),
    }
}

/// Restricts the log of a TCP proxy to what it would be without [`MetricLogs`]: connections that have ended.
pub fn at_end(log: &AccessLog) -> AccessLog {
    with_filter(log.clone(), at(AccessLogType::TcpConnectionEnd))
}

/// A logger for those of the metrics that are counted.
fn logger(
    input: &MetricsInput,
    traffic: Traffic,
    metrics: &[Metric],
    filter: AccessLogFilter,
) -> Option<AccessLog> {
    let unchanged = MetricChange::default();
    let mut config = Config {
        stats_scope: Some(Scope {
            max_counters: Some(SERIES_MAX),
            max_histograms: Some(SERIES_MAX),
            prefix: SCOPE.to_owned(),
            sharing_name: SCOPE.to_owned(),
            ..Scope::default()
        }),
        ..Config::default()
    };
    for Metric { of, name, value } in metrics {
        let change = input.changes.get(of).unwrap_or(&unchanged);
        if change.disabled {
            continue;
        }
        let tags = tags(input.direction, traffic, change);
        let stat = Some(Stat { name: (*name).to_owned(), tags });
        match value {
            Value::One => config.counters.push(Counter { stat, value_fixed: Some(1), ..Counter::default() }),
            Value::Sum(format) => config.counters.push(Counter {
                stat,
                value_format: (*format).to_owned(),
                ..Counter::default()
            }),
            Value::Distribution(unit, format) => config.histograms.push(Histogram {
                stat,
                unit: *unit as i32,
                value_format: (*format).to_owned(),
            }),
        }
    }
    let counts = !config.counters.is_empty() || !config.histograms.is_empty();
    counts.then(|| AccessLog {
        name: LOGGER.to_owned(),
        filter: Some(filter),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&config))),
    })
}

fn at(moment: AccessLogType) -> AccessLogFilter {
    filter(access_log_filter::FilterSpecifier::LogTypeFilter(LogTypeFilter {
        types: vec![moment as i32],
        exclude: false,
    }))
}

fn all(filters: impl Into<Vec<AccessLogFilter>>) -> AccessLogFilter {
    filter(access_log_filter::FilterSpecifier::AndFilter(AndFilter { filters: filters.into() }))
}

fn filter(specifier: access_log_filter::FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(specifier) }
}
