//! Goldens: one folder per case, expected output beside its input.
//!
//! ```text
//! <case>/input.yaml  proxies.yaml  [meshconfig.yaml  README]        written by people
//! <case>/findings.txt  <proxy>/{clusters,endpoints,listeners,...}.json   written by `--update`
//! ```
//!
//! `NAVARCH_UPDATE=1` (or `cargo xtask golden --update`) rewrites the second row and removes what
//! no proxy produces any more.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// Files of a case that people write.
const INPUTS: [&str; 4] = ["input.yaml", "proxies.yaml", "meshconfig.yaml", "README"];

/// One case: a folder with at least `input.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub name: String,
    pub dir: PathBuf,
}

/// What a case produced.
#[derive(Debug, Default, Clone)]
pub struct Answer {
    /// Written to `findings.txt`; no file when empty.
    pub findings: String,
    /// Proxy name -> file stem (`clusters`, ...) -> resources.
    pub proxies: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
}

/// Runs every case below `root` and compares, or rewrites with `NAVARCH_UPDATE=1`. The error
/// lists every file that differs, with the first differing lines.
pub fn run(root: &Path, mut answer: impl FnMut(&Case) -> Result<Answer>) -> Result<()> {
    let update = updating();
    let mut report = String::new();
    let cases = cases(root)?;
    if cases.is_empty() {
        bail!("no golden cases in {}", root.display());
    }
    for case in &cases {
        let files = answer(case).map(|answer| files(&answer));
        match files.with_context(|| format!("golden case {}", case.name)) {
            Err(error) => writeln!(report, "{error:#}")?,
            Ok(files) if update => rewrite(&case.dir, &files)?,
            Ok(files) => compare(case, &files, &mut report)?,
        }
    }
    if !report.is_empty() {
        bail!("{report}\nIf the change is meant, run `cargo xtask golden --update` and review the diff.");
    }
    Ok(())
}

/// Whether goldens are rewritten, and not compared. The one switch of the whole workspace.
pub fn updating() -> bool {
    std::env::var_os("NAVARCH_UPDATE").is_some_and(|value| value == "1")
}

/// Goldens that are one file each: `answer` makes of the text of a file what the file should be.
pub fn texts(directory: &Path, answer: impl Fn(&str) -> Result<String>) -> Result<()> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        paths.push(entry?.path());
    }
    paths.sort();
    let mut report = String::new();
    for path in &paths {
        let text = std::fs::read_to_string(path)?;
        match answer(&text) {
            Err(error) => writeln!(report, "{}: {error:#}", path.display())?,
            Ok(made) if made == text => {}
            Ok(made) if updating() => std::fs::write(path, made)?,
            Ok(made) => {
                let line = made.lines().zip(text.lines()).position(|(made, text)| made != text);
                let line = line.unwrap_or_else(|| made.lines().count().min(text.lines().count()));
                let at = |text: &str| text.lines().nth(line).unwrap_or("the end").to_owned();
                writeln!(report, "{}:{}: {} is now {}", path.display(), line + 1, at(&text), at(&made))?;
            }
        }
    }
    if paths.is_empty() {
        bail!("no goldens in {}", directory.display());
    }
    if !report.is_empty() {
        bail!("{report}\nIf the change is meant, run `cargo xtask golden --update` and review the diff.");
    }
    Ok(())
}

/// All cases below `root`, sorted by name.
pub fn cases(root: &Path) -> Result<Vec<Case>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).with_context(|| format!("reading {}", root.display()))? {
        let dir = entry?.path();
        if dir.join("input.yaml").is_file() {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Case { name, dir });
        }
    }
    found.sort();
    Ok(found)
}

/// Relative path -> content.
fn files(answer: &Answer) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    if !answer.findings.is_empty() {
        files.insert("findings.txt".to_owned(), with_newline(&answer.findings));
    }
    for (proxy, types) in &answer.proxies {
        for (stem, resources) in types {
            let text = serde_json::to_string_pretty(resources).unwrap_or_default();
            files.insert(format!("{proxy}/{stem}.json"), with_newline(&text));
        }
    }
    files
}

