//! Keys go to proxies whose service account may read them, where an API server says so.

use std::sync::Arc;

use navarch_envoy::XdsType;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::fact::{Account, Fact, FactKey, SecretAccess};
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{Planner, Secrets, TranslationFindings};
use navarch_snapshot::{Part, World};
use serde_json::json;

/// A gateway that asks for certificates of clients, and its key.
fn mesh() -> String {
    let key = rcgen::generate_simple_self_signed(["web.example.com".to_owned()]).expect("a certificate");
    let (certificate, key) = (key.cert.pem(), key.signing_key.serialize_pem());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web", "namespace": "edge"},
        "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": certificate},
    });
    format!(
        "{secret}\n---\n{}",
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": "edge"},
            "spec": {"selector": {"istio": "edge"}, "servers": [{
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"],
                "tls": {"mode": "MUTUAL", "credentialName": "web"},
            }]},
        })
    )
}

#[test]
fn keys_go_to_accounts_that_may_read_them() {
    let account = Account { namespace: "edge".into(), name: "gateway".into() };
    let part = Part::Fact(FactKey::SecretReader(account.clone()));
    let mut world = World::new(Default::default());
    let parsed = parse_text("mesh.yaml", &mesh());
    assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
    let planner = Planner::new(world.apply(ChangeSet::upserting(parsed.objects)));
    let plan = |secrets: Secrets, labels: serde_json::Value| {
        let metadata = json!({"NAMESPACE": "edge", "SERVICE_ACCOUNT": "gateway", "LABELS": labels});
        let metadata = metadata.as_object().expect("an object").clone();
        let id = "router~10.0.0.9~gateway.edge~edge.svc.cluster.local";
        let facts = ProxyFacts::parse(id, "gateway", &metadata, Locality::default()).expect("a node");
        planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts).with_secrets(secrets))))
    };
    let is_asked = || planner.inspect(|engine| engine.is_read(&part));
    let names = |plan: &navarch_plan::ClassPlan| -> Vec<String> {
        let resources = planner.resources(plan);
        resources.set(XdsType::Sds).iter().map(|resource| resource.name().to_string()).collect()
    };
    let (key, authority) = ("kubernetes://web".to_owned(), "kubernetes://web-cacert".to_owned());

    // Who needs no keys is not asked about.
    let other = plan(Secrets::Reviewed, json!({"istio": "other"}));
    assert!(names(&other).is_empty() && !is_asked());
    let given = plan(Secrets::Given, json!({"istio": "edge"}));
    assert_eq!(names(&given), [key.clone(), authority.clone()]);
    assert!(!is_asked());
    let withheld = plan(Secrets::Withheld, json!({"istio": "edge"}));
    assert!(names(&withheld).is_empty());

    // Authorities are public in their namespace.
    let reviewed = plan(Secrets::Reviewed, json!({"istio": "edge"}));
    assert_eq!(names(&reviewed), std::slice::from_ref(&authority));
    assert!(is_asked());
    let mut findings = TranslationFindings::default();
    let mut check = |access: SecretAccess, expected: &[String], said: Option<&str>| {
        let fact = Fact::SecretReader { account: account.clone(), access: access.clone() };
        let snapshot = world.apply(ChangeSet::stating([fact]));
        planner.advance(snapshot.clone());
        assert_eq!(names(&reviewed), expected, "{access:?}");
        let found = findings.about(&snapshot, &Arc::default());
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        match said {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(said) => assert!(found.len() == 1 && found[0].contains(said), "{found:?}"),
        }
    };
    let both = [key, authority.clone()];
    let unanswered = SecretAccess::Unanswered { reason: "it is away".into() };
    check(unanswered, std::slice::from_ref(&authority), Some("is not known (it is away)"));
    check(SecretAccess::Allowed, &both, None);
    check(
        SecretAccess::Denied,
        std::slice::from_ref(&authority),
        Some(
            "Secret edge/web is withheld from proxies of edge/gateway, whose service accounts may not list Secrets",
        ),
    );
    check(SecretAccess::Allowed, &both, None);
}
