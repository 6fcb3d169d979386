//! Documents to objects: the envelope is read, then the kind's type, then what it says is
//! validated.

use std::sync::Arc;

use crate::cluster::ClusterId;
use crate::finding::{Code, Finding, Severity};
use crate::key::ObjectKey;
use crate::kinds::{Draft, Kind, Layout, Scope};
use crate::networking::ServiceEntryAddress;
use crate::object::{DEFAULT_CREATION, Metadata, Object};
use crate::place::{FilePlace, Place, Position, Span};
use crate::service::{Labels, Name};
use crate::timestamp::parse_timestamp;
use crate::validation::{self, Report};
use crate::yaml::{self, Budget, Decode, Decoder, Document, Fields, Node, Problem, ProblemKind, message};

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Objects that can be used, in the order of the text.
    pub objects: Vec<Object>,
    /// Sorted by place.
    pub findings: Vec<Finding>,
    /// Objects that are there but wrong. Their last good versions should stay in use.
    pub rejected: Vec<ObjectKey>,
    /// Some part of the text could not be read at all, so that an object that is missing may still
    /// be meant to exist.
    pub incomplete: bool,
}

/// What a text is written in, to which the positions in it are relative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenIn {
    /// A file, by the name that positions call it. Its objects are of the local cluster.
    File(Arc<str>),
    /// The API server of a cluster.
    Cluster {
        id: ClusterId,
        /// What positions call it.
        name: Name,
    },
}

impl WrittenIn {
    /// The position of a line and column. In a cluster, only an object as a whole has one: see
    /// [`Place::position`].
    fn position(&self, line: u32, column: u32) -> Option<Position> {
        match self {
            WrittenIn::File(file) => Some(Span { file: file.clone(), line, column }.into()),
            WrittenIn::Cluster { .. } => None,
        }
    }

    fn cluster(&self) -> ClusterId {
        match self {
            WrittenIn::File(_) => ClusterId::LOCAL,
            WrittenIn::Cluster { id, .. } => *id,
        }
    }
}

/// Reads every object of a file. `file` is what positions call it.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Parsed {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_text(file, text),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line =
                u32::try_from(before.iter().filter(|b| **b == b'\n').count()).unwrap_or(u32::MAX - 1) + 1;
            let finding = Finding::error(Code::NotText, "the file is not UTF-8 text")
                .at(Position::from(Span { file: file.into(), line, column: 1 }))
                .hint("save it as UTF-8, or move it out of the configuration directory");
            Parsed { findings: vec![finding], incomplete: true, ..Parsed::default() }
        }
    }
}

/// As [`parse_bytes`], for text.
pub fn parse_text(file: &str, text: &str) -> Parsed {
    parse_objects(&WrittenIn::File(file.into()), text)
}

/// Reads every object of a text: YAML, which includes JSON.
pub fn parse_objects(origin: &WrittenIn, text: &str) -> Parsed {
    let (documents, errors) = yaml::parse(text, Budget::default());
    let mut parsed = Parsed { incomplete: !errors.is_empty(), ..Parsed::default() };
    for error in errors {
        let position = origin.position(error.line, error.column);
        parsed.findings.push(Finding::error(Code::Syntax, error.message).at(position));
    }
    for document in &documents {
        read_document(origin, document, &mut parsed);
    }
    parsed.findings.sort();
    parsed
}

/// Reads an object of a kind as an API server sends it, in JSON. Of kinds of which we know a part of the
/// fields, such as Pods, others are left out, and so is what metadata has for others; fields have no
/// positions.
///
/// # Errors
/// If it is not JSON, or is nested too deep.
pub fn node_of_json(kind: Kind, json: &str) -> serde_json::Result<Node> {
    let fields = match kind.layout() {
        Layout::Spec => Fields::All,
        Layout::Whole => kind.fields(),
    };
    yaml::object_of_json(json, fields, RawMetadata::fields())
}

/// Reads an object that was read from JSON already: see [`node_of_json`]. Findings are
/// about the object as a whole, as fields have no positions.
pub fn parse_node(origin: &WrittenIn, root: Node) -> Parsed {
    let document = Document { root: None, line: 0, text: Arc::default(), duplicates: Vec::new() };
    let context = Context { origin, document: &document, within: String::new(), lines: 0..u32::MAX };
    let mut parsed = Parsed::default();
    read_object(&root, &context, &mut parsed);
    parsed.findings.sort();
    parsed
}

/// Reads the object, or the objects of a list, that one document holds. Empty documents hold none.
fn read_document(origin: &WrittenIn, document: &Document, parsed: &mut Parsed) {
    let Some(root) = &document.root else { return };
    let kind = root.get("kind").and_then(Node::as_str).unwrap_or_default();
    let items = root.get("items").and_then(Node::items);
    match items {
        Some(items) if kind.ends_with("List") => {
            for (index, item) in items.iter().enumerate() {
                let end = items.get(index + 1).map_or(u32::MAX, |next| next.line);
                let within = format!("items[{index}]");
                let context = Context { origin, document, within, lines: item.line..end };
                read_object(item, &context, parsed);
            }
        }
        _ => {
            let context = Context { origin, document, within: String::new(), lines: 0..u32::MAX };
            read_object(root, &context, parsed);
        }
    }
}

