use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertifiedIssuer, DnType, RsaKeySize};

use super::*;
use crate::certificate::Facts;
use crate::trust::TrustBundle;

const NOW: Timestamp = Timestamp(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn id() -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", "web").expect("an id")
}

fn workload_key() -> PublicKey {
    PublicKey::of(&KeyPair::generate().expect("a key"))
}

fn self_signed() -> Authority {
    let root = Root::generate("cluster.local", NOW).expect("a root");
    let roots = vec![root.certificate.clone()];
    let signer = Signer::new(&root.certificate, &root.key, &[], &roots, NOW).expect("a signer");
    Authority::new(signer, roots, LeafLife::default(), None)
}

/// A certificate authority that is valid for so long.
fn ca_params(name: &str, valid: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = NOW.before(DAY).date_time();
    params.not_after = NOW.after(valid).date_time();
    params
}

fn root_ca(key: KeyPair) -> Issuer {
    Issuer::self_signed(ca_params("root", DAY * 3650), key).expect("a root")
}

fn intermediate_ca(params: CertificateParams, key: KeyPair, root: &Issuer) -> Issuer {
    Issuer::signed_by(params, key, root).expect("an intermediate")
}

fn p256() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// The files of a plugged-in authority in a directory.
struct Files(tempfile::TempDir);

impl Files {
    fn istio(root: &Issuer, signing: &Issuer) -> Self {
        let files = Files(tempfile::tempdir().expect("a directory"));
        files.put("ca-cert.pem", &signing.pem());
        files.put("ca-key.pem", &signing.key().serialize_pem());
        // As the documents of Istio make it: with the root.
        files.put("cert-chain.pem", &format!("{}{}", signing.pem(), root.pem()));
        files.put("root-cert.pem", &root.pem());
        files
    }

