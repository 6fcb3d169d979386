//! What an API server and its clients prove who they are with.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files for one API server, which live as long as the directory they are in.
#[derive(Debug)]
pub struct Trust {
    dir: PathBuf,
    /// What its clients trust.
    pub client: Arc<ClientConfig>,
}

/// The token of an administrator.
pub const TOKEN: &str = "token-of-an-administrator";

/// The token of the user `navarch`, who may do nothing unless a role says so.
pub const USER_TOKEN: &str = "token-of-a-user";

impl Trust {
    /// Makes an authority, a server certificate for 127.0.0.1, a key for tokens of service
    /// accounts, and a file with the tokens of an administrator and of a user.
    pub fn make(dir: &Path) -> Result<Trust> {
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "api-server-under-test");
        let authority = params.self_signed(&authority_key)?;
        let issuer = Issuer::new(params, authority_key);

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer)?;
        let accounts = KeyPair::generate()?;

        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text);
        write("ca.crt", &authority.pem())?;
        write("server.crt", &certificate.pem())?;
        write("server.key", &key.serialize_pem())?;
        write("accounts.key", &accounts.serialize_pem())?;
        write("accounts.pub", &accounts.public_key_pem())?;
        let users = format!("{TOKEN},admin,admin,\"system:masters\"\n{USER_TOKEN},navarch,navarch\n");
        write("tokens.csv", &users)?;

        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { dir: dir.to_path_buf(), client: Arc::new(client) })
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}
