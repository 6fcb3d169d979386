//! Text to nodes, within a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span as EventSpan, Tag};

use super::node::{Document, Duplicate, Entry, Node, Value};
use super::scalar::Style;

/// Limits on what one text may ask of us. Tenants write the text, and a few lines of aliases can stand for
/// gigabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Nesting of mappings and sequences, aliases expanded.
    pub depth: usize,
    /// Nodes of one document, aliases expanded.
    pub nodes: usize,
    /// Bytes of text.
    pub bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { depth: 100, nodes: 2_000_000, bytes: 64 << 20 }
    }
}

/// A place where the text is not YAML, or asks for too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: u32,
    pub column: u32,
    pub message: String,
}

impl SyntaxError {
    fn at(span: &EventSpan, message: impl Into<String>) -> Self {
        let (line, column) = position(span);
        Self { line, column, message: message.into() }
    }
}

impl From<&ScanError> for SyntaxError {
    fn from(error: &ScanError) -> Self {
        let marker = error.marker();
        Self { line: narrow(marker.line()), column: narrow(marker.col() + 1), message: error.info() }
    }
}

/// Reads all documents of a text. A document that is not YAML gives an error and reading goes on with the
/// next one.
pub fn parse(text: &str, budget: Budget) -> (Vec<Document>, Vec<SyntaxError>) {
    if text.len() > budget.bytes {
        let message = format!("the text is larger than {} bytes", budget.bytes);
        return (Vec::new(), vec![SyntaxError { line: 1, column: 1, message }]);
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    // One more than ours, so that it is ours that is reported.
    options.flow_nesting_limit = budget.depth.saturating_add(1);
    options.block_nesting_limit = budget.depth.saturating_add(1);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    let mut builder: Option<Builder> = None;
    while let Some(next) = parser.next_event() {
        let error = match next {
            Ok((event, span)) => match step(&mut builder, event, &span, text, budget) {
                Ok(None) => continue,
                Ok(Some(document)) => {
                    documents.push(document);
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => SyntaxError::from(&error),
        };
        errors.push(error);
        builder = None;
        match parser.proceed_next_document() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let error = SyntaxError::from(&error);
                if errors.last() != Some(&error) {
                    errors.push(error);
                }
                break;
            }
        }
    }
    (documents, errors)
}

fn step(
    builder: &mut Option<Builder>,
    event: Event<'_>,
    span: &EventSpan,
    text: &str,
    budget: Budget,
) -> Result<Option<Document>, SyntaxError> {
    match event {
        Event::DocumentStart(..) => {
            *builder = Some(Builder::new(span, budget));
            Ok(None)
        }
        Event::DocumentEnd => Ok(builder.take().map(|builder| builder.finish(text, span))),
        Event::StreamStart | Event::StreamEnd => Ok(None),
        event => match builder {
            Some(builder) => builder.event(event, span).map(|()| None),
            None => Ok(None),
        },
    }
}

/// Repeated keys of one document that are recorded.
const MOST_DUPLICATES: usize = 100;

/// Position of an event, 1-based.
fn position(span: &EventSpan) -> (u32, u32) {
    (narrow(span.start.line()), narrow(span.start.col() + 1))
}

fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A collection that is still open.
struct Frame {
    node: Open,
    line: u32,
    column: u32,
    anchor: usize,
    size: usize,
    depth: usize,
}

enum Open {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, index: BTreeMap<String, (u32, u32)>, key: Option<Key>, merged: Vec<Node> },
}

/// A key whose value has not come yet.
struct Key {
    text: String,
    plain: bool,
    line: u32,
    column: u32,
}

/// A finished node with what it costs.
struct Sized {
    node: Node,
    size: usize,
    depth: usize,
}

struct Builder {
    budget: Budget,
    line: u32,
    offset: Option<usize>,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Sized>,
    nodes: usize,
    duplicates: Vec<Duplicate>,
}

impl Builder {
    fn new(span: &EventSpan, budget: Budget) -> Self {
        Self {
            budget,
            line: narrow(span.start.line()),
            offset: span.start.byte_offset(),
            stack: Vec::new(),
            root: None,
            anchors: BTreeMap::new(),
            nodes: 0,
            duplicates: Vec::new(),
        }
    }