    fn kubernetes(root: &Issuer, signing: &Issuer) -> Self {
        let files = Files(tempfile::tempdir().expect("a directory"));
        files.put("tls.crt", &signing.pem());
        files.put("tls.key", &signing.key().serialize_pem());
        files.put("ca.crt", &root.pem());
        files
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("written");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).expect("removed");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self) -> Result<Plugged, PluggedError> {
        Plugged::open(self.path(), LeafLife::default(), NOW)
    }

    #[track_caller]
    fn refuses(&self, expected: &str) {
        let error = self.open().expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_leaf_is_what_istio_makes() {
    let authority = self_signed();
    let issued = authority.issue(&id(), &workload_key(), Duration::ZERO, NOW).expect("a leaf");
    let facts = Facts::of(&issued.certificate).expect("facts");
    assert_eq!(facts.subject, "");
    assert_eq!(facts.uris, ["spiffe://cluster.local/ns/shop/sa/web"]);
    assert_eq!((facts.not_before, facts.not_after), (Timestamp(NOW.0 - 120), NOW.after(DAY)));
    assert!(!facts.is_ca);
    assert_eq!(issued.chain.len(), 2, "leaf and root");
    assert_eq!(issued.chain[1], authority.roots_pem());
    let other = authority.issue(&id(), &workload_key(), Duration::ZERO, NOW).expect("a leaf");
    assert_ne!(issued.serial, other.serial);
    assert_eq!(issued.serial.len(), 32);
}

#[test]
fn lives_are_as_asked_within_limits() {
    let authority = self_signed();
    let check = |asked: Duration, expected: Option<Duration>| {
        let issued = authority.issue(&id(), &workload_key(), asked, NOW);
        let life = issued.ok().map(|issued| NOW.until(issued.not_after));
        assert_eq!(life, expected, "{asked:?}");
    };
    check(Duration::ZERO, Some(DAY));
    check(Duration::from_secs(1), Some(Duration::from_secs(1)));
    check(DAY * 2, Some(DAY * 2));
    check(DAY * 90, Some(DAY * 90));
    check(DAY * 91, None);
    check(Duration::MAX, None);
}

#[test]
fn a_leaf_does_not_outlive_its_chain() {
    let root = root_ca(p256());
    let signing = intermediate_ca(ca_params("signing", DAY / 2), p256(), &root);
    let authority = Files::istio(&root, &signing).open().expect("an authority").authority();
    let issued = authority.issue(&id(), &workload_key(), Duration::ZERO, NOW).expect("a leaf");
    assert_eq!(issued.not_after, NOW.after(DAY / 2));
    let late = authority.issue(&id(), &workload_key(), Duration::ZERO, NOW.after(DAY));
    assert!(matches!(late, Err(IssueError::Expired { .. })));
}

#[test]
fn keys_of_all_kinds_sign() {
    let rsa = || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
    let p384 = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    for (root_key, signing_key) in [(rsa(), p256()), (p256(), rsa()), (p384(), p384()), (p256(), p384())] {
        let root = root_ca(root_key);
        let signing = intermediate_ca(ca_params("signing", DAY * 300), signing_key, &root);
        for files in [Files::istio(&root, &signing), Files::kubernetes(&root, &signing)] {
            let authority = files.open().expect("an authority").authority();
            let issued = authority.issue(&id(), &workload_key(), Duration::ZERO, NOW).expect("a leaf");
            assert_eq!(issued.chain.len(), 3, "leaf, intermediate and root");
            let mut trust = TrustBundle::new();
            trust.add_roots("cluster.local", authority.roots().to_vec()).expect("roots");
            let chain = [vec![issued.certificate], authority.signer().intermediates().to_vec()].concat();
            assert_eq!(trust.verify(&chain, NOW).expect("proven").id, id());
        }
    }
}

#[test]
fn a_key_that_is_made_here_is_of_its_certificate() {
    let root = root_ca(p256());
    let signing = intermediate_ca(ca_params("signing", DAY * 300), p256(), &root);
    let authority = Files::istio(&root, &signing).open().expect("an authority").authority();
    let made = authority.issue_with_key(&id(), NOW).expect("a certificate");
    let chain = crate::pem::certificates(made.chain.as_bytes()).expect("PEM");
    assert_eq!(chain.len(), 2, "leaf and intermediate, without the roots");
    let mut trust = TrustBundle::new();
    trust.add_roots("cluster.local", authority.roots().to_vec()).expect("roots");
    assert_eq!(trust.verify(&chain, NOW).expect("proven").id, id());
    let key = KeyPair::from_pem(made.key.expose_text().expect("PEM")).expect("a key");
    let point = PublicKey::of(&key);
    let point = rcgen::PublicKeyData::der_bytes(&point);
    assert!(chain[0].as_ref().windows(point.len()).any(|window| window == point));
    let other = authority.issue_with_key(&id(), NOW).expect("a certificate");
    assert!(!other.key.is_same(&made.key) && other.serial != made.serial);
}

#[test]
fn a_partial_bundle_names_the_file_that_is_missing() {
    let root = root_ca(p256());
    let signing = intermediate_ca(ca_params("signing", DAY * 300), p256(), &root);
    for name in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"] {
        let files = Files::istio(&root, &signing);
        files.remove(name);
        files.refuses(&format!("{name} is missing; beside "));
        assert!(Plugged::is_in(files.path()));
    }
    for name in ["tls.key", "ca.crt"] {
        let files = Files::kubernetes(&root, &signing);
        files.remove(name);
        files.refuses(&format!("{name} is missing; beside tls.crt there must be tls.crt, tls.key, ca.crt"));
    }
    let empty = Files(tempfile::tempdir().expect("a directory"));
    empty.refuses("has neither ca-cert.pem nor tls.crt");
    assert!(!Plugged::is_in(empty.path()));
}

