//! Certificates that the control plane's own authority has not made.

use anyhow::{Context, Result};
use navarch_testkit::navarch;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A certificate authority that is made for one test.
pub struct Authority {
    /// Its certificate.
    pub file: PathBuf,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    pub fn new(directory: &Path, name: &str) -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let file = directory.join(format!("{name}.pem"));
        let pem = params.self_signed(&key)?.pem();
        std::fs::write(&file, &pem)?;
        Ok(Authority { file, pem, issuer: Issuer::new(params, key), directory: directory.to_owned() })
    }

    /// Files with a certificate and its key.
    pub fn sign(&self, name: &str, san: SanType) -> Result<(PathBuf, PathBuf)> {
        self.sign_with(name, san, CertificateParams::default())
    }

    /// Files with the certificate of a workload that ended long ago, and its key.
    pub fn ended(&self, name: &str, identity: &str) -> Result<(PathBuf, PathBuf)> {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        self.sign_with(name, SanType::URI(identity.try_into()?), params)
    }

    fn sign_with(
        &self,
        name: &str,
        san: SanType,
        mut params: CertificateParams,
    ) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        params.subject_alt_names = vec![san];
        // Of an identity it must be said (SPIFFE X.509-SVID, 4.3).
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let files = (self.directory.join(format!("{name}.pem")), self.directory.join(format!("{name}.key")));
        std::fs::write(&files.0, params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(&files.1, key.serialize_pem())?;
        Ok(files)
    }

    /// A directory with its files, for `--ca-dir`.
    pub fn plugged(&self) -> Result<PathBuf> {
        let directory = self.directory.join("ca");
        std::fs::create_dir_all(&directory)?;
        let key = self.issuer.key().serialize_pem();
        for (name, text) in [
            ("ca-cert.pem", &self.pem),
            ("ca-key.pem", &key),
            ("cert-chain.pem", &self.pem),
            ("root-cert.pem", &self.pem),
        ] {
            std::fs::write(directory.join(name), text)?;
        }
        Ok(directory)
    }

    /// Revokes certificates, in the directory of [`Authority::plugged`].
    pub fn revoke(&self, certificates: &[&Path]) -> Result<()> {
        let mut revoked_certs = Vec::new();
        for certificate in certificates {
            let (serial_number, revocation_time) = (serial(certificate)?, rcgen::date_time_ymd(2026, 1, 1));
            let (reason_code, invalidity_date) = (None, None);
            let one = RevokedCertParams { serial_number, revocation_time, reason_code, invalidity_date };
            revoked_certs.push(one);
        }
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer)?.pem()?;
        navarch::replace(&self.directory.join("ca/ca-crl.pem"), &list)
    }

    pub fn workload(&self, name: &str, identity: &str) -> Result<(PathBuf, PathBuf)> {
        self.sign(name, SanType::URI(identity.try_into()?))
    }
}

/// The serial number of a certificate in a file.
fn serial(certificate: &Path) -> Result<SerialNumber> {
    let output =
        Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(certificate).output()?;
    let text = String::from_utf8(output.stdout)?;
    let digits = text.trim().strip_prefix("serial=").context("a serial number")?;
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16);
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>()?;
    Ok(SerialNumber::from_slice(&bytes))
}
