//! Texts with many objects.

use std::sync::Arc;

use navarch_model::yaml::{self, Budget, Document, Node};
use navarch_model::{Code, Finding, Position, Span};
use serde_json::Value;

use crate::Settings;
use crate::json;
use crate::objects::{Outcome, inject_object};
use crate::terms::Fault;

/// What became of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Injected {
    /// The text with pods injected. Documents without pods are as they were.
    pub text: String,
    /// What is wrong, and what was left alone; the text is not to be used if one of them is an error.
    pub findings: Vec<Finding>,
    /// How many objects were injected.
    pub count: usize,
}

/// Injects all pods of a text: YAML documents or JSON, lists included. `file` is what positions call it, and
/// `namespace` where objects are that do not say so.
pub fn inject_text(settings: &Settings, namespace: &str, file: &str, text: &str) -> Injected {
    let (documents, errors) = yaml::parse(text, Budget::default());
    let mut walk = Walk { settings, namespace, file: file.into(), injected: Injected::default() };
    for error in errors {
        let finding = Finding::error(Code::Syntax, error.message).at(walk.at(error.line, error.column));
        walk.injected.findings.push(finding);
    }
    for document in &documents {
        walk.document(document);
    }
    walk.injected
}

struct Walk<'a> {
    settings: &'a Settings,
    namespace: &'a str,
    file: Arc<str>,
    injected: Injected,
}

impl Walk<'_> {
    fn at(&self, line: u32, column: u32) -> Position {
        Span { file: self.file.clone(), line, column }.into()
    }

    fn document(&mut self, document: &Document) {
        let Some(root) = &document.root else { return };
        for duplicate in &document.duplicates {
            let message = format!("the key `{}` is there twice", duplicate.key);
            let finding = Finding::error(Code::DuplicateKey, message).hint("remove one of the two");
            self.injected.findings.push(finding.at(self.at(duplicate.second.0, duplicate.second.1)));
        }
        let changed = json::of_node(root).and_then(|value| {
            let before = self.injected.count;
            let value = self.object(root, value);
            (self.injected.count > before).then_some(value)
        });
        let written = changed.and_then(|value| serde_saphyr::to_string(&value).ok());
        let text = written.as_deref().unwrap_or(&document.text);
        let text = text.strip_prefix("---").unwrap_or(text).trim_matches('\n');
        self.injected.text.push_str(&format!("---\n{text}\n"));
    }

    /// An object or a list of objects.
    fn object(&mut self, node: &Node, mut value: Value) -> Value {
        let is_list = node.get("kind").and_then(Node::as_str).is_some_and(|kind| kind.ends_with("List"));
        let nodes = node.get("items").and_then(Node::items).filter(|_| is_list);
        if let (Some(nodes), Some(items)) = (nodes, value.get_mut("items").and_then(Value::as_array_mut)) {
            for (node, item) in nodes.iter().zip(items) {
                *item = self.object(node, std::mem::take(item));
            }
            return value;
        }
        match inject_object(self.settings, self.namespace, &value) {
            Ok(Outcome::NoPods) => value,
            Ok(Outcome::Left(reason)) => {
                let message = format!("the pods get no proxy: {reason}");
                let finding = Finding::info(Code::NoEffect, message).at(self.at(node.line, node.column));
                self.injected.findings.push(finding);
                value
            }
            Ok(Outcome::Injected(injected)) => {
                self.injected.count += 1;
                injected
            }
            Err(fault) => {
                let place = self.place(node, &fault);
                let finding = Finding::error(Code::InvalidValue, fault.to_string()).at(place);
                self.injected.findings.push(finding.hint(
                    "correct it, or leave the pods out with the label sidecar.istio.io/inject: \"false\"",
                ));
                value
            }
        }
    }

    /// Where the fault is: the annotation that it is about, or the object.
    fn place(&self, node: &Node, fault: &Fault) -> Position {
        let annotation = match fault {
            Fault::Annotation { name, .. } => find(node, name),
            _ => None,
        };
        let (line, column) = annotation.unwrap_or((node.line, node.column));
        self.at(line, column)
    }
}

/// Where an annotation is written, wherever in the object that is.
fn find(node: &Node, name: &str) -> Option<(u32, u32)> {
    let entries = node.entries()?;
    let annotations = node.get("annotations").and_then(|annotations| annotations.entry(name));
    let here = annotations.map(|entry| (entry.line, entry.column));
    here.or_else(|| entries.iter().find_map(|entry| find(&entry.value, name)))
}
