//! Join tokens, as anybody may send them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use navarch_identity::store::StateDirectory;
use navarch_identity::tokens::join::{Claims, JoinTokens, PREFIX};
use navarch_identity::{Secret, Timestamp};
use navarch_model::SpiffeId;

const NOW: Timestamp = Timestamp(1_800_000_000);
const KEY: [u8; 32] = [7; 32];

/// The tokens of a directory, the only one that was made, and what it is good for.
struct Made {
    tokens: JoinTokens,
    token: Secret,
    claims: Claims,
    _directory: tempfile::TempDir,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let temp = tempfile::tempdir().expect("a directory");
    let state = Arc::new(StateDirectory::open(&temp.path().join("state")).expect("a state directory"));
    assert!(state.create("tokens/key", &KEY).expect("written"));
    let tokens = JoinTokens::new(state);
    let id = SpiffeId::new("td", "shop", "web").expect("an id");
    let (claims, token) = tokens.create(&id, Duration::from_secs(3600), false, NOW).expect("a token");
    Made { tokens, token, claims, _directory: temp }
});

/// The first byte says what the others are: a token, what comes behind its prefix, claims that were sealed
/// with the key, or what the good token is changed by.
pub fn run(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let token = match how % 4 {
        0 => Secret::new(data.to_vec()),
        1 => Secret::new([PREFIX.as_bytes(), data].concat()),
        2 => sealed(data),
        _ => {
            let mut bytes = MADE.token.expose().to_vec();
            let length = bytes.len();
            for (at, byte) in data.iter().enumerate() {
                bytes[at % length] ^= byte;
            }
            Secret::new(bytes)
        }
    };
    let Ok(claims) = MADE.tokens.verify(&token, NOW) else { return };
    // There is no second token, and of the one nothing is changed.
    assert_eq!(claims, MADE.claims);
    assert!(how % 4 == 2 || token.is_same(&MADE.token));
}

fn sealed(claims: &[u8]) -> Secret {
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(claims));
    let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), text.as_bytes());
    Secret::from(format!("{text}.{}", URL_SAFE_NO_PAD.encode(code)))
}
