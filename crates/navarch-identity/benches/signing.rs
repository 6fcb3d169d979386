//! What a request for a certificate costs, as a whole and in its parts: `cargo bench -p navarch-identity`.
//!
//! The goal is 3,000 requests a second on two cores, so 660 µs of one core each, handshake and token
//! included.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use navarch_identity::authenticate::{Caller, Method};
use navarch_identity::authority::{Authority, Kept, LeafLife, NewAuthority};
use navarch_identity::limit::Allowance;
use navarch_identity::service::{CertificateRequest, CertificateService, Impersonation};
use navarch_identity::store::StateDirectory;
use navarch_identity::tokens::join::JoinTokens;
use navarch_identity::{Timestamp, request};
use navarch_model::SpiffeId;
use prost::Message;
use rcgen::{CertificateParams, KeyPair, RsaKeySize};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).and_then(|csr| csr.pem()).expect("a request")
}

fn authority(directory: &Arc<StateDirectory>) -> Arc<Authority> {
    let new = NewAuthority::IfAbsent;
    let kept = Kept::open(directory.clone(), "cluster.local", LeafLife::default(), new, NOW);
    kept.expect("an authority").authority()
}

fn signing(criterion: &mut Criterion) {
    let temp = tempfile::tempdir().expect("a directory");
    let directory = Arc::new(StateDirectory::open(&temp.path().join("state")).expect("a directory"));
    let authority = authority(&directory);
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().expect("an id");
    let p256 = csr(&KeyPair::generate().expect("a key"));
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
    let rsa = csr(&rsa);

    criterion.bench_function("request/p256", |bencher| bencher.iter(|| request::parse(p256.as_bytes())));
    criterion.bench_function("request/rsa", |bencher| bencher.iter(|| request::parse(rsa.as_bytes())));
    let key = request::parse(p256.as_bytes()).expect("a key");
    criterion.bench_function("issue", |bencher| {
        bencher.iter(|| authority.issue(&id, &key, Duration::ZERO, NOW));
    });

    let tokens = JoinTokens::new(directory);
    let (_, token) = tokens.create(&id, Duration::from_secs(60), false, NOW).expect("a token");
    criterion.bench_function("token/verify", |bencher| bencher.iter(|| tokens.verify(&token, NOW)));

    let unlimited = Allowance { burst: u32::MAX, every: Duration::ZERO };
    let service = CertificateService::with_allowance(Impersonation::default(), unlimited);
    let caller = Caller::new(id, Method::ClientCertificate);
    let message = CertificateRequest { csr: p256, validity_duration: 0, metadata: None }.encode_to_vec();
    criterion.bench_function("create_certificate", |bencher| {
        bencher.iter_batched(
            || message.clone(),
            |message| service.create_certificate(&authority, &caller, &message, NOW).expect("a certificate"),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, signing);
criterion_main!(benches);
