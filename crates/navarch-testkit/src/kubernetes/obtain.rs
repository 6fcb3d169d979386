//! Where etcd and kube-apiserver come from.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    hash::Hasher,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use xxhash_rust::xxh3::Xxh3;

/// The release of Kubernetes; the one of etcd is what it is made for.
/// `crates/navarch-testkit/kubernetes/go.mod` names it too.
pub const VERSION: &str = "v1.36.3";

/// The programs, and the Go packages they are.
const PROGRAMS: [(&str, &str); 2] =
    [("etcd", "go.etcd.io/etcd/server/v3"), ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")];

/// Where the programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub etcd: PathBuf,
    pub kube_apiserver: PathBuf,
}

/// The programs, built from Go modules the first time and kept in `target/kube/<key>`; the key is
/// made of what they are built from. The first time takes minutes, and three gigabytes of Go's
/// build cache.
///
/// Never skips: without Go it is an error that says what to do. Safe to call from many processes at
/// once.
pub fn binaries() -> Result<Binaries> {
    static FOUND: OnceLock<Binaries> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let home = build_all(&|_| {})?;
    let found = Binaries { etcd: home.join("etcd"), kube_apiserver: home.join("kube-apiserver") };
    Ok(FOUND.get_or_init(|| found).clone())
}

/// Builds what is not there yet, and gives the directory that it is in. Before each program, `says`
/// is told what is about to happen.
pub fn build_all(says: &(dyn Fn(&str) + Sync)) -> Result<PathBuf> {
    let module = workspace::root().join("crates/navarch-testkit/kubernetes");
    let home = workspace::target_dir().join("kube").join(key(&module)?);
    if PROGRAMS.iter().all(|(name, _)| home.join(name).is_file()) {
        return Ok(home);
    }
    std::fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
    let lock = File::create(home.join("lock"))?;
    // Tests run in parallel; the first one builds, the others wait here.
    lock.lock().context("waiting for another process that builds Kubernetes")?;
    for (name, package) in PROGRAMS {
        if !home.join(name).is_file() {
            says(&format!("building {name} of Kubernetes {VERSION} from Go modules"));
            build(&module, &home, name, package)?;
        }
    }
    Ok(home)
}

/// What the programs are built from, as a number.
fn key(module: &Path) -> Result<String> {
    let mut hasher = Xxh3::new();
    hasher.write(VERSION.as_bytes());
    for file in ["go.mod", "go.sum"] {
        let path = module.join(file);
        hasher.write(&std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn build(module: &Path, home: &Path, name: &str, package: &str) -> Result<()> {
    let partial = home.join(format!("{name}.partial"));
    // What the server says its version is; clients parse it.
    let version = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={VERSION} -X k8s.io/client-go/pkg/version.gitVersion={VERSION}"
    );
    let mut command = Command::new("nice");
    command.args(["go", "build", "-trimpath", "-mod=readonly", "-ldflags", &version, "-o"]).arg(&partial);
    command.arg(package).current_dir(module).env("CGO_ENABLED", "0").env("GOWORK", "off");
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "cannot build {name}: {command:?}: {}: {}\nThese tests need Go 1.26 or newer, and its modules \
             (GOPROXY) or what is in its cache already.",
            output.status,
            crate::process::tail(&String::from_utf8_lossy(&said), 10)
        );
    }
    std::fs::rename(&partial, home.join(name))?;
    Ok(())
}
