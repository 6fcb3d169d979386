//! What differs from one pod to another, as variables of a policy.

use super::cel::{expression, quote, quoted};
use super::probes;
use crate::Settings;
use crate::json as values;
use crate::terms::PROXY;
use crate::wishes::{RESOURCES, SET, Wishes};

pub(super) const NETWORK: &str = "topology.istio.io/network";

/// What controls the pod, as [`crate::objects::owner_of`] sees it.
const OWNERS: &str = "has(object.metadata.ownerReferences)
  ? object.metadata.ownerReferences.filter(o, has(o.controller) && o.controller)
  : []";

/// Behind a ReplicaSet is a Deployment, if its name ends with the hash of the template.
const DEPLOYED: &str = r#"variables.owned && variables.owners[0].kind == "ReplicaSet"
  && "pod-template-hash" in variables.labels
  && variables.owners[0].name.endsWith("-" + variables.labels["pod-template-hash"])"#;

/// Behind a Job is a CronJob, if its name ends with a minute.
const SCHEDULED: &str = r#"variables.owned && variables.owners[0].kind == "Job"
  && variables.owners[0].name.matches("-[0-9]{8,10}$")"#;

/// The name of the workload. That of a pod by itself may be made later, of another one that ends with dashes.
const WORKLOAD: &str = r#"variables.deployed
  ? variables.owners[0].name.substring(0,
      size(variables.owners[0].name) - size(variables.labels["pod-template-hash"]) - 1)
  : variables.scheduled
  ? variables.owners[0].name.substring(0, variables.owners[0].name.lastIndexOf("-"))
  : variables.owned
  ? variables.owners[0].name
  : has(object.metadata.name) && object.metadata.name != ""
  ? object.metadata.name
  : has(object.metadata.generateName)
  ? object.metadata.generateName.replace("-", " ").trim().replace(" ", "-")
  : """#;

const WORKLOAD_KIND: &str = r#"variables.deployed
  ? "deployment"
  : variables.scheduled
  ? "cronjob"
  : variables.owned ? variables.owners[0].kind.lowerAscii() : "pod""#;

/// The ports of all containers as the API server writes them, whose order of fields is that of their type.
const POD_PORTS: &str = r#"'[' + object.spec.containers.map(c, has(c.ports) ? c.ports.map(p, '{' + (
    (has(p.name) && p.name != "" ? ['"name":' + strings.quote(p.name)] : [])
    + (has(p.hostPort) && p.hostPort != 0 ? ['"hostPort":' + string(p.hostPort)] : [])
    + ['"containerPort":' + string(p.containerPort)]
    + (has(p.protocol) ? ['"protocol":' + strings.quote(p.protocol)] : [])
    + (has(p.hostIP) && p.hostIP != "" ? ['"hostIP":' + strings.quote(p.hostIP)] : [])
  ).join(',') + '}') : []).flatten().join(',') + ']'"#;

/// What the pod says to Prometheus, as members of an object.
const PROMETHEUS: &str = r#"["path", "port", "scheme", "scrape"]
  .filter(n, ("prometheus.io/" + n) in variables.annotations)
  .map(n, strings.quote(n) + ":" + strings.quote(variables.annotations["prometheus.io/" + n]))
  .join(",")"#;

/// What an annotation of the pod says, or else another text.
fn said(name: &str, otherwise: &str) -> String {
    let (name, otherwise) = (quote(name), quote(otherwise));
    format!("({name} in variables.annotations ? variables.annotations[{name}].trim() : {otherwise})")
}

fn traffic(name: &str, otherwise: &str) -> String {
    said(&format!("traffic.sidecar.istio.io/{name}"), otherwise)
}

/// Whether an annotation switches something on; what it is if there is none.
fn flag(name: &str, otherwise: bool) -> String {
    format!("{} in {}", said(name, if otherwise { "true" } else { "false" }), quoted(SET))
}

/// What a label of the pod says, or else another text.
fn labelled(name: &str, otherwise: &str) -> String {
    let (name, otherwise) = (quote(name), quote(otherwise));
    format!("({name} in variables.labels ? variables.labels[{name}] : {otherwise})")
}

/// What the first of these labels says that says something, or else another expression.
fn first(names: &[&str], otherwise: &str) -> String {
    let names = quoted(names.iter().copied());
    let stated = format!("{names}.filter(n, n in variables.labels && variables.labels[n] != \"\")");
    format!("({stated}.size() > 0 ? variables.labels[{stated}[0]] : {otherwise})")
}

/// What the proxy needs: what annotations say, and if none says anything what is usual.
fn resources(wishes: &Wishes) -> String {
    let needs = |is_limit: bool| {
        let of = RESOURCES.iter().filter(|(_, _, limit)| *limit == is_limit);
        let of = of.map(|(annotation, resource, _)| format!("{}: {}", quote(resource), quote(annotation)));
        let of = of.collect::<Vec<_>>().join(", ");
        format!("{{{of}}}.transformMap(r, a, a in variables.annotations, variables.annotations[a].trim())")
    };
    let names = quoted(RESOURCES.iter().map(|(annotation, ..)| *annotation));
    let usual = expression(&values::value(&wishes.resources));
    format!(
        "{names}.exists(a, a in variables.annotations)
  ? {{\"requests\": dyn({}), \"limits\": dyn({})}}
  : {usual}",
        needs(false),
        needs(true)
    )
}

/// Options of the redirection that are there only if there is something to say.
fn redirected(settings: &Settings) -> String {
    let option = |name: &str, value: &str| {
        format!("({value} == \"\" ? [] : [{}, {value}])", quote(&format!("--{name}")))
    };
    let ranges = traffic("excludeOutboundIPRanges", &settings.exclude_outbound_ranges);
    let ports = traffic("excludeOutboundPorts", &settings.exclude_outbound_ports);
    let guests = format!(
        "(\"istio.io/reroute-virtual-interfaces\" in variables.annotations ? {} : {})",
        said("istio.io/reroute-virtual-interfaces", ""),
        traffic("kubevirtInterfaces", "")
    );
    let options = [
        option("exclude-outbound-cidrs", &ranges),
        option("outbound-ports", &traffic("includeOutboundPorts", "")),
        option("exclude-outbound-ports", &ports),
        option("exclude-interfaces", &traffic("excludeInterfaces", "")),
        option("guest-interfaces", &guests),
    ];
    options.join("\n  + ")
}

/// Whether Prometheus is led to the agent.
fn merges(settings: &Settings, status_port: u16) -> String {
    if status_port == 0 {
        return "false".to_owned();
    }
    let merges = flag("prometheus.istio.io/merge-metrics", settings.merge_metrics);
    let scrape = quote("prometheus.io/scrape");
    format!(
        "{merges} && !({scrape} in variables.annotations && variables.annotations[{scrape}] == \"false\")"
    )
}

/// Those of the Secrets to pull images with that the pod has not.
fn pull_secrets(settings: &Settings) -> String {
    let names = quoted(settings.image_pull_secrets.iter().map(String::as_str));
    format!(
        "{names}.filter(n, !has(object.spec.imagePullSecrets)
  || !object.spec.imagePullSecrets.exists(s, has(s.name) && s.name == n))"
    )
}

/// The variables, each of which reads those before it.
pub(super) fn variables(settings: &Settings, wishes: &Wishes) -> Vec<(&'static str, String)> {
    let texts = |field: &str| format!("has(object.metadata.{field}) ? object.metadata.{field} : {{}}");
    let named = format!("(variables.workload == \"\" ? {} : variables.workload)", quote(PROXY));
    let excluded = traffic("excludeInboundPorts", &settings.exclude_inbound_ports);
    let rewrites = flag("sidecar.istio.io/rewriteAppHTTPProbers", settings.rewrite_probes);
    let ranges = traffic("includeOutboundIPRanges", &settings.include_outbound_ranges);
    vec![
        ("labels", texts("labels")),
        ("annotations", texts("annotations")),
        ("owners", OWNERS.to_owned()),
        ("owned", "size(variables.owners) > 0".to_owned()),
        ("deployed", DEPLOYED.to_owned()),
        ("scheduled", SCHEDULED.to_owned()),
        ("workload", WORKLOAD.to_owned()),
        ("workloadKind", WORKLOAD_KIND.to_owned()),
        ("workloadVersion", "variables.owned ? variables.owners[0].apiVersion : \"v1\"".to_owned()),
        ("service", first(&["app"], &named)),
        ("canonicalName", first(&["app.kubernetes.io/name", "app"], "variables.workload")),
        ("canonicalRevision", first(&["app.kubernetes.io/version", "version"], "\"latest\"")),
        ("network", labelled(NETWORK, &settings.network)),
        ("image", said("sidecar.istio.io/proxyImage", &settings.image)),
        ("logLevel", said("sidecar.istio.io/logLevel", &settings.log_level)),
        ("resources", resources(wishes)),
        ("podPorts", POD_PORTS.to_owned()),
        ("appContainers", "object.spec.containers.map(c, c.name).join(\",\")".to_owned()),
        ("inboundPorts", traffic("includeInboundPorts", "*")),
        ("excludedInboundPorts", format!("{excluded} == \"\" ? \"\" : \",\" + {excluded}")),
        ("outboundRanges", ranges),
        ("redirected", redirected(settings)),
        ("probes", probes::led(&rewrites, wishes.status_port)),
        ("merges", merges(settings, wishes.status_port)),
        ("prometheus", PROMETHEUS.to_owned()),
        ("pullSecrets", pull_secrets(settings)),
    ]
}
