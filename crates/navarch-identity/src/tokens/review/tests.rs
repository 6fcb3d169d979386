use super::*;

/// Answers of API servers, as they come over the wire.
const BOUND: &str = r#"{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{"creationTimestamp":null},"spec":{"token":"t","audiences":["istio-ca"]},
"status":{"authenticated":true,"user":{"username":"system:serviceaccount:demo:gw","uid":"0c1d","groups":["system:serviceaccounts","system:serviceaccounts:demo","system:authenticated"],
"extra":{"authentication.kubernetes.io/node-name":["node-1"],"authentication.kubernetes.io/pod-name":["gw-1"],"authentication.kubernetes.io/pod-uid":["91ae"]}},"audiences":["istio-ca"]}}"#;
const UNBOUND: &str = r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"system:serviceaccount:demo:gw"},"audiences":["istio-ca"]}}"#;
const OTHER_AUDIENCE: &str = r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"system:serviceaccount:demo:gw"},"audiences":["https://kubernetes.default.svc"]}}"#;
const NO_AUDIENCE: &str = r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"system:serviceaccount:demo:gw"}}}"#;
const INVALID: &str = r#"{"kind":"TokenReview","status":{"user":{},"error":"[invalid bearer token, service account token has expired]"}}"#;
const A_PERSON: &str = r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"system:admin"},"audiences":["istio-ca"]}}"#;
const NO_STATUS: &str = r#"{"kind":"TokenReview","spec":{"token":"t"}}"#;

#[test]
fn an_answer_proves_a_service_account_or_nobody() {
    let audiences = ["istio-ca".to_owned()];
    let check = |text: &str, expected: Result<&str, &str>| {
        let found = Review::parse(text.as_bytes()).and_then(|review| review.identity(&audiences, "td"));
        match (found, expected) {
            (Ok(id), Ok(expected)) => assert_eq!(id.to_string(), expected),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expected) => panic!("{found:?}, {expected:?}"),
        }
    };
    check(BOUND, Ok("spiffe://td/ns/demo/sa/gw"));
    check(UNBOUND, Ok("spiffe://td/ns/demo/sa/gw"));
    check(OTHER_AUDIENCE, Err("the token is for [\"https://kubernetes.default.svc\"]"));
    check(NO_AUDIENCE, Err("the token is for []"));
    check(INVALID, Err("service account token has expired"));
    check(A_PERSON, Err("\"system:admin\" is not system:serviceaccount:"));
    check(NO_STATUS, Err("does not believe the token"));
    check(r#"{"kind":"Status","status":"Failure"}"#, Err("not a TokenReview"));
    check("", Err("not a TokenReview"));
    check(&" ".repeat(ANSWER_BYTES_MAX + 1), Err("it has 1048577 bytes"));
}

#[test]
fn a_bound_token_says_which_pod_and_node() {
    let facts = |text: &str| Review::parse(text.as_bytes()).map(|review| (review.pod, review.node));
    assert_eq!(facts(BOUND), Ok((Some("gw-1".to_owned()), Some("node-1".to_owned()))));
    assert_eq!(facts(UNBOUND), Ok((None, None)));
}
