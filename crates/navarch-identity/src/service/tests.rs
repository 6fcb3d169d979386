use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;
use crate::authenticate::{Authenticators, Method, Presented, Purpose};
use crate::authority::{LeafLife, Root, Signer};
use crate::certificate::Facts;
use crate::pem;
use crate::store::StateDirectory;
use crate::tokens::join::{JoinAuthenticator, JoinTokens};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn authority() -> Authority {
    let root = Root::generate("td", NOW).expect("a root");
    let roots = vec![root.certificate.clone()];
    let signer = Signer::new(&root.certificate, &root.key, &[], &roots, NOW).expect("a signer");
    Authority::new(signer, roots, LeafLife::default(), None)
}

fn id(text: &str) -> SpiffeId {
    text.parse().expect("an id")
}

const WEB: &str = "spiffe://td/ns/shop/sa/web";
const NODE: &str = "spiffe://td/ns/istio-system/sa/ztunnel";

fn caller(identity: &str) -> Caller {
    Caller::new(id(identity), Method::KubernetesToken)
}

fn csr() -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        vec![SanType::URI("spiffe://td/ns/kube-system/sa/admin".try_into().expect("ASCII"))];
    let key = KeyPair::generate().expect("a key");
    params.serialize_request(&key).expect("a request").pem().expect("PEM")
}

fn request(csr: String, seconds: i64, metadata: &[(&str, Kind)]) -> Vec<u8> {
    let fields = metadata
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), prost_types::Value { kind: Some(kind.clone()) }));
    let metadata = Some(prost_types::Struct { fields: fields.collect() });
    CertificateRequest { csr, validity_duration: seconds, metadata }.encode_to_vec()
}

fn text(value: &str) -> Kind {
    Kind::StringValue(value.to_owned())
}

/// Whose certificate comes of it, for how many seconds from now; or the code and the words.
fn answer(
    service: &CertificateService,
    caller: &Caller,
    request: &[u8],
) -> Result<(String, u64), (Code, String)> {
    let answer = service.create_certificate(&authority(), caller, request, NOW);
    let answer = answer.map_err(|refused| (refused.code, refused.message))?;
    let chain = CertificateResponse::decode(&*answer).expect("a response").cert_chain;
    assert!(chain.len() >= 2, "agents refuse fewer");
    let leaf = pem::certificates(chain[0].as_bytes()).expect("a certificate");
    let facts = Facts::of(&leaf[0]).expect("facts");
    Ok((facts.uris.join(" "), NOW.until(facts.not_after).as_secs()))
}

#[test]
fn the_caller_is_who_the_certificate_says() {
    let service = CertificateService::new(Impersonation::default());
    let check = |request: Vec<u8>, expected: Result<u64, (Code, &str)>| {
        let found = answer(&service, &caller(WEB), &request);
        let expected = expected.map(|seconds| (WEB.to_owned(), seconds));
        match (&found, &expected) {
            (Err((code, message)), Err((expected, words))) => {
                assert_eq!(code, expected);
                assert!(message.contains(words), "{message}");
            }
            _ => assert_eq!(found, expected.map_err(|(code, words)| (code, words.to_owned()))),
        }
    };
    let day = 86_400;
    check(request(csr(), 0, &[]), Ok(day));
    check(request(csr(), -5, &[]), Ok(day));
    check(request(csr(), 48 * 3600, &[("CertSigner", text("")), ("ClusterID", text("c1"))]), Ok(2 * day));
    check(request(csr(), 90 * 86_400, &[("ImpersonatedIdentity", text(""))]), Ok(90 * day));
    check(request(csr(), 90 * 86_400 + 1, &[]), Err((Code::InvalidArgument, "7776000 s are the most")));
    check(request(csr(), i64::MAX, &[]), Err((Code::InvalidArgument, "are the most")));
    check(request("junk".to_owned(), 0, &[]), Err((Code::InvalidArgument, "no certificate request in it")));
    check(vec![], Err((Code::InvalidArgument, "no certificate request in it")));
    check(vec![0xff; 10], Err((Code::InvalidArgument, "")));
    check(vec![0; MESSAGE_BYTES_MAX + 1], Err((Code::ResourceExhausted, "65537 bytes")));
}

struct Pods;

impl Workloads for Pods {
    fn share_a_node(&self, node_proxy: &KubernetesFacts, workload: &SpiffeId) -> bool {
        node_proxy.node.as_deref() == Some("node-1") && *workload == id(WEB)
    }
}

fn on_node(node: &str) -> Caller {
    let kubernetes = KubernetesFacts {
        cluster: Some("c1".to_owned()),
        pod: Some(("istio-system".to_owned(), "ztunnel-x".to_owned())),
        node: Some(node.to_owned()),
    };
    Caller { kubernetes: Some(kubernetes), ..caller(NODE) }
}

