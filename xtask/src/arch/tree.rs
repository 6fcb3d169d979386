//! What cargo would build.

use anyhow::{Result, bail};
use navarch_testkit::workspace;
use std::collections::BTreeSet;

/// Names and versions of all packages that are built on any of the platforms. The metadata of cargo also
/// lists optional packages that only a weak feature (`package?/feature`) names.
pub fn built(targets: &[String]) -> Result<BTreeSet<(String, String)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["tree", "--locked", "--workspace", "--all-features"])
        .args(targets.iter().flat_map(|target| ["--target", target]))
        .args(["--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"])
        .current_dir(workspace::root())
        .output()?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.lines().map(|line| line.split_whitespace());
    let package = |mut words: std::str::SplitWhitespace<'_>| {
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    };
    Ok(words.filter_map(package).collect())
}
