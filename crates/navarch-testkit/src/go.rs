//! Programs of Go modules, built once and kept.

use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    hash::Hasher,
    path::{Path, PathBuf},
    process::Command,
};
use xxhash_rust::xxh3::Xxh3;

/// A Go module of ours, below the root of the checkout, and what is built from it.
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    /// What it is, for those who wait for it, and the directory below `target` that programs are kept in.
    pub title: &'a str,
    pub kept_in: &'a str,
    /// Where it is in the checkout.
    pub dir: &'a str,
    /// The version of what is built, if `go.mod` does not say it.
    pub version: &'a str,
    /// Flags for the linker.
    pub linker_flags: &'a str,
    pub programs: &'a [Program<'a>],
}

/// A program, and the package that it is.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    pub name: &'a str,
    pub package: &'a str,
    /// Whether it is the tests of the package.
    pub is_test: bool,
}

impl Module<'_> {
    /// Builds what is not there yet, and gives the directory that it is in: `target/<kept_in>/<key>`, where
    /// the key is made of what the programs are built from. Before each program, `says` is told what is about
    /// to happen. Safe to call from many processes at once.
    pub fn build(&self, says: &(dyn Fn(&str) + Sync)) -> Result<PathBuf> {
        let home = workspace::target_dir().join(self.kept_in).join(self.key()?);
        if self.programs.iter().all(|program| home.join(program.name).is_file()) {
            return Ok(home);
        }
        std::fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
        let lock = File::create(home.join("lock"))?;
        // Tests run in parallel; the first one builds, the others wait here.
        lock.lock().with_context(|| format!("waiting for another process that builds {}", self.title))?;
        for program in self.programs {
            if !home.join(program.name).is_file() {
                says(&format!("building {} of {} from Go modules", program.name, self.title));
                self.build_one(program, &home)?;
            }
        }
        Ok(home)
    }

    /// The directory of a module that this one requires, in Go's cache.
    pub fn required(&self, path: &str) -> Result<PathBuf> {
        let mut command = self.go();
        command.args(["list", "-m", "-f", "{{.Dir}}", path]);
        let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || said.trim().is_empty() {
            bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(said.trim().into())
    }

    /// What the programs are built from, as a number.
    fn key(&self) -> Result<String> {
        let mut hasher = Xxh3::new();
        hasher.write(self.version.as_bytes());
        for file in files_below(&self.directory())? {
            hasher.write(&std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }

    fn directory(&self) -> PathBuf {
        workspace::root().join(self.dir)
    }

    fn go(&self) -> Command {
        let mut command = Command::new("nice");
        command.arg("go").current_dir(self.directory()).env("CGO_ENABLED", "0").env("GOWORK", "off");
        command
    }

    fn build_one(&self, program: &Program<'_>, home: &Path) -> Result<()> {
        let partial = home.join(format!("{}.partial", program.name));
        let mut command = self.go();
        command.args(if program.is_test { ["test", "-c"].as_slice() } else { &["build"] });
        command.args(["-trimpath", "-mod=readonly", "-ldflags", self.linker_flags, "-o"]).arg(&partial);
        command.arg(program.package);
        let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!(
                "cannot build {}: {command:?}: {}: {}\nThese tests need Go 1.26 or newer, and its modules \
                 (GOPROXY) or what is in its cache already.",
                program.name,
                output.status,
                process::tail(&String::from_utf8_lossy(&said), 10)
            );
        }
        std::fs::rename(&partial, home.join(program.name))?;
        Ok(())
    }
}

/// All files below a directory, in order.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.append(&mut files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
