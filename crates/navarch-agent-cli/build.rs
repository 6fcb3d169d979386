//! The commit that the binary is built from, if it is built in a checkout.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=NAVARCH_COMMIT");
    let commit = std::env::var("NAVARCH_COMMIT").ok().or_else(checked_out).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    match commit.as_str() {
        "" => println!("cargo::rustc-env=NAVARCH_VERSION={version}"),
        commit => println!("cargo::rustc-env=NAVARCH_VERSION={version} ({commit})"),
    }
}

/// The commit of the checkout; cargo runs this again when it moves.
fn checked_out() -> Option<String> {
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if std::path::Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
