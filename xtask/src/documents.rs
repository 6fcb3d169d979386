//! What the documents name exists: files, folders and items in back-ticks, tests in the files that are named
//! before them, and the targets of links.

use std::collections::{BTreeMap, BTreeSet};

/// Everything in the checkout that a document may name.
#[derive(Debug, Default)]
pub struct Index {
    /// Files and folders, relative to the root.
    paths: BTreeSet<String>,
    /// Every identifier in Rust sources.
    words: BTreeSet<String>,
    /// The functions of each Rust source.
    functions: BTreeMap<String, BTreeSet<String>>,
    /// Documents by name.
    documents: Vec<(String, String)>,
}

/// What a reader would look for as a file.
const EXTENSIONS: [&str; 5] = [".rs", ".md", ".toml", ".txt", ".proto"];

/// Pages that say what was so on their day.
const DATED: &str = "docs/decisions/";

/// A name in a document, with its line.
#[derive(Debug, PartialEq, Eq)]
enum Name<'a> {
    Code(&'a str),
    /// A function, and the source that is named before it: `` `a.rs` `works` ``.
    In(&'a str, &'a str),
    Link(&'a str),
}

impl Index {
    /// Takes in one file of the checkout. `text` is empty if it is not text.
    pub fn add(&mut self, name: &str, text: &str) {
        let ends = name.match_indices('/').map(|(end, _)| end).chain([name.len()]);
        self.paths.extend(ends.map(|end| name[..end].to_owned()));
        if name.ends_with(".rs") {
            let words =
                text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            self.functions.insert(name.to_owned(), functions.map(str::to_owned).collect());
            for word in words {
                if !self.words.contains(word) {
                    self.words.insert(word.to_owned());
                }
            }
        }
        let top = ["README.md", "ARCHITECTURE.md"].contains(&name);
        if top || (name.starts_with("docs/") && name.ends_with(".md")) {
            self.documents.push((name.to_owned(), text.to_owned()));
        }
    }

    /// Every name in a document that leads nowhere, as `path:line: what`.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (document, text) in &self.documents {
            for (line, name) in names(text) {
                if let Some(what) = self.missing(document, &name) {
                    problems.push(format!("{document}:{line}: {what}"));
                }
            }
        }
        problems
    }

    fn missing(&self, document: &str, name: &Name<'_>) -> Option<String> {
        let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
        match name {
            Name::Link(target) => {
                let target = target.split('#').next().unwrap_or_default().trim_end_matches('/');
                let outside = target.is_empty() || target.contains(':');
                let found = outside || joined(folder, target).is_some_and(|path| self.paths.contains(&path));
                (!found).then(|| format!("the link to {target} leads nowhere"))
            }
            Name::In(source, function) => {
                let is_it = |known: &&String| {
                    joined(folder, source).as_ref() == Some(*known) || ends_with_path(known, source)
                };
                let mut sources = self.functions.keys().filter(is_it);
                let found = sources.any(|known| self.functions[known].contains(*function));
                (!found).then(|| format!("there is no `{function}` in `{source}`"))
            }
            Name::Code(code) if is_path(code) => {
                let wanted = alternatives(code.trim_end_matches('/'));
                let gone = wanted.iter().find(|path| !self.has_path(folder, path))?;
                Some(format!("`{gone}` is not in this checkout"))
            }
            Name::Code(code) if !document.starts_with(DATED) => {
                let item = code.split(['(', '<']).next().unwrap_or_default();
                let gone = item_parts(item)?.into_iter().find(|part| !self.words.contains(*part))?;
                Some(format!("there is no `{gone}` (of `{code}`) in the sources"))
            }
            Name::Code(_) => None,
        }
    }

    /// A path from the root, from the document, or the end of one.
    fn has_path(&self, folder: &str, path: &str) -> bool {
        if joined(folder, path).is_some_and(|path| self.paths.contains(&path)) {
            return true;
        }
        let (first, last) = path.split_once('*').unwrap_or((path, ""));
        let glob = path.contains('*');
        self.paths.iter().any(|known| {
            let start = match known.find(first) {
                Some(start) if start == 0 || known[..start].ends_with(['/', '-']) => start + first.len(),
                _ => return false,
            };
            if glob { known[start..].ends_with(last) } else { start == known.len() }
        })
    }
}

