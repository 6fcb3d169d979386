//! `cargo xtask image`: navarch and a stock Envoy as an OCI image, without Docker.
//!
//! An image layout (image-spec 1.0, "image-layout") in a tar, which `skopeo` and `podman load` take, and
//! `docker load` from version 25 on. There is one layer: the programs and the libraries that they are linked
//! to, as the dynamic loader of this machine finds them, and nothing else. Equal programs make an equal
//! image.

use crate::{check, progress};
use anyhow::{Context, Result, bail, ensure};
use navarch_testkit::{navarch, workspace};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// The user of the image, as of Istio's.
const USER: u32 = 1337;

/// What the pods of proxies run.
const AGENT: &str = "navarch-agent";

/// Where the programs are in the image.
const PROGRAMS: &str = "usr/local/bin";

/// What redirects traffic (`navarch agent redirect`). Without them an image is still one for gateways.
const TOOLS: [&str; 2] = ["nft", "ip"];

#[derive(clap::Args)]
pub struct Args {
    /// The navarch to put into it, with navarch-agent beside it; otherwise both are built with --release
    #[arg(long, value_name = "FILE")]
    navarch: Option<PathBuf>,
    /// Where to write the image
    #[arg(long, value_name = "FILE", default_value = "target/image/navarch.oci.tar")]
    output: PathBuf,
    /// What the image is called in its index
    #[arg(long, value_name = "NAME", default_value = concat!("navarch:", env!("CARGO_PKG_VERSION")))]
    name: String,
}

/// Makes the image, and tries it: what is in it is unpacked from it and run with nothing else in sight.
pub fn run(args: &Args) -> Result<()> {
    let navarch = match &args.navarch {
        Some(path) => path.clone(),
        None => build()?,
    };
    let envoy = check::obtain_envoy()?;
    let work = workspace::target_dir().join("image");
    if work.exists() {
        fs::remove_dir_all(&work).context("removing the image before")?;
    }
    let root = work.join("root");
    fill(&root, &navarch, &envoy)?;
    let layout = work.join("layout");
    lay_out(&root, &layout, &args.name)?;
    if let Some(parent) = args.output.parent() {
        fs::create_dir_all(parent)?;
    }
    pack(&layout, &args.output)?;
    try_out(&args.output, &work.join("tried"))?;
    let megabytes = fs::metadata(&args.output)?.len() / 1_000_000;
    println!("{} ({megabytes} MB)", args.output.display());
    Ok(())
}

fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked"]).args(navarch::BINARIES).current_dir(workspace::root());
    progress::run("building navarch", &mut cargo)?;
    Ok(workspace::target_dir().join("release/navarch"))
}

/// The root file system.
fn fill(root: &Path, navarch: &Path, envoy: &Path) -> Result<()> {
    for directory in [PROGRAMS, "etc/ssl/certs", "tmp", "var/lib/navarch", "var/lib/istio/data", "etc/istio"]
    {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let passwd = format!("root:x:0:0::/:/sbin/nologin\nistio-proxy:x:{USER}:{USER}::/:/sbin/nologin\n");
    fs::write(root.join("etc/passwd"), passwd)?;
    fs::write(root.join("etc/group"), format!("root:x:0:\nistio-proxy:x:{USER}:\n"))?;
    let roots = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if roots.is_file() {
        fs::copy(roots, root.join("etc/ssl/certs/ca-certificates.crt"))?;
    }
    // As the distributions have it now; loaders look at /lib and /lib64.
    for (link, to) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin"), ("bin", "usr/bin")] {
        fs::create_dir_all(root.join(to))?;
        symlink(to, root.join(link))?;
    }
    let mut libraries = BTreeSet::new();
    let agent = &navarch.with_file_name(AGENT);
    for (program, name) in [(navarch, "navarch"), (agent, AGENT), (envoy, "envoy")] {
        put(program, &root.join(PROGRAMS).join(name))?;
        libraries.extend(libraries_of(program)?);
    }
    for name in TOOLS {
        let found =
            ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|directory| Path::new(directory).join(name));
        match found.iter().find(|path| path.is_file()) {
            Some(program) => {
                put(program, &root.join("usr/sbin").join(name))?;
                libraries.extend(libraries_of(program)?);
            }
            None => eprintln!("there is no {name} here: the image cannot redirect traffic"),
        }
    }
    for library in &libraries {
        let inside = library.strip_prefix("/").context("a library without a directory")?;
        let to = match inside.strip_prefix("usr") {
            Ok(_) => root.join(inside),
            Err(_) => root.join("usr").join(inside),
        };
        put(library, &to)?;
    }
    Ok(())
}

fn put(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
}

