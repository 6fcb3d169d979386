//! What is put into pods.

use std::collections::BTreeMap;

use navarch_model::mesh::InboundInterceptionMode;
use serde_json::{Value, json};

use crate::json::{self, Object};
use crate::pod::{
    Container, DownwardApi, EmptyDir, Env, Exec, FieldRef, Hook, HttpGet, Lifecycle, Named, PodField, Port,
    Probe, Projected, ProjectedSource, SecurityContext, Token, Volume, VolumeMount, VolumeSource,
};
use crate::terms::{INIT, PROXY, Workload};
use crate::wishes::{Redirect, Template, Wishes};
use crate::{Settings, SidecarForm};

/// The user that the proxy runs as: what it sends is not redirected to itself.
const USER: u32 = 1337;

/// Where Envoy answers for readiness and with metrics, where it takes what goes out and what comes in.
const READY_PORT: u16 = 15021;
const METRICS_PORT: u16 = 15090;
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// Where the programs are in our image. The one that runs beside every application is small.
const PROGRAM: &str = "/usr/local/bin/navarch";
const AGENT: &str = "/usr/local/bin/navarch-agent";

/// What is put into a pod.
pub(crate) struct Made {
    pub proxy: Container,
    pub init: Option<Container>,
    pub volumes: Vec<Volume>,
    /// Labels and annotations that the pod gets unless it has them.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub sysctls: Vec<(&'static str, &'static str)>,
}

/// Makes what a pod gets.
pub(crate) fn make(
    settings: &Settings,
    wishes: &Wishes,
    namespace: &str,
    workload: &Workload,
    pod: &Object,
) -> Made {
    let empty = Object::new();
    let at = |key: &str| pod.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let (metadata, spec) = (at("metadata"), at("spec"));
    let labels = json::texts(metadata, "labels");
    let is_sidecar = wishes.template == Template::Sidecar;
    let redirects = is_sidecar && wishes.interception != InboundInterceptionMode::None;
    let needs_container = redirects && !settings.redirected_by_node;
    let context = Context { settings, wishes, namespace, workload, spec, labels: &labels };
    Made {
        proxy: context.proxy(),
        init: needs_container.then(|| context.redirection()),
        volumes: context.volumes(),
        labels: context.labels_of_the_mesh(),
        annotations: context.annotations(),
        sysctls: match is_sidecar {
            true => Vec::new(),
            // Gateways listen on the ports that they are known by, without a privilege.
            false => vec![("net.ipv4.ip_unprivileged_port_start", "0")],
        },
    }
}

struct Context<'a> {
    settings: &'a Settings,
    wishes: &'a Wishes,
    namespace: &'a str,
    workload: &'a Workload,
    spec: &'a Object,
    labels: &'a BTreeMap<String, String>,
}

