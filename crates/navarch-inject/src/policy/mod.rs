//! Injection as a MutatingAdmissionPolicy (`admissionregistration.k8s.io/v1`, Kubernetes 1.36): expressions
//! of CEL that make of a pod what [`inject`](crate::inject) makes of it, without anybody who answers.
//!
//! What is put into pods is what the template makes, for a pod of which what differs from one pod to another
//! is a hole: an expression. What expressions cannot say (YAML and JSON in annotations, containers that are
//! merged) is refused by a second policy, a ValidatingAdmissionPolicy, which sees the pod afterwards: a pod
//! that should have a proxy and has none would be outside of the mesh unseen.

mod asked;
mod cel;
mod probes;
mod variables;

use serde_json::{Value, json};

use self::cel::{expression, hole, items, quote};
use self::variables::{NETWORK, variables};
use crate::inject::{Added, lead};
use crate::json::Object;
use crate::probes::PROBERS;
use crate::terms::{Fault, INIT, PROMETHEUS, PROXY, STATUS, Workload};
use crate::wishes::Wishes;
use crate::{Settings, SidecarForm, json as values, template};

pub use self::asked::UNHEEDED;

const VERSION: &str = "admissionregistration.k8s.io/v1";

/// Which pods a binding of the policies is for: selectors of the labels of their namespace and of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// The name of the binding.
    pub name: String,
    pub namespaces: Value,
    pub pods: Value,
}

/// What the workload is, as Istio has it.
const OWNER: &str = r#""kubernetes://apis/" + variables.workloadVersion + "/namespaces/" + request.namespace
  + "/" + variables.workloadKind + "s/" + variables.workload"#;

/// A label has at most 63 characters.
const CANONICAL_NAME: &str = "variables.canonicalName.substring(0,
  size(variables.canonicalName) > 63 ? 63 : size(variables.canonicalName))";

/// The Secrets to pull images with that are put into the pod, in JSON.
const TOLD_SECRETS: &str = r#"(size(variables.pullSecrets) == 0
  ? "null"
  : "[" + variables.pullSecrets.map(n, strings.quote(n)).join(",") + "]")"#;

/// The policies called `name` and their bindings.
///
/// # Errors
/// If the settings cannot be used.
pub fn policies(settings: &Settings, name: &str, selected: &[Selected]) -> Result<Vec<Value>, Fault> {
    let wishes = Wishes::read(settings, &Default::default())?;
    let constraints = json!({"resourceRules": [{
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
        "scope": "*",
    }]});
    let variables: Vec<Value> = variables(settings, &wishes)
        .into_iter()
        .map(|(name, expression)| json!({"name": name, "expression": expression}))
        .collect();
    let conditions = asked::conditions(settings);
    let mut heeded = conditions.clone();
    heeded.extend(asked::heeded());
    let object = |kind: &str, name: &str, spec: Value| {
        let metadata = json!({"name": name});
        json!({"apiVersion": VERSION, "kind": kind, "metadata": metadata, "spec": spec})
    };
    let mutation = mutation(settings, &wishes);
    let mutating = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": constraints,
        "matchConditions": heeded,
        "variables": variables,
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation}}],
    });
    let validating = json!({
        "failurePolicy": "Fail",
        "matchConstraints": constraints,
        "matchConditions": conditions,
        "validations": asked::validations(),
    });
    let mut made = vec![
        object("MutatingAdmissionPolicy", name, mutating),
        object("ValidatingAdmissionPolicy", name, validating),
    ];
    for Selected { name: binding, namespaces, pods } in selected {
        let resources = json!({"namespaceSelector": namespaces, "objectSelector": pods});
        let spec = json!({"policyName": name, "matchResources": resources});
        made.push(object("MutatingAdmissionPolicyBinding", binding, spec));
        let spec = json!({"policyName": name, "matchResources": resources, "validationActions": ["Deny"]});
        made.push(object("ValidatingAdmissionPolicyBinding", binding, spec));
    }
    Ok(made)
}

