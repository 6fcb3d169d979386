//! `cargo xtask deb`: a package of Debian, written without Debian's programs (deb(5), tar(5)).

use anyhow::{Context, Result, bail, ensure};
use navarch_testkit::{navarch, workspace};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// What is in the package: where in the checkout, where on a machine, and its mode. A path that ends with a
/// slash is an empty directory.
const FILES: [(&str, &str, u32); 9] = [
    ("packaging/navarch.service", "usr/lib/systemd/system/navarch.service", 0o644),
    ("packaging/navarch-agent.service", "usr/lib/systemd/system/navarch-agent.service", 0o644),
    ("packaging/navarch-redirect.service", "usr/lib/systemd/system/navarch-redirect.service", 0o644),
    ("packaging/navarch.sysusers", "usr/lib/sysusers.d/navarch.conf", 0o644),
    ("packaging/agent.env", "etc/navarch/agent.env", 0o644),
    ("", "etc/navarch/config/", 0o755),
    ("README.md", "usr/share/doc/navarch/README.md", 0o644),
    ("docs/agent.md", "usr/share/doc/navarch/agent.md", 0o644),
    ("LICENSE", "usr/share/doc/navarch/copyright", 0o644),
];
const SCRIPTS: [&str; 2] = ["postinst", "prerm"];
const CONFFILES: &str = "/etc/navarch/agent.env\n";

/// The programs on a machine. Where they are built, they lie beside each other.
const PROGRAMS: [&str; 2] = ["usr/bin/navarch", "usr/bin/navarch-agent"];

/// Builds the programs and packs them; prints the path of the package. With a binary, that and the agent's
/// beside it.
pub fn run(binary: Option<PathBuf>) -> Result<()> {
    let binary = match binary {
        Some(binary) => binary,
        None => build()?,
    };
    let built = PROGRAMS.map(|path| binary.with_file_name(Path::new(path).file_name().unwrap_or_default()));
    let path = pack(&built, env!("CARGO_PKG_VERSION"), &workspace::target_dir().join("deb"))?;
    println!("{}", path.display());
    Ok(())
}

fn build() -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked"]).args(navarch::BINARIES);
    let status = command.current_dir(workspace::root()).status().context("running cargo")?;
    ensure!(status.success(), "building navarch: {status}");
    Ok(workspace::target_dir().join("release/navarch"))
}

/// The package, in a directory. The same content makes the same bytes.
pub fn pack(programs: &[PathBuf; 2], version: &str, directory: &Path) -> Result<PathBuf> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("Debian has no name for {other} here"),
    };
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut files = Vec::new();
    for (program, to) in programs.iter().zip(PROGRAMS) {
        files.push((to, 0o755, read(program)?));
    }
    for (from, to, mode) in FILES {
        let content = if from.is_empty() { Vec::new() } else { read(&workspace::root().join(from))? };
        files.push((to, mode, content));
    }
    let kilobytes = files.iter().map(|(_, _, content)| content.len()).sum::<usize>().div_ceil(1024);
    let control = format!(
        "Package: navarch\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: the navarch authors <navarch@localhost>\n\
         Installed-Size: {kilobytes}\nDepends: libc6 (>= 2.34)\nRecommends: nftables, iproute2\nSection: net\nPriority: optional\n\
         Description: control plane and agent for Envoy\n \
         navarch serves Istio's configuration to stock Envoys, and runs an Envoy for the\n applications of a machine: certificates, mutual TLS, redirection, names.\n"
    );
    let mut about = vec![("control", 0o644, control.into_bytes()), ("conffiles", 0o644, CONFFILES.into())];
    for script in SCRIPTS {
        about.push((script, 0o755, read(&workspace::root().join("packaging").join(script))?));
    }
    let members =
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar", tar(&about)?), ("data.tar", tar(&files)?)];
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("navarch_{version}_{architecture}.deb"));
    std::fs::write(&path, ar(&members)?).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// An archive of `ar` (ar(5)).