/// What a program is linked to, the loader included; nothing of one that is linked statically.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(!text.contains("not found"), "{} lacks a library:\n{text}", program.display());
    // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// An image layout: a layer, a configuration, a manifest and an index, each by its hash.
fn lay_out(root: &Path, layout: &Path, name: &str) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = layout.join("layer.tar");
    pack(root, &layer)?;
    let content = hash(&layer)?;
    progress::run("packing", Command::new("gzip").args(["-n", "-f", "-6"]).arg(&layer))?;
    let layer = blob(&blobs, &layout.join("layer.tar.gz"), "application/vnd.oci.image.layer.v1.tar+gzip")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "Entrypoint": [format!("/{PROGRAMS}/navarch")],
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{content}")]},
    });
    let config = blob_of(&blobs, &config, "application/vnd.oci.image.config.v1+json")?;
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let mut described = blob_of(
        &blobs,
        &json!({"schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer]}),
        manifest,
    )?;
    described["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    });
    fs::write(layout.join("index.json"), index.to_string())?;
    Ok(fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?)
}

fn blob_of(blobs: &Path, value: &Value, media: &str) -> Result<Value> {
    let path = blobs.join("new");
    fs::write(&path, value.to_string())?;
    blob(blobs, &path, media)
}

/// Moves a file to where its hash says, and describes it.
fn blob(blobs: &Path, file: &Path, media: &str) -> Result<Value> {
    let (hash, size) = (hash(file)?, fs::metadata(file)?.len());
    fs::rename(file, blobs.join(&hash))?;
    Ok(json!({"mediaType": media, "digest": format!("sha256:{hash}"), "size": size}))
}

fn hash(file: &Path) -> Result<String> {
    let said = output(Command::new("sha256sum").arg(file))?;
    Ok(said.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

/// A directory as a tar that does not depend on when and by whom it was made.
fn pack(directory: &Path, tar: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=ustar",
    ]);
    command.arg("-cf").arg(tar).arg("-C").arg(directory).arg(".");
    progress::run("packing", &mut command)
}

fn output(command: &mut Command) -> Result<String> {
    let made = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&made.stdout).into_owned();
    if !made.status.success() {
        bail!("{command:?}: {}\n{text}{}", made.status, String::from_utf8_lossy(&made.stderr));
    }
    Ok(text)
}

/// Unpacks the image as a container engine does, every hash looked at, and runs what is in it in a root and a
/// user namespace of its own.
fn try_out(image: &Path, directory: &Path) -> Result<()> {
    let unpack = |tar: &Path, to: &Path| -> Result<()> {
        fs::create_dir_all(to)?;
        output(Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(to)).map(|_| ())
    };
    let (layout, root) = (directory.join("layout"), directory.join("root"));
    unpack(image, &layout)?;
    let read = |described: &Value| -> Result<(PathBuf, Value)> {
        let digest = described["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let digest = digest.context("a digest")?;
        let path = layout.join("blobs/sha256").join(digest);
        ensure!(hash(&path)? == digest, "{} is not what its name says", path.display());
        ensure!(described["size"] == fs::metadata(&path)?.len(), "{digest} has another size");
        let value = serde_json::from_slice(&fs::read(&path)?).unwrap_or_default();
        Ok((path, value))
    };
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let (_, manifest) = read(&index["manifests"][0])?;
    let (_, config) = read(&manifest["config"])?;
    for layer in manifest["layers"].as_array().context("layers")? {
        unpack(&read(layer)?.0, &root)?;
    }
    let entry = config["config"]["Entrypoint"][0].as_str().context("an entry point")?;
    let inside = |arguments: &[&OsStr]| -> Result<String> {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--root"]).arg(&root).args(arguments).env_clear();
        output(&mut command)
    };
    let runs = |program: &str, argument: &str, expected: &str| -> Result<()> {
        let said = inside(&[OsStr::new(program), OsStr::new(argument)])?;
        ensure!(said.contains(expected), "{program} {argument} says {said}");
        Ok(())
    };
    runs(entry, "--version", "navarch")?;
    runs(&format!("/{PROGRAMS}/{AGENT}"), "--version", AGENT)?;
    runs(&format!("/{PROGRAMS}/envoy"), "--version", "version")?;
    for name in TOOLS.iter().filter(|name| root.join("usr/sbin").join(name).exists()) {
        runs(&format!("/usr/sbin/{name}"), "-V", "")?;
    }
    // It does what it is for: something that needs files, a parser and an output.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n";
    fs::write(root.join("pod.yaml"), pod)?;
    let injected = inside(&[entry, "inject", "-f", "/pod.yaml"].map(OsStr::new))?;
    ensure!(injected.contains("istio-proxy"), "{injected}");
    Ok(())
}
