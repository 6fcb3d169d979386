//! What runs: the suite, and the programs that stand for images.

use anyhow::{Context, Result};
use navarch_testkit::{
    envoy,
    go::{Module, Program},
    navarch,
};
use std::path::{Path, PathBuf};

/// The module of the suite and of what the rig needs in Go. `go.mod` has their versions.
const MODULE: Module<'_> = Module {
    title: "the conformance suite of the Gateway API",
    kept_in: "conformance",
    dir: "crates/navarch-conformance/suite",
    version: "",
    linker_flags: "-s -w",
    programs: &[
        Program { name: "suite", package: ".", is_test: true },
        Program {
            name: "echo-basic",
            package: "sigs.k8s.io/gateway-api/conformance/echo-basic",
            is_test: false,
        },
        Program { name: "echo-advanced", package: "./echo/server", is_test: false },
        Program { name: "client", package: "./echo/client", is_test: false },
        Program { name: "names", package: "./names", is_test: false },
        Program { name: "kubelet", package: "./kubelet", is_test: false },
    ],
};

/// Where all programs are.
#[derive(Debug)]
pub struct Programs {
    home: PathBuf,
    pub navarch: PathBuf,
    pub envoy: PathBuf,
}

/// What stands for an image: a program, and what is in its environment whatever the pod says.
#[derive(Debug)]
pub struct Image {
    pub program: PathBuf,
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl Programs {
    /// Obtains all of them; what is not there yet is built.
    pub fn obtain() -> Result<Programs> {
        let home = MODULE.build(&|step| eprintln!("{step}; once, it takes minutes"))?;
        Ok(Programs { home, navarch: navarch::binary()?, envoy: envoy::binary()? })
    }

    pub fn suite(&self) -> PathBuf {
        self.home.join("suite")
    }

    pub fn kubelet(&self) -> PathBuf {
        self.home.join("kubelet")
    }

    /// Where containers look for programs.
    pub fn path(&self) -> String {
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.home.display())
    }

    pub fn image(&self, image: &str) -> Result<Image> {
        let name = image.rsplit('/').next().unwrap_or_default().split([':', '@']).next().unwrap_or_default();
        let program = match name {
            "navarch" => self.navarch.clone(),
            "echo-basic" | "echo-advanced" => self.home.join(name),
            "coredns" => self.home.join("names"),
            _ => return Err(anyhow::anyhow!("no program stands for the image {image}")),
        };
        let envoy = (name == "navarch").then(|| ("NAVARCH_ENVOY", self.envoy.clone()));
        Ok(Image { program, environment: envoy.into_iter().collect() })
    }
}

/// The CustomResourceDefinitions that come with the suite, as they are written.
pub fn definitions(channel: &str) -> Result<Vec<String>> {
    let dir = MODULE.required("sigs.k8s.io/gateway-api")?.join("config/crd").join(channel);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    let is_definition = |text: &String| text.contains("\nkind: CustomResourceDefinition\n");
    let texts = paths.iter().map(|path| read(path)).collect::<Result<Vec<String>>>()?;
    Ok(texts.into_iter().filter(is_definition).collect())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