fn ar(members: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let mut header = String::new();
        writeln!(header, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", content.len())?;
        ensure!(header.len() == 60, "{name} does not fit");
        out.extend(header.as_bytes());
        out.extend(content);
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    Ok(out)
}

/// An archive of `tar`, of the kind that POSIX calls ustar, owned by root and of no time. The directories
/// above each file come before it.
fn tar(files: &[(&str, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut made: Vec<String> = Vec::new();
    entry(&mut out, "./", 0o755, None)?;
    for (path, mode, content) in files {
        for (at, _) in path.match_indices('/') {
            let directory = format!("./{}/", &path[..at]);
            if !made.contains(&directory) {
                entry(&mut out, &directory, 0o755, None)?;
                made.push(directory);
            }
        }
        if !path.ends_with('/') {
            entry(&mut out, &format!("./{path}"), *mode, Some(content))?;
        }
    }
    out.extend([0; 1024]);
    Ok(out)
}

fn entry(out: &mut Vec<u8>, name: &str, mode: u32, content: Option<&[u8]>) -> Result<()> {
    let size = content.map_or(0, <[u8]>::len);
    ensure!(name.len() < 100, "{name} is too long for tar");
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, if content.is_some() { "0" } else { "5" });
    put(257, "ustar");
    put(263, "00");
    put(265, "root");
    put(297, "root");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(header);
    if let Some(content) = content {
        out.extend(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, arguments: &[&str]) -> Result<String> {
        let output = Command::new(program).args(arguments).output();
        let output = output.with_context(|| {
            format!("{program} is not there: install it (packages of Debian: dpkg, systemd)")
        })?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "{program} {arguments:?}: {}: {said}", output.status);
        Ok(said)
    }

    #[test]
    fn the_package_installs_and_its_units_are_right() -> Result<()> {
        let scratch = workspace::scratch("deb")?;
        // Any program will do: what is tried is the package.
        let programs = [PathBuf::from("/bin/true"), PathBuf::from("/bin/false")];
        let package = pack(&programs, "0.0.1", &scratch)?;
        let again = pack(&programs, "0.0.1", &scratch.join("again"))?;
        assert_eq!(std::fs::read(&package)?, std::fs::read(again)?, "not the same bytes");
        let (package, root) = (package.display().to_string(), scratch.join("root"));
        let fields = run("dpkg", &["--info", &package])?;
        ensure!(fields.contains("Package: navarch"), "{fields}");

        for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "usr/lib/systemd/system", "bin"]
        {
            std::fs::create_dir_all(root.join(directory))?;
        }
        std::fs::write(root.join("var/lib/dpkg/status"), "")?;
        let root_text = root.display().to_string();
        let install = [
            "--root",
            &root_text,
            "--force-script-chrootless,depends,not-root,bad-path",
            "--log=/dev/null",
            "-i",
            &package,
        ];
        run("dpkg", &install)?;
        for (_, to, _) in FILES {
            ensure!(root.join(to).exists(), "{to} is not installed");
        }
        let listed = run("dpkg", &["--root", &root_text, "-s", "navarch"])?;
        ensure!(listed.contains("Status: install ok installed"), "{listed}");

        // As they would be on the machine: what they run is there.
        let units = ["navarch.service", "navarch-agent.service", "navarch-redirect.service"];
        for unit in units {
            let path = root.join("usr/lib/systemd/system").join(unit);
            let text = std::fs::read_to_string(&path)?;
            let here = scratch.join(unit);
            std::fs::write(&here, text.replace("/usr/bin/navarch", &format!("{root_text}/usr/bin/navarch")))?;
        }
        let paths = units.map(|unit| scratch.join(unit).display().to_string());
        let mut arguments = vec!["verify", "--man=no", "--recursive-errors=no"];
        arguments.extend(paths.iter().map(String::as_str));
        let said = run("systemd-analyze", &arguments)?;
        ensure!(said.trim().is_empty(), "{said}");
        run(
            "dpkg",
            &[
                "--root",
                &root_text,
                "--force-script-chrootless,not-root,bad-path",
                "--log=/dev/null",
                "-P",
                "navarch",
            ],
        )?;
        for program in PROGRAMS {
            ensure!(!root.join(program).exists(), "{program} is not removed");
        }
        Ok(())
    }
}
