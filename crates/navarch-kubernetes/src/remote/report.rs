//! What there is to say of other clusters.

use serde::{Deserialize, Serialize};

/// How it is with a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Everything has been listed, and changes are heard.
    Synced,
    /// Something has not been listed yet.
    Syncing,
    /// Something is not heard. What it said last is in force.
    Silent,
    /// Its kubeconfig cannot be used, and none could before.
    Refused,
}

impl State {
    pub const ALL: [State; 4] = [State::Synced, State::Syncing, State::Silent, State::Refused];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Synced => "synced",
            State::Syncing => "syncing",
            State::Silent => "silent",
            State::Refused => "refused",
        }
    }
}

/// What there is to say of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub state: State,
    /// Where its kubeconfig is from: a file, or `Secret <namespace>/<name>`.
    pub from: String,
    /// Where its API server is; empty if that is not known.
    pub server: String,
    /// Objects of it that are in force.
    pub objects: usize,
    /// Since it is followed as it is now.
    pub followed_ms: u64,
    /// Since something of it was not heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// Why it is silent or refused, or why a new kubeconfig is not used.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
