//! Join tokens: how a machine without Kubernetes gets its first certificate.
//!
//! A token is `navarch-join.v1.<claims>.<code>`: what it is good for, as JSON in base64url, and an
//! HMAC-SHA-256 over all before it. Whoever verifies it is who made it, so a shared key is enough; it costs a
//! microsecond, where a signature costs fifty, and everybody who connects can make the server verify one. The
//! code is verified before anything else is read.
//!
//! | File | |
//! |---|---|
//! | `tokens/key` | the key, made with the first token |
//! | `tokens/<id>.json` | what was made, and whether it is revoked. A token without this file is refused |
//! | `tokens/<id>.used` | made when a token for one use is used, before that is answered |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use navarch_model::identity::{SpiffeId, SpiffeIdError, TrustDomains};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit::{self, Event};
use crate::authenticate::{Answer, Authenticator, Caller, Method, Presented, Purpose, Refusal, SingleUse};
use crate::certificate::hex;
use crate::secret::Secret;
use crate::store::{StateDirectory, StoreError};
use crate::time::Timestamp;

/// What every join token starts with; nothing else does.
pub const PREFIX: &str = "navarch-join.v1.";

/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// How long a token may be good for. A token is for a machine that is being set up.
pub const LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long what is known of a token is kept after its end.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const DIRECTORY: &str = "tokens";
const KEY: &str = "tokens/key";
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Names the token where it must not be shown.
    pub id: String,
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
    pub expires: Timestamp,
    /// Good for one certificate.
    pub once: bool,
}

impl Claims {
    /// Who the holder of the token is.
    ///
    /// # Errors
    /// If that cannot be an identity.
    pub fn identity(&self) -> Result<SpiffeId, SpiffeIdError> {
        SpiffeId::new(&self.trust_domain, &self.namespace, &self.service_account)
    }
}

/// What is kept of a token. The token itself is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    claims: Claims,
    created: Timestamp,
    revoked: Option<Timestamp>,
}

/// Where a token is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Valid,
    Used,
    Revoked,
    Expired,
}

/// A token in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub claims: Claims,
    pub created: Timestamp,
    pub status: Status,
}

/// Why a token cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("a token is good for at least a second and at most {} days", LIFE_MAX.as_secs() / 86_400)]
    Life,
    #[error(transparent)]
    Identity(#[from] SpiffeIdError),
    #[error("the system gives no random bytes")]
    Random,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} cannot be understood")]
    Malformed(String),
    #[error("no token has the id {0:?}")]
    Absent(String),
}

/// Why a token proves nothing. For the log: who sent it hears less.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("it is not a join token")]
    Form,
    #[error("no join token has been made here, or the state directory is another one")]
    NoKey,
    #[error("it was not made here, or has been changed")]
    Forged,
    #[error("the join token {id} has expired at {at}")]
    Expired { id: String, at: Timestamp },
    #[error("the join token {id} has been revoked at {at}")]
    Revoked { id: String, at: Timestamp },
    #[error("the join token {id} was for one use, and has been used")]
    Used { id: String },
    #[error(
        "the join token {id} is for one certificate, and proves nothing on a stream; use the certificate"
    )]
    OnlyForCertificates { id: String },
    #[error("nothing is known of the join token {id}")]
    Unknown { id: String },
    #[error("the join token {id} is of the trust domain {domain:?}, which is not one of the mesh")]
    TrustDomain { id: String, domain: String },
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// The join tokens of a state directory.
pub struct JoinTokens {
    directory: Arc<StateDirectory>,
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokens").field("directory", &self.directory.path()).finish()
    }
}

impl JoinTokens {
    /// Those of a directory.
    #[must_use]
    pub fn new(directory: Arc<StateDirectory>) -> Self {
        JoinTokens { directory }
    }

