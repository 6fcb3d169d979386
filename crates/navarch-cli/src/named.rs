//! Objects that commands are given as files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use navarch_model::{Object, parse_bytes};

/// Bytes of a file that are read.
const BYTES_MAX: u64 = 64 << 20;

/// The objects in files; `-` is standard input.
///
/// # Errors
/// If a file cannot be read, something in it cannot be used, or there is nothing in it.
pub fn objects_in(files: &[PathBuf]) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for file in files {
        let name = if file.as_os_str() == "-" { "<stdin>".to_owned() } else { file.display().to_string() };
        let bytes = bytes_of(file).with_context(|| format!("cannot read {name}"))?;
        let parsed = parse_bytes(&name, &bytes);
        if let Some(finding) =
            parsed.findings.iter().find(|_| parsed.incomplete || !parsed.rejected.is_empty())
        {
            bail!("{name} cannot be used as it is: {finding}");
        }
        ensure!(!parsed.objects.is_empty(), "{name} has no object of a kind that a mesh reads");
        objects.extend(parsed.objects);
    }
    Ok(objects)
}

fn bytes_of(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file.as_os_str() == "-" {
        true => io::stdin().lock().take(BYTES_MAX).read_to_end(&mut bytes)?,
        false => File::open(file)?.take(BYTES_MAX).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}
