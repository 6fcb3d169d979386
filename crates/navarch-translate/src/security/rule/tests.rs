use navarch_envoy::json::typed_to_json;
use navarch_model::security::{Condition, RuleFrom, RuleTo};
use serde_json::{Value, json};

use super::*;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn rule(from: Option<Source>, to: Option<Operation>, when: &[(&str, &[&str], &[&str])]) -> Rule {
    Rule {
        from: from.map(|source| RuleFrom { source: Some(source) }).into_iter().collect(),
        to: to.map(|operation| RuleTo { operation: Some(operation) }).into_iter().collect(),
        when: when
            .iter()
            .map(|(key, values, not_values)| Condition {
                key: (*key).to_owned(),
                values: texts(values),
                not_values: texts(not_values),
            })
            .collect(),
    }
}

fn translate(rule: &Rule, tcp: bool, strict: bool) -> Option<Value> {
    let trust_domains = TrustDomains::new("cluster.local", [""; 0]);
    let cx = Context { namespace: "ns", trust_domains: &trust_domains, tcp, strict, filter_state: false };
    policy(rule, cx).map(|policy| typed_to_json(&policy))
}

/// What stands for one condition on the caller.
fn check_who(key: &str, value: &str, expected: Value) {
    let translated = translate(&rule(None, None, &[(key, &[value], &[])]), false, true).unwrap();
    assert_eq!(translated["principals"][0]["andIds"]["ids"][0], expected, "{key}: {value}");
    assert_eq!(translated["permissions"][0]["andRules"]["rules"], json!([{"any": true}]));
}

/// What stands for one condition on the operation.
fn check_what(key: &str, value: &str, expected: Value) {
    let translated = translate(&rule(None, None, &[(key, &[value], &[])]), false, true).unwrap();
    assert_eq!(translated["permissions"][0]["andRules"]["rules"][0], expected, "{key}: {value}");
    assert_eq!(translated["principals"][0]["andIds"]["ids"], json!([{"any": true}]));
}

fn one(identity: Value) -> Value {
    json!({"orIds": {"ids": [identity]}})
}

fn peer_json(matcher: Value) -> Value {
    one(json!({"authenticated": {"principalName": matcher}}))
}

fn claim_json(path: &[&str], matcher: Value) -> Value {
    let path: Vec<Value> = path.iter().map(|key| json!({"key": key})).collect();
    json!({"metadata": {"filter": JWT_FILTER, "path": path, "value": matcher}})
}

#[test]
fn conditions_on_the_caller() {
    check_who(
        "source.ip",
        "10.0.0.0/8",
        one(json!({"directRemoteIp": {"addressPrefix": "10.0.0.0", "prefixLen": 8}})),
    );
    check_who(
        "remote.ip",
        "1.2.3.4",
        one(json!({"remoteIp": {"addressPrefix": "1.2.3.4", "prefixLen": 32}})),
    );
    check_who("source.namespace", "a*b", peer_json(json!({"safeRegex": {"regex": ".*/ns/a.*b/.*"}})));
    check_who("source.trustDomain", "td", peer_json(json!({"prefix": "spiffe://td/"})));
    check_who("source.trustDomain", "*", peer_json(json!({"prefix": "spiffe://"})));
    check_who(
        "source.trustDomain",
        "a.*",
        peer_json(json!({"safeRegex": {"regex": r"spiffe://a\.[^/]*/.*"}})),
    );
    check_who(
        "source.serviceAccount",
        "sa",
        peer_json(json!({"safeRegex": {"regex": "spiffe://.+/ns/ns/(.+/|)sa/sa(/.+)?"}})),
    );
    check_who(
        "source.serviceAccount",
        "other/sa",
        peer_json(json!({"safeRegex": {"regex": "spiffe://.+/ns/other/(.+/|)sa/sa(/.+)?"}})),
    );
    check_who("source.principal", "td/ns/a/sa/b", peer_json(json!({"exact": "spiffe://td/ns/a/sa/b"})));
    check_who(
        "request.headers[x]",
        "a*",
        one(json!({"header": {"name": "x", "stringMatch": {"prefix": "a"}}})),
    );
    let either = |text: Value| json!({"orMatch": {"valueMatchers": [{"listMatch": {"oneOf": {"stringMatch": text}}}, {"stringMatch": text}]}});
    check_who("request.auth.audiences", "a", claim_json(&["payload", "aud"], either(json!({"exact": "a"}))));
    check_who("request.auth.presenter", "a", claim_json(&["payload", "azp"], either(json!({"exact": "a"}))));
    check_who(
        "request.auth.claims[a][b-c]",
        "*z",
        claim_json(&["payload", "a", "b-c"], either(json!({"suffix": "z"}))),
    );
    check_who(
        "request.auth.claims[a[0]]",
        "z",
        claim_json(&["payload", "a[0]"], either(json!({"exact": "z"}))),
    );
}