    fn finish(self, text: &str, end: &EventSpan) -> Document {
        let start = self.offset.unwrap_or(0).min(text.len());
        // Back to the line's start, so that columns stay what they are when the document is read alone.
        let start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        let end = end.start.byte_offset().unwrap_or(text.len()).clamp(start, text.len());
        Document {
            root: self.root.filter(|root| !root.is_null()),
            line: self.line,
            text: Arc::from(text.get(start..end).unwrap_or(text)),
            duplicates: self.duplicates,
        }
    }

    fn event(&mut self, event: Event<'_>, span: &EventSpan) -> Result<(), SyntaxError> {
        let (line, column) = position(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = scalar_style(style, tag.as_deref());
                let node = Node { value: Value::Scalar { text: text.into_owned(), style }, line, column };
                self.complete(Sized { node, size: 1, depth: 0 }, anchor, span)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Open::Sequence(Vec::new()), anchor, span),
            Event::MappingStart(_, anchor, _) => {
                let mapping = Open::Mapping {
                    entries: Vec::new(),
                    index: BTreeMap::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.open(mapping, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(frame) => self.close(frame, span),
                None => Ok(()),
            },
            Event::Alias(id) => {
                let (size, depth, mut node) = match self.anchors.get(&id) {
                    Some(target) => {
                        // Count before copying: the copy is what an alias bomb is after.
                        if self.nodes.saturating_add(target.size) > self.budget.nodes {
                            return Err(self.too_many(span));
                        }
                        (target.size, target.depth, target.node.clone())
                    }
                    None => {
                        let message = "an alias must come after the end of the node it repeats";
                        return Err(SyntaxError::at(span, message));
                    }
                };
                (node.line, node.column) = (line, column);
                self.complete(Sized { node, size, depth }, 0, span)
            }
            _ => Ok(()),
        }
    }

    fn too_many(&self, span: &EventSpan) -> SyntaxError {
        SyntaxError::at(span, format!("the document expands to more than {} nodes", self.budget.nodes))
    }

    fn open(&mut self, node: Open, anchor: usize, span: &EventSpan) -> Result<(), SyntaxError> {
        if self.stack.len() >= self.budget.depth {
            return Err(SyntaxError::at(span, format!("nested deeper than {} levels", self.budget.depth)));
        }
        if let Some(Frame { node: Open::Mapping { key: None, .. }, .. }) = self.stack.last() {
            return Err(SyntaxError::at(span, "keys must be scalars"));
        }
        let (line, column) = position(span);
        self.stack.push(Frame { node, line, column, anchor, size: 1, depth: 0 });
        Ok(())
    }

    fn close(&mut self, frame: Frame, span: &EventSpan) -> Result<(), SyntaxError> {
        let in_sequence = matches!(self.stack.last(), Some(Frame { node: Open::Sequence(_), .. }));
        let value = match frame.node {
            Open::Sequence(items) => Value::Sequence(items),
            Open::Mapping { entries, .. }
                if in_sequence && is_address(&entries, frame.line, frame.column) =>
            {
                let text = entries.into_iter().map(|entry| entry.key + ":").collect();
                Value::Scalar { text, style: Style::Plain }
            }
            Open::Mapping { mut entries, mut index, merged, .. } => {
                for source in merged {
                    merge_entries(&mut entries, &mut index, source);
                }
                Value::Mapping(entries)
            }
        };
        let node = Node { value, line: frame.line, column: frame.column };
        // Its children were counted when they were completed.
        self.nodes = self.nodes.saturating_sub(frame.size - 1);
        self.complete(Sized { node, size: frame.size, depth: frame.depth + 1 }, frame.anchor, span)
    }

    /// Puts a finished node into the collection around it.
    fn complete(&mut self, done: Sized, anchor: usize, span: &EventSpan) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(done.size);
        if self.nodes > self.budget.nodes {
            return Err(self.too_many(span));
        }
        if self.stack.len() + done.depth > self.budget.depth {
            return Err(SyntaxError::at(span, format!("nested deeper than {} levels", self.budget.depth)));
        }
        if anchor != 0 {
            self.nodes = self.nodes.saturating_add(done.size);
            let copy = Sized { node: done.node.clone(), size: done.size, depth: done.depth };
            self.anchors.insert(anchor, copy);
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(done.node);
            return Ok(());
        };
        frame.size = frame.size.saturating_add(done.size);
        frame.depth = frame.depth.max(done.depth);
        match &mut frame.node {
            Open::Sequence(items) => items.push(done.node),
            Open::Mapping { entries, index, key, merged } => match key.take() {
                None => *key = Some(as_key(done.node, span)?),
                Some(key) if key.plain && key.text == "<<" => merge_sources(done.node, merged, span)?,
                Some(key) => {
                    let position = (key.line, key.column);
                    match index.get(&key.text) {
                        Some(first) => {
                            if self.duplicates.len() < MOST_DUPLICATES {
                                let (first, second) = (*first, position);
                                self.duplicates.push(Duplicate { key: key.text, first, second });
                            }
                        }
                        None => {
                            index.insert(key.text.clone(), position);
                            let (line, column) = position;
                            entries.push(Entry { key: key.text, line, column, value: done.node });
                        }
                    }
                }
            },
        }
        Ok(())
    }
}

