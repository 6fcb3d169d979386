//! An authority that all replicas of a cluster share, in a Secret: `cacerts`, which the operator provides, or
//! else `istio-ca-secret`, which the first replica makes. The entries have istiod's names, so either control
//! plane goes on with what the other has made.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use navarch_identity::authority::{Entries, IssueError, Root};
use navarch_identity::{Secret, Timestamp, pem};
use navarch_kubernetes::{Maker, SecretData, WriteError};
use navarch_model::kubernetes;
use navarch_model::{Kind, ObjectKey};
use navarch_snapshot::Snapshot;

/// What an operator provides.
const PROVIDED: &str = "cacerts";
/// What a control plane has made.
const MADE: &str = "istio-ca-secret";
/// Its type, as istiod's.
const MADE_TYPE: &str = "istio.io/ca-root";

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";

/// How often the API server is asked at the start.
const ATTEMPTS: u32 = 10;

/// Why there is no shared authority.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    #[error(
        "neither Secret {PROVIDED} nor {MADE} of namespace {namespace} can be had; without --ca-secret the authority is that of the \
         state directory"
    )]
    Unknown {
        namespace: String,
        #[source]
        problem: WriteError,
    },
    #[error("a new root cannot be made")]
    Make(#[from] IssueError),
}

/// The entries of the authority, and what they are called.
pub struct Found {
    pub name: String,
    pub entries: Entries,
}

/// The authority as the snapshot has it, if it has one.
pub fn in_snapshot(snapshot: &Snapshot, namespace: &str) -> Option<Found> {
    [PROVIDED, MADE].into_iter().find_map(|name| {
        let object = snapshot.object(&ObjectKey::new(Kind::Secret, namespace, name))?;
        let secret = object.spec::<kubernetes::Secret>()?;
        let entries = secret
            .data
            .keys()
            .chain(secret.string_data.keys())
            .filter_map(|key| Some((key.clone(), Secret::new(secret.bytes(key)?.to_vec()))));
        Some(found(namespace, name, entries.collect()))
    })
}

/// The authority of the cluster; it is made if there is none.
///
/// # Errors
/// If the API server does not say what there is, or it cannot be made.
pub async fn open(
    objects: &Maker,
    snapshot: &Snapshot,
    (namespace, trust_domain): (&str, &str),
    now: Timestamp,
) -> Result<Found, SharedError> {
    if let Some(found) = in_snapshot(snapshot, namespace) {
        return Ok(found);
    }
    // It may not be followed, or be newer than the snapshot.
    let mut attempt = 0;
    loop {
        attempt += 1;
        match ask(objects, namespace, trust_domain, now).await {
            Ok(found) => return Ok(found),
            Err(SharedError::Unknown { problem, .. }) if attempt < ATTEMPTS => {
                tracing::warn!(%problem, "the Secret of the authority is waited for");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn ask(
    objects: &Maker,
    namespace: &str,
    trust_domain: &str,
    now: Timestamp,
) -> Result<Found, SharedError> {
    let unknown = |problem| SharedError::Unknown { namespace: namespace.to_owned(), problem };
    for name in [PROVIDED, MADE] {
        if let Some(data) = objects.secret(namespace, name).await.map_err(unknown)? {
            return Ok(found(namespace, name, decoded(&data)));
        }
    }
    let root = Root::generate(trust_domain, now)?;
    let certificate = pem::of_certificate(&root.certificate);
    let data = BTreeMap::from([
        (CERTIFICATE.to_owned(), STANDARD.encode(&certificate)),
        (KEY.to_owned(), STANDARD.encode(root.key.expose())),
        (CHAIN.to_owned(), String::new()),
        (ROOTS.to_owned(), STANDARD.encode(&certificate)),
    ]);
    if objects.create_secret((namespace, MADE), MADE_TYPE, &data).await.map_err(unknown)? {
        tracing::info!(namespace, secret = MADE, "a new authority is made");
    }
    // Another replica may have been faster: what is there counts, and not what we made.
    match objects.secret(namespace, MADE).await.map_err(unknown)? {
        Some(data) => Ok(found(namespace, MADE, decoded(&data))),
        None => {
            let reason = format!("Secret {namespace}/{MADE} is gone again");
            Err(unknown(WriteError::Failed { reason }))
        }
    }
}

fn decoded(data: &SecretData) -> Entries {
    let entries =
        data.iter().filter_map(|(key, value)| Some((key.clone(), Secret::new(STANDARD.decode(value).ok()?))));
    entries.collect()
}

fn found(namespace: &str, name: &str, mut entries: Entries) -> Found {
    // A root that istiod has made for itself stands for the roots.
    let lacks_roots = entries.get(ROOTS).is_none_or(|roots| roots.expose().is_empty());
    if let (true, MADE, Some(certificate)) = (lacks_roots, name, entries.get(CERTIFICATE)) {
        entries.insert(ROOTS.to_owned(), certificate.clone());
    }
    Found { name: format!("Secret {namespace}/{name}"), entries }
}
