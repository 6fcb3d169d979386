//! Certificates that have nothing to do with the control plane's own authority.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use std::path::{Path, PathBuf};

/// A certificate authority that is made for one test.
pub struct Authority {
    pub file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    pub fn new(directory: &Path, name: &str) -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let file = directory.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key)?.pem())?;
        Ok(Authority { file, issuer: Issuer::new(params, key), directory: directory.to_owned() })
    }

    /// Files with a certificate and its key.
    pub fn sign(&self, name: &str, san: SanType) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![san];
        let files = (self.directory.join(format!("{name}.pem")), self.directory.join(format!("{name}.key")));
        std::fs::write(&files.0, params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(&files.1, key.serialize_pem())?;
        Ok(files)
    }

    pub fn workload(&self, name: &str, identity: &str) -> Result<(PathBuf, PathBuf)> {
        self.sign(name, SanType::URI(identity.try_into()?))
    }
}