fn scalar_style(style: ScalarStyle, tag: Option<&Tag>) -> Style {
    let text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
    if style == ScalarStyle::Plain && !text { Style::Plain } else { Style::Text }
}

fn as_key(node: Node, span: &EventSpan) -> Result<Key, SyntaxError> {
    match node.value {
        Value::Scalar { text, style } => {
            Ok(Key { text, plain: style == Style::Plain, line: node.line, column: node.column })
        }
        _ => Err(SyntaxError::at(span, "keys must be scalars")),
    }
}

/// Whether a mapping in a list is an IPv6 address that ends in `::`. `[2001:db8::]` is a mapping from
/// `2001:db8:` to nothing to YAML 1.2 and the address to Go's reader. The two are told apart from `[{…}]` by
/// the place of the key, and from `[a:]` by the colon in it.
fn is_address(entries: &[Entry], line: u32, column: u32) -> bool {
    let [entry] = entries else { return false };
    // A value that is not there is placed at the colon.
    let colon = column.saturating_add(narrow(entry.key.chars().count()));
    let absent = entry.value.is_null() && (entry.value.line, entry.value.column) == (line, colon);
    absent && (entry.line, entry.column) == (line, column) && entry.key.ends_with(':')
}

/// The mappings that `<<` names, in order of precedence.
fn merge_sources(node: Node, merged: &mut Vec<Node>, span: &EventSpan) -> Result<(), SyntaxError> {
    let wrong = || SyntaxError::at(span, "`<<` needs a mapping or a list of mappings");
    match node.value {
        Value::Mapping(_) => merged.push(node),
        Value::Sequence(items) => {
            for item in items {
                if !matches!(item.value, Value::Mapping(_)) {
                    return Err(wrong());
                }
                merged.push(item);
            }
        }
        Value::Scalar { .. } => return Err(wrong()),
    }
    Ok(())
}