impl Context<'_> {
    fn proxy(&self) -> Container {
        let Context { settings, wishes, .. } = self;
        let is_native = wishes.form == SidecarForm::Native && wishes.template == Template::Sidecar;
        let mut mounts = vec![
            VolumeMount::new("istio-envoy", "/etc/istio/proxy"),
            VolumeMount::new("istio-data", "/var/lib/istio/data"),
            VolumeMount::read_only("istio-token", "/var/run/secrets/tokens"),
            VolumeMount::read_only("istiod-ca-cert", "/var/run/secrets/istio"),
            VolumeMount::read_only("istio-podinfo", "/etc/istio/pod"),
        ];
        for (name, stated) in &wishes.mounts {
            let path = stated.get("mountPath").and_then(Value::as_str).unwrap_or_default();
            let read_only = stated.get("readOnly").and_then(Value::as_bool).unwrap_or(false);
            mounts.push(VolumeMount { read_only, ..VolumeMount::new(name, path) });
        }
        let ready = |failure_threshold, period_seconds, initial_delay_seconds| Probe {
            http_get: HttpGet { path: "/healthz/ready".to_owned(), port: READY_PORT },
            initial_delay_seconds,
            period_seconds: Some(period_seconds),
            failure_threshold: Some(failure_threshold),
            timeout_seconds: Some(3),
        };
        let readiness = &wishes.readiness;
        let readiness_probe = (wishes.status_port != 0).then(|| {
            ready(readiness.failure_threshold, readiness.period_seconds, readiness.initial_delay_seconds)
        });
        Container {
            name: PROXY.to_owned(),
            image: wishes.image.clone(),
            image_pull_policy: settings.image_pull_policy.clone(),
            restart_policy: is_native.then_some("Always"),
            command: vec![AGENT.to_owned()],
            args: self.arguments(),
            env: self.environment(),
            ports: vec![Port { container_port: METRICS_PORT, name: "http-envoy-prom", protocol: "TCP" }],
            // What comes after a native sidecar waits for this.
            startup_probe: readiness_probe.is_some().then(|| ready(600, 1, None)),
            readiness_probe,
            lifecycle: (!is_native && wishes.hold).then(|| Lifecycle {
                post_start: Hook {
                    exec: Exec { command: [PROGRAM, "await-ready"].map(str::to_owned).into() },
                },
            }),
            resources: wishes.resources.clone(),
            security_context: match wishes.interception {
                // Packets keep the addresses of their senders, which takes a privilege.
                InboundInterceptionMode::Tproxy if wishes.template == Template::Sidecar => {
                    let mut context = SecurityContext::unprivileged(USER);
                    (context.run_as_user, context.run_as_non_root) = (0, false);
                    context.capabilities.add = vec!["NET_ADMIN"];
                    context
                }
                _ => SecurityContext::unprivileged(USER),
            },
            volume_mounts: mounts,
            ..Container::default()
        }
    }

    fn arguments(&self) -> Vec<String> {
        let Context { settings, wishes, .. } = self;
        let role = match wishes.template {
            Template::Sidecar => "sidecar",
            Template::Gateway => "gateway",
        };
        let mut arguments: Vec<String> = vec![role.to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        flag("service", self.service().to_owned());
        flag("domain", settings.domain.clone());
        // Whoever asks for readiness and metrics comes from outside the pod.
        if wishes.status_port != 0 {
            flag("status-addr", format!("0.0.0.0:{}", wishes.status_port));
        }
        flag("ready-addr", format!("0.0.0.0:{READY_PORT}"));
        flag("metrics-addr", format!("0.0.0.0:{METRICS_PORT}"));
        if let Some(threads) = wishes.proxy.concurrency {
            flag("concurrency", threads.max(0).to_string());
        }
        flag("envoy-log-level", wishes.log_level.clone());
        if !wishes.component_log_level.is_empty() {
            flag("envoy-arg", "--component-log-level".to_owned());
            flag("envoy-arg", wishes.component_log_level.clone());
        }
        if let Some(level) = &wishes.agent_log_level {
            flag("log-level", level.clone());
        }
        if let Some(drain) = &wishes.drain {
            flag("drain", drain.clone());
        }
        arguments
    }

    /// The name of the service that the proxy belongs to, for telemetry.
    fn service(&self) -> &str {
        let named = self.labels.get("app").filter(|app| !app.is_empty()).unwrap_or(&self.workload.name);
        if named.is_empty() { PROXY } else { named }
    }

    fn environment(&self) -> Vec<Env> {
        let Context { settings, wishes, namespace, workload, spec, labels } = self;
        let server = wishes.proxy_config.get("discoveryAddress").and_then(Value::as_str);
        let mut env = vec![
            Env::field("POD_NAME", "metadata.name"),
            Env::field("POD_NAMESPACE", "metadata.namespace"),
            Env::field("INSTANCE_IP", "status.podIP"),
            Env::field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            Env::field("HOST_IP", "status.hostIP"),
            Env::text("NAVARCH_SERVER", server.unwrap_or(&settings.server)),
            Env::text("NAVARCH_AGENT_DIR", "/etc/istio/proxy/agent"),
            Env::field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        ];
        let mut text = |name: &str, value: &str| env.push(Env::text(name, value));
        if !wishes.proxy_config.is_empty() {
            text("PROXY_CONFIG", &json!(wishes.proxy_config).to_string());
        }
        text("ISTIO_META_POD_PORTS", &pod_ports(spec).to_string());
        text("ISTIO_META_APP_CONTAINERS", &containers(spec).join(","));
        text("ISTIO_META_CLUSTER_ID", &settings.cluster);
        text(
            "ISTIO_META_INTERCEPTION_MODE",
            match (wishes.template, wishes.interception) {
                (Template::Gateway, _) | (_, InboundInterceptionMode::None) => "NONE",
                (_, InboundInterceptionMode::Redirect) => "REDIRECT",
                (_, InboundInterceptionMode::Tproxy) => "TPROXY",
            },
        );
        let network = labels.get("topology.istio.io/network").unwrap_or(&settings.network);
        if !network.is_empty() {
            text("ISTIO_META_NETWORK", network);
        }
        if !workload.name.is_empty() {
            text("ISTIO_META_WORKLOAD_NAME", &workload.name);
        }
        if let Some(owner) = owner(workload, namespace) {
            text("ISTIO_META_OWNER", &owner);
        }
        if !settings.mesh_id.is_empty() {
            text("ISTIO_META_MESH_ID", &settings.mesh_id);
        }
        for (name, value) in &wishes.proxy.proxy_metadata {
            text(name, value);
        }
        env
    }

    /// The container that redirects the traffic of the pod to the proxy.
    fn redirection(&self) -> Container {
        let Context { settings, wishes, .. } = self;
        let Redirect {
            include_inbound_ports,
            exclude_inbound_ports,
            include_outbound_ranges,
            exclude_outbound_ranges,
            include_outbound_ports,
            exclude_outbound_ports,
            exclude_interfaces,
            reroute_interfaces,
        } = &wishes.redirect;
        let mut arguments: Vec<String> = vec!["redirect".to_owned()];
        let mut flag = |name: &str, value: &str| arguments.extend([format!("--{name}"), value.to_owned()]);
        let mode = match wishes.interception {
            InboundInterceptionMode::Tproxy => "TPROXY",
            _ => "REDIRECT",
        };
        flag("mode", mode);
        flag("outbound-port", &OUTBOUND_PORT.to_string());
        flag("inbound-port", &INBOUND_PORT.to_string());
        flag("proxy-uid", &USER.to_string());
        flag("inbound-ports", include_inbound_ports);
        let mut own = format!("{METRICS_PORT},{READY_PORT}");
        if wishes.status_port != 0 {
            own = format!("{own},{}", wishes.status_port);
        }
        let excluded = [own.as_str(), exclude_inbound_ports].join(",");
        flag("exclude-inbound-ports", excluded.trim_end_matches(','));
        flag("outbound-cidrs", include_outbound_ranges);
        for (name, value) in [
            ("exclude-outbound-cidrs", exclude_outbound_ranges),
            ("outbound-ports", include_outbound_ports),
            ("exclude-outbound-ports", exclude_outbound_ports),
            ("exclude-interfaces", exclude_interfaces),
            ("guest-interfaces", reroute_interfaces),
        ] {
            if !value.is_empty() {
                flag(name, value);
            }
        }
        let mut context = SecurityContext::unprivileged(0);
        context.read_only_root_filesystem = false;
        context.capabilities.add = vec!["NET_ADMIN", "NET_RAW"];
        Container {
            name: INIT.to_owned(),
            image: wishes.image.clone(),
            image_pull_policy: settings.image_pull_policy.clone(),
            command: vec![AGENT.to_owned()],
            args: arguments,
            env: wishes.proxy.proxy_metadata.iter().map(|(name, value)| Env::text(name, value)).collect(),
            resources: wishes.resources.clone(),
            security_context: context,
            ..Container::default()
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        let field = |path, field_path| PodField { path, field_ref: FieldRef { field_path } };
        let podinfo = vec![field("labels", "metadata.labels"), field("annotations", "metadata.annotations")];
        let token = Token { path: "istio-token", expiration_seconds: 43200, audience: "istio-ca" };
        let roots = Named { name: self.settings.root_config_map.clone(), optional: false };
        let of = |name: &str, from| Volume { name: name.to_owned(), from };
        let mut volumes = vec![
            // The key of the workload is there, which must not be on a disk.
            of("istio-envoy", VolumeSource::EmptyDir(EmptyDir { medium: Some("Memory") })),
            of("istio-data", VolumeSource::EmptyDir(EmptyDir::default())),
            of("istio-podinfo", VolumeSource::DownwardApi(DownwardApi { items: podinfo })),
            of(
                "istio-token",
                VolumeSource::Projected(Projected {
                    sources: vec![ProjectedSource::ServiceAccountToken(token)],
                }),
            ),
            of("istiod-ca-cert", VolumeSource::ConfigMap(roots)),
        ];
        for (name, stated) in &self.wishes.volumes {
            volumes.push(of(name, VolumeSource::Stated(stated.clone())));
        }
        volumes
    }

    fn labels_of_the_mesh(&self) -> BTreeMap<String, String> {
        let Context { settings, labels, .. } = self;
        let first = |names: &[&str], otherwise: &str| {
            let named = names.iter().find_map(|name| labels.get(*name).filter(|text| !text.is_empty()));
            named.map_or(otherwise.to_owned(), Clone::clone)
        };
        let version = first(&["app.kubernetes.io/version", "version"], "latest");
        let named = first(&["app.kubernetes.io/name", "app"], &self.workload.name);
        let mut made = BTreeMap::from([
            ("service.istio.io/canonical-revision".to_owned(), version),
            ("istio.io/rev".to_owned(), settings.revision.clone()),
        ]);
        // A label has at most 63 bytes, and names may have more.
        if !named.is_empty() {
            let cut: String = named.chars().take(63).collect();
            made.insert("service.istio.io/canonical-name".to_owned(), cut);
        }
        if self.wishes.template == Template::Sidecar {
            made.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
        }
        made
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let first = containers(self.spec).first().map(|name| (*name).to_owned());
        let first = first.into_iter().flat_map(|name| {
            ["default-container", "default-logs-container"]
                .map(|key| (format!("kubectl.kubernetes.io/{key}"), name.clone()))
        });
        first.collect()
    }
}

/// The ports of all containers, as they are written.
fn pod_ports(spec: &Object) -> Value {
    let containers = json::items(spec, "containers").iter().filter_map(Value::as_object);
    containers.flat_map(|container| json::items(container, "ports")).cloned().collect()
}

fn containers(spec: &Object) -> Vec<&str> {
    json::items(spec, "containers").iter().map(json::name).filter(|name| !name.is_empty()).collect()
}

/// What the workload is, as Istio has it: `kubernetes://apis/apps/v1/namespaces/shop/deployments/web`.
fn owner(workload: &Workload, namespace: &str) -> Option<String> {
    let Workload { api_version, kind, name } = workload;
    let is_known = !api_version.is_empty() && !kind.is_empty() && !name.is_empty();
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    is_known.then(|| {
        let kind = kind.to_lowercase();
        format!("kubernetes://apis/{api_version}/namespaces/{namespace}/{kind}s/{name}")
    })
}
