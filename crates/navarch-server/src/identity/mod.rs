//! The certificate authority, running: its state directory, who is calling on the port over TLS, and requests
//! for certificates.
//!
//! What it may sign and whom to believe is decided in `navarch-identity`; here are the clock, the threads and
//! the port.

mod bundle;
pub mod pages;
mod port;
mod review;
mod rotation;
mod shared;
mod workloads;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use navarch_identity::authenticate::{
    Authenticator, Authenticators, Caller, CertificateAuthenticator, OidcAuthenticator, Presented, Purpose,
    UNAUTHENTICATED, bearer,
};
use navarch_identity::authority::{
    Authority, Ending, IssueError, Kept, KeptError, LeafLife, NewAuthority, Plugged, PluggedError, Refreshed,
    ServerCertificate, server_names,
};
use navarch_identity::limit::{Allowance, RateLimit, TooMany};
use navarch_identity::service::{CertificateService, Impersonation};
use navarch_identity::store::{Lock, StateDirectory, StoreError};
use navarch_identity::tokens::admin::{AdminToken, AdminTokenError};
use navarch_identity::tokens::join::{JoinAuthenticator, JoinTokens};
use navarch_identity::tokens::jwt::{JwtRule, KeySet};
use navarch_identity::tokens::review::ReviewAuthenticator;
use navarch_identity::{Secret, Timestamp};
use navarch_kubernetes::remote::Remotes;
use navarch_kubernetes::{Maker, Questions};
use navarch_model::TrustDomains;
use navarch_xds::server::{Code, Status};
use navarch_xds::{Peer, Registry};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use bundle::Bundle;
pub use port::{CreateCertificate, PortAuthenticator};
pub use rotation::{Command, CommandError};

use crate::fleet::Fleet;
use review::{AUDIENCE, ClusterReviewer};
use rotation::Distributed;
use shared::SharedError;

/// How often the files of an authority that the operator provides are looked at.
const POLL: Duration = Duration::from_secs(2);

/// Requests for certificates from one address: those of a node full of workloads that start at once. Who
/// sends more is not looked at.
const ALLOWANCE: Allowance = Allowance { burst: 10_000, every: Duration::from_micros(200) };

/// Where the control plane says it runs, if nothing says otherwise: Istio's root namespace.
const NAMESPACE: &str = "istio-system";

