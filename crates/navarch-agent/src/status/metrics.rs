//! Metrics of the agent, of Envoy and of the application, as one text for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, HeaderValue};
use http::{HeaderMap, Method};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::health::Health;
use super::standard::{Standard, push_label};
use crate::http::{Call, HttpError};
use crate::node::Node;
use crate::relay::Observed;
use crate::workload::Workload;

/// Time for the metrics of one process, and their bytes; as Istio's agent has it.
const TIMEOUT: Duration = Duration::from_secs(10);
const BYTES_MAX: usize = 10 << 20;
/// Envoy has more to say: about 17 kB for each peer and outcome of requests, of which there may be thousands
/// at a gateway.
const ENVOY_BYTES_MAX: usize = 128 << 20;

/// Pages that there are at a time, until they are sent: each may take 100 MB. Two Prometheus servers may ask
/// at once, and one that does not read holds nobody up.
const PAGES_MAX: usize = 2;

/// What stands for Envoy among those that were asked.
const ENVOY: &str = "envoy";

/// Where an application has metrics: `http://<host>:<port><path>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port.
    pub address: String,
    pub path: String,
}

/// Whose proxy it is that the metrics are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub workload: Workload,
    /// The version of Istio that the proxy states.
    pub istio_version: String,
}

impl Subject {
    /// What a node says.
    #[must_use]
    pub fn of_node(node: &Node) -> Self {
        let stated = node.metadata.get("ISTIO_VERSION").and_then(serde_json::Value::as_str);
        Subject { workload: Workload::of_node(node), istio_version: stated.unwrap_or("unknown").to_owned() }
    }
}

/// What is said instead of a place where metrics are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not where metrics can be: say http://127.0.0.1:8080/metrics")]
pub struct TargetError(String);

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let bad = || TargetError(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let address = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(bad)?;
        let (host, port) = (address.host(), address.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { "/metrics" } else { path };
        Ok(Target { address: format!("{host}:{port}"), path: path.to_owned() })
    }
}

impl Target {
    /// What a pod says in its annotations: `prometheus.io/scrape`, `prometheus.io/port`,
    /// `prometheus.io/path`.
    #[must_use]
    pub fn of_annotations(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let said = |key: &str| annotations.get(&format!("prometheus.io/{key}")).map(String::as_str);
        if said("scrape") != Some("true") || said("scheme").is_some_and(|scheme| scheme != "http") {
            return None;
        }
        let port: u16 = said("port").unwrap_or("80").parse().ok()?;
        let path = said("path").filter(|path| path.starts_with('/')).unwrap_or("/metrics");
        Some(Target { address: format!("127.0.0.1:{port}"), path: path.to_owned() })
    }
}

/// Who may have a page made, among all who ask.
#[derive(Debug)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Turns(Arc::new(Semaphore::new(PAGES_MAX)))
    }
}

impl Turns {
    /// Waits, but not longer than whom is asked may take; nothing if others are still being served then.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        tokio::time::timeout(TIMEOUT, self.0.clone().acquire_owned()).await.ok()?.ok()
    }
}