#[test]
fn a_node_acts_for_its_own_workloads_and_for_no_others() {
    let trusted = Impersonation::parse("istio-system/ztunnel, kube-system/other", Some(Arc::new(Pods)));
    let trusted = CertificateService::new(trusted.expect("a list"));
    let check = |service: &CertificateService, caller: &Caller, wanted: Kind, expected: Option<&str>| {
        let request = request(csr(), 0, &[("ImpersonatedIdentity", wanted)]);
        match (answer(service, caller, &request), expected) {
            (Ok((identity, _)), Some(expected)) => assert_eq!(identity, expected),
            (Err(error), None) => assert_eq!(error, (Code::Unauthenticated, IMPERSONATION.to_owned())),
            (found, expected) => panic!("{found:?}, {expected:?}"),
        }
    };
    let web = || text(WEB);
    check(&trusted, &on_node("node-1"), web(), Some(WEB));
    check(&trusted, &on_node("node-1"), text(""), Some(NODE));
    check(&trusted, &on_node("node-1"), Kind::NullValue(0), Some(NODE));
    check(&trusted, &on_node("node-2"), web(), None);
    check(&trusted, &on_node("node-1"), text("spiffe://td/ns/shop/sa/elsewhere"), None);
    check(&trusted, &on_node("node-1"), text("spiffe://other/ns/shop/sa/web"), None);
    check(&trusted, &on_node("node-1"), text("web"), None);
    check(&trusted, &on_node("node-1"), Kind::BoolValue(true), None);
    check(&trusted, &caller(NODE), web(), None);
    check(&trusted, &caller(WEB), web(), None);
    let mut no_cluster = on_node("node-1");
    no_cluster.kubernetes.as_mut().expect("facts").cluster = None;
    check(&trusted, &no_cluster, web(), None);
    let nobody = CertificateService::new(Impersonation::default());
    check(&nobody, &on_node("node-1"), web(), None);
    let no_kubernetes = Impersonation::parse("istio-system/ztunnel", None).expect("a list");
    check(&CertificateService::new(no_kubernetes), &on_node("node-1"), web(), None);
}

#[test]
fn trusted_accounts_are_a_list() {
    for (text, expected) in [
        ("", Some(0)),
        ("a/b", Some(1)),
        (" a/b , c/d,", Some(2)),
        ("a", None),
        ("a/b/c", None),
        ("/b", None),
    ] {
        let found = Impersonation::parse(text, None).ok().map(|list| list.trusted.len());
        assert_eq!(found, expected, "{text:?}");
    }
}

#[test]
fn a_caller_has_an_allowance() {
    let allowance = Allowance { burst: 2, every: Duration::from_secs(1) };
    let service = CertificateService::with_allowance(Impersonation::default(), allowance);
    let request = request(csr(), 0, &[]);
    for _ in 0..2 {
        answer(&service, &caller(WEB), &request).expect("a certificate");
    }
    let (code, message) = answer(&service, &caller(WEB), &request).expect_err("too many");
    assert_eq!(code, Code::ResourceExhausted);
    assert!(message.contains("the next one is allowed in 1000 ms"), "{message}");
    answer(&service, &caller("spiffe://td/ns/shop/sa/api"), &request).expect("somebody else");
}

#[test]
fn a_token_is_used_up_by_a_certificate_and_by_nothing_else() {
    let temp = tempfile::tempdir().expect("a directory");
    let directory = StateDirectory::open(&temp.path().join("state")).expect("a directory");
    let tokens = Arc::new(JoinTokens::new(Arc::new(directory)));
    let (_, token) = tokens.create(&id(WEB), Duration::from_secs(60), true, NOW).expect("a token");
    let all = Authenticators::new(vec![Arc::new(JoinAuthenticator { tokens })]);
    let presented = Presented {
        identities: Vec::new(),
        bearer: Some(token),
        cluster: None,
        trust_domains: navarch_model::identity::TrustDomains::new("td", [""; 0]),
        purpose: Purpose::Certificate,
    };
    let authenticate = || {
        let mut future = std::pin::pin!(all.authenticate(&presented, NOW));
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(caller) => caller,
            std::task::Poll::Pending => panic!("it waits"),
        }
    };
    let service = CertificateService::new(Impersonation::default());
    let caller = authenticate().expect("proven");
    for bad in [request("junk".to_owned(), 0, &[]), request(csr(), i64::MAX, &[])] {
        answer(&service, &caller, &bad).expect_err("refused");
    }
    let caller = authenticate().expect("a bad request does not use it up");
    answer(&service, &caller, &request(csr(), 0, &[])).expect("a certificate");
    let (code, message) = answer(&service, &caller, &request(csr(), 0, &[])).expect_err("used");
    assert_eq!((code, message.as_str()), (Code::Unauthenticated, UNAUTHENTICATED));
    authenticate().expect_err("used");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_message_panics_and_none_makes_another_identity(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        flip: u8,
    ) {
        let service = CertificateService::new(Impersonation::default());
        let _ = answer(&service, &caller(WEB), &bytes);
        let mut valid = request(csr(), 60, &[("ImpersonatedIdentity", text(NODE))]);
        let index = at.index(valid.len());
        valid[index] ^= flip;
        if let Ok((identity, _)) = answer(&service, &caller(WEB), &valid) {
            prop_assert_eq!(identity, WEB);
        }
    }
}
