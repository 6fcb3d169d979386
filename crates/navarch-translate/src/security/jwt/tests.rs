use navarch_envoy::json::typed_to_json;
use navarch_model::Name;
use serde_json::{Value, json};

use super::*;

fn filter(rules: Vec<JwtRule>, keys: &[(&str, &str)]) -> Option<Value> {
    let policy = Config {
        namespace: Name::from("ns"),
        name: Name::from("policy"),
        created_at: 0,
        labels: Default::default(),
        annotations: Default::default(),
        spec: RequestAuthentication { jwt_rules: rules, ..RequestAuthentication::default() },
    };
    let input = RequestAuthenticationInput {
        policies: vec![Arc::new(Hashed::new(policy))],
        keys: keys.iter().map(|(source, keys)| ((*source).to_owned(), Arc::from(*keys))).collect(),
        clear_route_cache: false,
    };
    TokenChecks::run(&input).map(|filter| typed_to_json(&*filter)["typedConfig"].clone())
}

fn rule(issuer: &str, jwks: &str, jwks_uri: &str) -> JwtRule {
    JwtRule {
        issuer: issuer.to_owned(),
        jwks: jwks.to_owned(),
        jwks_uri: jwks_uri.to_owned(),
        ..JwtRule::default()
    }
}

fn optional(name: &str) -> Value {
    json!({"requiresAny": {"requirements": [{"providerName": name}, {"allowMissing": {}}]}})
}

#[test]
fn no_rules_no_filter() {
    assert_eq!(filter(Vec::new(), &[]), None);
}

#[test]
fn one_issuer() {
    let config = filter(vec![rule("a", "keys", "")], &[]).unwrap();
    assert_eq!(config["rules"], json!([{"match": {"prefix": "/"}, "requires": optional("origins-0")}]));
    let provider = &config["providers"]["origins-0"];
    assert_eq!(provider["localJwks"], json!({"inlineString": "keys"}));
    assert_eq!(
        provider["normalizePayloadInMetadata"]["spaceDelimitedClaims"],
        json!(["permission", "scope"])
    );
}

#[test]
fn several_issuers_by_name() {
    let config = filter(vec![rule("b", "kb", ""), rule("a", "ka", "")], &[]).unwrap();
    assert_eq!(config["providers"]["origins-0"]["issuer"], "a");
    let all = json!({"requiresAll": {"requirements": [optional("origins-0"), optional("origins-1")]}});
    assert_eq!(
        config["rules"][0]["requires"]["requiresAny"]["requirements"],
        json!([{"providerName": "origins-0"}, {"providerName": "origins-1"}, all]),
    );
}

/// Without keys every token is refused, as long as the key set is one that Envoy accepts.
#[test]
fn keys_of_elsewhere() {
    let keys = |rule, known: &[(&str, &str)]| {
        let config = filter(vec![rule], known).unwrap();
        config["providers"]["origins-0"]["localJwks"]["inlineString"].as_str().unwrap().to_owned()
    };
    let uri = "https://a/keys";
    assert_eq!(keys(rule("a", "", uri), &[(uri, "fetched")]), "fetched");
    let discovery = "https://a/.well-known/openid-configuration";
    assert_eq!(keys(rule("https://a/", "", ""), &[(discovery, "found")]), "found");
    let nobody: Value = serde_json::from_str(&keys(rule("a", "", uri), &[])).unwrap();
    assert_eq!(nobody["keys"][0]["kty"], "RSA");
    assert_eq!(nobody["keys"][0]["n"].as_str().map(str::len), Some(342));
}
