//! Certificates made for one run.

use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A certificate that is its own authority.
pub struct Certificate {
    pub file: PathBuf,
    pub key_file: PathBuf,
    pub text: String,
    pub key: String,
}

impl Certificate {
    /// For these names of DNS.
    pub fn new(dir: &Path, name: &str, hosts: &[&str]) -> Result<Certificate> {
        let (file, key_file) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        let hosts: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", &format!("/CN={name}")]);
        command.args(["-addext", &format!("subjectAltName={}", hosts.join(","))]);
        command.arg("-out").arg(&file).arg("-keyout").arg(&key_file);
        let output = command.output().context("running openssl, which these tests need")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (text, key) = (std::fs::read_to_string(&file)?, std::fs::read_to_string(&key_file)?);
        Ok(Certificate { file, key_file, text, key })
    }

    /// A Secret with the certificate and its key.
    pub fn key_pair(&self, name: &str) -> String {
        secret(name, &[("tls.crt", &self.text), ("tls.key", &self.key)])
    }
}

/// A Secret of the namespace `default`.
pub fn secret(name: &str, values: &[(&str, &str)]) -> String {
    with_values("Secret", "stringData", name, values)
}

/// A ConfigMap of the namespace `default`.
#[allow(dead_code, reason = "each test file uses a part of it")]
pub fn config_map(name: &str, values: &[(&str, &str)]) -> String {
    with_values("ConfigMap", "data", name, values)
}

fn with_values(kind: &str, field: &str, name: &str, values: &[(&str, &str)]) -> String {
    let mut text =
        format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\n{field}:\n");
    for (key, value) in values {
        text += &format!("  {key}: |\n    {}\n", value.trim().replace('\n', "\n    "));
    }
    text + "---\n"
}
