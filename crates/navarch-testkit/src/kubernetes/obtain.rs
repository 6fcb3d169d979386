//! Where etcd and kube-apiserver come from.

use crate::go::{Module, Program};
use anyhow::Result;
use std::{path::PathBuf, sync::OnceLock};

/// The release of Kubernetes; the one of etcd is what it is made for.
/// `crates/navarch-testkit/kubernetes/go.mod` names it too.
pub const VERSION: &str = "v1.36.3";

const MODULE: Module<'_> = Module {
    title: "Kubernetes v1.36.3",
    kept_in: "kube",
    dir: "crates/navarch-testkit/kubernetes",
    version: VERSION,
    // What the server says its version is; clients parse it.
    linker_flags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3",
    programs: &[
        Program { name: "etcd", package: "go.etcd.io/etcd/server/v3", is_test: false },
        Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver", is_test: false },
    ],
};

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
    MODULE.build(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_everywhere_the_same() {
        assert!(MODULE.title.ends_with(VERSION));
        assert_eq!(MODULE.linker_flags.matches(VERSION).count(), 2);
    }
}