/// A page, for as long as it is not sent.
struct Page {
    text: String,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// All metrics. Who does not answer is left out and counted. Nothing if too many others ask.
pub async fn merged(health: &Health, subject: &Subject, targets: &[Target], turns: &Turns) -> Option<Bytes> {
    let turn = turns.take().await?;
    let envoy = async {
        match health.admin() {
            Some(admin) => Some(scrape(&admin.0.to_string(), "/stats/prometheus", ENVOY_BYTES_MAX).await),
            None => None,
        }
    };
    let applications =
        join_all(targets.iter().map(|target| scrape(&target.address, &target.path, BYTES_MAX)));
    let (envoy, applications) = tokio::join!(envoy, applications);
    let mut text = own(health);
    let names = targets.iter().map(|target| target.address.as_str());
    let asked = envoy.iter().map(|scraped| (ENVOY, scraped)).chain(names.zip(&applications));
    let mut failed = String::new();
    for (target, scraped) in asked {
        let failure = u8::from(scraped.is_err());
        failed.push_str("navarch_agent_scrape_failed{");
        push_label(&mut failed, "target", target);
        let _ = writeln!(failed, "}} {failure}");
        if let Err(error) = scraped {
            tracing::debug!(error = %crate::Chain(error), target, "metrics cannot be had");
        }
    }
    if !failed.is_empty() {
        text += "# HELP navarch_agent_scrape_failed Whether the metrics of somebody else could not be had.\n\
                 # TYPE navarch_agent_scrape_failed gauge\n";
        text += &failed;
    }
    let envoy = envoy.and_then(Result::ok);
    let applications: Vec<String> = applications.into_iter().filter_map(Result::ok).collect();
    let subject = subject.clone();
    // Long pages take long, and the thread of the agent carries all that Envoy is told. The turn goes along:
    // nobody can call back what has begun.
    let page = tokio::task::spawn_blocking(move || {
        if let Some(page) = envoy {
            append_envoy(&mut text, &subject, page);
        }
        for part in applications {
            append(&mut text, &part);
        }
        Page { text, _turn: turn }
    });
    page.await.ok().map(Bytes::from_owner)
}

async fn scrape(address: &str, path: &str, bytes_max: usize) -> Result<String, HttpError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4"));
    let call = Call { method: Method::GET, address, path, headers, timeout: TIMEOUT, bytes_max };
    let body = call.body().await?;
    // Without a copy, if it is what it should be: the page of Envoy may be long.
    Ok(String::from_utf8(Vec::from(body))
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Adds the page of Envoy, with Istio's standard metrics in place of what they are made of.
fn append_envoy(text: &mut String, subject: &Subject, page: String) {
    let mut standard = Standard::new(&subject.workload);
    for line in page.lines().filter(|line| !standard.takes(line)) {
        append(text, line);
    }
    // It is long, and so is what is written now.
    drop(page);
    standard.write(text);
    text.push_str("# TYPE istio_build gauge\nistio_build{component=\"proxy\",");
    push_label(text, "tag", &subject.istio_version);
    text.push_str("} 1\n");
}

/// Adds a text, without what ends one of OpenMetrics (`# EOF`): there is more to come.
fn append(text: &mut String, part: &str) {
    for line in part.lines().filter(|line| line.trim() != "# EOF") {
        text.push_str(line);
        text.push('\n');
    }
}

fn own(health: &Health) -> String {
    let observed = &health.observed;
    let flag = |value: &std::sync::atomic::AtomicBool| u64::from(value.load(Ordering::Relaxed));
    let leaf = health.leaf.borrow().clone();
    let rows: [(&str, &str, &str, u64); 15] = [
        ("streams", "gauge", "Streams of proxies that are open.", Observed::read(&observed.streams)),
        (
            "connected_streams",
            "gauge",
            "Of these, the ones with a stream to the control plane.",
            Observed::read(&observed.connected),
        ),
        (
            "stale_streams",
            "gauge",
            "Of these, the ones that are served from the store.",
            Observed::read(&observed.stale),
        ),
        (
            "responses_total",
            "counter",
            "Responses of the control plane.",
            Observed::read(&observed.responses),
        ),
        (
            "stored_responses_total",
            "counter",
            "Responses from the store.",
            Observed::read(&observed.stored_responses),
        ),
        (
            "rejections_total",
            "counter",
            "Responses that proxies refused.",
            Observed::read(&observed.rejections),
        ),
        (
            "upstream_failures_total",
            "counter",
            "Streams to the control plane that could not be opened, or broke.",
            Observed::read(&observed.failures),
        ),
        (
            "envoy_restarts_total",
            "counter",
            "Times that Envoy was started again.",
            health.restarts.load(Ordering::Relaxed),
        ),
        (
            "envoy_hot_restarts_total",
            "counter",
            "Times that one Envoy has begun to hand over to the next.",
            health.hot_restarts.load(Ordering::Relaxed),
        ),
        ("envoy_ready", "gauge", "Whether Envoy is ready.", flag(&health.is_ready)),
        (
            "certificate_expires_seconds",
            "gauge",
            "When the certificate of the workload ends, in seconds since 1970; 0 without one.",
            leaf.map_or(0, |leaf| leaf.not_after.0),
        ),
        ("dns_requests_total", "counter", "Questions for names.", Observed::read(&health.names.questions)),
        (
            "dns_upstream_requests_total",
            "counter",
            "Of these, the ones that other servers were asked.",
            Observed::read(&health.names.forwarded),
        ),
        (
            "dns_upstream_failures_total",
            "counter",
            "Of these, the ones that none of them answered.",
            Observed::read(&health.names.failures),
        ),
        (
            "dns_refused_total",
            "counter",
            "Questions that were not asked on because too many were waiting.",
            Observed::read(&health.names.refused),
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        let _ = write!(
            text,
            "# HELP navarch_agent_{name} {help}\n# TYPE navarch_agent_{name} {kind}\nnavarch_agent_{name} {value}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_metrics_are_read() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = text.parse::<Target>().ok();
            let found = found.as_ref().map(|target| (target.address.as_str(), target.path.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check("http://127.0.0.1:8080/stats?x=1", Some(("127.0.0.1:8080", "/stats?x=1")));
        check("http://localhost", Some(("localhost:80", "/metrics")));
        check("https://localhost/metrics", None);
        check("localhost:80/metrics", None);
        check("", None);
    }

    #[test]
    fn annotations_say_where_metrics_are() {
        let check = |pairs: &[(&str, &str)], expected: Option<&str>| {
            let annotations =
                pairs.iter().map(|(key, value)| (format!("prometheus.io/{key}"), (*value).to_owned()));
            let target = Target::of_annotations(&annotations.collect());
            let found = target.map(|target| target.address + &target.path);
            assert_eq!(found.as_deref(), expected, "{pairs:?}");
        };
        check(&[], None);
        check(&[("scrape", "false"), ("port", "1")], None);
        check(&[("scrape", "true")], Some("127.0.0.1:80/metrics"));
        check(&[("scrape", "true"), ("port", "8080"), ("path", "/m")], Some("127.0.0.1:8080/m"));
        check(&[("scrape", "true"), ("port", "x")], None);
        check(&[("scrape", "true"), ("scheme", "https")], None);
    }

    #[tokio::test(start_paused = true)]
    async fn few_have_a_page_at_a_time() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..PAGES_MAX {
            let turn = turns.take().await.expect("a turn");
            taken.push(Bytes::from_owner(Page { text: "a 1\n".to_owned(), _turn: turn }));
        }
        assert!(turns.take().await.is_none());
        let read = taken.pop().expect("a page");
        assert_eq!(read, "a 1\n");
        drop(read);
        assert!(turns.take().await.is_some());
    }

    #[test]
    fn versions_are_written_as_prometheus_reads_them() {
        let subject = Subject { istio_version: "1.30-\"é\"\n\\".to_owned(), ..Subject::default() };
        let mut text = String::new();
        append_envoy(&mut text, &subject, "envoy_x{} 1\n".to_owned());
        let expected = concat!(
            "envoy_x{} 1\n# TYPE istio_build gauge\n",
            r#"istio_build{component="proxy",tag="1.30-\"é\"\n\\"} 1"#,
            "\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_end_of_one_text_is_not_the_end_of_all() {
        let mut text = "a 1\n".to_owned();
        append(&mut text, "b 2\n# EOF\n");
        append(&mut text, "c 3");
        assert_eq!(text, "a 1\nb 2\nc 3\n");
    }
}