    /// Makes a token for an identity. It is shown once: only what it is good for is kept.
    ///
    /// # Errors
    /// If the life is not one for a token, or it cannot be kept.
    pub fn create(
        &self,
        identity: &SpiffeId,
        life: Duration,
        once: bool,
        now: Timestamp,
    ) -> Result<(Claims, Secret), JoinError> {
        if life < Duration::from_secs(1) || life > LIFE_MAX {
            return Err(JoinError::Life);
        }
        self.forget_old(now)?;
        let key = self.key_or_new()?;
        let mut id = [0; ID_BYTES];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| JoinError::Random)?;
        let claims = Claims {
            id: hex(&id),
            trust_domain: identity.trust_domain().to_string(),
            namespace: identity.namespace().to_string(),
            service_account: identity.account().to_string(),
            expires: now.after(life),
            once,
        };
        let token = seal(&claims, &key)?;
        self.write(&Record { claims: claims.clone(), created: now, revoked: None })?;
        audit::record(
            &self.directory,
            &Event::token_created(&claims.id, identity, claims.expires, once),
            now,
        )?;
        Ok((claims, token))
    }

    /// All tokens that something is known of, by id.
    ///
    /// # Errors
    /// If what is kept cannot be read.
    pub fn list(&self, now: Timestamp) -> Result<Vec<Listed>, JoinError> {
        let mut listed = Vec::new();
        for id in self.ids()? {
            let Some(Record { claims, created, revoked }) = self.read(&id)? else { continue };
            let status = if revoked.is_some() {
                Status::Revoked
            } else if self.is_used(&id) {
                Status::Used
            } else if claims.expires <= now {
                Status::Expired
            } else {
                Status::Valid
            };
            listed.push(Listed { claims, created, status });
        }
        Ok(listed)
    }

    /// Makes a token worthless, from the next time it is presented. Certificates that it got stay valid until
    /// their end.
    ///
    /// # Errors
    /// If there is no such token, or that cannot be kept.
    pub fn revoke(&self, id: &str, now: Timestamp) -> Result<(), JoinError> {
        let record = if is_id(id) { self.read(id)? } else { None };
        let mut record = record.ok_or_else(|| JoinError::Absent(id.to_owned()))?;
        if record.revoked.is_none() {
            record.revoked = Some(now);
            self.write(&record)?;
            audit::record(&self.directory, &Event::TokenRevoked { token: id }, now)?;
        }
        Ok(())
    }

    /// What a token is good for, if it is good for anything now. That does not use it up.
    ///
    /// # Errors
    /// The reason why it proves nothing.
    pub fn verify(&self, token: &Secret, now: Timestamp) -> Result<Claims, TokenError> {
        let key = self.key()?.ok_or(TokenError::NoKey)?;
        let claims = unseal(token, &key)?;
        let id = || claims.id.clone();
        if claims.expires <= now {
            return Err(TokenError::Expired { id: id(), at: claims.expires });
        }
        let record = self.read(&claims.id)?.ok_or_else(|| TokenError::Unknown { id: id() })?;
        if record.claims != claims {
            return Err(TokenError::Unknown { id: id() });
        }
        if let Some(at) = record.revoked {
            return Err(TokenError::Revoked { id: id(), at });
        }
        if claims.once && self.is_used(&claims.id) {
            return Err(TokenError::Used { id: id() });
        }
        Ok(claims)
    }

    /// Uses a token for a certificate. When this returns, the use of a token for one use is on the disk: of
    /// several that try, one succeeds, also across processes and crashes.
    ///
    /// # Errors
    /// If it was used before, or the use cannot be written down.
    pub fn spend(&self, claims: &Claims, now: Timestamp) -> Result<(), TokenError> {
        let store = |error| TokenError::Join(JoinError::Store(error));
        if claims.once {
            let marker = format!("{DIRECTORY}/{}.used", claims.id);
            if !self.directory.create(&marker, now.to_string().as_bytes()).map_err(store)? {
                return Err(TokenError::Used { id: claims.id.clone() });
            }
        }
        let identity =
            format!("{}/ns/{}/sa/{}", claims.trust_domain, claims.namespace, claims.service_account);
        let event = Event::TokenUsed { token: &claims.id, identity: format!("spiffe://{identity}") };
        audit::record(&self.directory, &event, now).map_err(store)
    }

    fn ids(&self) -> Result<Vec<String>, JoinError> {
        let names = self.directory.list(DIRECTORY)?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")).map(str::to_owned).collect())
    }

    fn is_used(&self, id: &str) -> bool {
        self.directory.has(&format!("{DIRECTORY}/{id}.used"))
    }

    /// Removes what is known of tokens whose end is long past; they are refused for their end.
    fn forget_old(&self, now: Timestamp) -> Result<(), JoinError> {
        for id in self.ids()? {
            if self.read(&id)?.is_some_and(|record| record.claims.expires.after(KEPT) <= now) {
                self.directory.remove(&format!("{DIRECTORY}/{id}.json"))?;
                self.directory.remove(&format!("{DIRECTORY}/{id}.used"))?;
            }
        }
        Ok(())
    }

    fn read(&self, id: &str) -> Result<Option<Record>, JoinError> {
        let name = format!("{DIRECTORY}/{id}.json");
        let Some(text) = self.directory.read(&name)? else { return Ok(None) };
        let record: Record =
            serde_json::from_slice(text.expose()).map_err(|_| JoinError::Malformed(name.clone()))?;
        if record.claims.id == id { Ok(Some(record)) } else { Err(JoinError::Malformed(name)) }
    }

    fn write(&self, record: &Record) -> Result<(), JoinError> {
        let name = format!("{DIRECTORY}/{}.json", record.claims.id);
        let text = serde_json::to_vec(record).map_err(|_| JoinError::Malformed(name.clone()))?;
        Ok(self.directory.replace(&name, &text)?)
    }

    fn key(&self) -> Result<Option<hmac::Key>, JoinError> {
        let Some(bytes) = self.directory.read(KEY)? else { return Ok(None) };
        if bytes.expose().len() != KEY_BYTES {
            return Err(JoinError::Malformed(KEY.to_owned()));
        }
        Ok(Some(hmac::Key::new(hmac::HMAC_SHA256, bytes.expose())))
    }

    fn key_or_new(&self) -> Result<hmac::Key, JoinError> {
        if self.key()?.is_none() {
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| JoinError::Random)?;
            // Another process may be faster; then its key is the key.
            self.directory.create(KEY, &*bytes)?;
        }
        self.key()?.ok_or_else(|| JoinError::Malformed(KEY.to_owned()))
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn seal(claims: &Claims, key: &hmac::Key) -> Result<Secret, JoinError> {
    let json = serde_json::to_vec(claims).map_err(|_| JoinError::Malformed("the claims".to_owned()))?;
    let mut token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json));
    let code = hmac::sign(key, token.as_bytes());
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(code));
    Ok(Secret::from(token))
}

