use std::path::Path;
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);

struct Rig {
    _temp: tempfile::TempDir,
    path: std::path::PathBuf,
    tokens: Arc<JoinTokens>,
}

fn open(path: &Path) -> Arc<JoinTokens> {
    let directory = StateDirectory::open(path).expect("a directory");
    Arc::new(JoinTokens::new(Arc::new(directory)))
}

fn rig() -> Rig {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("state");
    Rig { tokens: open(&path), path, _temp: temp }
}

fn web() -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", "web").expect("an id")
}

#[track_caller]
fn refused(result: Result<Claims, TokenError>, expected: &str) {
    let error = result.expect_err("refused").to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_token_says_what_it_was_made_for() {
    let rig = rig();
    let (made, token) = rig.tokens.create(&web(), MINUTE, false, NOW).expect("a token");
    assert_eq!(made.identity(), Ok(web()));
    assert_eq!(made.expires, NOW.after(MINUTE));
    assert_eq!(rig.tokens.verify(&token, NOW).expect("claims"), made);
    assert_eq!(open(&rig.path).verify(&token, NOW).expect("claims"), made, "after a restart too");
    assert!(!format!("{token:?} {:?}", rig.tokens).contains("navarch-join"));
    let text = token.expose_text().expect("text").to_owned();
    let code = text.rsplit_once('.').expect("a code").1;
    for name in ["tokens/key", &format!("tokens/{}.json", made.id), "audit.jsonl"] {
        let kept = std::fs::read(rig.path.join(name)).expect("read");
        let kept = String::from_utf8_lossy(&kept);
        assert!(!kept.contains(code), "{name} has the token in it");
    }
}

#[test]
fn a_token_ends() {
    let rig = rig();
    let (_, token) = rig.tokens.create(&web(), MINUTE, false, NOW).expect("a token");
    rig.tokens.verify(&token, Timestamp(NOW.0 + 59)).expect("claims");
    refused(rig.tokens.verify(&token, Timestamp(NOW.0 + 60)), "has expired at 2027-01-15T08:01:00Z");
    for life in [Duration::ZERO, LIFE_MAX + MINUTE] {
        assert!(matches!(rig.tokens.create(&web(), life, false, NOW), Err(JoinError::Life)));
    }
}

#[test]
fn a_token_is_revoked() {
    let rig = rig();
    let (made, token) = rig.tokens.create(&web(), MINUTE, false, NOW).expect("a token");
    open(&rig.path).revoke(&made.id, NOW).expect("revoked");
    refused(rig.tokens.verify(&token, NOW), "has been revoked at 2027-01-15T08:00:00Z");
    for id in ["0123456789abcdef", "../authority", "", "key"] {
        assert!(matches!(rig.tokens.revoke(id, NOW), Err(JoinError::Absent(_))), "{id}");
    }
}

#[test]
fn a_token_for_one_use_is_used_once() {
    let rig = rig();
    let (made, token) = rig.tokens.create(&web(), MINUTE, true, NOW).expect("a token");
    let claims = rig.tokens.verify(&token, NOW).expect("claims");
    rig.tokens.verify(&token, NOW).expect("looking does not use it");
    rig.tokens.spend(&claims, NOW).expect("used");
    refused(rig.tokens.verify(&token, NOW), "has been used");
    refused(open(&rig.path).verify(&token, NOW), &made.id);
    let again = open(&rig.path).spend(&claims, NOW);
    assert!(matches!(again, Err(TokenError::Used { .. })));
    let (_, token) = rig.tokens.create(&web(), MINUTE, false, NOW).expect("a token");
    for _ in 0..3 {
        let claims = rig.tokens.verify(&token, NOW).expect("claims");
        rig.tokens.spend(&claims, NOW).expect("used as often as one likes");
    }
}

#[test]
fn of_many_that_use_a_token_at_once_one_succeeds() {
    let rig = rig();
    let (made, _) = rig.tokens.create(&web(), MINUTE, true, NOW).expect("a token");
    let barrier = Barrier::new(8);
    let used = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let tokens = open(&rig.path);
                    barrier.wait();
                    tokens.spend(&made, NOW).is_ok()
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|used| *used).count()
    });
    assert_eq!(used, 1);
}

#[test]
fn a_crash_does_not_give_a_use_back() {
    let rig = rig();
    for steps in 0..6 {
        let (made, token) = rig.tokens.create(&web(), MINUTE, true, NOW).expect("a token");
        let crashing = open(&rig.path);
        crashing.directory.power.lasts(steps);
        let used = crashing.spend(&made, NOW).is_ok();
        let left = open(&rig.path).verify(&token, NOW).is_ok();
        assert!(!(used && left), "{steps}: a use that was answered is not forgotten");
    }
}

#[test]
fn a_token_of_another_place_is_refused() {
    let (rig, other) = (rig(), rig());
    let (_, token) = other.tokens.create(&web(), MINUTE, false, NOW).expect("a token");
    refused(rig.tokens.verify(&token, NOW), "no join token has been made here");
    rig.tokens.create(&web(), MINUTE, false, NOW).expect("a token");
    refused(rig.tokens.verify(&token, NOW), "not made here, or has been changed");
}

