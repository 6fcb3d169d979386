//! Requests for certificates, as anybody may send them.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use navarch_identity::authenticate::{Caller, Method};
use navarch_identity::authority::{Authority, LeafLife, Root, Signer};
use navarch_identity::certificate::Facts;
use navarch_identity::service::{CertificateResponse, CertificateService, Impersonation};
use navarch_identity::{Timestamp, pem, request};
use navarch_model::SpiffeId;
use prost::Message;

const NOW: Timestamp = Timestamp(1_800_000_000);

static ID: LazyLock<SpiffeId> =
    LazyLock::new(|| SpiffeId::new("cluster.local", "shop", "web").expect("an id"));

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let root = Root::generate("cluster.local", NOW).expect("a root");
    let roots = vec![root.certificate.clone()];
    let signer = Signer::new(&root.certificate, &root.key, &[], &roots, NOW).expect("a signer");
    Authority::new(signer, roots, LeafLife::default(), None)
});

/// The first byte says how the others are sent: as DER in a request, as its text, or as the whole message.
pub fn run(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    match how % 3 {
        0 => {
            let body = STANDARD.encode(data);
            let label = "CERTIFICATE REQUEST";
            ask(format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").as_bytes());
        }
        1 => ask(data),
        _ => message(data),
    }
}

/// A key that is believed is what the certificate is for.
fn ask(text: &[u8]) {
    let Ok(key) = request::parse(text) else { return };
    let issued = AUTHORITY.issue(&ID, &key, Duration::ZERO, NOW).expect("a good key gets a certificate");
    says_who_it_is(&Facts::of(&issued.certificate).expect("a certificate"));
}

/// Whatever the message says, the certificate says who the caller is.
fn message(bytes: &[u8]) {
    let service = CertificateService::new(Impersonation::default());
    let caller = Caller::new(ID.clone(), Method::ClientCertificate);
    let Ok(answer) = service.create_certificate(&AUTHORITY, &caller, bytes, NOW) else { return };
    let answer = CertificateResponse::decode(&answer[..]).expect("an answer");
    let leaf = pem::certificates(answer.cert_chain[0].as_bytes()).expect("a certificate").remove(0);
    says_who_it_is(&Facts::of(&leaf).expect("a certificate"));
}

fn says_who_it_is(facts: &Facts) {
    assert_eq!(facts.uris, ["spiffe://cluster.local/ns/shop/sa/web"]);
    assert!(facts.dns_names.is_empty() && !facts.is_ca && facts.subject.is_empty());
}