#[test]
fn files_that_do_not_fit_each_other_are_refused() {
    let root = root_ca(p256());
    let params = || ca_params("signing", DAY * 300);
    let signing = intermediate_ca(params(), p256(), &root);
    let files = || Files::istio(&root, &signing);
    let with = |name: &str, text: &str, expected: &str| {
        let files = files();
        files.put(name, text);
        files.refuses(expected);
    };
    with(
        "ca-key.pem",
        &p256().serialize_pem(),
        "ca-key.pem: the key is not that of the certificate \"CN=signing\"",
    );
    with("ca-key.pem", "junk", "ca-key.pem: the key cannot be used: there is no private key in it");
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    with("ca-key.pem", &ed25519.serialize_pem(), "ca-key.pem: the key cannot be used: it is one of Ed25519");
    with("ca-cert.pem", "junk", "ca-cert.pem: there is no certificate in it");
    with("root-cert.pem", "junk", "root-cert.pem: there is no certificate in it");
    with("ca-crl.pem", "junk", "ca-crl.pem: there is no revocation list in it");
    with("root-cert.pem", &root_ca(p256()).pem(), "does not verify with the roots");
    let refuse = |change: &dyn Fn(&mut CertificateParams), expected: &str| {
        let mut params = params();
        change(&mut params);
        Files::istio(&root, &intermediate_ca(params, p256(), &root)).refuses(expected);
    };
    refuse(
        &|params| params.is_ca = IsCa::ExplicitNoCa,
        "ca-cert.pem: the certificate \"CN=signing\" is not one of an authority",
    );
    refuse(
        &|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        "is not one of an authority",
    );
    refuse(
        &|params| params.not_after = NOW.before(DAY / 2).date_time(),
        "is not valid at 2027-01-15T08:00:00Z",
    );
    refuse(&|params| params.not_before = NOW.after(DAY).date_time(), "is not valid at");
    refuse(
        &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
        "does not verify with the roots",
    );
    let old_root = Issuer::self_signed(ca_params("root", Duration::ZERO), p256()).expect("a root");
    let signing = intermediate_ca(params(), p256(), &old_root);
    let at = |now| Plugged::open(Files::istio(&old_root, &signing).path(), LeafLife::default(), now);
    assert!(at(NOW).is_ok());
    let error = at(NOW.after(Duration::from_secs(1))).expect_err("an old root").to_string();
    assert!(error.contains("\"CN=root\" is not valid at"), "{error}");
}

#[test]
fn a_chain_that_is_too_short_is_refused() {
    let root = root_ca(p256());
    let policy = intermediate_ca(ca_params("policy", DAY * 300), p256(), &root);
    let signing = intermediate_ca(ca_params("signing", DAY * 200), p256(), &policy);
    let files = Files::istio(&root, &signing);
    files.refuses("cert-chain.pem: what the certificate \"CN=signing\" signs does not verify");
    files.put("cert-chain.pem", &format!("{}{}", signing.pem(), policy.pem()));
    let authority = files.open().expect("an authority").authority();
    let issued = authority.issue(&id(), &workload_key(), Duration::ZERO, NOW).expect("a leaf");
    assert_eq!(issued.chain.len(), 4);
    let mut no_more = ca_params("policy", DAY * 300);
    no_more.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let policy = intermediate_ca(no_more, p256(), &root);
    let signing = intermediate_ca(ca_params("signing", DAY * 200), p256(), &policy);
    files.put("ca-cert.pem", &signing.pem());
    files.put("ca-key.pem", &signing.key().serialize_pem());
    files.put("cert-chain.pem", &format!("{}{}", signing.pem(), policy.pem()));
    files.refuses("does not verify with the roots");
}

