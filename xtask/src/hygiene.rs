//! Hygiene of files: sizes, leftovers, paths of somebody's machine, what may not be named where.

use crate::{documents, names};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A longer file holds more than one thing. Generated and data files are exempt.
const LINES_MAX: usize = 800;

/// Comments are as wide as rustfmt makes code.
pub const COLUMNS_MAX: usize = 110;

/// What sources below a directory may not name.
struct Unnamed {
    below: &'static str,
    text: &'static str,
    why: &'static str,
}

const UNNAMED: [Unnamed; 1] = [Unnamed {
    below: "crates/navarch-plan/src",
    text: "navarch_envoy::proto",
    why: "a gather makes inputs of translators; only translators know Envoy's types",
}];

/// What is wrong, and what may only become less.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub problems: Vec<String>,
    /// `path:line` of comment lines wider than [`COLUMNS_MAX`].
    pub wide_comments: Vec<String>,
}

/// Directories with nothing of ours to check.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// Every problem in the files below `root`, as `path:line: what`.
pub fn check(root: &Path) -> Result<Found> {
    let mut files = Vec::new();
    collect(root, &mut files).with_context(|| format!("reading {}", root.display()))?;
    files.sort();
    let mut found = Found::default();
    let mut index = documents::Index::default();
    let mut names = names::Names::default();
    for file in files {
        let bytes = fs::read(&file)?;
        // Not text: descriptor sets and the like.
        let text = String::from_utf8(bytes).unwrap_or_default();
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        check_text(&name, &text, &mut found);
        index.add(&name, &text);
        names.add(&name, &text);
    }
    found.problems.extend(index.check());
    found.problems.extend(names.check());
    Ok(found)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            collect(&entry.path(), files)?;
        } else if kind.is_file() && entry.file_name() != ".git" {
            // A worktree has a file of that name.
            files.push(entry.path());
        }
    }
    Ok(())
}

fn check_text(name: &str, text: &str, found: &mut Found) {
    let Found { problems, wide_comments } = found;
    let source = name.ends_with(".rs");
    let generated =
        name.contains("generated") || text.lines().take(3).any(|line| line.contains("@generated"));
    let lines = text.lines().count();
    if source && !generated && lines > LINES_MAX {
        problems.push(format!("{name}: {lines} lines, more than {LINES_MAX}: split it"));
    }
    let here = |rule: &&Unnamed| name.starts_with(rule.below);
    let unnamed: Vec<&Unnamed> = UNNAMED.iter().filter(here).collect();
    for (index, line) in text.lines().enumerate() {
        let comment = line.trim_start().starts_with("//");
        if source && !generated && comment && line.chars().count() > COLUMNS_MAX {
            wide_comments.push(format!("{name}:{}", index + 1));
        }
        let mut complain = |what: &str| problems.push(format!("{name}:{}: {what}", index + 1));
        if let Some(path) = machine_paths().iter().find(|path| line.contains(path.as_str())) {
            complain(&format!("{path} is a path of one machine"));
        }
        if source && !generated && leftovers().iter().any(|word| line.contains(word.as_str())) {
            complain("an unfinished piece of work; finish it or write it down where users see it");
        }
        for rule in unnamed.iter().filter(|rule| !comment && line.contains(rule.text)) {
            complain(&format!("`{}` must not be named below {}: {}", rule.text, rule.below, rule.why));
        }
    }
}

/// Assembled, so that this file passes its own check.
fn machine_paths() -> [String; 4] {
    ["home", "root", "Users", "work"].map(|dir| format!("/{dir}/"))
}

fn leftovers() -> [String; 4] {
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("todo", "!(")].map(|(a, b)| format!("{a}{b}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_case(name: &str, text: &str, expected: &[&str]) {
        let mut found = Found::default();
        check_text(name, text, &mut found);
        let problems = found.problems;
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, text) in problems.iter().zip(expected) {
            assert!(problem.contains(text), "{problem}");
        }
    }

    #[test]
    fn problems_are_found() {
        let long = "x\n".repeat(LINES_MAX + 1);
        check_case("src/a.rs", &long, &["801 lines"]);
        check_case("src/generated/a.rs", &long, &[]);
        check_case("input.yaml", &long, &[]);
        check_case("a.md", &format!("one\nsee {}me\n", machine_paths()[0]), &["a.md:2: "]);
        check_case("a.rs", &format!("// {} later\n", leftovers()[0]), &["a.rs:1: an unfinished"]);
        check_case("a.rs", "fn main() {}\n", &[]);
        let plan = "crates/navarch-plan/src/gather/x.rs";
        check_case(plan, "use navarch_envoy::proto::x;\n", &["x.rs:1: `navarch_envoy::proto` must not be"]);
        check_case("crates/navarch-translate/src/x.rs", "use navarch_envoy::proto::x;\n", &[]);
    }

    #[test]
    fn wide_comments_are_counted() {
        let mut found = Found::default();
        let text =
            format!("// {}\n// {}\nlet wide = \"{}\";\n", "x".repeat(107), "x".repeat(108), "x".repeat(200));
        check_text("a.rs", &text, &mut found);
        assert_eq!(found, Found { problems: Vec::new(), wide_comments: vec!["a.rs:2".to_owned()] });
    }

    #[test]
    fn this_checkout_is_clean() {
        let found = check(&navarch_testkit::workspace::root()).unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
    }
}
