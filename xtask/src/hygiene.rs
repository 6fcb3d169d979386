//! Hygiene of files: sizes, leftovers, paths of somebody's machine.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A longer file holds more than one thing. Generated and data files are exempt.
const LINES_MAX: usize = 800;

/// Directories with nothing of ours to check.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// Every problem in the files below `root`, as `path:line: what`.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(root, &mut files).with_context(|| format!("reading {}", root.display()))?;
    files.sort();
    let mut problems = Vec::new();
    for file in files {
        let bytes = fs::read(&file)?;
        // Not text: descriptor sets and the like.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        check_text(&name, &text, &mut problems);
    }
    Ok(problems)
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

fn check_text(name: &str, text: &str, problems: &mut Vec<String>) {
    let source = name.ends_with(".rs");
    let generated =
        name.contains("generated") || text.lines().take(3).any(|line| line.contains("@generated"));
    let lines = text.lines().count();
    if source && !generated && lines > LINES_MAX {
        problems.push(format!("{name}: {lines} lines, more than {LINES_MAX}: split it"));
    }
    for (index, line) in text.lines().enumerate() {
        let mut complain = |what: &str| problems.push(format!("{name}:{}: {what}", index + 1));
        if let Some(path) = machine_paths().iter().find(|path| line.contains(path.as_str())) {
            complain(&format!("{path} is a path of one machine"));
        }
        if source && !generated && leftovers().iter().any(|word| line.contains(word.as_str())) {
            complain("an unfinished piece of work; finish it or write it down where users see it");
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
        let mut problems = Vec::new();
        check_text(name, text, &mut problems);
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
    }

    #[test]
    fn this_checkout_is_clean() {
        let problems = check(&navarch_testkit::workspace::root()).unwrap();
        assert_eq!(problems, Vec::<String>::new());
    }
}