#[test]
fn entries_of_a_secret_are_an_authority_and_may_lack_what_leads_to_the_root() {
    let root = Root::generate("cluster.local", NOW).expect("a root");
    let certificate = || Secret::from(pem::of_certificate(&root.certificate));
    let entries = |roots: Secret| {
        let [one, key] = [("ca-cert.pem", certificate()), ("ca-key.pem", root.key.clone())];
        let [chain, roots] = [("cert-chain.pem", Secret::new(Vec::new())), ("root-cert.pem", roots)];
        [one, key, chain, roots]
            .into_iter()
            .map(|(name, entry)| (name.to_owned(), entry))
            .collect::<Entries>()
    };
    let given = |entries| Plugged::given("Secret a/b", entries, LeafLife::default(), NOW);
    let mut plugged = given(entries(certificate())).expect("an authority");
    let issued = plugged.authority().issue(&id(), &workload_key(), Duration::ZERO, NOW).expect("a leaf");
    assert_eq!(issued.chain.len(), 2, "leaf and root");
    assert!(matches!(plugged.refresh(NOW), Refreshed::Unchanged));
    // A second root beside it, then one in its place.
    let other = pem::of_certificate(&Root::generate("cluster.local", NOW).expect("a root").certificate);
    let both = format!("{}{other}", pem::of_certificate(&root.certificate));
    plugged.give(entries(Secret::from(both)));
    assert!(matches!(plugged.refresh(NOW), Refreshed::Replaced));
    assert_eq!(plugged.authority().roots().len(), 2);
    let mut without = entries(certificate());
    without.remove("root-cert.pem");
    let error = given(without).expect_err("no roots").to_string();
    assert!(error.contains("Secret a/b/root-cert.pem is missing"), "{error}");
    plugged.give(Entries::new());
    assert!(matches!(plugged.refresh(NOW), Refreshed::Kept(PluggedError::Nothing { .. })));
    assert_eq!(plugged.authority().roots().len(), 2, "what was good stays");
}