/// What is put into pods, with holes where it differs from one to another.
struct Holed {
    proxy: Value,
    init: Option<Value>,
    volumes: Vec<Value>,
}

/// What the template makes of a pod that is made of holes.
fn holed(settings: &Settings, wishes: &Wishes) -> Holed {
    let mut wishes = wishes.clone();
    wishes.image = hole("variables.image");
    wishes.log_level = hole("variables.logLevel");
    let redirect = &mut wishes.redirect;
    redirect.include_inbound_ports = hole("variables.inboundPorts");
    redirect.include_outbound_ranges = hole("variables.outboundRanges");
    // What is an option only if there is something to say comes last, all of it as one hole.
    for text in [
        &mut redirect.exclude_inbound_ports,
        &mut redirect.exclude_outbound_ranges,
        &mut redirect.include_outbound_ports,
        &mut redirect.exclude_outbound_ports,
        &mut redirect.exclude_interfaces,
        &mut redirect.reroute_interfaces,
    ] {
        text.clear();
    }
    let workload = Workload {
        api_version: hole("variables.workloadVersion"),
        kind: String::new(),
        name: hole("variables.workload"),
    };
    let mut pod = Object::new();
    let labels = json!({"app": hole("variables.service"), NETWORK: hole("variables.network")});
    pod.insert("metadata".to_owned(), json!({"labels": labels}));
    pod.insert("spec".to_owned(), json!({"containers": [{"name": "application"}]}));
    let made = template::make(settings, &wishes, "", &workload, &pod);
    let with_resources = |container: &crate::pod::Container| {
        let mut container = values::value(container);
        container["resources"] = json!(hole("variables.resources"));
        container
    };
    let mut proxy = with_resources(&made.proxy);
    if let Some(env) = proxy["env"].as_array_mut() {
        for item in env.iter_mut() {
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            let value = match name.as_str() {
                "ISTIO_META_POD_PORTS" => "variables.podPorts",
                "ISTIO_META_APP_CONTAINERS" => "variables.appContainers",
                "ISTIO_META_NETWORK" => {
                    let said = expression(&json!({"name": name, "value": hole("variables.network")}));
                    *item = json!(items(&format!("variables.network == \"\" ? [] : [dyn({said})]")));
                    continue;
                }
                _ => continue,
            };
            item["value"] = json!(hole(value));
        }
        let after = |item: &Value| item["name"] == "ISTIO_META_WORKLOAD_NAME";
        let at = env.iter().position(after).map_or(env.len(), |at| at + 1);
        env.insert(at, json!({"name": "ISTIO_META_OWNER", "value": hole(OWNER)}));
        let probers = "\"{\" + variables.probes.map(p, p[\"asked\"]).join(\",\") + \"}\"";
        for (name, condition, value) in [
            (PROBERS, "size(variables.probes) > 0", probers),
            (
                PROMETHEUS,
                "variables.merges && variables.prometheus != \"\"",
                "\"{\" + variables.prometheus + \"}\"",
            ),
        ] {
            let said = expression(&json!({"name": name, "value": hole(value)}));
            env.push(json!(items(&format!("{condition} ? [dyn({said})] : []"))));
        }
    }
    let init = made.init.as_ref().map(|container| {
        let mut init = with_resources(container);
        if let Some(arguments) = init["args"].as_array_mut() {
            let option = arguments.iter().position(|argument| argument == "--exclude-inbound-ports");
            if let Some(ports) = option.and_then(|at| arguments.get_mut(at + 1)) {
                let own = ports.as_str().unwrap_or_default().to_owned();
                *ports = json!(format!("{own}{}", hole("variables.excludedInboundPorts")));
            }
            arguments.push(json!(items("variables.redirected")));
        }
        init
    });
    Holed { proxy, init, volumes: made.volumes.iter().map(values::value).collect() }
}

