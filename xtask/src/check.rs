//! `cargo xtask test` and `cargo xtask golden`.

use anyhow::{Context, Result, bail};
use navarch_testkit::{envoy, workspace};
use std::{ffi::OsStr, process::Command, time::Instant};

/// Runs everything. Fails, and never skips, if there is no Envoy to test against.
pub fn test(args: &[String]) -> Result<()> {
    let mut steps = Vec::new();
    let started = Instant::now();
    let envoy = envoy::binary()?;
    println!("envoy: {}", envoy.display());
    steps.push(("obtain Envoy", started.elapsed()));

    let mut timed = |what, command: &mut Command| -> Result<()> {
        let started = Instant::now();
        let result = run(command.env("NAVARCH_ENVOY", &envoy));
        steps.push((what, started.elapsed()));
        result
    };
    // The tests build the binary too, but not in every selection of packages.
    timed("build the binary", cargo("build").args(["--package", "navarch-cli"]))?;
    let tests = timed("run the tests", cargo("test").args(["--workspace", "--no-fail-fast"]).args(args));

    println!("\n{:<20} {:>8}", "step", "seconds");
    for (what, took) in &steps {
        println!("{what:<20} {:>8.1}", took.as_secs_f64());
    }
    println!("{}", if tests.is_ok() { "all tests passed" } else { "TESTS FAILED" });
    tests
}

/// Every test named `golden*` is one; with `--update` they rewrite instead of comparing.
pub fn golden(update: bool) -> Result<()> {
    let mut command = cargo("test");
    command.args(["--workspace", "--quiet", "golden"]);
    if update {
        command.env("NAVARCH_UPDATE", "1");
    }
    run(&mut command)
}

/// The cargo that runs us, in the root of the checkout.
fn cargo(subcommand: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(workspace::root());
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
