//! Whether a pod gets a proxy, and why.
//!
//! What Istio's webhook configurations select and what its injector decides then are one question here, so
//! that `navarch inject` can answer it without a cluster.

use std::collections::BTreeMap;
use std::fmt;

use navarch_model::{Revision, revision};

use crate::Settings;

/// The label, and the annotation, of a pod that decides.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// The label of a namespace.
pub const INJECTION: &str = "istio-injection";
/// The label of namespaces and pods that names a revision.
pub const REVISION: &str = revision::LABEL;

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The pod shares the network of its node, which a proxy of its own cannot redirect.
    HostNetwork,
    /// The namespace is one of the cluster's own.
    SystemNamespace,
    /// The label of the pod.
    Label,
    /// The annotation of the pod, which counts if there is no label.
    Annotation,
    /// A selector of the settings leaves it out.
    Never,
    /// A selector of the settings asks for it.
    Always,
    /// The labels of its namespace, or its own, ask for another revision.
    OtherRevision,
    /// Nothing asks for it.
    NotAsked,
    /// Its namespace asks for it, or it is so by default.
    Default,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::HostNetwork => "it uses the network of its node (hostNetwork)",
            Reason::SystemNamespace => "its namespace is one of the cluster's own",
            Reason::Label => "its label sidecar.istio.io/inject says so",
            Reason::Annotation => "its annotation sidecar.istio.io/inject says so",
            Reason::Never => "a selector of the settings (never) leaves it out",
            Reason::Always => "a selector of the settings (always) asks for it",
            Reason::OtherRevision => "its namespace or its label istio.io/rev names another revision",
            Reason::NotAsked => "neither its namespace nor its labels ask for it",
            Reason::Default => "its namespace asks for it, or it is so by default",
        })
    }
}

/// What is known of a pod before it is looked at closely.
#[derive(Clone, Debug, Default)]
pub struct Candidate<'a> {
    pub namespace: &'a str,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub host_network: bool,
}

/// Whether a pod is injected once somebody has asked about it: an API server whose webhook configuration
/// selects it, or a person.
///
/// # Errors
/// Why it is not.
pub fn decide(settings: &Settings, pod: &Candidate<'_>) -> Result<Reason, Reason> {
    if pod.host_network {
        return Err(Reason::HostNetwork);
    }
    if settings.ignored_namespaces.contains(pod.namespace) {
        return Err(Reason::SystemNamespace);
    }
    // The label is the newer of the two, and comes first.
    let stated = [(Reason::Label, &pod.labels), (Reason::Annotation, &pod.annotations)];
    let stated = stated.into_iter().find_map(|(reason, of)| Some((reason, of.get(INJECT)?.as_str())));
    if let Some((reason, text)) = stated
        && !text.is_empty()
    {
        return if is_true(text) { Ok(reason) } else { Err(reason) };
    }
    if settings.never.iter().any(|selector| selector.selects(&pod.labels)) {
        return Err(Reason::Never);
    }
    if settings.always.iter().any(|selector| selector.selects(&pod.labels)) {
        return Ok(Reason::Always);
    }
    if settings.enabled_by_default { Ok(Reason::Default) } else { Err(Reason::NotAsked) }
}

/// Whether the webhook of this revision is asked about a pod, given the labels of its namespace. Of a
/// namespace `istio-injection` counts before `istio.io/rev`, and its labels before those of the pod; the
/// label `sidecar.istio.io/inject: "false"` of the pod counts before all.
///
/// # Errors
/// Why it is not.
pub fn is_asked_about(
    revision: &Revision,
    namespace: &BTreeMap<String, String>,
    pod: &BTreeMap<String, String>,
) -> Result<(), Reason> {
    let is_default = revision.is_called(revision::DEFAULT);
    let of_default = if is_default { Ok(()) } else { Err(Reason::OtherRevision) };
    let wish = pod.get(INJECT).map(String::as_str);
    if wish == Some("false") {
        return Err(Reason::Label);
    }
    if let Some(injection) = namespace.get(INJECTION) {
        return if injection == "enabled" { of_default } else { Err(Reason::NotAsked) };
    }
    match namespace.get(REVISION).or(pod.get(REVISION)) {
        Some(asked) if revision.is_called(asked) => Ok(()),
        Some(_) => Err(Reason::OtherRevision),
        None if wish == Some("true") => of_default,
        None => Err(Reason::NotAsked),
    }
}

/// What Istio's injector takes for true in the label: YAML 1.1's words, in any case.
pub(crate) const TRUE: [&str; 4] = ["y", "yes", "true", "on"];

