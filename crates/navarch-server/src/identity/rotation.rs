//! Drives the rotation of the authority's roots: what proxies have acknowledged goes in, steps come out.

use std::sync::Arc;

use navarch_envoy::XdsType;
use navarch_identity::authority::KeptError;
use navarch_identity::certificate::Facts;
use navarch_identity::rotation::{Fleet as Acknowledged, Pace, Phase, RootId, id_of_root};
use navarch_identity::{Timestamp, pem};
use navarch_translate::sds::WORKLOAD_ROOTS;
use navarch_xds::{Registry, StreamStatus};

use super::{Identity, Source, now, trust_domains};
use crate::secure::ClientCertificates;
use crate::status::{AuthorityStatus, RootStatus, RotationStatus};

/// What an operator asks of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Rotate,
    Pause,
    Resume,
    Undo,
}

/// Why an operator is not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(
        "the authority is that of --ca-dir or of a Secret: put files there whose roots are the old one and the new one, later those \
         of the new one"
    )]
    Plugged,
    #[error(transparent)]
    Kept(#[from] KeptError),
}

/// The roots that are in the plan of every class, and since which revision.
#[derive(Clone, Debug)]
pub(super) struct Distributed {
    roots: Arc<str>,
    revision: u64,
}

impl Identity {
    /// Does what an operator asks, and writes it down before it answers.
    ///
    /// # Errors
    /// If that cannot be done now, or not be written down.
    pub fn command(&self, command: Command) -> Result<(), CommandError> {
        let Source::Kept(kept) = &self.source else { return Err(CommandError::Plugged) };
        match command {
            Command::Rotate => kept.begin(now())?,
            Command::Pause => kept.pause(now())?,
            Command::Resume => kept.resume(now())?,
            Command::Undo => kept.undo(now())?,
        }
        tracing::info!(?command, phase = ?kept.rotation().phase(), "the rotation of roots was told to do something");
        self.state_roots();
        Ok(())
    }

    /// Takes the next step of a rotation, if it may be taken.
    pub(super) fn advance(&self, registry: &Registry) {
        let Source::Kept(kept) = &self.source else { return };
        let before = kept.rotation();
        if matches!(before.phase(), Phase::Idle { .. }) {
            return;
        }
        let acknowledged = self.acknowledged(registry, before.phase());
        match kept.advance(&acknowledged, self.pace(), now()) {
            Ok(None) => tracing::info!(phase = ?kept.rotation().phase(), "the rotation of roots went on"),
            Ok(Some(_)) => {}
            Err(error) => tracing::error!(%error, "the next step of the rotation cannot be taken"),
        }
    }

    fn pace(&self) -> Pace {
        Pace::of_leaves(self.life.default)
    }

    /// Who has the roots that are trusted now.
    fn acknowledged(&self, registry: &Registry, phase: &Phase) -> Acknowledged {
        let mut acknowledged = Acknowledged { serving_since: self.since, ..Acknowledged::default() };
        let Some(Distributed { roots, revision }) = self.distributed() else { return acknowledged };
        acknowledged.bundle = ids(&roots);
        let since = match phase {
            Phase::Idle { .. } => Timestamp::default(),
            Phase::Distributing { since, .. } | Phase::Retiring { since, .. } => *since,
        };
        for stream in registry.streams().iter().filter(|stream| !stream.types.is_empty()) {
            acknowledged.connected += 1;
            if let Some(reason) = self.missing(registry, stream, revision, since) {
                acknowledged.missing.push(reason);
            }
        }
        acknowledged.missing.sort();
        acknowledged
    }

    /// The roots that every class has been planned with.
    fn distributed(&self) -> Option<Distributed> {
        let snapshot = self.fleet.snapshot();
        if self.fleet.planned_revision() < snapshot.revision() {
            return self.distributed.lock().clone();
        }
        let domains = trust_domains(&self.fleet);
        let domain = domains.iter().next()?;
        let roots = snapshot.view().trust_bundle(domain)?.roots.clone();
        let mut known = self.distributed.lock();
        if known.as_ref().is_none_or(|known| known.roots != roots) {
            *known = Some(Distributed { roots, revision: snapshot.revision() });
        }
        known.clone()
    }

