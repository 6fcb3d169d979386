//! Findings as people, editors and code hosts read them.

use std::collections::BTreeMap;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use navarch_model::finding::{Code, Finding, Severity};
use navarch_model::kinds::Kind;
use navarch_model::place::{Position, Span};
use serde_json::{Value, json};

/// Largest file that lines are shown from, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What the finding is about, without where it is and what to do.
fn title(finding: &Finding) -> String {
    let object = finding.object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
    let path = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
    format!("{object}{path}{}", finding.message)
}

/// The lines of files, read when a finding is about one of them.
#[derive(Default)]
pub struct Lines {
    files: BTreeMap<String, Option<String>>,
}

impl Lines {
    /// The line that a finding is about. `None` if it cannot be read, or might show a part of a Secret.
    fn of(&mut self, finding: &Finding, span: &Span) -> Option<&str> {
        let text = self.files.entry(span.file.to_string()).or_insert_with(|| {
            let size = std::fs::metadata(&*span.file).ok()?.len();
            std::fs::read_to_string(&*span.file).ok().filter(|_| size <= FILE_BYTES_MAX)
        });
        let text = text.as_deref()?;
        let shows_secrets = match &finding.object {
            Some(object) => object.kind == Kind::Secret,
            // What cannot be read as an object may be one.
            None => text.contains("Secret"),
        };
        text.lines().nth(span.line.checked_sub(1)? as usize).filter(|_| !shows_secrets)
    }
}

/// A report with the line that the finding is about, in the manner of compilers.
pub fn report(finding: &Finding, lines: &mut Lines, renderer: &Renderer) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let heading = level.primary_title(title(finding)).id(finding.code.as_str());
    let mut group = match &finding.position {
        Some(Position::File(span)) => match lines.of(finding, span) {
            Some(line) => heading.element(
                Snippet::source(line.to_owned())
                    .line_start(span.line as usize)
                    .path(span.file.to_string())
                    .annotation(AnnotationKind::Primary.span(token(line, span.column))),
            ),
            None => heading.element(
                Origin::path(span.file.to_string())
                    .line(span.line as usize)
                    .char_column(span.column as usize),
            ),
        },
        Some(position @ Position::Cluster { .. }) => heading.element(Origin::path(position.to_string())),
        None => Group::with_title(heading),
    };
    if let Some(other) = &finding.other
        && let Some(position) = &other.position
    {
        group = group.element(Level::NOTE.message(format!("{} is at {position}", other.object)));
    }
    if let Some(hint) = &finding.hint {
        group = group.element(Level::HELP.message(hint));
    }
    renderer.render(&[group])
}

/// The bytes of the word at a column (from 1, in characters).
fn token(line: &str, column: u32) -> std::ops::Range<usize> {
    let column = column.saturating_sub(1) as usize;
    let start = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let rest = line.get(start..).unwrap_or_default();
    let quoted = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
    let length = match quoted {
        Some(quote) => rest.get(1..).and_then(|rest| rest.find(quote)).map_or(rest.len(), |end| end + 2),
        None => rest.find([' ', ',', ']', '}']).unwrap_or(rest.len()),
    };
    start..start + length
}

/// Leaves out the notes on kinds that a mesh does not read, and says in one line what was left out.
pub fn without_foreign_kinds(findings: &[Finding]) -> (Vec<&Finding>, Option<String>) {
    let is_foreign =
        |finding: &&Finding| finding.code == Code::UnknownKind && finding.severity == Severity::Info;
    let (foreign, shown): (Vec<&Finding>, Vec<&Finding>) = findings.iter().partition(is_foreign);
    let said = match foreign.len() {
        0 => None,
        1 => Some("1 object has a kind that a mesh does not read (-v shows it)".to_owned()),
        count => Some(format!("{count} objects have kinds that a mesh does not read (-v lists them)")),
    };
    (shown, said)
}

