use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::store::StateDirectory;
use crate::tokens::join::JoinAuthenticator;
use crate::tokens::review::{Question, Review, ReviewAuthenticator, ReviewError, Reviewer, Reviewing};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn id(text: &str) -> SpiffeId {
    text.parse().expect("an id")
}

/// Nothing here has to be waited for.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn presented(identities: &[&str], bearer: Option<&str>, purpose: Purpose) -> Presented {
    Presented {
        identities: identities.iter().map(|text| id(text)).collect(),
        bearer: bearer.map(|text| Secret::from(text.to_owned())),
        cluster: Some("c1".to_owned()),
        trust_domains: TrustDomains::new("td", ["old-td"]),
        purpose,
    }
}

/// An API server that knows one token, in one cluster.
struct OneToken;

impl Reviewer for OneToken {
    fn review<'a>(&'a self, question: Question<'a>) -> Reviewing<'a> {
        let Question { token, audiences, cluster } = question;
        let review = Review {
            authenticated: token.expose() == b"kubernetes-token",
            username: "system:serviceaccount:demo:gw".to_owned(),
            audiences: audiences.to_vec(),
            pod: Some("gw-1".to_owned()),
            node: Some("node-1".to_owned()),
            error: "invalid bearer token".to_owned(),
        };
        let answer = match cluster {
            Some("c1") => Ok(review),
            other => Err(ReviewError::UnknownCluster(other.unwrap_or_default().to_owned())),
        };
        Box::pin(std::future::ready(answer))
    }
}

struct Rig {
    _temp: tempfile::TempDir,
    tokens: Arc<JoinTokens>,
    all: Authenticators,
}

fn rig() -> Rig {
    let temp = tempfile::tempdir().expect("a directory");
    let directory = StateDirectory::open(&temp.path().join("state")).expect("a directory");
    let tokens = Arc::new(JoinTokens::new(Arc::new(directory)));
    let audiences = vec!["istio-ca".to_owned()];
    let all = Authenticators::new(vec![
        Arc::new(CertificateAuthenticator),
        Arc::new(JoinAuthenticator { tokens: tokens.clone() }),
        Arc::new(ReviewAuthenticator { reviewer: Arc::new(OneToken), audiences }),
    ]);
    Rig { _temp: temp, tokens, all }
}

impl Rig {
    fn token(&self, identity: &str, once: bool) -> String {
        let (_, token) =
            self.tokens.create(&id(identity), Duration::from_secs(60), once, NOW).expect("a token");
        token.expose_text().expect("text").to_owned()
    }

    fn authenticate(&self, presented: &Presented) -> Result<Caller, Unauthenticated> {
        now_or_never(self.all.authenticate(presented, NOW))
    }

    #[track_caller]
    fn check(&self, presented: &Presented, expected: Result<(Method, &str), &str>) {
        match (self.authenticate(presented), expected) {
            (Ok(caller), Ok((method, identity))) => {
                assert_eq!((caller.method, caller.identity.to_string().as_str()), (method, identity));
            }
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expected) => panic!("{found:?}, {expected:?}"),
        }
    }
}

#[test]
fn the_first_proof_counts() {
    let rig = rig();
    let (web, gw, api) =
        ("spiffe://td/ns/shop/sa/web", "spiffe://td/ns/demo/sa/gw", "spiffe://td/ns/shop/sa/api");
    let join = rig.token(api, false);
    let stream = Purpose::Stream;
    rig.check(&presented(&[web], None, stream), Ok((Method::ClientCertificate, web)));
    rig.check(&presented(&[web], Some("kubernetes-token"), stream), Ok((Method::ClientCertificate, web)));
    rig.check(&presented(&[], Some("kubernetes-token"), stream), Ok((Method::KubernetesToken, gw)));
    rig.check(&presented(&[], Some(&join), stream), Ok((Method::JoinToken, api)));
    let foreign = "spiffe://elsewhere/ns/shop/sa/web";
    rig.check(&presented(&[foreign], Some(&join), stream), Ok((Method::JoinToken, api)));
    rig.check(
        &presented(&["spiffe://old-td/ns/shop/sa/web"], None, stream),
        Ok((Method::ClientCertificate, "spiffe://old-td/ns/shop/sa/web")),
    );
}