/// The steps (RFC 6902) that inject a pod, as one expression.
fn mutation(settings: &Settings, wishes: &Wishes) -> String {
    let Holed { proxy, init, volumes } = holed(settings, wishes);
    let add = |path: &str, value: &str| format!("JSONPatch{{op: \"add\", path: {path}, value: {value}}}");
    let at = |path: &str, value: &Value| add(&quote(path), &expression(value));
    let unless = |there: &str, step: String| format!("({there} ? [] : [{step}])");
    let mut steps = Vec::new();
    // Probes first: what is put in shifts the containers.
    steps.push(probes::steps(wishes.status_port));

    for field in ["labels", "annotations"] {
        steps.push(unless(
            &format!("has(object.metadata.{field})"),
            format!("JSONPatch{{op: \"add\", path: \"/metadata/{field}\", value: {{}}}}"),
        ));
    }
    let pointer =
        |field: &str, name: &str| format!("/metadata/{field}/{}", name.replace('~', "~0").replace('/', "~1"));
    for (name, value) in [
        ("service.istio.io/canonical-revision", hole("variables.canonicalRevision")),
        ("istio.io/rev", settings.revision.clone()),
        ("security.istio.io/tlsMode", "istio".to_owned()),
    ] {
        let step = at(&pointer("labels", name), &json!(value));
        steps.push(unless(&format!("{} in variables.labels", quote(name)), step));
    }
    let canonical = "service.istio.io/canonical-name";
    steps.push(unless(
        &format!("{} in variables.labels || variables.canonicalName == \"\"", quote(canonical)),
        at(&pointer("labels", canonical), &json!(hole(CANONICAL_NAME))),
    ));
    let first = hole("object.spec.containers[0].name");
    for name in ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"] {
        let step = at(&pointer("annotations", name), &json!(first));
        steps.push(unless(&format!("{} in variables.annotations", quote(name)), step));
    }
    let leads = lead(wishes.status_port)
        .map(|(name, value)| at(&pointer("annotations", &format!("prometheus.io/{name}")), &json!(value)));
    steps.push(format!("(variables.merges ? [{}] : [])", leads.join(", ")));

    let is_native = wishes.form == SidecarForm::Native;
    let mut added = Added { volumes: volumes.iter().map(values::name).collect(), ..Added::default() };
    added.init_containers.extend(init.iter().map(|_| INIT));
    let list =
        |field: &str| unless(&format!("has(object.spec.{field})"), at(&format!("/spec/{field}"), &json!([])));
    if is_native || init.is_some() {
        steps.push(list("initContainers"));
    }
    if is_native {
        added.init_containers.push(PROXY);
        // Each in front of what is there.
        steps.push(format!("[{}]", at("/spec/initContainers/0", &proxy)));
        steps.extend(init.iter().map(|init| format!("[{}]", at("/spec/initContainers/0", init))));
    } else {
        added.containers.push(PROXY);
        steps.extend(init.iter().map(|init| format!("[{}]", at("/spec/initContainers/-", init))));
        let path = if wishes.hold { "/spec/containers/0" } else { "/spec/containers/-" };
        steps.push(format!("[{}]", at(path, &proxy)));
    }
    steps.push(list("volumes"));
    steps.extend(volumes.iter().map(|volume| format!("[{}]", at("/spec/volumes/-", volume))));
    let mut told = added.told(&settings.revision);
    if !settings.image_pull_secrets.is_empty() {
        steps.push(format!(
            "(size(variables.pullSecrets) == 0 || has(object.spec.imagePullSecrets) ? [] : [{}])",
            at("/spec/imagePullSecrets", &json!([]))
        ));
        let secret = add("\"/spec/imagePullSecrets/-\"", "{\"name\": n}");
        steps.push(format!("variables.pullSecrets.map(n, {secret})"));
        told = told
            .replace("\"imagePullSecrets\":null", &format!("\"imagePullSecrets\":{}", hole(TOLD_SECRETS)));
    }
    steps.push(format!("[{}]", at(&pointer("annotations", STATUS), &json!(told))));
    steps.join("\n+ ")
}