/// Adds the entries of a merged mapping whose keys are not there yet (YAML 1.1's merge key).
fn merge_entries(entries: &mut Vec<Entry>, index: &mut BTreeMap<String, (u32, u32)>, source: Node) {
    if let Value::Mapping(more) = source.value {
        for entry in more {
            if !index.contains_key(&entry.key) {
                index.insert(entry.key.clone(), (entry.line, entry.column));
                entries.push(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compact form of a tree, with the position of every scalar.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, .. } => format!("{text}@{}:{}", node.line, node.column),
            Value::Sequence(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Mapping(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|entry| {
                        format!("{}@{}:{}={}", entry.key, entry.line, entry.column, show(&entry.value))
                    })
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    fn check(text: &str, expected: &[&str]) {
        let (documents, errors) = parse(text, Budget::default());
        assert_eq!(errors, [], "{text}");
        let shown: Vec<String> =
            documents.iter().map(|document| document.root.as_ref().map_or("-".to_owned(), show)).collect();
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn positions_are_those_of_the_file() {
        check("a: 1\nb:\n  - x\n  - {c: y}\n", &["{a@1:1=1@1:4 b@2:1=[x@3:5 {c@4:6=y@4:9}]}"]);
        check("{\"a\": [1, \"é\", 2]}", &["{a@1:2=[1@1:8 é@1:11 2@1:16]}"]);
        check("a: |\n  text\n", &["{a@1:1=text\n@2:3}"]);
    }

    #[test]
    fn addresses_in_lists_are_no_mappings() {
        check("[::1, 2001:db8::, a]", &["[::1@1:2 2001:db8::@1:7 a@1:19]"]);
        check("[fe80::]", &["[fe80::@1:2]"]);
        check("- fe80::1\n- a\n", &["[fe80::1@1:3 a@2:3]"]);
        check("[a: b]", &["[{a@1:2=b@1:5}]"]);
        check("[a:: ~]", &["[{a:@1:2=~@1:6}]"]);
    }

    #[test]
    fn empty_documents_are_kept() {
        check("", &[]);
        check("---\n---\na: 1\n---\n# nothing\n", &["-", "{a@3:1=1@3:4}", "-"]);
    }

    #[test]
    fn aliases_and_merge_keys_are_expanded() {
        check("a: &x {k: 1}\nb: *x\n", &["{a@1:1={k@1:8=1@1:11} b@2:1={k@1:8=1@1:11}}"]);
        check(
            "a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  k: 3\n",
            &["{a@1:1={k@1:8=1@1:11 l@1:14=2@1:17} b@2:1={k@4:3=3@4:6 l@1:14=2@1:17}}"],
        );
    }

    #[test]
    fn a_document_read_alone_has_the_same_positions() {
        let text = "# first\na: 1\n---\n  b:\n    c: 2\n---\nd: 3\n";
        let (documents, _) = parse(text, Budget::default());
        for document in documents {
            let (again, _) = parse(&document.text, Budget::default());
            let (mut whole, mut alone) = (document.root.unwrap(), again[0].root.clone().unwrap());
            fn first(node: &mut Node) -> (u32, u32) {
                match &mut node.value {
                    Value::Mapping(entries) => (entries[0].line, entries[0].column),
                    _ => (node.line, node.column),
                }
            }
            let (line, column) = first(&mut alone);
            assert_eq!((line + document.line - 1, column), first(&mut whole), "{:?}", document.text);
        }
    }

    #[test]
    fn repeated_keys_are_reported_with_both_places() {
        let (documents, _) = parse("a: 1\nb: {x: 1, x: 2}\na: 3\n", Budget::default());
        let places: Vec<_> =
            documents[0].duplicates.iter().map(|d| (d.key.as_str(), d.first, d.second)).collect();
        assert_eq!(places, [("x", (2, 5), (2, 11)), ("a", (1, 1), (3, 1))]);
        assert_eq!(documents[0].root.as_ref().unwrap().get("a").unwrap().as_str(), None);
    }

    #[test]
    fn budgets_hold() {
        let budget = Budget { depth: 3, nodes: 20, bytes: 100 };
        let check = |text: &str, expected: &str| {
            let (_, errors) = parse(text, budget);
            let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
            assert!(messages.iter().any(|message| message.contains(expected)), "{text}: {messages:?}");
        };
        assert_eq!(parse("[[[1]]]", budget).1, []);
        check("[[[[1]]]]", "nest");
        check("a:\n b:\n  c:\n   d:\n    e: 1\n", "nest");
        check("a: &a [[1]]\nb: [*a]\n", "nested deeper than 3");
        check("a: &a [1,2,3,4,5,6]\nb: [*a, *a]\n", "more than 20 nodes");
        check(&"x".repeat(101), "larger than 100 bytes");
    }

    #[test]
    fn a_broken_document_does_not_take_the_next_one_with_it() {
        let (documents, errors) = parse("a: 1\n---\nb: [1\n---\nc: 3\n", Budget::default());
        assert_eq!((documents.len(), errors.len()), (2, 1));
        assert!(documents[1].root.as_ref().unwrap().get("c").is_some());
    }
}