/// Whether a path is the end of another one.
fn ends_with_path(known: &str, end: &str) -> bool {
    known.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// `../a` from `docs` is `a`; `None` if it leads out of the checkout.
fn joined(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Whether a reader would take it for a file or folder of this checkout.
fn is_path(code: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-{},*".contains(c);
    let ours = ["crates/", "docs/", "xtask/", "examples/", ".ci/"];
    let source = code.ends_with(".rs") && code.len() > ".rs".len();
    let starts = ours.iter().any(|dir| code.starts_with(dir) || code.starts_with(&format!("../{dir}")));
    let named = code.starts_with("navarch-") && code.contains('/');
    let ends = code.contains('/') && EXTENSIONS.iter().any(|end| code.ends_with(end));
    let elsewhere = code.starts_with(['/', '*', '.']) && !starts || code.starts_with("target/");
    code.chars().all(plain) && !elsewhere && (source || starts || named || ends)
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn alternatives(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((inside, after)) = rest.split_once('}') else { return vec![path.to_owned()] };
    inside.split(',').flat_map(|one| alternatives(&format!("{before}{one}{after}"))).collect()
}

/// The parts of `a::B`; `None` if it is not such a path.
fn item_parts(item: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = item.split("::").collect();
    let word = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let ours = !matches!(parts.first(), Some(&("std" | "tokio" | "envoy")));
    (parts.len() > 1 && parts.iter().all(word) && ours).then_some(parts)
}

/// Whether a word looks like the name of a test.
fn is_function(code: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    code.contains('_') && code.chars().all(plain)
}

/// Names in back-ticks and targets of links outside blocks of code, with their lines.
fn names(text: &str) -> Vec<(usize, Name<'_>)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let listed = |line: &str| line.trim_start().starts_with(['-', '*', '|']);
        if fenced || (line.starts_with("    ") && !listed(line)) {
            continue;
        }
        let mut rest = line;
        let mut source = None;
        while let Some(at) = rest.find('`') {
            let Some(end) = rest[at + 1..].find('`') else { break };
            let code = &rest[at + 1..at + 1 + end];
            source = source.filter(|_| matches!(&rest[..at], " " | ", "));
            match source {
                Some(source) if is_function(code) => found.push((index + 1, Name::In(source, code))),
                _ => found.push((index + 1, Name::Code(code))),
            }
            if code.ends_with(".rs") && is_path(code) {
                source = Some(code);
            }
            rest = &rest[at + end + 2..];
        }
        for (at, mark) in line.match_indices("](") {
            let target = &line[at + mark.len()..];
            found.extend(target.find(')').map(|end| (index + 1, Name::Link(&target[..end]))));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(document: &str, text: &str, expected: &[&str]) {
        let mut index = Index::default();
        index.add("crates/navarch-a/src/b/mod.rs", "pub struct Thing; impl Thing { fn made() {} }");
        index.add("crates/navarch-a/src/b/c.rs", "");
        index.add("docs/page.md", "");
        index.add(document, text);
        assert_eq!(index.check(), expected);
    }

    #[test]
    fn what_exists_may_be_named() {
        check(
            "README.md",
            "`crates/navarch-a`, `navarch-a/src/b/`, `c.rs`, `b/{mod,c}.rs`, `crates/*/src`",
            &[],
        );
        check(
            "docs/x.md",
            "`Thing::made`, [page](page.md#part), [up](../docs/page.md), [out](https://a.test)",
            &[],
        );
        check("README.md", "`name/value`, `/etc/x.yaml`, `target/x.json`, `mesh.yaml`, `std::fs::read`", &[]);
        check("README.md", "    `crates/gone` in a block\n```\n`crates/gone`\n```\n", &[]);
        check("docs/decisions/1.md", "`Thing::renamed` since", &[]);
    }

    #[test]
    fn tests_are_in_the_files_that_are_named_before_them() {
        check("docs/x.md", "| `b/mod.rs` `made` | `c.rs` and `made_up` |", &[]);
        let gone = "docs/x.md:1: there is no `it_works` in `b/mod.rs`";
        check("docs/x.md", "| `b/mod.rs` `it_works` |", &[gone]);
        check("docs/x.md", "| `b/mod.rs` `made`, `it_works` |", &[gone]);
        check("docs/x.md", "`b/mod.rs` has `it_works`", &[]);
    }

    #[test]
    fn what_is_gone_is_found() {
        check("README.md", "see\n`crates/gone`", &["README.md:2: `crates/gone` is not in this checkout"]);
        check("README.md", "`b/{c,d}.rs`", &["README.md:1: `b/d.rs` is not in this checkout"]);
        check("docs/x.md", "[a](gone.md)", &["docs/x.md:1: the link to gone.md leads nowhere"]);
        let item = "README.md:1: there is no `unmade` (of `Thing::unmade()`) in the sources";
        check("README.md", "`Thing::unmade()`", &[item]);
    }
}