/// What is told of the authority.
#[derive(Clone, Debug)]
pub struct Options {
    /// What must outlive the process: roots, keys, tokens.
    pub state: PathBuf,
    /// Whether an authority may be made in a directory that is there and has none.
    pub new_authority: bool,
    /// Files of an authority that the operator provides.
    pub plugged: Option<PathBuf>,
    /// Whether the authority is that of the cluster, in a Secret.
    pub shared: bool,
    /// How long certificates of workloads live if a request does not say.
    pub life: Duration,
    /// Which tokens of an issuer prove who somebody is.
    pub jwt_rule: Option<JwtRule>,
    /// More names and addresses that clients know the control plane by.
    pub names: Vec<String>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the state directory cannot be used")]
    Store(#[from] StoreError),
    #[error("the authority of the state directory cannot be used")]
    Kept(#[from] KeptError),
    #[error("the admin token cannot be used")]
    AdminToken(#[from] AdminTokenError),
    #[error("the authority that is provided cannot be used")]
    Plugged(#[from] PluggedError),
    #[error("the authority of the cluster cannot be used")]
    Shared(#[from] SharedError),
    #[error("--ca-secret is for a cluster that may be written to: --kubernetes, without --read-only")]
    NoCluster,
}

/// The state directory, claimed for this server.
pub struct State {
    directory: Arc<StateDirectory>,
    lock: Lock,
}

impl State {
    /// Opens the directory, or makes it. This comes before anybody else writes to it: whether an
    /// authority may be made in it is seen by how it was found.
    ///
    /// # Errors
    /// If it cannot be used, or another server uses it.
    pub fn claim(options: &Options) -> Result<Self, IdentityError> {
        let directory = Arc::new(StateDirectory::open(&options.state)?);
        let lock = directory.lock()?;
        if options.plugged.is_none() && !options.shared {
            Kept::announce(&directory)?;
        }
        Ok(State { directory, lock })
    }
}

/// Who signs.
enum Source {
    Kept(Kept),
    Plugged(Mutex<Plugged>),
    /// That of a Secret, in a namespace.
    Shared(Mutex<Plugged>, String),
}

/// What the cluster that is followed does for the authority.
#[derive(Clone, Debug)]
pub struct OfCluster {
    /// What callers call the cluster.
    pub name: String,
    pub questions: Questions,
    /// Other clusters, whose service accounts are asked about where those are.
    pub remotes: Option<Remotes>,
    /// Who may make the Secret of the authority, if it may be made.
    pub objects: Option<Maker>,
}

/// The authority and all that it takes to ask it for a certificate.
pub struct Identity {
    source: Source,
    authenticators: Authenticators,
    /// Tokens of an issuer, whose keys somebody else fetches.
    oidc: Option<Arc<OidcAuthenticator>>,
    service: CertificateService,
    names: Vec<String>,
    fleet: Arc<Fleet>,
    bundle: Arc<Bundle>,
    life: LeafLife,
    admin: AdminToken,
    /// Since when this server serves.
    since: Timestamp,
    distributed: Mutex<Option<Distributed>>,
    /// When the certificate of the port ends.
    port_until: Mutex<Option<Timestamp>>,
    /// Requests for certificates by address, whoever makes them.
    requests: Mutex<RateLimit<IpAddr>>,
    /// Keys that may be made at once.
    making: Semaphore,
    _lock: Lock,
}

/// Now, for those who are told it.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

impl Identity {
    /// Opens the authority of a state directory.
    ///
    /// # Errors
    /// If it cannot be used.
    pub async fn open(
        options: &Options,
        state: State,
        namespace: Option<&str>,
        cluster: Option<&OfCluster>,
        fleet: Arc<Fleet>,
        bundle: Arc<Bundle>,
    ) -> Result<Arc<Self>, IdentityError> {
        let State { directory, lock } = state;
        let life = LeafLife { default: options.life, ..LeafLife::default() };
        let admin = AdminToken::open(&directory)?;
        let source = match &options.plugged {
            _ if options.shared => {
                let objects = cluster.and_then(|cluster| cluster.objects.as_ref());
                let objects = objects.ok_or(IdentityError::NoCluster)?;
                let (namespace, domains) = (namespace.unwrap_or(NAMESPACE), trust_domains(&fleet));
                let domain = domains.iter().next().map_or("", |domain| domain);
                let found = shared::open(objects, &fleet.snapshot(), (namespace, domain), now()).await?;
                let plugged = Plugged::given(&found.name, found.entries, life, now())?;
                Source::Shared(Mutex::new(plugged), namespace.to_owned())
            }
            Some(plugged) => Source::Plugged(Mutex::new(Plugged::open(plugged, life, now())?)),
            None => {
                let new =
                    if options.new_authority { NewAuthority::IfAbsent } else { NewAuthority::OnFirstStart };
                let domains = trust_domains(&fleet);
                let domain = domains.iter().next().map_or("", |domain| domain);
                Source::Kept(Kept::open(directory.clone(), domain, life, new, now())?)
            }
        };
        let tokens = Arc::new(JoinTokens::new(directory));
        let mut authenticators: Vec<Arc<dyn Authenticator>> =
            vec![Arc::new(CertificateAuthenticator), Arc::new(JoinAuthenticator { tokens })];
        let oidc = options.jwt_rule.clone().map(|rule| Arc::new(OidcAuthenticator::new(rule)));
        if let Some(oidc) = &oidc {
            authenticators.push(oidc.clone());
        }
        if let Some(cluster) = cluster {
            let OfCluster { name, questions, remotes, objects: _ } = cluster.clone();
            authenticators.push(Arc::new(ReviewAuthenticator {
                reviewer: Arc::new(ClusterReviewer { cluster: name, questions, remotes }),
                audiences: vec![AUDIENCE.to_owned()],
            }));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let identity = Identity {
            source,
            authenticators: Authenticators::new(authenticators),
            oidc,
            service: CertificateService::new(Impersonation::default()),
            names: server_names(namespace.unwrap_or(NAMESPACE), "", &options.names),
            fleet,
            bundle,
            life,
            admin,
            since: now(),
            distributed: Mutex::default(),
            port_until: Mutex::default(),
            requests: Mutex::new(RateLimit::new(ALLOWANCE)),
            making: Semaphore::new(threads),
            _lock: lock,
        };
        identity.state_roots();
        Ok(Arc::new(identity))
    }

    /// What signs and what is trusted now.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        match &self.source {
            Source::Kept(kept) => kept.authority(),
            Source::Plugged(plugged) | Source::Shared(plugged, _) => plugged.lock().authority(),
        }
    }

    /// What signs for the control plane's own port.
    #[must_use]
    pub fn port_authority(&self) -> Arc<Authority> {
        match &self.source {
            Source::Kept(kept) => kept.port_authority(),
            Source::Plugged(plugged) | Source::Shared(plugged, _) => plugged.lock().authority(),
        }
    }

    /// Certificates that the authority has revoked.
    #[must_use]
    pub fn revoked(&self) -> Vec<rustls::pki_types::CertificateRevocationListDer<'static>> {
        match &self.source {
            Source::Kept(_) => Vec::new(),
            Source::Plugged(plugged) | Source::Shared(plugged, _) => {
                plugged.lock().revoked().map(|revoked| revoked.lists().to_vec()).unwrap_or_default()
            }
        }
    }

    /// A certificate for the control plane's own port, with a new key.
    ///
    /// # Errors
    /// If the authority cannot sign.
    pub fn server_certificate(&self) -> Result<ServerCertificate, IssueError> {
        let made = self.port_authority().issue_server(&self.names, now())?;
        *self.port_until.lock() = Some(made.not_after);
        Ok(made)
    }

    /// These are the keys of the issuer whose tokens are believed.
    pub fn set_issuer_keys(&self, keys: &str) {
        let Some(oidc) = &self.oidc else { return };
        match KeySet::parse(keys.as_bytes()) {
            Ok(keys) => oidc.set_keys(keys),
            Err(error) => tracing::warn!(%error, "the keys of the issuer of JWT_RULE cannot be used"),
        }
    }

    /// Whether somebody has presented the token of who may change what the server does.
    #[must_use]
    pub fn is_admin(&self, presented: &Secret) -> bool {
        self.admin.is(presented)
    }

    /// Looks for ever whether the authority or the trust domain is another one, and whether a rotation may
    /// go on.
    pub async fn follow(self: Arc<Self>, registry: Arc<Registry>) {
        loop {
            tokio::time::sleep(POLL).await;
            let (identity, registry) = (self.clone(), registry.clone());
            // Files are read, and signatures made.
            let looked = tokio::task::spawn_blocking(move || {
                identity.look_at_files();
                identity.advance(&registry);
                identity.state_roots();
            });
            let _ = looked.await;
        }
    }

    fn look_at_files(&self) {
        let (mut plugged, now) = match &self.source {
            Source::Kept(_) => return,
            Source::Plugged(plugged) => (plugged.lock(), now()),
            Source::Shared(plugged, namespace) => {
                let mut plugged = plugged.lock();
                // That it is not there may be a mistake, and does not make anybody forget it.
                if let Some(found) = shared::in_snapshot(&self.fleet.snapshot(), namespace) {
                    plugged.give(found.entries);
                }
                (plugged, now())
            }
        };
        match plugged.refresh(now) {
            Refreshed::Unchanged => {}
            Refreshed::Replaced => tracing::info!("the new files of the authority are in use"),
            Refreshed::Kept(error) => {
                tracing::error!(%error, "the last good files of the authority stay in use");
            }
        }
        match plugged.ending(now) {
            None => {}
            Some(Ending::Soon(at)) => {
                tracing::warn!(%at, "a revocation list ends soon: put one that ends later into the file");
            }
            Some(Ending::Passed(at)) => {
                tracing::error!(%at, "a revocation list has ended, and proxies refuse every certificate");
            }
        }
    }

    /// Tells the world which roots are trusted.
    fn state_roots(&self) {
        let domains = trust_domains(&self.fleet);
        let domain = domains.iter().next().map_or("", |domain| domain);
        let (authority, lists) = match &self.source {
            Source::Kept(kept) => (kept.authority(), None),
            Source::Plugged(plugged) | Source::Shared(plugged, _) => {
                let plugged = plugged.lock();
                (plugged.authority(), plugged.revoked().map(|revoked| revoked.pem().clone()))
            }
        };
        self.bundle.state(domain, authority.roots_pem(), lists.as_ref());
    }

    /// Counts a request from an address.
    fn admit(&self, address: IpAddr) -> Result<(), TooMany> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.requests.lock().take(address.to_canonical(), since)
    }

    /// Who is calling.
    pub(crate) async fn caller(
        self: &Arc<Self>,
        call: &HeaderMap,
        peer: &Peer,
        purpose: Purpose,
    ) -> Result<Caller, Status> {
        let header = |name| call.get(name).map(http::HeaderValue::as_bytes);
        let presented = Presented {
            identities: peer.identities.iter().filter_map(|id| id.parse().ok()).collect(),
            bearer: header("authorization").and_then(bearer),
            cluster: header("clusterid").and_then(|text| String::from_utf8(text.to_vec()).ok()),
            trust_domains: trust_domains(&self.fleet),
            purpose,
        };
        let authenticated = if presented.bearer.is_some() {
            // What is known of a token is in a file.
            let (identity, runtime) = (self.clone(), tokio::runtime::Handle::current());
            let looked = move || runtime.block_on(identity.authenticators.authenticate(&presented, now()));
            let broken = |_| Status::new(Code::Internal, "the token cannot be looked at");
            tokio::task::spawn_blocking(looked).await.map_err(broken)?
        } else {
            self.authenticators.authenticate(&presented, now()).await
        };
        authenticated.map_err(|reason| {
            tracing::warn!(peer = %peer.address, %reason, "call refused: who is calling is not proven");
            Status::new(Code::Unauthenticated, UNAUTHENTICATED)
        })
    }
}

fn trust_domains(fleet: &Fleet) -> TrustDomains {
    TrustDomains::of(&fleet.snapshot().view().mesh().config)
}
