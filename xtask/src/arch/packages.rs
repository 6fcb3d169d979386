//! `deny.toml`, without `cargo deny`: licences, bans, duplicates and sources of all packages in the tree.
//!
//! The program itself is three hundred packages that would be compiled before every check, and advisories,
//! the one thing that only it can do, need a database from a network that a build machine may not have.

use super::tree;
use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package, semver::VersionReq};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// What this reads of the file; `cargo deny` knows the rest.
#[derive(Debug, Deserialize)]
pub struct Rules {
    graph: GraphRules,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct GraphRules {
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    krate: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
    skip: Vec<Skip>,
}

/// A package that must not be in the tree.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    #[serde(rename = "crate")]
    krate: String,
    use_instead: String,
    reason: String,
    /// The packages that may still depend on it.
    #[serde(default)]
    wrappers: Vec<String>,
}

/// A version that may be there beside another.
#[derive(Debug, Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    spec: String,
}

/// A package in the tree, and which packages depend on it.
struct Member<'a> {
    package: &'a Package,
    users: BTreeSet<&'a str>,
}

/// Every violation of `deny.toml` in `root`.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let file = root.join("deny.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let rules: Rules = toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let mut options = vec!["--locked".to_owned()];
    options.extend(
        rules.graph.targets.iter().flat_map(|target| ["--filter-platform".to_owned(), target.clone()]),
    );
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .features(cargo_metadata::CargoOpt::AllFeatures)
        .other_options(options)
        .exec()?;
    let built = tree::built(&rules.graph.targets)?;
    let mut members = members(&metadata);
    members.retain(|Member { package, .. }| {
        package.source.is_some() && built.contains(&(package.name.to_string(), package.version.to_string()))
    });
    for member in &mut members {
        member.users.retain(|user| built.iter().any(|(name, _)| name == user));
    }
    rules.violations(&members)
}

fn members(metadata: &Metadata) -> Vec<Member<'_>> {
    let packages: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let mut users: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for node in nodes.clone() {
        for dependency in &node.deps {
            users.entry(&dependency.pkg).or_default().insert(packages[&node.id].name.as_str());
        }
    }
    let member = |id| Member { package: packages[id], users: users.get(id).cloned().unwrap_or_default() };
    nodes.map(|node| member(&node.id)).collect()
}