#[test]
fn a_token_without_its_record_is_refused() {
    let rig = rig();
    let (made, token) = rig.tokens.create(&web(), MINUTE, false, NOW).expect("a token");
    let record = rig.path.join(format!("tokens/{}.json", made.id));
    let kept = std::fs::read_to_string(&record).expect("read");
    std::fs::write(&record, kept.replace("\"web\"", "\"admin\"")).expect("written");
    refused(rig.tokens.verify(&token, NOW), "nothing is known of");
    std::fs::write(&record, "{").expect("written");
    refused(rig.tokens.verify(&token, NOW), "cannot be understood");
    std::fs::remove_file(&record).expect("removed");
    refused(rig.tokens.verify(&token, NOW), "nothing is known of");
}

#[test]
fn a_token_cannot_be_made_into_another() {
    let rig = rig();
    let (made, token) = rig.tokens.create(&web(), MINUTE, true, NOW).expect("a token");
    let text = token.expose_text().expect("text");
    let code = text.rsplit_once('.').expect("a code").1;
    for claims in [
        Claims { service_account: "admin".to_owned(), ..made.clone() },
        Claims { once: false, ..made.clone() },
        Claims { expires: NOW.after(LIFE_MAX), ..made.clone() },
    ] {
        let json = serde_json::to_vec(&claims).expect("JSON");
        let forged = format!("{PREFIX}{}.{code}", URL_SAFE_NO_PAD.encode(&json));
        refused(rig.tokens.verify(&Secret::from(forged), NOW), "not made here, or has been changed");
        for code in ["", "AAAA"] {
            let forged = format!("{PREFIX}{}.{code}", URL_SAFE_NO_PAD.encode(&json));
            refused(rig.tokens.verify(&Secret::from(forged), NOW), "not made here, or has been changed");
        }
    }
    for other in ["", "navarch-join.v2.e30.AAAA", "eyJhbGciOiJub25lIn0.e30.", &"a".repeat(9000)] {
        refused(rig.tokens.verify(&Secret::from(other.to_owned()), NOW), "not a join token");
    }
}

#[test]
fn tokens_are_listed_and_forgotten_in_the_end() {
    let rig = rig();
    let make = |once, life| rig.tokens.create(&web(), life, once, NOW).expect("a token").0;
    let (valid, used, revoked, expired) =
        (make(false, MINUTE * 10), make(true, MINUTE * 10), make(false, MINUTE * 10), make(false, MINUTE));
    rig.tokens.spend(&used, NOW).expect("used");
    rig.tokens.revoke(&revoked.id, NOW).expect("revoked");
    let list = |now: Timestamp| {
        let mut listed = rig.tokens.list(now).expect("a list");
        listed.sort_by_key(|listed| listed.status as u8);
        listed.into_iter().map(|listed| (listed.claims.id, listed.status)).collect::<Vec<_>>()
    };
    let all = [
        (valid.id, Status::Valid),
        (used.id.clone(), Status::Used),
        (revoked.id, Status::Revoked),
        (expired.id, Status::Expired),
    ];
    assert_eq!(list(NOW.after(MINUTE)), all);
    let later = NOW.after(MINUTE * 10).after(KEPT);
    rig.tokens.create(&web(), MINUTE, false, later).expect("a token");
    assert_eq!(list(later).len(), 1);
    assert!(!rig.path.join(format!("tokens/{}.used", used.id)).exists());
}

#[test]
fn what_happened_is_written_down() {
    let rig = rig();
    let (made, _) = rig.tokens.create(&web(), MINUTE, true, NOW).expect("a token");
    rig.tokens.spend(&made, NOW).expect("used");
    assert!(rig.tokens.spend(&made, NOW).is_err());
    rig.tokens.revoke(&made.id, NOW).expect("revoked");
    rig.tokens.revoke(&made.id, NOW).expect("nothing to do");
    let text = std::fs::read_to_string(rig.path.join("audit.jsonl")).expect("read");
    let events: Vec<_> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["event"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(events.iter().flatten().collect::<Vec<_>>(), ["token_created", "token_used", "token_revoked"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_changed_token_is_never_believed(at in any::<prop::sample::Index>(), flip in 1..128u8, cut in any::<prop::sample::Index>()) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; KEY_BYTES]);
        let claims = Claims {
            id: "0123456789abcdef".to_owned(),
            trust_domain: "td".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            expires: NOW,
            once: true,
        };
        let token = seal(&claims, &key).expect("a token");
        prop_assert_eq!(unseal(&token, &key).expect("claims"), claims);
        let mut bytes = token.expose().to_vec();
        let index = at.index(bytes.len());
        bytes[index] ^= flip;
        prop_assert!(unseal(&Secret::new(bytes.clone()), &key).is_err());
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(unseal(&Secret::new(bytes), &key).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; KEY_BYTES]);
        let _ = unseal(&Secret::new(bytes.clone()), &key);
        let _ = unseal(&Secret::new([PREFIX.as_bytes(), &bytes].concat()), &key);
        // Claims that are signed and no claims.
        let sealed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(text));
        let code = URL_SAFE_NO_PAD.encode(hmac::sign(&key, sealed.as_bytes()));
        let token = Secret::from(format!("{sealed}.{code}"));
        prop_assert!(unseal(&token, &key).is_err());
    }
}