#[test]
fn who_proves_nothing_is_told_nothing_and_the_log_everything() {
    let rig = rig();
    let check = |presented: Presented, expected: &str| {
        rig.check(&presented, Err(expected));
        let refused = crate::service::Refused::from(rig.authenticate(&presented).expect_err("refused"));
        assert_eq!(refused.message, "request authenticate failure");
        assert!(refused.reason.contains(expected));
    };
    let stream = Purpose::Stream;
    check(presented(&[], None, stream), "neither a certificate nor a token");
    check(
        presented(&["spiffe://elsewhere/ns/a/sa/b"], None, stream),
        "is not of a trust domain of this mesh",
    );
    check(
        presented(&["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c"], None, stream),
        "it names 2 identities",
    );
    check(
        presented(&[], Some("hello"), stream),
        "Kubernetes token: the API server does not believe the token",
    );
    let elsewhere =
        Presented { cluster: Some("c2".to_owned()), ..presented(&[], Some("kubernetes-token"), stream) };
    check(elsewhere, "no cluster is called \"c2\"");
    let foreign = rig.token("spiffe://elsewhere/ns/a/sa/b", false);
    check(presented(&[], Some(&foreign), stream), "is of the trust domain \"elsewhere\"");
}

#[test]
fn a_join_token_is_shown_to_nobody_else() {
    struct Nobody;
    impl Reviewer for Nobody {
        fn review<'a>(&'a self, _: Question<'a>) -> Reviewing<'a> {
            panic!("a join token has been sent to an API server")
        }
    }
    let temp = tempfile::tempdir().expect("a directory");
    let directory = StateDirectory::open(&temp.path().join("state")).expect("a directory");
    let tokens = Arc::new(JoinTokens::new(Arc::new(directory)));
    let all = Authenticators::new(vec![
        Arc::new(JoinAuthenticator { tokens }),
        Arc::new(ReviewAuthenticator { reviewer: Arc::new(Nobody), audiences: Vec::new() }),
    ]);
    let presented = presented(&[], Some("navarch-join.v1.e30.AAAA"), Purpose::Stream);
    let error = now_or_never(all.authenticate(&presented, NOW)).expect_err("refused");
    assert_eq!(error.reasons.len(), 1);
}

#[test]
fn a_token_for_one_use_is_for_a_certificate() {
    let rig = rig();
    let web = "spiffe://td/ns/shop/sa/web";
    let once = rig.token(web, true);
    rig.check(&presented(&[], Some(&once), Purpose::Stream), Err("is for one certificate"));
    let caller = rig.authenticate(&presented(&[], Some(&once), Purpose::Certificate)).expect("proven");
    let again = rig.authenticate(&presented(&[], Some(&once), Purpose::Certificate)).expect("not used yet");
    caller.spend(NOW).expect("used");
    assert!(again.spend(NOW).is_err(), "the other call lost");
    rig.check(&presented(&[], Some(&once), Purpose::Certificate), Err("has been used"));
}

#[test]
fn a_kubernetes_token_says_where_the_pod_is() {
    let rig = rig();
    let caller =
        rig.authenticate(&presented(&[], Some("kubernetes-token"), Purpose::Stream)).expect("proven");
    let facts = KubernetesFacts {
        cluster: Some("c1".to_owned()),
        pod: Some(("demo".to_owned(), "gw-1".to_owned())),
        node: Some("node-1".to_owned()),
    };
    assert_eq!(caller.kubernetes, Some(facts));
}

#[test]
fn without_keys_every_oidc_token_is_refused() {
    let rule = JwtRule::parse(r#"{"issuer":"i","audiences":["a"]}"#).expect("a rule");
    let all = Authenticators::new(vec![Arc::new(OidcAuthenticator::new(rule))]);
    let presented = presented(&[], Some("a.b.c"), Purpose::Stream);
    let error = now_or_never(all.authenticate(&presented, NOW)).expect_err("refused");
    assert_eq!(error.to_string(), "OIDC token: the keys of the issuer are not known yet");
}

#[test]
fn bearer_tokens_are_found_in_their_header() {
    let check = |header: &str, expected: Option<&str>| {
        let token = bearer(header.as_bytes());
        assert_eq!(token.as_ref().and_then(Secret::expose_text), expected, "{header}");
    };
    check("Bearer abc", Some("abc"));
    check("bearer  abc ", Some("abc"));
    check("Bearer ", None);
    check("Bearer", None);
    check("Basic abc", None);
    check("Bearerabc", None);
    check("", None);
}