impl Rules {
    fn violations(&self, members: &[Member<'_>]) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for Member { package, users } in members {
            let named = format!("{} {}", package.name, package.version);
            problems.extend(self.license(package)?.map(|problem| format!("{named}: {problem}")));
            if let Some(source) = package.source.as_ref().filter(|source| !source.is_crates_io()) {
                problems.push(format!("{named} comes from {source}; packages come from crates.io"));
            }
            problems.extend(self.ban(package, users).map(|problem| format!("{named}: {problem}")));
            if !self.skips(package)? {
                versions.entry(&package.name).or_default().push(package.version.to_string());
            }
        }
        for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
            let versions = versions.join(" and ");
            problems.push(format!(
                "{name} is there as {versions}: bring those who use it to one version, or say in [bans] skip of deny.toml why not"
            ));
        }
        for skip in &self.bans.skip {
            let used = members.iter().any(|member| matches(&skip.spec, member.package).unwrap_or(false));
            if !used {
                problems
                    .push(format!("deny.toml: nothing is left of {} in [bans] skip; remove it", skip.spec));
            }
        }
        Ok(problems)
    }

    fn ban(&self, package: &Package, users: &BTreeSet<&str>) -> Option<String> {
        let ban = self.bans.deny.iter().find(|ban| ban.krate == package.name.as_str())?;
        let user = users.iter().find(|user| !ban.wrappers.iter().any(|wrapper| wrapper == *user))?;
        let Ban { use_instead, reason, .. } = ban;
        Some(format!("banned ({reason}; use {use_instead}), but {user} needs it"))
    }

    fn license(&self, package: &Package) -> Result<Option<String>> {
        let Some(text) = &package.license else { return Ok(Some("states no licence".to_owned())) };
        let expression = spdx::Expression::parse_mode(text, spdx::ParseMode::LAX)
            .with_context(|| format!("the licence of {}: {text}", package.name))?;
        let exception = self.licenses.exceptions.iter().find(|one| one.krate == package.name.as_str());
        let exception = exception.map(|one| one.allow.as_slice()).unwrap_or_default();
        let allowed = |required: &spdx::LicenseReq| {
            let name = required.to_string();
            [&self.licenses.allow, exception].into_iter().flatten().any(|allowed| *allowed == name)
        };
        let fits = expression.evaluate(allowed);
        Ok((!fits).then(|| format!("the licence {text} is not in [licenses] of deny.toml")))
    }

    fn skips(&self, package: &Package) -> Result<bool> {
        for skip in &self.bans.skip {
            if matches(&skip.spec, package)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether `name@version` means the package.
fn matches(spec: &str, package: &Package) -> Result<bool> {
    let (name, version) = spec.split_once('@').unwrap_or((spec, "*"));
    let version = VersionReq::parse(version).with_context(|| format!("deny.toml: {spec}"))?;
    Ok(name == package.name.as_str() && version.matches(&package.version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, version: &str, license: &str) -> Package {
        let source = "registry+https://github.com/rust-lang/crates.io-index";
        let value = json!({
            "name": name, "version": version, "license": license, "source": source, "id": format!("{name}@{version}"),
            "dependencies": [], "targets": [], "features": {}, "manifest_path": "Cargo.toml", "edition": "2021",
            "license_file": null, "description": null, "categories": [], "keywords": [], "readme": null,
            "repository": null, "homepage": null, "documentation": null, "links": null, "publish": null,
            "default_run": null, "rust_version": null, "authors": [], "metadata": null,
        });
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(packages: &[(&str, &str, &str, &str)], expected: &[&str]) {
        let rules: Rules = toml::from_str(
            r#"
            graph = { targets = [] }
            licenses = { allow = ["MIT", "Apache-2.0"], exceptions = [{ crate = "weak", allow = ["MPL-2.0+"] }] }
            [bans]
            deny = [{ crate = "bad", use-instead = "good", reason = "old", wrappers = ["wrapper"] }]
            skip = [{ crate = "two@1" }]
            "#,
        )
        .unwrap();
        let owned: Vec<Package> =
            packages.iter().map(|(name, version, license, _)| package(name, version, license)).collect();
        let members: Vec<Member<'_>> = owned
            .iter()
            .zip(packages)
            .map(|(package, (.., user))| Member { package, users: BTreeSet::from([*user]) })
            .collect();
        let problems = rules.violations(&members).unwrap();
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, text) in problems.iter().zip(expected) {
            assert!(problem.contains(text), "{problem}");
        }
    }

    const SKIPPED: (&str, &str, &str, &str) = ("two", "1.9.0", "MIT", "a");

    #[test]
    fn what_is_allowed_passes() {
        check(&[SKIPPED, ("two", "2.0.0", "MIT", "a")], &[]);
        check(&[SKIPPED, ("weak", "1.0.0", "MPL-2.0+", "a"), ("b", "1.0.0", "GPL-3.0 OR MIT", "a")], &[]);
        check(&[SKIPPED, ("bad", "1.0.0", "MIT/Apache-2.0", "wrapper")], &[]);
    }

    #[test]
    fn what_is_not_allowed_is_found() {
        check(&[SKIPPED, ("b", "1.0.0", "MPL-2.0+", "a")], &["b 1.0.0: the licence MPL-2.0+ is not"]);
        check(&[SKIPPED, ("b", "1.0.0", "MIT AND GPL-3.0", "a")], &["MIT AND GPL-3.0 is not"]);
        check(
            &[SKIPPED, ("bad", "1.0.0", "MIT", "a")],
            &["bad 1.0.0: banned (old; use good), but a needs it"],
        );
        check(
            &[SKIPPED, ("b", "1.0.0", "MIT", "a"), ("b", "2.0.0", "MIT", "a")],
            &["b is there as 1.0.0 and 2.0.0"],
        );
        check(&[("two", "2.0.0", "MIT", "a")], &["nothing is left of two@1"]);
    }
}