/// What an object is a part of: its document, and which part of it.
struct Context<'a> {
    origin: &'a WrittenIn,
    document: &'a Document,
    within: String,
    lines: std::ops::Range<u32>,
}

impl Context<'_> {
    fn position(&self, line: u32, column: u32) -> Option<Position> {
        self.origin.position(line, column)
    }

    fn place(&self, node: &Node, kind: Kind) -> Place {
        let file = match self.origin {
            WrittenIn::File(file) => file.clone(),
            WrittenIn::Cluster { name, .. } => {
                let metadata = node.get("metadata");
                let version = metadata.and_then(|metadata| metadata.get("resourceVersion")?.as_str());
                let resource_version = version.map(Name::from).unwrap_or_default();
                return Place::Cluster { cluster: name.clone(), resource_version };
            }
        };
        let text = match kind {
            Kind::Secret => Arc::default(),
            _ => self.document.text.clone(),
        };
        Place::File(FilePlace {
            file,
            line: node.line,
            column: node.column,
            document_line: self.document.line,
            text,
            within: self.within.clone(),
        })
    }
}

fn read_object(node: &Node, context: &Context<'_>, parsed: &mut Parsed) {
    let kind = match read_kind(node, context) {
        Ok(kind) => kind,
        Err(finding) => {
            parsed.findings.push(*finding);
            return;
        }
    };
    let mut decoder = match kind.layout() {
        Layout::Spec => Decoder::new(),
        Layout::Whole => Decoder::lenient(),
    };
    let metadata = read_metadata(node, kind, &mut decoder);
    let draft = read_spec(node, kind, &mut decoder);
    let key = metadata.as_ref().map(|metadata| ObjectKey {
        kind,
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        cluster: context.origin.cluster(),
    });
    let failed = decoder.failed();
    let mut findings: Vec<Finding> =
        decoder.into_problems().into_iter().map(|problem| from_problem(problem, context)).collect();
    let mut usable = !failed && duplicate_keys(context, &mut findings);
    if let (Some(metadata), Some(draft), true) = (&metadata, &draft, usable) {
        let position = |line, column| context.position(line, column);
        let mut report = Report::new(node, metadata, &position);
        validation::validate_metadata(&mut report);
        validation::validate_annotations(&mut report, kind);
        match kind.layout() {
            Layout::Spec => report.within("spec", |report| draft.validate(report)),
            Layout::Whole => draft.validate(&mut report),
        }
        let reported = report.into_findings();
        usable = reported.iter().all(|finding| finding.severity != Severity::Error);
        findings.extend(reported);
    }
    let place = context.place(node, kind);
    for finding in &mut findings {
        finding.object.clone_from(&key);
        if finding.position.is_none() {
            finding.position = key.as_ref().and_then(|key| place.position(key));
        }
    }
    parsed.findings.append(&mut findings);
    let Some(key) = key else { return };
    match (metadata, draft, usable) {
        (Some(metadata), Some(draft), true) => {
            parsed.objects.push(Object { key, metadata: Arc::new(metadata), spec: draft.into_spec(), place })
        }
        _ => parsed.rejected.push(key),
    }
}

/// Which kind an object is; a finding if it is none that we read.
fn read_kind(node: &Node, context: &Context<'_>) -> Result<Kind, Box<Finding>> {
    let at = |finding: Finding| Box::new(finding.at(context.position(node.line, node.column)));
    if node.entries().is_none() {
        let message = format!("expected an object, found {}", node.describe());
        return Err(at(Finding::error(Code::NotAnObject, message)));
    }
    let text = |field: &str| {
        node.get(field).and_then(Node::as_str).filter(|text| !text.is_empty()).ok_or_else(|| {
            at(Finding::error(Code::NotAnObject, format!("`{field}` is missing"))
                .hint("every document needs apiVersion, kind and metadata.name"))
        })
    };
    let (api_version, kind_text) = (text("apiVersion")?, text("kind")?);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let name =
        node.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::as_str).unwrap_or("?");
    let Some(kind) = Kind::find(group, kind_text) else {
        let message = format!("{kind_text} {name} ({api_version}) is not used by the mesh");
        let finding = match group.ends_with(".istio.io") {
            true => Finding::warning(Code::UnknownKind, message)
                .hint("check the spelling of `kind` and `apiVersion`"),
            false => Finding::info(Code::UnknownKind, message),
        };
        return Err(at(finding));
    };
    if !kind.versions().contains(&version) {
        let message = format!("{kind_text} {name}: version {version:?} of {kind_text} is not served");
        let hint = format!("use apiVersion: {}", kind.api_version());
        let span =
            node.get("apiVersion").map_or((node.line, node.column), |value| (value.line, value.column));
        let finding = Finding::error(Code::UnknownVersion, message).hint(hint).path("apiVersion");
        return Err(Box::new(finding.at(context.position(span.0, span.1))));
    }
    let metadata = node.get("metadata").unwrap_or(node);
    if metadata.get("name").is_none_or(|name| name.is_null() || name.as_str() == Some("")) {
        let finding = Finding::error(Code::NotAnObject, format!("{kind_text} without `metadata.name`"))
            .hint("every document needs apiVersion, kind and metadata.name");
        return Err(Box::new(finding.at(context.position(metadata.line, metadata.column))));
    }
    Ok(kind)
}

