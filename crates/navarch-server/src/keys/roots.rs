//! The roots of another trust domain, as it publishes them: a SPIFFE bundle (SPIFFE Trust Domain and Bundle,
//! 4 and 5).

use std::time::Duration;

use navarch_identity::pem::{self, PemError};
use navarch_identity::trust::{SpiffeBundle, SpiffeBundleError, TrustBundle, TrustError};

/// The times between two looks at a bundle, whatever it says itself.
const REFRESH_MIN: Duration = Duration::from_secs(60);
const REFRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The time between two looks at a bundle that does not say (4.1.3).
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// What a bundle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Empty if the trust domain trusts nobody any more.
    pub pem: String,
    pub sequence: Option<u64>,
    pub refresh: Duration,
}

/// Why a document has no roots that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    #[error(transparent)]
    Bundle(#[from] SpiffeBundleError),
    #[error(transparent)]
    Root(#[from] TrustError),
    #[error(transparent)]
    Pem(#[from] PemError),
}

/// Reads a bundle. One root that a proxy cannot read would make it refuse all of them, so each is looked at.
///
/// # Errors
/// If it is not one, or has something else than roots.
pub fn read(text: &[u8]) -> Result<Roots, RootsError> {
    let SpiffeBundle { roots, sequence, refresh } = SpiffeBundle::parse(text)?;
    let pem = pem::of_certificates(&roots);
    TrustBundle::new().add_roots("", roots)?;
    let refresh = refresh.map_or(REFRESH, |hint| hint.clamp(REFRESH_MIN, REFRESH_MAX));
    Ok(Roots { pem, sequence, refresh })
}

/// Whether a text is what [`read`] makes.
///
/// # Errors
/// If it is not.
pub fn check(pem: &str) -> Result<(), RootsError> {
    if !pem.is_empty() {
        TrustBundle::new().add_roots("", pem::certificates(pem.as_bytes())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn key(is_ca: IsCa) -> (String, String) {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let der = STANDARD.encode(certificate.der());
        (format!(r#"{{"kty":"EC","use":"x509-svid","x5c":["{der}"]}}"#), certificate.pem())
    }

    #[test]
    fn a_bundle_has_roots_and_nothing_else() {
        let (root, root_pem) = key(IsCa::Ca(BasicConstraints::Unconstrained));
        let (leaf, _) = key(IsCa::ExplicitNoCa);
        let check_one =
            |text: &str, expected: Result<(&str, u64), &str>| match (read(text.as_bytes()), expected) {
                (Ok(found), Ok((pem, seconds))) => {
                    assert_eq!(found.pem.trim(), pem.replace("\r\n", "\n").trim());
                    assert_eq!(found.refresh.as_secs(), seconds, "{text}");
                    assert_eq!(check(&found.pem), Ok(()));
                }
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, expected) => panic!("{text}: {found:?}, {expected:?}"),
            };
        check_one(&format!(r#"{{"keys":[{root}]}}"#), Ok((&root_pem, 300)));
        check_one(&format!(r#"{{"keys":[{root}],"spiffe_refresh_hint":1}}"#), Ok((&root_pem, 60)));
        check_one(&format!(r#"{{"keys":[{root}],"spiffe_refresh_hint":600}}"#), Ok((&root_pem, 600)));
        check_one(r#"{"keys":[],"spiffe_refresh_hint":99999999}"#, Ok(("", 86_400)));
        check_one(&format!(r#"{{"keys":[{root},{leaf}]}}"#), Err("is not the certificate of an authority"));
        check_one("<html>", Err("it is not a JSON object with keys"));
        for bad in ["junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