/// The claims of a token that was sealed with `key`.
fn unseal(token: &Secret, key: &hmac::Key) -> Result<Claims, TokenError> {
    if token.expose().len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Form);
    }
    let text = token.expose_text().filter(|text| text.starts_with(PREFIX)).ok_or(TokenError::Form)?;
    let (sealed, code) = text.rsplit_once('.').ok_or(TokenError::Form)?;
    let code = URL_SAFE_NO_PAD.decode(code).map_err(|_| TokenError::Form)?;
    // In constant time.
    hmac::verify(key, sealed.as_bytes(), &code).map_err(|_| TokenError::Forged)?;
    let json = sealed.strip_prefix(PREFIX).ok_or(TokenError::Form)?;
    let json = URL_SAFE_NO_PAD.decode(json).map_err(|_| TokenError::Form)?;
    let claims: Claims = serde_json::from_slice(&json).map_err(|_| TokenError::Form)?;
    if is_id(&claims.id) { Ok(claims) } else { Err(TokenError::Form) }
}

/// Join tokens as a way to prove who one is.
#[derive(Debug)]
pub struct JoinAuthenticator {
    pub tokens: Arc<JoinTokens>,
}

impl JoinAuthenticator {
    fn caller(&self, token: &Secret, presented: &Presented, now: Timestamp) -> Result<Caller, TokenError> {
        let claims = self.tokens.verify(token, now)?;
        let id = claims.id.clone();
        if claims.once && presented.purpose != Purpose::Certificate {
            return Err(TokenError::OnlyForCertificates { id });
        }
        let identity = claims.identity().map_err(JoinError::from)?;
        check_domain(&identity, &presented.trust_domains, id)?;
        let spend = SingleUse::new(self.tokens.clone(), claims);
        Ok(Caller { single_use: Some(spend), ..Caller::new(identity, Method::JoinToken) })
    }
}

fn check_domain(identity: &SpiffeId, domains: &TrustDomains, id: String) -> Result<(), TokenError> {
    if domains.contains(identity) {
        return Ok(());
    }
    Err(TokenError::TrustDomain { id, domain: identity.trust_domain().to_string() })
}

impl Authenticator for JoinAuthenticator {
    fn method(&self) -> Method {
        Method::JoinToken
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented, now: Timestamp) -> Answer<'a> {
        let token = presented.bearer.as_ref();
        let token = token.filter(|token| token.expose().starts_with(PREFIX.as_bytes()));
        let answer = token.map(|token| self.caller(token, presented, now)).transpose();
        Box::pin(std::future::ready(answer.map_err(|error| Refusal::new(&error))))
    }
}

#[cfg(test)]
mod tests;
