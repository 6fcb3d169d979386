//! What calls do in small meshes, case by case: `tests/cases/*.yaml`.
//!
//! A file has a `base` from `tests/meshes`, an optional `mesh` and `proxies` (name to node id, labels,
//! locality) that all its cases share beside those of `meshes/proxies/all.yaml`, and `cases`. Each case has a
//! name, a `mesh` of its own and `calls`. A call is `[<what>, <from which proxy and to which address>,
//! <expected>]`; see [`Line`]. What is expected is a map of a few facts of the outcome; a bare string is the
//! fact `to`.

#![expect(clippy::disallowed_methods, reason = "cases are files, and a variable chooses one")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navarch_envoy::ProxyResources;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::values::Json;
use navarch_model::{Hashed, parse_text};
use navarch_plan::Planner;
use navarch_simulate::{
    Action, Call, Direction, Endpoint, Health, Outcome, Protocol, Tls, Transport, Upstream, simulate,
};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use serde_json::Value;

#[test]
fn calls_do_what_istio_documents() {
    let mut files: Vec<_> =
        std::fs::read_dir(root().join("cases")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("CASE").unwrap_or_default();
    let (mut calls, mut failures) = (0, Vec::new());
    for file in files.iter().filter(|file| file.to_string_lossy().contains(&only)) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        calls += check(&name, &yaml(&format!("cases/{name}.yaml")), &mut failures);
    }
    eprintln!("{calls} calls");
    assert!(calls > 0, "no cases");
    assert!(failures.is_empty(), "{} of {calls} calls:\n{}", failures.len(), failures.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    Json::parse(&text(path)).unwrap_or_else(|reason| panic!("{path}: {reason}")).to_serde()
}

/// Runs all cases of a file; gives how many calls there are.
fn check(file: &str, document: &Value, failures: &mut Vec<String>) -> usize {
    let base =
        document["base"].as_str().map_or_else(String::new, |base| text(&format!("meshes/{base}.yaml")));
    let shared = format!("{base}\n---\n{}", document["mesh"].as_str().unwrap_or_default());
    let proxies = yaml("meshes/proxies/all.yaml");
    let mut nodes: BTreeMap<&str, &Value> = BTreeMap::new();
    for more in [&proxies, &document["proxies"]] {
        nodes.extend(more.as_object().into_iter().flatten().map(|(name, node)| (name.as_str(), node)));
    }
    let mut count = 0;
    for case in document["cases"].as_array().into_iter().flatten() {
        let name = format!("{file}: {}", case["name"].as_str().unwrap_or("?"));
        let mesh = format!("{shared}\n---\n{}", case["mesh"].as_str().unwrap_or_default());
        let planner = match plan(&mesh) {
            Ok(planner) => planner,
            Err(reason) => {
                failures.push(format!("{name}: {reason}"));
                continue;
            }
        };
        let mut resources = BTreeMap::new();
        for call in case["calls"].as_array().into_iter().flatten() {
            count += 1;
            let resources_of = |proxy: &str| match nodes.get(proxy) {
                Some(node) => {
                    Ok(resources.entry(proxy.to_owned()).or_insert_with(|| plan_of(&planner, node)).clone())
                }
                None => Err(format!("no proxy {proxy}")),
            };
            if let Err(reason) = check_call(call, resources_of) {
                failures.push(format!("{name}: {reason}"));
            }
        }
    }
    count
}

fn plan(mesh: &str) -> Result<Planner, String> {
    let parsed = parse_text("mesh.yaml", mesh);
    if !parsed.rejected.is_empty() || parsed.incomplete {
        return Err(format!("the mesh has mistakes: {:?}", parsed.findings));
    }
    let mut world = World::new(Options::default());
    Ok(Planner::new(world.apply(ChangeSet::upserting(parsed.objects))))
}

fn plan_of(planner: &Planner, node: &Value) -> Arc<ProxyResources> {
    let mut metadata = node["metadata"].as_object().cloned().unwrap_or_default();
    metadata.insert("CLUSTER_ID".to_owned(), "Kubernetes".into());
    metadata.insert("LABELS".to_owned(), node["labels"].clone());
    let locality = Locality::parse(node["locality"].as_str().unwrap_or_default());
    let id = node["id"].as_str().expect("an id");
    let facts = ProxyFacts::parse(id, "test", &metadata, locality).expect("a node");
    planner.resources(&planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts)))))
}