/// A revocation list of an authority that ends after so long.
fn list(issuer: &Issuer, serial: u64, lasts: Duration) -> String {
    let params = rcgen::CertificateRevocationListParams {
        this_update: NOW.before(DAY).date_time(),
        next_update: NOW.after(lasts).date_time(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: NOW.before(DAY).date_time(),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).expect("a list").pem().expect("PEM")
}

#[test]
fn revocation_lists_are_tried_before_proxies_have_them() {
    let may_revoke = |mut params: CertificateParams| {
        params.key_usages.push(KeyUsagePurpose::CrlSign);
        params
    };
    let root = Issuer::self_signed(may_revoke(ca_params("root", DAY * 3650)), p256()).expect("a root");
    let signing = intermediate_ca(may_revoke(ca_params("signing", DAY * 300)), p256(), &root);
    let forger = Issuer::self_signed(may_revoke(ca_params("root", DAY * 3650)), p256()).expect("a root");
    let files = Files::istio(&root, &signing);
    let (of_root, of_signing) = (list(&root, 1, DAY * 7), list(&signing, 2, DAY));
    let both = format!("{of_root}{of_signing}");
    files.put("ca-crl.pem", &both);
    let mut plugged = files.open().expect("an authority");
    let revoked = plugged.revoked().expect("lists");
    assert_eq!((revoked.lists().len(), revoked.until()), (2, Some(NOW.after(DAY))));
    assert_eq!(crate::pem::revocation_lists(revoked.pem().as_bytes()).expect("lists"), revoked.lists());
    let refused = |text: &str, expected: &str| {
        files.put("ca-crl.pem", text);
        files.refuses(expected);
        files.put("ca-crl.pem", &both);
    };
    refused("", "ca-crl.pem: there is no revocation list in it");
    refused(&of_root, "ca-crl.pem: there is no list of \"CN=signing\"");
    refused(&of_signing, "ca-crl.pem: there is no list of \"CN=root\"");
    refused(&format!("{of_root}{}", list(&signing, 2, Duration::ZERO)), "has ended at 2027-01-15T08:00:00Z");
    refused(
        &format!("{}{of_signing}", list(&forger, 1, DAY)),
        "with these lists nothing verifies that the authority signs",
    );
    refused(&format!("{both}{}", list(&signing, 3, DAY)), "there are two lists of \"CN=signing\"");
    // That they end is told once a day, and when they have ended.
    let (soon, passed) = (Ending::Soon(NOW.after(DAY)), Ending::Passed(NOW.after(DAY)));
    assert_eq!(plugged.ending(NOW), Some(soon));
    assert_eq!(plugged.ending(NOW.after(Duration::from_secs(2))), None, "told once");
    assert_eq!(plugged.ending(NOW.after(DAY - Duration::from_secs(1))), Some(soon), "the next day");
    assert_eq!(plugged.ending(NOW.after(DAY)), Some(passed));
    // Later such a file changes nothing.
    files.put("ca-crl.pem", &of_root);
    assert!(matches!(plugged.refresh(NOW), Refreshed::Kept(PluggedError::Revoked { .. })));
    assert_eq!(plugged.revoked().expect("lists").lists().len(), 2);
    files.put("ca-crl.pem", &format!("{of_root}{}", list(&signing, 3, DAY * 2)));
    assert!(matches!(plugged.refresh(NOW), Refreshed::Replaced));
    assert_eq!(plugged.revoked().expect("lists").until(), Some(NOW.after(DAY * 2)));
    files.put("ca-crl.pem", &format!("{of_root}{}", list(&signing, 4, DAY * 100)));
    assert!(matches!(plugged.refresh(NOW), Refreshed::Replaced));
    assert_eq!(plugged.ending(NOW), Some(Ending::Soon(NOW.after(DAY * 7))), "that of the root");
    files.remove("ca-crl.pem");
    assert!(matches!(plugged.refresh(NOW), Refreshed::Replaced));
    assert!(plugged.revoked().is_none());
    assert_eq!(plugged.ending(NOW), None);
}

#[test]
fn new_files_are_used_and_bad_ones_are_not() {
    let root = root_ca(p256());
    let params = || ca_params("signing", DAY * 300);
    let signing = intermediate_ca(params(), p256(), &root);
    let files = Files::istio(&root, &signing);
    let mut plugged = files.open().expect("an authority");
    let serial = |plugged: &Plugged| {
        Facts::of(&plugged.authority().signer().intermediates()[0]).expect("facts").serial
    };
    let before = serial(&plugged);
    assert!(matches!(plugged.refresh(NOW), Refreshed::Unchanged));
    files.put("ca-key.pem", "junk");
    assert!(matches!(plugged.refresh(NOW), Refreshed::Kept(PluggedError::Signer { .. })));
    assert!(matches!(plugged.refresh(NOW), Refreshed::Unchanged), "said once");
    assert_eq!(serial(&plugged), before);
    files.remove("ca-key.pem");
    assert!(matches!(plugged.refresh(NOW), Refreshed::Kept(PluggedError::Partial { .. })));
    let new = intermediate_ca(params(), p256(), &root);
    files.put("ca-cert.pem", &new.pem());
    files.put("cert-chain.pem", &new.pem());
    files.put("ca-key.pem", &new.key().serialize_pem());
    assert!(matches!(plugged.refresh(NOW), Refreshed::Replaced));
    assert_ne!(serial(&plugged), before);
}

#[test]
fn roots_are_replaced_by_way_of_both() {
    let (old, new) =
        (root_ca(p256()), Issuer::self_signed(ca_params("new", DAY * 3650), p256()).expect("a root"));
    let params = || ca_params("signing", DAY * 300);
    let of_old = intermediate_ca(params(), p256(), &old);
    let of_new = intermediate_ca(params(), p256(), &new);
    let files = Files::istio(&old, &of_old);
    let mut plugged = files.open().expect("an authority");
    let put = |signing: &Issuer, roots: &[&Issuer]| {
        files.put("ca-cert.pem", &signing.pem());
        files.put("cert-chain.pem", &signing.pem());
        files.put("ca-key.pem", &signing.key().serialize_pem());
        files.put("root-cert.pem", &roots.iter().map(|root| root.pem()).collect::<String>());
    };
    put(&of_new, &[&new]);
    match plugged.refresh(NOW) {
        Refreshed::Kept(error) => {
            assert!(error.to_string().contains("Put old and new roots into it first"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    for (signing, roots) in [(&of_old, vec![&old, &new]), (&of_new, vec![&old, &new]), (&of_new, vec![&new])]
    {
        put(signing, &roots);
        assert!(matches!(plugged.refresh(NOW), Refreshed::Replaced));
    }
}

#[test]
fn the_control_plane_has_the_names_that_clients_ask_for() {
    let names =
        server_names("istio-system", "canary", &["navarch.example.com".to_owned(), "localhost".to_owned()]);
    assert_eq!(
        names,
        [
            "istiod.istio-system.svc",
            "istiod-remote.istio-system.svc",
            "istio-pilot.istio-system.svc",
            "navarch.istio-system.svc",
            "istiod-canary.istio-system.svc",
            "navarch-canary.istio-system.svc",
            "localhost",
            "127.0.0.1",
            "::1",
            "navarch.example.com",
        ]
    );
    let certificate = self_signed().issue_server(&names, NOW).expect("a certificate");
    let facts = Facts::of(&certificate.chain[0]).expect("facts");
    assert_eq!(facts.dns_names.len(), 8);
    assert!(facts.uris.is_empty(), "the control plane is not a workload");
    assert!(self_signed().issue_server(&["ä".to_owned()], NOW).is_err());
}

/// Verifies with another implementation what was signed.
fn openssl(arguments: &[&str], directory: &Path) -> String {
    let output =
        Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn openssl_agrees() {
    let root = root_ca(p256());
    let signing = intermediate_ca(ca_params("signing", DAY * 300), p256(), &root);
    for authority in
        [Arc::new(self_signed()), Files::istio(&root, &signing).open().expect("an authority").authority()]
    {
        let temp = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).expect("written");
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem"], temp.path());
        openssl(
            &[
                "req",
                "-new",
                "-key",
                "key.pem",
                "-subj",
                "/O=someone",
                "-addext",
                "subjectAltName=URI:spiffe://other/ns/a/sa/b",
                "-out",
                "csr.pem",
            ],
            temp.path(),
        );
        let csr = std::fs::read(temp.path().join("csr.pem")).expect("read");
        let key = crate::request::parse(&csr).expect("a key");
        let issued = authority.issue(&id(), &key, Duration::ZERO, NOW).expect("a leaf");
        let (roots, rest) = issued.chain.split_last().expect("a chain");
        put("leaf.pem", &rest[0]);
        put("between.pem", &rest[1..].concat());
        put("roots.pem", roots);
        let at = NOW.0.to_string();
        for purpose in ["sslclient", "sslserver"] {
            let mut arguments =
                vec!["verify", "-attime", &at, "-x509_strict", "-purpose", purpose, "-CAfile", "roots.pem"];
            if rest.len() > 1 {
                arguments.extend(["-untrusted", "between.pem"]);
            }
            arguments.push("leaf.pem");
            assert_eq!(openssl(&arguments, temp.path()), "leaf.pem: OK\n");
        }
        let text = openssl(&["x509", "-in", "leaf.pem", "-noout", "-text"], temp.path());
        for expected in [
            "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/shop/sa/web\n",
            "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
            "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication\n",
            "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
            "X509v3 Authority Key Identifier: \n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let public = openssl(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"], temp.path());
        assert_eq!(public, openssl(&["pkey", "-in", "key.pem", "-pubout"], temp.path()));
    }
}

#[test]
fn a_name_with_one_attribute_twice_is_written_as_it_was() {
    // Two parts of one kind, as directories of companies name their authorities.
    let temp = tempfile::tempdir().expect("a directory");
    let subject = "/DC=com/DC=example/CN=signing";
    openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "tls.key",
            "-out",
            "tls.crt",
            "-days",
            "3650",
            "-subj",
            subject,
        ],
        temp.path(),
    );
    std::fs::copy(temp.path().join("tls.crt"), temp.path().join("ca.crt")).expect("copied");
    let certificate = std::fs::read(temp.path().join("tls.crt")).expect("read");
    let certificate = crate::pem::certificates(&certificate).expect("a certificate");
    let now = Facts::of(&certificate[0]).expect("facts").not_before.after(DAY);
    let authority = Plugged::open(temp.path(), LeafLife::default(), now).expect("an authority").authority();
    let issued = authority.issue(&id(), &workload_key(), Duration::ZERO, now).expect("a leaf");
    let mut trust = TrustBundle::new();
    trust.add_roots("cluster.local", authority.roots().to_vec()).expect("roots");
    assert_eq!(trust.verify(&[issued.certificate], now).expect("proven").id, id());
    // Another implementation agrees.
    std::fs::write(temp.path().join("leaf.pem"), &issued.chain[0]).expect("written");
    openssl(&["verify", "-attime", &now.0.to_string(), "-CAfile", "ca.crt", "leaf.pem"], temp.path());
}
