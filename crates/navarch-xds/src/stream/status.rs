//! How far the client is.

use std::sync::Arc;

use navarch_envoy::XdsType;

use super::{Stream, nonce};
use crate::status::{Mark, SyncState, TypeStatus};
use crate::type_state::{ResponseMark, TypeState};

impl Stream {
    /// The state of every type the client has asked for.
    #[must_use]
    pub fn status(&self) -> Vec<TypeStatus> {
        self.types.iter().filter(|state| state.requested).map(|state| self.type_status(state)).collect()
    }

    fn type_status(&self, state: &TypeState) -> TypeStatus {
        let synced = self.resources.as_ref().map_or(0, |resources| state.synced_revision(resources));
        let progress = &state.progress;
        let summary = match (progress.error(), progress.sent()) {
            (Some(_), _) => SyncState::Error,
            (None, None) => SyncState::NotSent,
            (None, Some(_)) if state.is_answered() => SyncState::Synced,
            (None, Some(_)) => SyncState::Stale,
        };
        let mark = |mark: &ResponseMark| Mark {
            nonce: nonce(self.id, mark.number),
            version: mark.version.clone(),
            revision: mark.revision,
            at: mark.at,
        };
        TypeStatus {
            ty: state.ty,
            wildcard: state.subscription.wildcard(),
            names: state.subscription.explicit(),
            missing: self.missing_secrets(state),
            state: summary,
            sent: progress.sent().map(mark),
            acked: progress.acked().map(mark),
            revision: synced,
            error: progress.error().cloned(),
            leaving: state.leaving().len(),
            set_aside: state.set_aside().cloned().collect(),
            sent_total: progress.totals().sent,
            rejected_total: progress.totals().rejected,
        }
    }

    fn missing_secrets(&self, state: &TypeState) -> Vec<Arc<str>> {
        let Some(resources) = self.resources.as_ref().filter(|_| state.ty == XdsType::Sds) else {
            return Vec::new();
        };
        let there = resources.set(XdsType::Sds);
        state.subscription.names().filter(|name| there.get(name).is_none()).cloned().collect()
    }

    /// Whether the client wants a resource of this name.
    #[must_use]
    pub fn is_subscribed(&self, ty: XdsType, name: &str) -> bool {
        self.types.iter().any(|state| state.ty == ty && state.subscription.covers(name))
    }

    /// The newest revision that the client has fully accepted, as far as it asked for it; zero before that.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        let Some(resources) = &self.resources else { return 0 };
        let types = self.types.iter().filter(|state| state.requested);
        types.map(|state| state.synced_revision(resources)).min().unwrap_or(0)
    }
}