fn is_true(text: &str) -> bool {
    TRUE.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selector;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.trim().to_owned(), value.to_owned())).collect()
    }

    fn settings() -> Settings {
        let selector = |text: &str| Selector { match_labels: labels(text), ..Selector::default() };
        Settings {
            never: vec![selector("kind=batch")],
            always: vec![selector("kind=web"), selector("kind=batch")],
            ..Settings::default()
        }
    }

    #[test]
    fn the_pod_says_whether_it_is_injected() {
        let check = |of_pod: &str, annotations: &str, expected: Result<Reason, Reason>| {
            for enabled_by_default in [true, false] {
                let settings = Settings { enabled_by_default, ..settings() };
                let pod = Candidate {
                    namespace: "shop",
                    labels: labels(of_pod),
                    annotations: labels(annotations),
                    host_network: false,
                };
                let expected = match expected {
                    Ok(Reason::Default) if !enabled_by_default => Err(Reason::NotAsked),
                    other => other,
                };
                assert_eq!(decide(&settings, &pod), expected, "{of_pod} {annotations}");
            }
        };
        check("", "", Ok(Reason::Default));
        check("sidecar.istio.io/inject=true", "", Ok(Reason::Label));
        check("sidecar.istio.io/inject=Yes", "", Ok(Reason::Label));
        check("sidecar.istio.io/inject=false", "", Err(Reason::Label));
        check("sidecar.istio.io/inject=maybe", "", Err(Reason::Label));
        check("sidecar.istio.io/inject=", "", Ok(Reason::Default));
        check("", "sidecar.istio.io/inject=true", Ok(Reason::Annotation));
        check("", "sidecar.istio.io/inject=false", Err(Reason::Annotation));
        check("sidecar.istio.io/inject=true", "sidecar.istio.io/inject=false", Ok(Reason::Label));
        check("sidecar.istio.io/inject=false", "sidecar.istio.io/inject=true", Err(Reason::Label));
        check("kind=batch", "", Err(Reason::Never));
        check("kind=web", "", Ok(Reason::Always));
        check("kind=batch,sidecar.istio.io/inject=true", "", Ok(Reason::Label));
    }

    #[test]
    fn what_no_proxy_can_stand_beside_is_left_alone() {
        let check = |namespace: &str, host_network: bool, expected: Result<Reason, Reason>| {
            let labels = labels("sidecar.istio.io/inject=true");
            let pod = Candidate { namespace, labels, host_network, ..Candidate::default() };
            assert_eq!(decide(&settings(), &pod), expected, "{namespace} {host_network}");
        };
        check("shop", false, Ok(Reason::Label));
        check("shop", true, Err(Reason::HostNetwork));
        check("kube-system", false, Err(Reason::SystemNamespace));
        check("kube-node-lease", false, Err(Reason::SystemNamespace));
    }

    /// A revision and its tags, labels of the namespace, labels of the pod.
    #[test]
    fn labels_say_which_revision_is_asked() {
        let check = |revision: &str, namespace: &str, pod: &str, expected: Result<(), Reason>| {
            let (revision, tags) = revision.split_once('+').unwrap_or((revision, ""));
            let tags = tags.split('+').filter(|tag| !tag.is_empty()).map(Into::into).collect();
            let called = Revision { name: revision.into(), tags };
            let got = is_asked_about(&called, &labels(namespace), &labels(pod));
            assert_eq!(got, expected, "{revision} {namespace} {pod}");
        };
        use Reason::*;
        check("default", "", "", Err(NotAsked));
        check("default", "istio-injection=enabled", "", Ok(()));
        check("default", "istio-injection=disabled", "", Err(NotAsked));
        check("default", "istio-injection=disabled", "sidecar.istio.io/inject=true", Err(NotAsked));
        check("default", "istio-injection=enabled", "sidecar.istio.io/inject=false", Err(Label));
        check("default", "", "sidecar.istio.io/inject=true", Ok(()));
        check("default", "istio.io/rev=canary", "sidecar.istio.io/inject=true", Err(OtherRevision));
        check("canary", "istio.io/rev=canary", "", Ok(()));
        check("canary", "istio.io/rev=canary", "sidecar.istio.io/inject=false", Err(Label));
        check("canary", "istio-injection=enabled,istio.io/rev=canary", "", Err(OtherRevision));
        check("canary", "", "istio.io/rev=canary", Ok(()));
        check("canary", "", "istio.io/rev=canary,sidecar.istio.io/inject=false", Err(Label));
        check("canary", "istio.io/rev=stable", "istio.io/rev=canary", Err(OtherRevision));
        check("canary", "", "sidecar.istio.io/inject=true", Err(OtherRevision));
        check("canary+prod", "istio.io/rev=prod", "", Ok(()));
        check("canary+default", "istio-injection=enabled", "", Ok(()));
        check("canary+default", "", "sidecar.istio.io/inject=true", Ok(()));
    }
}
