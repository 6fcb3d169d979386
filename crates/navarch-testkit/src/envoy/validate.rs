//! `envoy --mode validate`: does a real Envoy accept a static configuration?

use crate::{process::tail, workspace};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{path::Path, process::Command};

/// A configuration that Envoy refused.
#[derive(Debug)]
pub struct Rejected {
    pub name: String,
    pub reason: String,
}

/// Checks one complete bootstrap with static resources.
pub fn validate(name: &str, bootstrap: &Value) -> Result<()> {
    let one = [(name.to_owned(), bootstrap.clone())];
    match validate_all(&one)?.pop() {
        None => Ok(()),
        Some(rejected) => bail!("Envoy refuses {}: {}", rejected.name, rejected.reason),
    }
}

/// Checks many, two at a time, and gives those that Envoy refused, in the order of the input.
pub fn validate_all(bootstraps: &[(String, Value)]) -> Result<Vec<Rejected>> {
    let envoy = super::binary()?;
    let dir = workspace::scratch("validate")?;
    let check = |(index, (name, bootstrap)): (usize, &(String, Value))| -> Result<Option<Rejected>> {
        let file = dir.join(format!("{index}.json"));
        std::fs::write(&file, serde_json::to_vec(bootstrap)?)?;
        let reason = refusal(&envoy, &file)?;
        Ok(reason.map(|reason| Rejected { name: name.clone(), reason }))
    };
    let (even, odd): (Vec<_>, Vec<_>) = bootstraps.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    let run = |part: Vec<(usize, &(String, Value))>| -> Result<Vec<(usize, Rejected)>> {
        let mut found = Vec::new();
        for item in part {
            found.extend(check(item)?.map(|rejected| (item.0, rejected)));
        }
        Ok(found)
    };
    let (even, odd) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(odd));
        (run(even), other.join())
    });
    let mut all = even?;
    all.extend(odd.map_err(|_| anyhow::anyhow!("a validating thread panicked"))??);
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, rejected)| rejected).collect())
}

/// Why Envoy refuses the file, if it does.
fn refusal(envoy: &Path, file: &Path) -> Result<Option<String>> {
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--disable-hot-restart", "-l", "error", "-c"])
        .arg(file)
        .output()
        .with_context(|| format!("running {}", envoy.display()))?;
    if output.status.success() {
        return Ok(None);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // A crash says what it is first, and then where for many lines.
    let reason = match text.lines().find(|line| line.contains("Caught ")) {
        Some(crash) => crash.to_owned(),
        None => tail(text.trim(), 6),
    };
    Ok(Some(reason))
}
