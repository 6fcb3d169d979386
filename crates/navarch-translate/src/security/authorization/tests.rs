use navarch_envoy::json::typed_to_json;
use navarch_model::Name;
use navarch_model::mesh::{EnvoyExternalAuthorizationHttpProvider, ExtensionProvider, Provider};
use navarch_model::security::{ExtensionProviderRef, Operation, Rule, RuleTo};
use serde_json::{Value, json};

use super::super::external::Lookup;
use super::*;
use crate::access_log::Upstream;

fn policy(name: &str, action: AuthorizationAction, provider: &str, path: Option<&str>, dry: bool) -> Applied {
    let operation = |path: &str| Operation { paths: vec![path.to_owned()], ..Operation::default() };
    let rule =
        path.map(|path| Rule { to: vec![RuleTo { operation: Some(operation(path)) }], ..Rule::default() });
    Arc::new(Hashed::new(Config {
        namespace: Name::from("ns"),
        name: Name::from(name),
        created_at: 0,
        labels: Default::default(),
        annotations: dry.then(|| (Name::from(DRY_RUN), Name::from("true"))).into_iter().collect(),
        spec: AuthorizationPolicy {
            action,
            action_detail: (!provider.is_empty())
                .then(|| ActionDetail::Provider(ExtensionProviderRef { name: provider.to_owned() })),
            rules: rule.into_iter().collect(),
            ..AuthorizationPolicy::default()
        },
    }))
}

fn http_authorizer(name: &str) -> ExternalAuthorizer {
    let provider = EnvoyExternalAuthorizationHttpProvider {
        service: "authz.ns".to_owned(),
        port: 80,
        ..EnvoyExternalAuthorizationHttpProvider::default()
    };
    let provider =
        ExtensionProvider { name: name.to_owned(), provider: Some(Provider::EnvoyExtAuthzHttp(provider)) };
    let upstream = Upstream { host: "authz.ns".to_owned(), cluster: "outbound|80||authz.ns".to_owned() };
    ExternalAuthorizer {
        name: name.to_owned(),
        lookup: Lookup::Found { provider: Box::new(provider), upstream: Some(upstream) },
    }
}

fn filters(policies: Vec<Applied>, authorizers: Vec<ExternalAuthorizer>) -> (Vec<Value>, Vec<Value>) {
    let trust_domains = TrustDomains::new("cluster.local", [""; 0]);
    let filters =
        Authorization::run(&AuthorizationInput { policies, trust_domains, authorizers, filter_state: false });
    let http = filters.http.filters.iter().map(|entry| typed_to_json(&*entry.filter));
    let network = filters.network.filters.iter().map(|entry| typed_to_json(&*entry.filter));
    (http.collect(), network.collect())
}

fn names(policies: &Value) -> Vec<&str> {
    policies["policies"].as_object().map_or_else(Vec::new, |all| all.keys().map(String::as_str).collect())
}

#[test]
fn actions_in_order_with_dry_run_apart() {
    use AuthorizationAction::{Allow, Audit, Deny};
    let policies = vec![
        policy("a", Allow, "", Some("/a"), false),
        policy("b", Deny, "", Some("/b"), false),
        policy("c", Deny, "", Some("/c"), true),
        policy("d", Audit, "", Some("/d"), false),
        policy("e", Allow, "", None, false),
    ];
    let (http, network) = filters(policies, Vec::new());
    let configs: Vec<&Value> = http.iter().map(|filter| &filter["typedConfig"]).collect();
    assert_eq!(configs[0]["rules"]["action"], "LOG");
    assert_eq!(configs[1]["rules"]["action"], "DENY");
    assert_eq!(names(&configs[1]["rules"]), ["ns[ns]-policy[b]-rule[0]"]);
    assert_eq!(names(&configs[1]["shadowRules"]), ["ns[ns]-policy[c]-rule[0]"]);
    assert_eq!(configs[1]["shadowRulesStatPrefix"], "istio_dry_run_deny_");
    assert_eq!(names(&configs[2]["rules"]), ["ns[ns]-policy[a]-rule[0]", "ns[ns]-policy[e]-rule[0]"]);
    assert_eq!(
        configs[2]["rules"]["policies"]["ns[ns]-policy[e]-rule[0]"]["permissions"],
        json!([{"notRule": {"any": true}}]),
        "a policy without rules matches nothing"
    );
    // On connections the rule on a path is gone, and with it what it allowed.
    assert_eq!(names(&network[2]["typedConfig"]["rules"]), ["ns[ns]-policy[e]-rule[0]"]);
}

#[test]
fn custom_policies_ask_their_provider() {
    let (http, network) = filters(
        vec![policy("a", AuthorizationAction::Custom, "oauth", Some("/a"), false)],
        vec![http_authorizer("oauth")],
    );
    assert_eq!(http[0]["name"], "envoy.filters.http.rbac");
    let shadow = &http[0]["typedConfig"]["shadowRules"];
    assert_eq!(names(shadow), ["istio-ext-authz-oauth-ns[ns]-policy[a]-rule[0]"]);
    assert_eq!(http[1]["name"], "envoy.filters.http.ext_authz");
    assert_eq!(http[1]["typedConfig"]["httpService"]["serverUri"]["cluster"], "outbound|80||authz.ns");
    assert!(network.is_empty(), "a provider for requests cannot check connections");
}

#[test]
fn custom_policies_without_a_usable_provider_deny() {
    let custom = |name, provider| policy(name, AuthorizationAction::Custom, provider, Some("/a"), false);
    let unknown_service = ExternalAuthorizer {
        lookup: match http_authorizer("oauth").lookup {
            Lookup::Found { provider, .. } => Lookup::Found { provider, upstream: None },
            other => other,
        },
        ..http_authorizer("oauth")
    };
    let two = vec![custom("a", "oauth"), custom("b", "other")];
    for (policies, authorizers, count) in [
        (vec![custom("a", "oauth")], vec![], 1),
        (vec![custom("a", "oauth")], vec![unknown_service], 1),
        (vec![custom("a", "Oauth")], vec![http_authorizer("Oauth")], 1),
        (two, vec![http_authorizer("oauth"), http_authorizer("other")], 2),
    ] {
        let (http, network) = filters(policies, authorizers);
        assert_eq!((http.len(), network.len()), (count, count));
        let rules = &http[0]["typedConfig"]["rules"];
        assert_eq!(rules["action"], "DENY");
        assert!(names(rules)[0].ends_with("-deny-due-to-bad-CUSTOM-action"));
    }
}
