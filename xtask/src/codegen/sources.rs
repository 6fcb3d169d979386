//! Fetches the pinned protobuf sources and compiles them into one descriptor set.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The crate whose `proto/` folder is the source of the Envoy API.
const ENVOY_TYPES: &str = "0.7.7";

/// `protoc`, and the descriptors of the cncf/xds messages that `envoy-types` leaves out.
const PYTHON_PACKAGES: [&str; 2] = ["grpcio-tools==1.85.1", "xds-protos==1.85.0"];

/// Python modules of `xds-protos` that are added to the set, with what they import.
const EXTRA_MODULES: [&str; 14] = [
    "udpa.type.v1.typed_struct_pb2",
    "udpa.data.orca.v1.orca_load_report_pb2",
    "udpa.service.orca.v1.orca_pb2",
    "xds.type.v3.typed_struct_pb2",
    "xds.type.v3.range_pb2",
    "xds.type.matcher.v3.cel_pb2",
    "xds.type.matcher.v3.domain_pb2",
    "xds.type.matcher.v3.http_inputs_pb2",
    "xds.type.matcher.v3.ip_pb2",
    "xds.type.matcher.v3.range_pb2",
    "xds.core.v3.resource_pb2",
    "xds.core.v3.resource_name_pb2",
    "xds.data.orca.v3.orca_load_report_pb2",
    "xds.service.orca.v3.orca_pb2",
];

/// Prints the serialised descriptors of the modules given as arguments and of everything that they import.
const EXTRACT: &str = r#"
import importlib, sys
from google.protobuf import descriptor_pb2
found = {}
def add(file):
    if file.name in found:
        return
    for dependency in file.dependencies:
        add(dependency)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    found[file.name] = proto
for name in sys.argv[1:]:
    add(importlib.import_module(name).DESCRIPTOR)
sys.stdout.buffer.write(descriptor_pb2.FileDescriptorSet(file=found.values()).SerializeToString(deterministic=True))
"#;

/// The whole API as encoded descriptor sets: every file of `envoy-types` with its comments, then what
/// `xds-protos` has beside it, in dependency order.
pub fn load(scratch: &Path) -> Result<Vec<Vec<u8>>> {
    let python = python(scratch)?;
    let protos = envoy_types(scratch)?;
    let set = compile(&python, &protos, scratch)?;
    let extra = Command::new(&python).arg("-c").arg(EXTRACT).args(EXTRA_MODULES).output()?;
    ensure!(extra.status.success(), "xds-protos: {}", String::from_utf8_lossy(&extra.stderr));
    Ok(vec![set, extra.stdout])
}

/// The `proto/` folder of the pinned crate, fetched by cargo through a throw-away manifest.
fn envoy_types(scratch: &Path) -> Result<PathBuf> {
    let project = scratch.join("protos");
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::write(project.join("src/lib.rs"), "")?;
    let manifest = project.join("Cargo.toml");
    std::fs::write(
        &manifest,
        format!(
            "[package]\nname = \"protos\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
             [dependencies]\nenvoy-types = \"={ENVOY_TYPES}\"\n"
        ),
    )?;
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(&manifest).exec()?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "envoy-types")
        .context("cargo did not resolve envoy-types")?;
    let folder = package.manifest_path.parent().context("package without folder")?;
    Ok(folder.join("proto").into_std_path_buf())
}

/// A Python with the pinned packages, in a virtual environment of its own.
fn python(scratch: &Path) -> Result<PathBuf> {
    let venv = scratch.join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    succeed(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(PYTHON_PACKAGES),
    )?;
    Ok(python)
}

fn compile(python: &Path, protos: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let mut includes = Vec::new();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(protos)? {
        let include = proto_root(&entry?.path());
        proto_files(&include, &mut files)?;
        includes.push(include);
    }
    files.sort();
    includes.sort();
    let output = scratch.join("envoy.binpb");
    let mut command = Command::new(python);
    command.args(["-m", "grpc_tools.protoc", "--include_imports", "--include_source_info"]);
    command.arg(format!("--descriptor_set_out={}", output.display()));
    command.args(includes.iter().map(|include| format!("-I{}", include.display())));
    succeed(command.args(&files))?;
    Ok(std::fs::read(&output)?)
}

/// Import paths of the cel-spec repository start one folder below its top.
fn proto_root(repository: &Path) -> PathBuf {
    let nested = repository.join("proto");
    if nested.is_dir() { nested } else { repository.to_owned() }
}

fn proto_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