#[test]
fn issuer_and_subject_of_a_token() {
    let present = json!({"safeRegex": {"regex": ".+"}});
    for (value, issuer, subject) in [
        ("*", present.clone(), present.clone()),
        ("https://a.b/c/sub", json!({"exact": "https://a.b/c"}), json!({"exact": "sub"})),
        ("iss/*", json!({"exact": "iss"}), present.clone()),
        ("iss/su*", json!({"exact": "iss"}), json!({"prefix": "su"})),
        ("*/sub", present.clone(), json!({"exact": "sub"})),
        ("*.com/sub", json!({"suffix": ".com"}), json!({"exact": "sub"})),
        ("*sub", present.clone(), json!({"suffix": "sub"})),
        ("iss*", json!({"prefix": "iss"}), present.clone()),
        ("iss", json!({"exact": "iss"}), json!({"exact": ""})),
    ] {
        let claim = |name, matcher| claim_json(&["payload", name], json!({"stringMatch": matcher}));
        let expected = json!({"andIds": {"ids": [claim("iss", issuer), claim("sub", subject)]}});
        check_who("request.auth.principal", value, expected);
    }
}

#[test]
fn conditions_on_the_operation() {
    let one = |permission: Value| json!({"orRules": {"rules": [permission]}});
    check_what(
        "destination.ip",
        "10.1.1.1",
        one(json!({"destinationIp": {"addressPrefix": "10.1.1.1", "prefixLen": 32}})),
    );
    check_what("destination.port", "80", one(json!({"destinationPort": 80})));
    check_what("connection.sni", "*.a.com", one(json!({"requestedServerName": {"suffix": ".a.com"}})));
    let metadata = |value: Value| json!({"metadata": {"filter": "envoy.filters.a", "path": [{"key": "k"}], "value": value}});
    check_what("experimental.envoy.filters.a[k]", "v", metadata(json!({"stringMatch": {"exact": "v"}})));
    check_what(
        "experimental.envoy.filters.a[k]",
        "[v*]",
        metadata(json!({"listMatch": {"oneOf": {"stringMatch": {"prefix": "v"}}}})),
    );
}

#[test]
fn operations_and_negations() {
    let operation = Operation {
        hosts: texts(&["*"]),
        not_methods: texts(&["GET", "HEAD"]),
        paths: texts(&["/a/{*}/{**}"]),
        not_ports: texts(&["81"]),
        ..Operation::default()
    };
    let translated = translate(&rule(None, Some(operation), &[]), false, true).unwrap();
    let method = |name| json!({"header": {"name": ":method", "stringMatch": {"exact": name}}});
    let template = json!({"uriTemplate": {"name": "uri-template", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "pathTemplate": "/a/*/**",
    }}});
    assert_eq!(
        translated["permissions"][0]["andRules"]["rules"],
        json!([
            {"orRules": {"rules": [{"header": {"name": ":authority", "presentMatch": true}}]}},
            {"notRule": {"orRules": {"rules": [method("GET"), method("HEAD")]}}},
            {"orRules": {"rules": [template]}},
            {"notRule": {"orRules": {"rules": [{"destinationPort": 81}]}}},
        ]),
    );
}

/// Fields that only requests have: an ALLOW rule is dropped on connections, another one loses the field.
#[test]
fn what_connections_do_not_have() {
    let paths =
        |paths: &[&str]| Operation { paths: texts(paths), ports: texts(&["80"]), ..Operation::default() };
    let by_path = rule(None, Some(paths(&["/a"])), &[]);
    assert_eq!(translate(&by_path, true, true), None);
    let wider = translate(&by_path, true, false).unwrap();
    let ports = json!([{"andRules": {"rules": [{"orRules": {"rules": [{"destinationPort": 80}]}}]}}]);
    assert_eq!(wider["permissions"], ports);
    for key in ["request.headers[a]", "request.auth.principal", "request.auth.claims[a]"] {
        let by_token = rule(None, None, &[(key, &["a"], &[])]);
        assert_eq!(translate(&by_token, true, true), None, "{key}");
        let wider = translate(&by_token, true, false).unwrap();
        assert_eq!(wider["principals"], json!([{"andIds": {"ids": [{"any": true}]}}]), "{key}");
    }
}

#[test]
fn an_unknown_condition_drops_the_rule() {
    assert_eq!(translate(&rule(None, None, &[("source.color", &["red"], &[])]), false, false), None);
}