fn with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

/// Relative paths of the generated files that exist now.
fn existing(dir: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            for inner in std::fs::read_dir(entry.path())? {
                found.insert(format!("{name}/{}", inner?.file_name().to_string_lossy()));
            }
        } else if !INPUTS.contains(&name.as_str()) {
            found.insert(name);
        }
    }
    Ok(found)
}

fn rewrite(dir: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    for orphan in existing(dir)?.iter().filter(|path| !files.contains_key(*path)) {
        std::fs::remove_file(dir.join(orphan))?;
        if let Some((proxy, _)) = orphan.split_once('/') {
            // Fails while other files are left in it, as it should.
            let _ = std::fs::remove_dir(dir.join(proxy));
        }
    }
    for (path, content) in files {
        let file = dir.join(path);
        std::fs::create_dir_all(file.parent().unwrap_or(dir))?;
        if std::fs::read_to_string(&file).ok().as_ref() != Some(content) {
            std::fs::write(file, content)?;
        }
    }
    Ok(())
}

fn compare(case: &Case, files: &BTreeMap<String, String>, report: &mut String) -> Result<()> {
    for orphan in existing(&case.dir)?.iter().filter(|path| !files.contains_key(*path)) {
        writeln!(report, "{}/{orphan}: nothing produces this file", case.name)?;
    }
    for (path, actual) in files {
        match std::fs::read_to_string(case.dir.join(path)) {
            Err(_) => writeln!(report, "{}/{path}: no such golden", case.name)?,
            Ok(expected) if expected == *actual => {}
            Ok(expected) => {
                writeln!(report, "{}/{path}: differs\n{}", case.name, difference(&expected, actual))?;
            }
        }
    }
    Ok(())
}

/// The first place where two texts differ, with a little around it.
fn difference(expected: &str, actual: &str) -> String {
    const BEFORE: usize = 3;
    const SHOWN: usize = 8;
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let end = end.min(old.len().min(new.len()) - same);
    let mut text = format!("  at line {}:\n", same + 1);
    for line in &old[same.saturating_sub(BEFORE)..same] {
        let _ = writeln!(text, "    {line}");
    }
    for (sign, lines) in [('-', &old[same..old.len() - end]), ('+', &new[same..new.len() - end])] {
        for line in lines.iter().take(SHOWN) {
            let _ = writeln!(text, "  {sign} {line}");
        }
        if lines.len() > SHOWN {
            let _ = writeln!(text, "  {sign} ... {} more lines", lines.len() - SHOWN);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(value: Value) -> Answer {
        let types = BTreeMap::from([("clusters".to_owned(), vec![value])]);
        Answer { findings: String::new(), proxies: BTreeMap::from([("a".to_owned(), types)]) }
    }

    #[test]
    fn a_golden_is_written_compared_and_cleaned() {
        let root = crate::workspace::scratch("golden").unwrap();
        let case = Case { name: "one".to_owned(), dir: root.join("one") };
        std::fs::create_dir_all(case.dir.join("gone")).unwrap();
        std::fs::write(case.dir.join("input.yaml"), "").unwrap();
        std::fs::write(case.dir.join("gone/routes.json"), "[]").unwrap();
        assert_eq!(cases(&root).unwrap(), std::slice::from_ref(&case));

        let compared = |value| {
            let mut report = String::new();
            compare(&case, &files(&answer(value)), &mut report).unwrap();
            report
        };
        let report = compared(json!(1));
        assert!(report.contains("one/gone/routes.json: nothing produces"), "{report}");
        assert!(report.contains("one/a/clusters.json: no such golden"), "{report}");

        rewrite(&case.dir, &files(&answer(json!(1)))).unwrap();
        assert_eq!(compared(json!(1)), "");
        assert!(!case.dir.join("gone").exists());
        let report = compared(json!(2));
        assert!(report.contains("-   1") && report.contains("+   2"), "{report}");
    }
}
