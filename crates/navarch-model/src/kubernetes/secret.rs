//! Secret: keys and certificates that gateways present.

use std::collections::BTreeMap;

use crate::values::{Bytes, Redacted};
use crate::yaml::message;

message! {
    /// Data never shows in debug output.
    pub struct Secret {
        /// For example `kubernetes.io/tls`.
        type_: String,
        data: BTreeMap<String, Redacted<Bytes>>,
        /// What a manifest writes without base64. The API server moves it into `data`; [`Secret::bytes`] does
        /// the same.
        string_data: BTreeMap<String, Redacted<String>>,
    }
}

impl Secret {
    /// The value under `key`; `stringData` comes before `data`.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        match self.string_data.get(key) {
            Some(text) => Some(text.expose().as_bytes()),
            None => self.data.get(key).map(|bytes| bytes.expose().0.as_slice()),
        }
    }
}