message! {
    /// Metadata as written.
    pub struct RawMetadata {
        name: Name,
        namespace: Name,
        labels: Labels,
        annotations: Labels,
        creation_timestamp: String,
        deletion_timestamp: String,
        generation: i64,
        uid: Name,
    }
}

fn read_metadata(node: &Node, kind: Kind, decoder: &mut Decoder) -> Option<Metadata> {
    let Some(entry) = node.entry("metadata") else {
        return decoder.problem(ProblemKind::Invalid, node, "`metadata` is missing");
    };
    decoder.within("metadata", |decoder| {
        // Metadata has fields that only the API server cares about.
        let raw = decoder.leniently(|decoder| RawMetadata::decode(&entry.value, decoder))?;
        if raw.name.is_empty() {
            return decoder.problem(ProblemKind::Invalid, &entry.value, "`name` is missing");
        }
        let namespace = match kind.scope() {
            Scope::Cluster => Name::default(),
            Scope::Namespaced if raw.namespace.is_empty() => Name::from("default"),
            Scope::Namespaced => raw.namespace,
        };
        let mut timestamp = |field: &str, text: &str| {
            if text.is_empty() {
                return None;
            }
            let parsed = parse_timestamp(text);
            if parsed.is_none() {
                let at = entry.value.get(field).unwrap_or(&entry.value);
                let message = format!("{field}: {text:?} is not a time");
                let hint = Some("write it like 2026-01-31T12:00:00Z".to_owned());
                decoder.problem_with_hint::<()>(ProblemKind::Invalid, at, message, hint);
            }
            parsed
        };
        let creation = timestamp("creationTimestamp", &raw.creation_timestamp);
        let deletion = timestamp("deletionTimestamp", &raw.deletion_timestamp);
        Some(Metadata {
            name: raw.name,
            namespace,
            labels: raw.labels,
            annotations: raw.annotations,
            creation_timestamp: creation.unwrap_or(DEFAULT_CREATION),
            deletion_timestamp: deletion,
            generation: raw.generation,
            uid: raw.uid,
        })
    })
}

fn read_spec(node: &Node, kind: Kind, decoder: &mut Decoder) -> Option<Draft> {
    match kind.layout() {
        Layout::Whole => kind.decode(Some(node), decoder),
        Layout::Spec => {
            for entry in node.entries().unwrap_or_default() {
                if !matches!(entry.key.as_str(), "apiVersion" | "kind" | "metadata" | "spec" | "status") {
                    decoder.unknown_field(entry, &["apiVersion", "kind", "metadata", "spec", "status"], &[]);
                }
            }
            let spec = node.get("spec").filter(|spec| !spec.is_null());
            let draft = decoder.within("spec", |decoder| kind.decode(spec, decoder));
            match draft {
                Some(Draft::ServiceEntry(mut entry)) => {
                    entry.status_addresses = read_status_addresses(node);
                    Some(Draft::ServiceEntry(entry))
                }
                draft => draft,
            }
        }
    }
}

/// The addresses that a controller allocated. Users do not write status, so that what is wrong
/// there is no finding.
fn read_status_addresses(node: &Node) -> Vec<ServiceEntryAddress> {
    let addresses = node.get("status").and_then(|status| status.get("addresses"));
    addresses
        .and_then(|addresses| Vec::<ServiceEntryAddress>::decode(addresses, &mut Decoder::lenient()))
        .unwrap_or_default()
}

fn from_problem(problem: Problem, context: &Context<'_>) -> Finding {
    let (severity, code) = match problem.kind {
        ProblemKind::UnknownField => (Severity::Warning, Code::UnknownField),
        ProblemKind::WrongType => (Severity::Error, Code::WrongType),
        ProblemKind::Invalid => (Severity::Error, Code::InvalidValue),
    };
    let mut finding = Finding::new(severity, code, problem.message)
        .at(context.position(problem.line, problem.column))
        .path(problem.path);
    finding.hint = problem.hint;
    finding
}

/// Reports keys that occur twice; returns whether there are none.
///
/// YAML readers disagree on which one counts and the API server refuses them, so the object is not
/// usable.
fn duplicate_keys(context: &Context<'_>, findings: &mut Vec<Finding>) -> bool {
    let mut clean = true;
    for duplicate in &context.document.duplicates {
        if !context.lines.contains(&duplicate.second.0) {
            continue;
        }
        clean = false;
        let message = format!(
            "the key `{}` is there twice, first at line {} column {}",
            duplicate.key, duplicate.first.0, duplicate.first.1
        );
        findings.push(
            Finding::error(Code::DuplicateKey, message)
                .at(context.position(duplicate.second.0, duplicate.second.1))
                .hint("remove one of the two"),
        );
    }
    clean
}
