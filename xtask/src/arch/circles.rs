//! Circles: files of a crate that import each other.
//!
//! Files in a circle can only be read, moved and tested together, so a circle is one file that was cut in the
//! wrong place. The import graph has an edge from the file that names an item to the file that defines it;
//! re-exports are followed, `mod` and `pub use` alone are not edges, and code under `#[cfg(test)]` does not
//! count. A circle is a strongly connected component.

use super::imports::{Imports, Path as ItemPath, read};
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A module by its path in the crate; the crate's root is empty.
type Module = Vec<String>;

/// Re-exports are followed this far; longer chains are loops.
const DEPTH_MAX: usize = 8;

/// The circles of one crate, each as the paths of its files below `src`, sorted.
pub fn of_crate(src: &Path) -> Result<Vec<Vec<String>>> {
    let mut files = BTreeMap::new();
    collect(src, &mut Vec::new(), &mut files)?;
    Ok(circles(&files))
}

fn collect(dir: &Path, at: &mut Module, files: &mut BTreeMap<Module, (String, Imports)>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    // `lib.rs` comes before `main.rs`, which is then a crate of its own.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            if name == "generated" {
                continue;
            }
            at.push(name);
            collect(&path, at, files)?;
            at.pop();
        } else if let Some(stem) = name.strip_suffix(".rs") {
            let mut module = at.clone();
            if !matches!(stem, "lib" | "main" | "mod") {
                module.push(stem.to_owned());
            }
            let text = fs::read_to_string(&path)?;
            let imports = read(&text).with_context(|| format!("reading {}", path.display()))?;
            let shown = at.iter().map(|dir| format!("{dir}/")).collect::<String>() + &name;
            files.entry(module).or_insert((shown, imports));
        }
    }
    Ok(())
}

fn circles(files: &BTreeMap<Module, (String, Imports)>) -> Vec<Vec<String>> {
    let edges: BTreeMap<&Module, BTreeSet<Module>> =
        files.keys().map(|module| (module, uses(files, module))).collect();
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        files.keys().map(|module| (module, reach(&edges, module))).collect();
    let mut found = BTreeSet::new();
    for module in files.keys() {
        let circle: Vec<&Module> =
            reached[module].iter().filter(|other| reached[*other].contains(module)).collect();
        if circle.len() > 1 {
            let mut names: Vec<String> = circle.iter().map(|module| files[*module].0.clone()).collect();
            names.sort();
            found.insert(names);
        }
    }
    found.into_iter().collect()
}

/// Everything that can be reached from `from`; itself only by way of others.
fn reach(edges: &BTreeMap<&Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in &edges[module] {
            if found.insert(next.clone()) {
                open.push(edges.get_key_value(next).map_or(from, |(key, _)| key));
            }
        }
    }
    found
}

/// The other modules whose items `module` names.
fn uses(files: &BTreeMap<Module, (String, Imports)>, module: &Module) -> BTreeSet<Module> {
    let imports = &files[module].1;
    let graph = Graph { files };
    let named =
        imports.private.iter().chain(&imports.paths).filter_map(|path| graph.resolve(module, path, 0));
    let reexported = imports.names.iter().filter(|(name, _)| imports.words.contains(*name));
    let reexported = reexported.filter_map(|(_, path)| graph.resolve(module, path, 0));
    named.chain(reexported).filter(|found| found != module).collect()
}

struct Graph<'a> {
    files: &'a BTreeMap<Module, (String, Imports)>,
}

impl Graph<'_> {
    /// The module of this crate that defines what `path` names in `module`; `None` for other crates and for
    /// what is local.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        if depth > DEPTH_MAX {
            return None;
        }
        let (mut at, mut rest) = self.start(module, path, depth)?;
        while let Some((next, more)) = rest.split_first() {
            let mut child = at.clone();
            child.push(next.clone());
            if self.files.contains_key(&child) {
                (at, rest) = (child, more.to_vec());
                continue;
            }
            let imports = &self.files.get(&at)?.1;
            // What a module imports for itself says nothing of where it is itself named from.
            if &at != module
                && let Some(target) = imports.names.get(next)
            {
                let longer: ItemPath = target.iter().chain(more).cloned().collect();
                return Some(self.resolve(&at, &longer, depth + 1).unwrap_or(at));
            }
            if !imports.defined.contains(next) {
                let everything = imports.globs.iter().filter_map(|glob| self.resolve(&at, glob, depth + 1));
                let definer = everything.into_iter().find(|found| {
                    self.files.get(found).is_some_and(|(_, imports)| imports.defined.contains(next))
                });
                return Some(definer.unwrap_or(at));
            }
            break;
        }
        Some(at)
    }

    /// The module in which the rest of the path is looked up.
    fn start(&self, module: &Module, path: &[String], depth: usize) -> Option<(Module, ItemPath)> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some((Vec::new(), rest.to_vec())),
            "self" => Some((module.clone(), rest.to_vec())),
            "super" => {
                let supers = path.iter().take_while(|part| *part == "super").count();
                let up = module.len().checked_sub(supers)?;
                Some((module[..up].to_vec(), path[supers..].to_vec()))
            }
            name => {
                let mut child = module.clone();
                child.push(name.to_owned());
                if self.files.contains_key(&child) {
                    return Some((child, rest.to_vec()));
                }
                // A module that was imported by name: `use crate::yaml;` and then `yaml::parse`.
                let target = self.files.get(module)?.1.names.get(name)?;
                if rest.is_empty() || target.first() == Some(first) {
                    return None;
                }
                let (at, more) = self.start(module, target, depth + 1).filter(|_| depth < DEPTH_MAX)?;
                Some((at, more.into_iter().chain(rest.iter().cloned()).collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `files` are `path: text`, one a line.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&[&str]]) {
        let dir = navarch_testkit::workspace::scratch("circles").unwrap();
        for (path, text) in files {
            let file = dir.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        assert_eq!(of_crate(&dir).unwrap(), expected);
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let a = "use crate::b::B;\npub struct A(B);";
        check(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", "pub struct B;")], &[]);
        let b = "pub struct B(Vec<crate::a::A>);";
        check(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)], &[&["a.rs", "b.rs"]]);
        let b = "use super::a;\npub fn b() { a::a() }";
        check(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)], &[&["a.rs", "b.rs"]]);
    }

    #[test]
    fn re_exports_are_followed_and_no_edges() {
        let parent = "mod one;\nmod two;\npub use one::One;\npub use two::Two;";
        let one = "use super::Two;\npub struct One(Two);";
        check(&[("m/mod.rs", parent), ("m/one.rs", one), ("m/two.rs", "pub struct Two;")], &[]);
        let two = "use crate::m::One;\npub struct Two(Box<One>);";
        check(&[("m/mod.rs", parent), ("m/one.rs", one), ("m/two.rs", two)], &[&["m/one.rs", "m/two.rs"]]);
    }

    #[test]
    fn a_parent_that_uses_a_child_that_uses_it_is_a_circle() {
        let parent = "mod one;\npub use one::One;\npub fn f(x: One) {}";
        let child = "pub struct One;\nfn g() { super::f(One) }";
        check(&[("m/mod.rs", parent), ("m/one.rs", child)], &[&["m/mod.rs", "m/one.rs"]]);
    }

    #[test]
    fn tests_and_comments_do_not_count() {
        let a = "use crate::b::B;\npub struct A(B);";
        let b = "/// See [`crate::a::A`].\npub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }";
        check(&[("a.rs", a), ("b.rs", b)], &[]);
    }
}
