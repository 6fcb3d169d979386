use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn root(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Issuer::self_signed(params, key()).expect("a root")
}

fn leaf(root: &Issuer, uris: &[&str]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(77));
    params.not_before = NOW.before(HOUR).date_time();
    params.not_after = NOW.after(HOUR).date_time();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))).collect();
    params.signed_by(&key(), root).expect("a leaf").der().clone()
}

fn bundle(roots: &[(&str, &Issuer)]) -> TrustBundle {
    let mut bundle = TrustBundle::new();
    for (domain, root) in roots {
        bundle.add_pem(domain, root.pem().as_bytes()).expect("a root");
    }
    bundle
}

#[track_caller]
fn check(bundle: &TrustBundle, chain: &[CertificateDer<'_>], now: Timestamp, expected: Result<&str, &str>) {
    match (bundle.verify(chain, now), expected) {
        (Ok(proven), Ok(id)) => assert_eq!(proven.id.to_string(), id),
        (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
        (found, expected) => panic!("{found:?}, {expected:?}"),
    }
}

#[test]
fn a_root_vouches_for_its_own_trust_domain_alone() {
    let (ours, theirs) = (root("ours"), root("theirs"));
    let bundle = bundle(&[("us", &ours), ("them", &theirs)]);
    let (us, them) = ("spiffe://us/ns/a/sa/b", "spiffe://them/ns/a/sa/b");
    check(&bundle, &[leaf(&ours, &[us])], NOW, Ok(us));
    check(&bundle, &[leaf(&theirs, &[them])], NOW, Ok(them));
    check(&bundle, &[leaf(&theirs, &[us])], NOW, Err("no root of the trust domain \"us\" signed"));
    check(
        &bundle,
        &[leaf(&ours, &["spiffe://others/ns/a/sa/b"])],
        NOW,
        Err("no root of the trust domain \"others\" is known"),
    );
}

#[test]
fn a_certificate_names_one_workload() {
    let ours = root("ours");
    let bundle = bundle(&[("us", &ours)]);
    let id = "spiffe://us/ns/a/sa/b";
    check(&bundle, &[], NOW, Err("there is no certificate"));
    check(&bundle, &[leaf(&ours, &[])], NOW, Err("names nobody"));
    check(&bundle, &[leaf(&ours, &[id, "spiffe://us/ns/a/sa/admin"])], NOW, Err("names 2 URIs"));
    check(&bundle, &[leaf(&ours, &["https://us/ns/a/sa/b"])], NOW, Err("names \"https"));
    check(&bundle, &[vec![1, 2, 3].into()], NOW, Err("not a certificate"));
    check(&bundle, &vec![leaf(&ours, &[id]); CHAIN_MAX + 1], NOW, Err("more than 10"));
}

#[test]
fn a_certificate_has_its_time() {
    let ours = root("ours");
    let bundle = bundle(&[("us", &ours)]);
    let id = "spiffe://us/ns/a/sa/b";
    let leaf = [leaf(&ours, &[id])];
    check(&bundle, &leaf, NOW.after(HOUR), Ok(id));
    check(&bundle, &leaf, NOW.after(HOUR + Duration::from_secs(1)), Err("and now is 2027-01-15T09:00:01Z"));
    check(&bundle, &leaf, NOW.before(HOUR * 2), Err("the certificate is of"));
}

#[test]
fn several_roots_are_trusted_at_once() {
    let (old, new, other) = (root("old"), root("new"), root("other"));
    let bundle = bundle(&[("us", &old), ("us", &new), ("us", &old)]);
    assert_eq!(bundle.roots("us").len(), 2, "each once");
    assert_eq!(bundle.pem("us"), format!("{}{}", old.pem(), new.pem()).replace("\r\n", "\n"));
    let id = "spiffe://us/ns/a/sa/b";
    check(&bundle, &[leaf(&old, &[id])], NOW, Ok(id));
    check(&bundle, &[leaf(&new, &[id])], NOW, Ok(id));
    check(&bundle, &[leaf(&other, &[id])], NOW, Err("no root of the trust domain \"us\" signed"));
}

fn revoking(root: &Issuer, serial: u64) -> CertificateRevocationListDer<'static> {
    let params = CertificateRevocationListParams {
        this_update: NOW.before(HOUR).date_time(),
        next_update: NOW.date_time(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: NOW.before(HOUR).date_time(),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(root).expect("a list").der().clone()
}

#[test]
fn what_is_revoked_is_refused() {
    let (ours, forger) = (root("ours"), root("ours"));
    let id = "spiffe://us/ns/a/sa/b";
    let leaf = [leaf(&ours, &[id])];
    let with = |list: CertificateRevocationListDer<'static>| {
        let mut bundle = bundle(&[("us", &ours)]);
        bundle.add_list(list).expect("a list");
        bundle
    };
    check(&with(revoking(&ours, 77)), &leaf, NOW, Err("has been revoked"));
    check(&with(revoking(&ours, 78)), &leaf, NOW, Ok(id));
    check(&with(revoking(&ours, 77)), &leaf, NOW.after(HOUR / 2), Err("has been revoked"));
    check(&with(revoking(&forger, 77)), &leaf, NOW, Err("no root of the trust domain"));
    assert!(matches!(TrustBundle::new().add_list(vec![1].into()), Err(TrustError::List { .. })));
}

#[test]
fn only_authorities_are_roots() {
    let ours = root("ours");
    let leaf = leaf(&ours, &["spiffe://us/ns/a/sa/b"]);
    let mut bundle = TrustBundle::new();
    let both = pem::of_certificates(&[ours.der().clone(), leaf]);
    assert!(matches!(bundle.add_pem("us", both.as_bytes()), Err(TrustError::NotARoot { .. })));
    assert!(bundle.roots("us").is_empty(), "all or none");
}

#[test]
fn equal_names_mean_equal_trust() {
    let (one, two) = (root("one"), root("two"));
    let mut revoked = bundle(&[("a", &one)]);
    revoked.add_list(revoking(&one, 1)).expect("a list");
    let all = [
        TrustBundle::new(),
        bundle(&[("a", &one)]),
        bundle(&[("b", &one)]),
        bundle(&[("a", &one), ("a", &two)]),
        bundle(&[("a", &one), ("b", &two)]),
        revoked,
    ];
    for (index, bundle) in all.iter().enumerate() {
        for (other_index, other) in all.iter().enumerate() {
            assert_eq!(bundle.fingerprint() == other.fingerprint(), index == other_index);
        }
    }
    assert_eq!(bundle(&[("a", &one)]).fingerprint(), all[1].fingerprint());
}