/// For code scanning: SARIF 2.1.0, "Static Analysis Results Interchange Format".
pub fn sarif(findings: &[Finding]) -> Value {
    let rules = Code::ALL
        .iter()
        .map(|code| json!({ "id": code.as_str(), "shortDescription": { "text": code.title() } }));
    let results = findings.iter().map(|finding| {
        let hint = finding.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
        let mut result = json!({
            "ruleId": finding.code.as_str(),
            "level": match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Info => "note",
            },
            "message": { "text": format!("{}{hint}", title(finding)) },
        });
        if let Some(Position::File(span)) = &finding.position {
            result["locations"] = json!([{ "physicalLocation": physical_location(span) }]);
        }
        if let Some(other) = &finding.other
            && let Some(Position::File(span)) = &other.position
        {
            result["relatedLocations"] = json!([{
                "physicalLocation": physical_location(span),
                "message": { "text": other.object.to_string() },
            }]);
        }
        result
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "navarch",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

fn physical_location(span: &Span) -> Value {
    json!({
        "artifactLocation": { "uri": &*span.file },
        "region": { "startLine": span.line.max(1), "startColumn": span.column.max(1) },
    })
}

/// For GitHub Actions: a workflow command, which becomes an annotation of the changed file.
pub fn workflow_command(finding: &Finding) -> String {
    let command = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "notice",
    };
    let mut properties = Vec::new();
    if let Some(Position::File(span)) = &finding.position {
        properties.push(format!("file={}", escaped(&span.file, true)));
        properties.push(format!("line={},col={}", span.line, span.column));
    }
    properties.push(format!("title={}", finding.code));
    let hint = finding.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    format!("::{command} {}::{}", properties.join(","), escaped(&format!("{}{hint}", title(finding)), false))
}

/// Text in a workflow command, where line breaks end the command, and commas and colons a property.
fn escaped(text: &str, is_property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if is_property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}

#[cfg(test)]
mod tests {
    use navarch_model::ObjectKey;

    use super::*;

    fn finding(file: &str, line: u32, column: u32, kind: Kind) -> Finding {
        Finding::error(Code::OutOfRange, "300 is too much: at most 100 %")
            .at(Position::File(Span { file: file.into(), line, column }))
            .of(ObjectKey::new(kind, "default", "web"))
            .path("spec.weight")
            .hint("say 100")
    }

    #[test]
    fn the_line_is_shown_with_what_is_meant_in_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("web.yaml");
        std::fs::write(&path, "kind: VirtualService\nspec: {weight: 300, ä: 1}\n").expect("written");
        let file = path.display().to_string();
        let text = |finding: &Finding| report(finding, &mut Lines::default(), &Renderer::plain());
        let shown = text(&finding(&file, 2, 16, Kind::VirtualService));
        let expected = format!(
            "error[NAV0303]: VirtualService default/web: spec.weight: 300 is too much: at most 100 %
 --> {file}:2:16
  |
2 | spec: {{weight: 300, ä: 1}}
  |                ^^^
  |
  = help: say 100"
        );
        assert_eq!(shown, expected);
        // A file that is not there, a line that is not there, and a Secret are only named.
        for other in [
            finding("absent.yaml", 2, 16, Kind::VirtualService),
            finding(&file, 7, 1, Kind::VirtualService),
            finding(&file, 0, 0, Kind::VirtualService),
            finding(&file, 2, 16, Kind::Secret),
        ] {
            assert!(!text(&other).contains("{weight"), "{}", text(&other));
        }
    }

    #[test]
    fn a_column_stands_for_a_word() {
        for (line, column, expected) in [
            ("a: bc, d", 4, "bc"),
            ("hosts: [\"a b\", c]", 9, "\"a b\""),
            ("ä: ö", 4, "ö"),
            ("'open", 1, "'open"),
            ("a", 9, ""),
        ] {
            assert_eq!(&line[token(line, column)], expected, "{line}:{column}");
        }
    }

    #[test]
    fn programs_get_the_place_the_code_and_the_words() {
        let finding = finding("a,b.yaml", 2, 3, Kind::VirtualService);
        assert_eq!(
            workflow_command(&finding),
            "::error file=a%2Cb.yaml,line=2,col=3,title=NAV0303::VirtualService default/web: spec.weight: 300 is too much: at \
             most 100 %25%0Asay 100"
        );
        let log = sarif(&[finding]);
        let result = &log["runs"][0]["results"][0];
        assert_eq!(result["ruleId"], "NAV0303");
        assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 2);
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().expect("rules");
        assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]));
    }
}
