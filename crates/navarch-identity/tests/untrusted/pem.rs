//! Certificates, revocation lists, keys and bundles, as files and other trust domains may have them.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use navarch_identity::authority::Root;
use navarch_identity::certificate::Facts;
use navarch_identity::trust::{SpiffeBundle, TrustBundle};
use navarch_identity::{Secret, Timestamp, pem};
use rustls_pki_types::CertificateDer;

const NOW: Timestamp = Timestamp(1_800_000_000);

static ROOT: LazyLock<Root> = LazyLock::new(|| Root::generate("td", NOW).expect("a root"));

/// The first byte says what the others are: a text of PEM, a certificate, a chain of one, a revocation list,
/// a key, or a bundle.
pub fn run(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    match how % 6 {
        0 => text(data),
        1 => certificate(data),
        2 => chain(data),
        3 => list(data),
        4 => _ = pem::private_key(&Secret::new(data.to_vec())),
        _ => bundle(data),
    }
}

/// What is read is written and read again as the same.
fn text(data: &[u8]) {
    if let Ok(found) = pem::certificates(data) {
        let again = pem::certificates(pem::of_certificates(&found).as_bytes());
        assert_eq!(again.as_ref(), Ok(&found));
    }
    let _ = pem::revocation_lists(data);
}

/// What is a root to us is one, and vouches for nobody by itself.
fn certificate(data: &[u8]) {
    let der = CertificateDer::from(data.to_vec());
    let facts = Facts::of(&der);
    let mut trust = TrustBundle::new();
    if trust.add_roots("td", [der.clone()]).is_ok() {
        assert!(facts.is_ok_and(|facts| facts.is_ca));
        let _ = trust.verify(&[der], NOW);
    }
}

/// Nobody but the holder of the root's key makes identities.
fn chain(data: &[u8]) {
    let mut trust = TrustBundle::new();
    trust.add_roots("td", [ROOT.certificate.clone()]).expect("a root");
    let leaf = CertificateDer::from(data.to_vec());
    assert!(trust.verify(std::slice::from_ref(&leaf), NOW).is_err());
    assert!(trust.verify(&[leaf.clone(), ROOT.certificate.clone()], NOW).is_err());
    assert!(trust.verify(&[leaf.clone(), leaf], NOW).is_err());
}

fn list(data: &[u8]) {
    let mut trust = TrustBundle::new();
    let _ = trust.add_list(data.to_vec().into());
}

/// As a document, and as a certificate in one.
fn bundle(data: &[u8]) {
    let _ = SpiffeBundle::parse(data);
    let x5c = STANDARD.encode(data);
    let document = format!(r#"{{"keys":[{{"use":"x509-svid","x5c":["{x5c}"]}}]}}"#);
    if let Ok(bundle) = SpiffeBundle::parse(document.as_bytes()) {
        assert_eq!(bundle.roots.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>(), [data]);
        let _ = TrustBundle::new().add_roots("td", bundle.roots);
    }
}
