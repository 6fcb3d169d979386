use navarch_identity::pem::of_certificates;
use navarch_model::change::ChangeSet;
use navarch_model::fact::{Fact, FactKey};
use navarch_model::mesh::MeshSettings;
use navarch_model::parse_text;
use navarch_snapshot::World;

use super::published::REFRESH;
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
        let wanted = keys.wanted(&snapshot(rules)).into_iter();
        let wanted: Vec<String> = wanted.map(|published| published.url).collect();
        assert_eq!(wanted, expected, "{rules}");
    };
    check("{issuer: a, jwksUri: https://a/keys}", &["https://a/keys", "https://own/keys"]);
    check("{issuer: 'https://a/'}", &["https://a/.well-known/openid-configuration", "https://own/keys"]);
    check(&format!("{{issuer: a, jwks: '{KEYS}', jwksUri: https://a/keys}}"), &["https://own/keys"]);
}

#[tokio::test(start_paused = true)]
async fn attempts_become_rare_and_what_was_good_stays() {
    let fetched = || Ok(Fetched { text: "keys".into(), ..Fetched::default() });
    let mut issuer = Place::new();
    issuer.take("https://a/keys", fetched());
    let refresh = issuer.next - Instant::now();
    assert!((REFRESH.mul_f64(0.89)..=REFRESH.mul_f64(1.11)).contains(&refresh), "{refresh:?}");
    let mut waits = Vec::new();
    for _ in 0..12 {
        issuer.take("https://a/keys", Err("no answer".into()));
        waits.push((issuer.next - Instant::now()).as_secs());
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
    assert!(issuer.known.is_some() && issuer.error.is_some());
    issuer.take("https://a/keys", fetched());
    assert!(issuer.error.is_none() && issuer.failures == 0);
}

#[tokio::test]
async fn what_cannot_be_fetched_is_a_fact_and_goes_with_the_policy() {
    let keys = Keys::new(Options::default());
    let source = Published::keys("http://127.0.0.1:1/keys".to_owned());
    keys.want([source.clone()].into());
    assert_eq!(keys.due(), std::slice::from_ref(&source));
    assert_eq!(keys.due(), [], "one attempt at a time");
    assert!(keys.fetch_one(&source).await.is_none());
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
    let fetched = Fetched { text: KEYS.into(), ..Fetched::default() };
    for url in ["https://a/keys", "https://b/keys"] {
        kept.write(&Published::keys(url.to_owned()), &fetched, Timestamp(7)).expect("written");
    }
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

/// A world whose mesh settings name these roots.
fn trusting(data: &str) -> Arc<Snapshot> {
    let text = format!("caCertificates: [{data}]");
    let (config, findings) = navarch_model::mesh::parse_mesh_config(&text, "mesh.yaml", 1);
    assert!(findings.is_empty(), "{findings:?}");
    let settings = MeshSettings { config, ..MeshSettings::default() };
    World::new(Default::default()).apply(ChangeSet::stating([Fact::MeshConfig(Arc::new(settings))]))
}

#[tokio::test]
async fn roots_are_fetched_over_https_and_do_not_become_older() {
    let keys = Keys::new(Options::default());
    let check = |data: &str, expected: &[&str]| {
        let wanted = keys.wanted(&trusting(data)).into_iter();
        let wanted: Vec<(What, String)> = wanted.map(|published| (published.what, published.url)).collect();
        let expected: Vec<(What, String)> =
            expected.iter().map(|url| (What::Roots, (*url).to_owned())).collect();
        assert_eq!(wanted, expected, "{data}");
    };
    check("{spiffeBundleUrl: 'https://a/bundle'}", &["https://a/bundle"]);
    check("{spiffeBundleUrl: a/bundle}", &["https://a/bundle"]);

    let plain = Published { what: What::Roots, url: "http://a/bundle".to_owned() };
    let reason = keys.fetch(&plain).await.expect_err("refused");
    assert!(reason.contains("over HTTPS and in no other way"), "{reason}");

    let published = Published { what: What::Roots, url: "https://a/bundle".to_owned() };
    let numbered = |sequence| Fetched { sequence, ..Fetched::default() };
    keys.want([published.clone()].into());
    for (number, good) in [(Some(7), true), (Some(6), false), (None, true), (Some(7), true), (Some(8), true)]
    {
        let fetched = keys.not_older(&published, numbered(number));
        assert_eq!(fetched.is_ok(), good, "{number:?}");
        if let (Ok(fetched), Some(_)) = (fetched, number) {
            keys.places.lock().get_mut(&published).expect("wanted").take(&published.url, Ok(fetched));
        }
    }
}

#[test]
fn roots_are_kept_for_the_next_start() {
    let temp = tempfile::tempdir().expect("a directory");
    let state = temp.path().join("state");
    drop(navarch_identity::store::StateDirectory::open(&state).expect("made"));
    let root = navarch_identity::authority::Root::generate("them", now()).expect("a root");
    let pem = of_certificates([&root.certificate]);
    let kept = Kept::new(state.clone());
    let published = |url: &str| Published { what: What::Roots, url: url.to_owned() };
    for (url, text) in [("https://a/bundle", pem.as_str()), ("https://b/bundle", "junk")] {
        let fetched = Fetched { text: text.into(), sequence: Some(7), ..Fetched::default() };
        kept.write(&published(url), &fetched, Timestamp(7)).expect("written");
    }
    let keys = Keys::new(Options { state: Some(state), ..Options::default() });
    let world = trusting("{spiffeBundleUrl: a/bundle, trustDomains: [them]}, {spiffeBundleUrl: b/bundle}");
    assert!(keys.restore(&world));
    let (stated, _) = facts(&keys);
    let [Fact::TrustBundle { domain, bundle }] = &stated[..] else { panic!("{stated:?}") };
    assert_eq!((&**domain, &*bundle.roots), ("https://a/bundle", pem.as_str()));
    let older = Fetched { sequence: Some(6), ..Fetched::default() };
    assert!(keys.not_older(&published("https://a/bundle"), older).is_err(), "the number is kept too");
}