fn check_call(
    call: &Value,
    resources_of: impl FnOnce(&str) -> Result<Arc<ProxyResources>, String>,
) -> Result<(), String> {
    let what = call[0].as_str().ok_or("a call is a list that begins with text")?;
    let line = Line::parse(what, call[1].as_str().unwrap_or_default()).map_err(|e| format!("{what}: {e}"))?;
    let resources = resources_of(&line.proxy)?;
    let facts = facts(&simulate(&resources, &line.call));
    let expected = match &call[2] {
        Value::String(text) => BTreeMap::from([("to".to_owned(), text.clone())]),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => return Err(format!("{what}: expected {other}?")),
    };
    let mut wrong = String::new();
    for (key, value) in &expected {
        let found = facts.get(key.as_str()).map_or("-", String::as_str);
        if found != value {
            let _ = write!(wrong, "\n      {key}: expected {value}\n      {key}: found    {found}");
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{what} {}{wrong}\n      all: {facts:?}", call[1])) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `<METHOD> <host><path> [name=value]...` for HTTP, with `h2`, `https` or `mtls` before it for HTTP/2, HTTP
/// in simple TLS and HTTP in Istio's mutual TLS; `tcp`, `tls <sni> [alpn=..]`, `mtls-tcp` for the rest. The
/// second text is `[<proxy> ][in ]<address>:<port>`.
struct Line {
    proxy: String,
    call: Call,
}

impl Line {
    fn parse(what: &str, at: &str) -> Result<Self, String> {
        let mut words: Vec<&str> = at.split_whitespace().collect();
        let address = words.pop().ok_or("no address")?;
        let destination = address.parse().map_err(|_| format!("{address:?} is no address"))?;
        let inbound = words.last() == Some(&"in");
        if inbound {
            words.pop();
        }
        let proxy = words.pop().unwrap_or("client").to_owned();
        let mut call = Call::tcp(destination);
        call.direction = if inbound { Direction::Inbound } else { Direction::Outbound };
        let mut words = what.split_whitespace().peekable();
        let istio =
            |alpn: &str| Tls { sni: String::new(), alpn: vec![alpn.to_owned()], client_certificate: true };
        match words.peek().copied() {
            Some("tcp") => return Ok(Self { proxy, call }),
            Some("mtls-tcp") => {
                call.tls = Some(istio("istio"));
                return Ok(Self { proxy, call });
            }
            Some("tls") => {
                let sni = words.nth(1).unwrap_or_default();
                let alpn = words.filter_map(|word| word.strip_prefix("alpn=")).map(str::to_owned).collect();
                call.tls = Some(Tls { sni: sni.to_owned(), alpn, client_certificate: false });
                return Ok(Self { proxy, call });
            }
            _ => {}
        }
        call.protocol = Protocol::Http1;
        while let Some(word) = words.next_if(|word| ["h2", "https", "mtls"].contains(word)) {
            match word {
                "h2" => call.protocol = Protocol::Http2,
                "mtls" => call.tls = Some(istio("istio-http/1.1")),
                _ => call.tls = Some(Tls::default()),
            }
        }
        call.method = words.next().ok_or("no method")?.to_owned();
        let url = words.next().ok_or("no host")?;
        let end = url.find('/').unwrap_or(url.len());
        call.host = url[..end].to_owned();
        call.path = if end == url.len() { "/".to_owned() } else { url[end..].to_owned() };
        if let Some(tls) = call.tls.as_mut().filter(|tls| tls.alpn.is_empty()) {
            tls.sni = call.host.split(':').next().unwrap_or_default().to_owned();
            tls.alpn = vec!["h2".to_owned(), "http/1.1".to_owned()];
        }
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is no header"))?;
            call.headers.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self { proxy, call })
    }
}

/// The outcome as text, by the names used in the cases.
fn facts(outcome: &Outcome) -> BTreeMap<&'static str, String> {
    let mut facts = BTreeMap::new();
    let places = [
        ("listener", &outcome.listener),
        ("chain", &outcome.filter_chain),
        ("routes", &outcome.route_configuration),
        ("vhost", &outcome.virtual_host),
        ("route", &outcome.route),
        ("path", &outcome.changes.path),
        ("host", &outcome.changes.host),
    ];
    for (key, value) in places {
        if let Some(value) = value {
            facts.insert(key, value.clone());
        }
    }
    facts.insert("terminated", outcome.tls_terminated.to_string());
    if !outcome.unevaluated.is_empty() {
        facts.insert("unevaluated", outcome.unevaluated.join(" "));
    }
    changes(outcome, &mut facts);
    let to = match &outcome.action {
        Action::Forward(shares) => {
            let names: Vec<String> = match shares.as_slice() {
                [only] => vec![only.name.clone()],
                all => all.iter().map(|share| format!("{}={}", share.name, share.weight)).collect(),
            };
            if let [only] = shares.as_slice() {
                upstream(&only.upstream, &mut facts);
            }
            names.join(" ")
        }
        Action::Redirect { status, location } => format!("{status} {location}"),
        Action::DirectResponse { status, body } => {
            format!("{status} {}", body.as_deref().unwrap_or_default()).trim().to_owned()
        }
        Action::Blocked(blocked) => {
            let stage = serde_json::to_value(blocked.stage).unwrap();
            facts.insert("reason", blocked.reason.clone());
            format!("blocked {}", plain(&stage))
        }
        Action::Unknown(reason) => {
            facts.insert("reason", reason.clone());
            "unknown".to_owned()
        }
    };
    facts.insert("to", to);
    facts
}

fn changes(outcome: &Outcome, facts: &mut BTreeMap<&'static str, String>) {
    let changes = &outcome.changes;
    if let Some(timeout) = changes.timeout {
        facts.insert("timeout", format!("{}s", timeout.as_secs_f64()));
    }
    if let Some(retries) = &changes.retries {
        facts.insert("retries", retries.attempts.to_string());
        facts.insert("retry_on", retries.on.clone());
        if let Some(span) = retries.per_try {
            facts.insert("per_try", format!("{}s", span.as_secs_f64()));
        }
    }
    if let Some(fault) = &changes.fault {
        if let Some((span, share)) = fault.delay {
            facts.insert("delay", format!("{}s {share}%", span.as_secs_f64()));
        }
        if let Some((status, share)) = &fault.abort {
            facts.insert("abort", format!("{status} {share}%"));
        }
    }
    let join = |pairs: &[(String, String)]| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let lists = [
        (
            "mirror",
            changes
                .mirrors
                .iter()
                .map(|m| format!("{} {}%", m.cluster, m.share))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        ("set", join(&changes.request_headers)),
        ("remove", changes.request_headers_removed.join(" ")),
        ("response_set", join(&changes.response_headers)),
        ("response_remove", changes.response_headers_removed.join(" ")),
    ];
    facts.extend(lists.into_iter().filter(|(_, text)| !text.is_empty()));
}

fn upstream(upstream: &Upstream, facts: &mut BTreeMap<&'static str, String>) {
    let Upstream::Endpoints(all) = upstream else {
        let kind = serde_json::to_value(upstream).unwrap();
        facts.insert("endpoints", plain(&kind));
        return;
    };
    let addresses =
        |list: Vec<&Endpoint>| list.iter().map(|e| e.address.as_str()).collect::<Vec<_>>().join(" ");
    facts.insert("endpoints", addresses(upstream.preferred()));
    let full = |endpoint: &Endpoint| {
        let health = match endpoint.health {
            Health::Usable => "",
            Health::Degraded => "?",
            Health::Draining => "~",
            Health::Unhealthy => "!",
        };
        format!("{}:{}{health}", endpoint.priority, endpoint.address)
    };
    facts.insert("all", all.iter().map(full).collect::<Vec<_>>().join(" "));
    let transport = |endpoint: &Endpoint| match &endpoint.transport {
        Transport::Plain => "plain".to_owned(),
        Transport::Tls { sni, client_certificate: true } => format!("mtls {sni}").trim().to_owned(),
        Transport::Tls { sni, .. } => format!("tls {sni}").trim().to_owned(),
        Transport::Other(name) => name.clone(),
    };
    let mut transports: Vec<String> = upstream.preferred().into_iter().map(transport).collect();
    transports.dedup();
    facts.insert("transport", transports.join(", "));
}
