//! The Helm chart: the same manifests, with values where they differ.
//!
//! The manifests are made of options that hold marks, and each mark becomes an expression of a template. So
//! there is one source, and what the chart makes of its default values is what `navarch install` makes.

use crate::manifests::{is_kept, manifests, to_yaml};
use crate::options::{Options, OptionsError, Rule};
use serde_json::Value;

/// Files of a chart, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chart(pub Vec<(String, String)>);

/// A value of the chart: the mark in the options, the value, and whether it is a text.
struct Mark {
    mark: &'static str,
    value: &'static str,
    is_text: bool,
    default: fn(&Options) -> String,
    says: &'static str,
}

const MARKS: &[Mark] = &[
    Mark {
        mark: "@@image@@",
        value: "image",
        is_text: true,
        default: |options| options.image.clone(),
        says: "The image with navarch and Envoy, for the control plane and for proxies",
    },
    Mark {
        mark: "@@cluster@@",
        value: "cluster",
        is_text: true,
        default: |options| options.cluster.clone(),
        says: "What the cluster is called",
    },
    Mark {
        mark: "@@network@@",
        value: "network",
        is_text: true,
        default: |options| options.network.clone(),
        says: "The network of its pods",
    },
    Mark {
        mark: "@@replicasMin@@",
        value: "replicasMin",
        is_text: false,
        default: |options| options.replicas.0.clone(),
        says: "Replicas: that many at least",
    },
    Mark {
        mark: "@@replicasMax@@",
        value: "replicasMax",
        is_text: false,
        default: |options| options.replicas.1.clone(),
        says: "and at most",
    },
    Mark {
        mark: "@@cpu@@",
        value: "cpu",
        is_text: true,
        default: |options| options.cpu.clone(),
        says: "What a replica asks for",
    },
    Mark {
        mark: "@@memory@@",
        value: "memory",
        is_text: true,
        default: |options| options.memory.clone(),
        says: "",
    },
    Mark {
        mark: "@@logLevel@@",
        value: "logLevel",
        is_text: true,
        default: |options| options.log_level.clone(),
        says: "What is logged",
    },
];

/// An expression that stands for two braces.
const LITERAL: &str = "{{ `{{` }}";

/// Makes the chart of an installation. Namespace, revision and tags are those of the options; what else
/// differs from one cluster to another are values.
///
/// # Errors
/// If the options cannot be installed.
pub fn chart(
    options: &Options,
    rules: &[Rule],
    definitions: &[Value],
    version: &str,
) -> Result<Chart, OptionsError> {
    options.check()?;
    let marked = Options {
        image: "@@image@@".to_owned(),
        cluster: "@@cluster@@".to_owned(),
        network: "@@network@@".to_owned(),
        replicas: ("@@replicasMin@@".to_owned(), "@@replicasMax@@".to_owned()),
        cpu: "@@cpu@@".to_owned(),
        memory: "@@memory@@".to_owned(),
        log_level: "@@logLevel@@".to_owned(),
        ..options.clone()
    };
    // Helm makes the namespace itself, and definitions are a folder of their own, which upgrades leave alone.
    let mut objects = manifests(&marked, rules, Vec::new());
    objects.retain(|object| !is_kept(object));
    let yaml = |objects: &[Value]| to_yaml(objects).unwrap_or_default();
    // What is no expression of ours is none of Helm's: names of lines in a board.
    let mut text = yaml(&objects).replace("{{", LITERAL);
    for Mark { mark, value, is_text, .. } in MARKS {
        let expression = format!("{{{{ .Values.{value} }}}}");
        let quoted = if *is_text { format!("{{{{ .Values.{value} | quote }}}}") } else { expression.clone() };
        text = text.replace(&format!("\"{mark}\""), &quoted).replace(&format!("'{mark}'"), &quoted);
        text = text.replace(mark, &expression);
    }
    let values: String = MARKS
        .iter()
        .map(|Mark { value, is_text, default, says, .. }| {
            let default = default(options);
            let default = if *is_text { format!("{default:?}") } else { default };
            let says = if says.is_empty() { String::new() } else { format!("# {says}\n") };
            format!("{says}{value}: {default}\n")
        })
        .collect();
    let about = format!(
        "apiVersion: v2\nname: {}\ndescription: An istiod-compatible control plane for stock Envoy\ntype: application\nversion: {version}\nappVersion: {version:?}\n",
        options.name()
    );
    let mut files = vec![
        ("Chart.yaml".to_owned(), about),
        ("values.yaml".to_owned(), values),
        ("templates/navarch.yaml".to_owned(), text),
    ];
    if !definitions.is_empty() {
        files.push(("crds/crds.yaml".to_owned(), yaml(definitions)));
    }
    Ok(Chart(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Helm makes of the default values is what `navarch install` makes.
    #[test]
    fn the_chart_and_the_manifests_are_the_same() {
        let options = Options {
            network: "n1".to_owned(),
            tags: vec!["prod".to_owned()],
            monitor: true,
            ..Options::default()
        };
        let Chart(files) = chart(&options, &[], &[], "1.2.3").unwrap();
        let file = |name: &str| &files.iter().find(|(path, _)| path == name).unwrap().1;
        let mut text = file("templates/navarch.yaml").clone();
        assert!(!text.contains("@@"), "{text}");
        for line in file("values.yaml").lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(text.contains(&format!(".Values.{name} ")), "{name}");
            let quoted = if value.starts_with('"') { value.to_owned() } else { format!("{value:?}") };
            text = text.replace(&format!("{{{{ .Values.{name} | quote }}}}"), &quoted);
            text = text.replace(&format!("{{{{ .Values.{name} }}}}"), value.trim_matches('"'));
        }
        assert!(text.contains(LITERAL), "{text}");
        let text = text.replace(LITERAL, "<<");
        assert!(!text.contains("{{"), "{text}");
        let text = text.replace("<<", "{{");
        let parse = |text: &str| -> Vec<Value> {
            let documents = text.split("---\n").filter(|document| !document.is_empty());
            documents
                .map(|document| navarch_model::values::Json::parse(document).unwrap().to_serde())
                .collect()
        };
        let mut plain = manifests(&options, &[], Vec::new());
        plain.retain(|object| !is_kept(object));
        assert_eq!(parse(&text), parse(&to_yaml(&plain).unwrap()));
    }
}
