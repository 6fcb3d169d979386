//! Whatever is given: nothing panics, what is injected can be injected again without a difference, and the
//! patch makes of the one what the other is.

use navarch_inject::{Settings, SidecarForm, Workload, answer, inject, inject_text, patch::patch};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Any value, of few enough words that the interesting ones meet.
fn value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "",
        "web",
        "istio-proxy",
        "istio-init",
        "auto",
        "true",
        "false",
        "8080",
        "http",
        "1",
        "*",
        "yes",
        "0x1",
        "1e3",
        "/app-health/web/readyz",
        "{}",
        "[",
        "a: b",
        "# c",
        "- d",
        " e",
        "f\n",
        "é\t",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u16..3).prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "name",
        "containers",
        "initContainers",
        "image",
        "env",
        "value",
        "ports",
        "containerPort",
        "readinessProbe",
        "livenessProbe",
        "httpGet",
        "tcpSocket",
        "grpc",
        "port",
        "path",
        "volumes",
        "labels",
        "annotations",
        "x",
    ]);
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(object),
        ]
    })
}

fn object(entries: Vec<(&str, Value)>) -> Value {
    Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

/// A pod that has most of what a pod has, each of it perhaps something else.
fn pod() -> impl Strategy<Value = Value> {
    let annotation = prop::sample::select(vec![
        "sidecar.istio.io/status",
        "proxy.istio.io/overrides",
        "proxy.istio.io/config",
        "prometheus.io/port",
        "prometheus.io/scrape",
        "prometheus.io/path",
        "sidecar.istio.io/userVolume",
        "sidecar.istio.io/proxyCPU",
        "sidecar.istio.io/nativeSidecar",
        "inject.istio.io/templates",
        "sidecar.istio.io/interceptionMode",
    ]);
    let said = prop_oneof![
        Just(r#"{"containers":["istio-proxy"],"initContainers":["istio-init"],"volumes":["v"]}"#.to_owned()),
        Just(r#"{"containers":[{"name":"istio-proxy","image":"auto"}]}"#.to_owned()),
        Just("{holdApplicationUntilProxyStarts: true}".to_owned()),
        Just("/stats/prometheus".to_owned()),
        prop::sample::select(vec![
            "true",
            "false",
            "gateway",
            "100m",
            "NONE",
            "TPROXY",
            "{\"v\":{\"emptyDir\":{}}}",
            "1"
        ])
        .prop_map(str::to_owned),
    ];
    let annotations = prop::collection::vec((annotation, said.prop_map(Value::from)), 0..4).prop_map(object);
    let port = prop_oneof![Just(json!(8080)), Just(json!("http")), value()];
    let probe = prop_oneof![
        port.clone()
            .prop_map(|port| json!({"httpGet": {"path": "/ready", "port": port}, "timeoutSeconds": 2})),
        port.prop_map(|port| json!({"tcpSocket": {"port": port}})),
        value(),
    ];
    let name = prop_oneof![4 => Just("web"), 1 => Just("istio-proxy"), 1 => Just("istio-init")];
    let container = (name, probe, value()).prop_map(|(name, probe, any)| {
        json!({"name": name, "image": "auto", "readinessProbe": probe, "env": any,
               "ports": [{"name": "http", "containerPort": 8080}]})
    });
    let containers = prop_oneof![
        8 => prop::collection::vec(container, 1..3).prop_map(Value::from),
        1 => value(),
    ];
    let or = |strategy: BoxedStrategy<Value>| prop_oneof![8 => strategy, 1 => value()];
    (or(annotations.boxed()), containers.clone(), containers, value()).prop_map(
        |(annotations, one, other, any)| {
            json!({"metadata": {"name": "web", "annotations": annotations},
               "spec": {"containers": one, "initContainers": other, "x": any}})
        },
    )
}

/// What a patch makes (RFC 6902), for `add`, `remove` and `replace`.
fn apply(to: &mut Value, steps: &[Value]) {
    for step in steps {
        let path = step["path"].as_str().unwrap();
        let Some((parent, last)) = path.rsplit_once('/') else {
            *to = step["value"].clone();
            continue;
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        match (to.pointer_mut(parent).unwrap(), step["op"].as_str().unwrap()) {
            (Value::Object(object), "remove") => _ = object.remove(&last).unwrap(),
            (Value::Object(object), _) => _ = object.insert(last, step["value"].clone()),
            (Value::Array(items), "remove") => _ = items.remove(last.parse().unwrap()),
            (Value::Array(items), "add") => items.insert(last.parse().unwrap(), step["value"].clone()),
            (Value::Array(items), _) => items[last.parse::<usize>().unwrap()] = step["value"].clone(),
            (other, _) => panic!("{path} leads into {other}"),
        }
    }
}

fn settings(native: bool) -> Settings {
    let sidecar_form = if native { SidecarForm::Native } else { SidecarForm::Container };
    Settings { sidecar_form, image_pull_secrets: vec!["v".to_owned()], ..Settings::default() }
}

/// The page is the agent's, but nobody is to look at it.
#[test]
fn a_pod_that_is_not_to_be_scraped_stays_so() {
    let pod = json!({
        "metadata": {"name": "web", "annotations": {"prometheus.io/scrape": "false", "prometheus.io/path": "/stats/prometheus"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    let once = inject(&settings(true), "shop", &Workload::default(), &pod).expect("injected");
    assert_eq!(once["metadata"]["annotations"]["prometheus.io/scrape"], "false");
    assert_eq!(inject(&settings(true), "shop", &Workload::default(), &once).as_ref(), Ok(&once));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn pods_are_injected_once(pod in pod(), native in any::<bool>()) {
        let settings = settings(native);
        let workload = Workload { name: "web".to_owned(), ..Workload::default() };
        let Ok(once) = inject(&settings, "shop", &workload, &pod) else { return Ok(()) };
        let twice = inject(&settings, "shop", &workload, &once);
        prop_assert_eq!(twice.as_ref(), Ok(&once));
        let mut patched = pod.clone();
        apply(&mut patched, &patch(&pod, &once));
        prop_assert_eq!(patched, once);
    }

    #[test]
    fn any_value_is_survived(any in value(), path in prop::sample::select(vec!["/inject", "/validate"])) {
        let _ = inject(&settings(true), "shop", &Workload::default(), &any);
        let question = json!({"request": {"uid": "1", "namespace": "shop", "operation": "CREATE", "object": any}});
        let _ = answer(&settings(true), path, question.to_string().as_bytes());
        let _ = answer(&settings(true), path, any.to_string().as_bytes());
    }

    /// The patch of any two values, and a text that is written is read as what it was.
    #[test]
    fn differences_lead_from_one_to_the_other(from in value(), to in value()) {
        let mut patched = from.clone();
        apply(&mut patched, &patch(&from, &to));
        prop_assert_eq!(patched, to);
    }

    #[test]
    fn what_is_written_is_read_as_it_was(any in value(), text in ".{0,60}") {
        let pod = json!({"kind": "Pod", "metadata": {"name": text}, "spec": {"containers": [{"name": "web", "x": any}]}});
        let once = inject_text(&settings(true), "shop", "pod", &pod.to_string());
        let twice = inject_text(&settings(true), "shop", "pod", &once.text);
        prop_assert_eq!(&twice.text, &once.text);
    }

    #[test]
    fn any_text_is_survived(text in "(kind: Pod\n|spec:|metadata:|  containers:|---\n|- |\\{|\\[|.|\n){0,40}") {
        let _ = inject_text(&settings(false), "shop", "any", &text);
    }
}