    /// The name of a proxy that may not have roots of a revision, and why that is not known.
    ///
    /// Who asks for the roots, as navarch's agent does for its proxy, acknowledges them. Others get them with
    /// their certificates: one that was issued since they are distributed came with them, and so did all that
    /// are valid after a while.
    fn missing(
        &self,
        registry: &Registry,
        stream: &StreamStatus,
        revision: u64,
        since: Timestamp,
    ) -> Option<String> {
        let name = crate::admin::proxy_name(&stream.node.id);
        let secrets = stream.types.iter().find(|ty| ty.ty == XdsType::Sds);
        let secrets = secrets.filter(|_| registry.is_subscribed(stream.id, XdsType::Sds, WORKLOAD_ROOTS));
        if let Some(secrets) = secrets {
            // A class that a revision leaves as it was is not published again.
            let client = self.fleet.client_of(stream);
            let of_class = client.and_then(|client| self.fleet.class_revision(&client));
            let wanted = of_class.map_or(revision, |of_class| of_class.min(revision));
            return (secrets.revision < wanted).then(|| name.to_owned());
        }
        if !stream.peer.encrypted || since.after(self.life.default) <= now() {
            return None;
        }
        let chain = stream.peer.evidence.get::<ClientCertificates>();
        let leaf = chain.and_then(|chain| Facts::of(chain.0.first()?).ok());
        let is_new =
            leaf.is_some_and(|leaf| leaf.not_before.after(navarch_identity::authority::BACKDATED) >= since);
        (!is_new).then(|| format!("{name} (has not shown a certificate that is newer than the root)"))
    }

    /// The authority for people and programs.
    #[must_use]
    pub fn status(&self, registry: &Registry) -> AuthorityStatus {
        let authority = self.authority();
        let signer_until = Some(authority.signer().not_after());
        let port_until = *self.port_until.lock();
        let lists_until = self.lists_until();
        let Source::Kept(kept) = &self.source else {
            let roots = authority.roots().iter().enumerate().filter_map(|(position, root)| {
                let facts = Facts::of(root).ok()?;
                let (id, not_after) = (id_of_root(root), facts.not_after);
                let (subject, signs) = (facts.subject, position == 0);
                Some(RootStatus { id, subject, signs, not_after, leaves_until: None })
            });
            let (roots, rotation) = (roots.collect(), None);
            return AuthorityStatus { rotation, roots, signer_until, port_until, lists_until };
        };
        let rotation = kept.rotation();
        let acknowledged = self.acknowledged(registry, rotation.phase());
        let report = rotation.report(&acknowledged, self.pace(), now());
        let roots = authority.roots().iter().filter_map(|root| {
            let facts = Facts::of(root).ok()?;
            let id = id_of_root(root);
            Some(RootStatus {
                signs: id == *rotation.signing(),
                leaves_until: rotation.issued_until(&id),
                subject: facts.subject,
                not_after: facts.not_after,
                id,
            })
        });
        AuthorityStatus {
            roots: roots.collect(),
            rotation: Some(RotationStatus {
                phase: report.phase,
                paused: report.paused,
                waiting: report.waiting,
                connected: acknowledged.connected,
                missing: acknowledged.missing,
            }),
            signer_until,
            port_until,
            lists_until,
        }
    }
}

impl Identity {
    /// When the first of the revocation lists ends.
    fn lists_until(&self) -> Option<Timestamp> {
        match &self.source {
            Source::Kept(_) => None,
            Source::Plugged(plugged) | Source::Shared(plugged, _) => plugged.lock().revoked()?.until(),
        }
    }
}

fn ids(roots: &str) -> Vec<RootId> {
    pem::certificates(roots.as_bytes()).unwrap_or_default().iter().map(id_of_root).collect()
}
