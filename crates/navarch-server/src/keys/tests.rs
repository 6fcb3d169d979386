use navarch_model::change::ChangeSet;
use navarch_model::parse_text;
use navarch_snapshot::World;

use super::*;

const KEYS: &str = concat!(
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":""#,
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    r#""}]}"#
);

fn snapshot(rules: &str) -> Arc<Snapshot> {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: a, namespace: shop}}\nspec: {{jwtRules: [{rules}]}}\n"
    );
    let mut world = World::new(Default::default());
    world.apply(ChangeSet::upserting(parse_text("policy.yaml", &text).objects))
}

fn facts(keys: &Keys) -> (Vec<Fact>, Vec<FactKey>) {
    let batch = keys.source().read().expect("readable");
    (batch.facts, batch.retracted)
}

#[test]
fn what_policies_name_is_wanted_and_nothing_else() {
    let keys = Keys::new(Options { own: Some("https://own/keys".to_owned()), ..Options::default() });
    let check = |rules: &str, expected: &[&str]| {
        let wanted: Vec<String> = keys.wanted(&snapshot(rules)).into_iter().collect();
        assert_eq!(wanted, expected, "{rules}");
    };
    check("{issuer: a, jwksUri: https://a/keys}", &["https://a/keys", "https://own/keys"]);
    check("{issuer: 'https://a/'}", &["https://a/.well-known/openid-configuration", "https://own/keys"]);
    check(&format!("{{issuer: a, jwks: '{KEYS}', jwksUri: https://a/keys}}"), &["https://own/keys"]);
}

#[tokio::test(start_paused = true)]
async fn attempts_become_rare_and_what_was_good_stays() {
    let mut issuer = Issuer::new();
    issuer.take("https://a/keys", Ok("keys".into()));
    let refresh = issuer.next - Instant::now();
    assert!((REFRESH.mul_f64(0.89)..=REFRESH.mul_f64(1.11)).contains(&refresh), "{refresh:?}");
    let mut waits = Vec::new();
    for _ in 0..12 {
        issuer.take("https://a/keys", Err("no answer".into()));
        waits.push((issuer.next - Instant::now()).as_secs());
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
    assert!(issuer.keys.is_some() && issuer.error.is_some());
    issuer.take("https://a/keys", Ok("keys".into()));
    assert!(issuer.error.is_none() && issuer.failures == 0);
}

#[tokio::test]
async fn what_cannot_be_fetched_is_a_fact_and_goes_with_the_policy() {
    let keys = Keys::new(Options::default());
    let source = "http://127.0.0.1:1/keys";
    keys.want([source.to_owned()].into());
    assert_eq!(keys.due(), [source]);
    assert_eq!(keys.due(), [""; 0], "one attempt at a time");
    assert!(keys.fetch_one(source).await.is_none());
    let (stated, _) = facts(&keys);
    let [Fact::Unfetched { reason, .. }] = &stated[..] else { panic!("{stated:?}") };
    assert!(reason.contains("it is loopback"), "{reason}");
    let status = keys.status();
    assert!(!status[0].has_keys && status[0].error.is_some(), "{status:?}");
    keys.want(BTreeSet::new());
    assert_eq!(facts(&keys).1.len(), 2);
    assert!(keys.status().is_empty());
}

#[test]
fn keys_are_kept_for_the_next_start() {
    let temp = tempfile::tempdir().expect("a directory");
    let state = temp.path().join("state");
    let options = || Options { state: Some(state.clone()), ..Options::default() };
    let world = snapshot("{issuer: a, jwksUri: https://a/keys}");
    assert!(!Keys::new(options()).restore(&world) && !state.exists(), "looking makes nothing");
    drop(navarch_identity::store::StateDirectory::open(&state).expect("made"));
    let kept = Kept::new(state.clone());
    kept.write("https://a/keys", KEYS, Timestamp(7)).expect("written");
    kept.write("https://b/keys", KEYS, Timestamp(7)).expect("written");
    let keys = Keys::new(options());
    assert!(keys.restore(&world));
    let (stated, _) = facts(&keys);
    assert!(
        matches!(&stated[..], [Fact::Jwks { source, .. }] if **source == *"https://a/keys"),
        "{stated:?}"
    );
    assert_eq!(keys.status()[0].fetched, Some(Timestamp(7)));
    assert!(keys.at("https://a/keys").is_some() && keys.at("https://b/keys").is_none());
}
