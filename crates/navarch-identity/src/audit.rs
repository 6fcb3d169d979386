//! What happened to tokens and roots, for those who ask later: one JSON object per line in `audit.jsonl`.
//!
//! The file only grows. A line is on the disk before what it tells of is answered.

use navarch_model::identity::SpiffeId;
use serde::Serialize;

use crate::store::{StateDirectory, StoreError};
use crate::time::Timestamp;

/// The file in the state directory.
pub const FILE: &str = "audit.jsonl";

/// Something that happened. None of it holds a secret: a token is named by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    TokenCreated { token: &'a str, identity: String, expires: String, once: bool },
    TokenUsed { token: &'a str, identity: String },
    TokenRevoked { token: &'a str },
    AuthorityCreated { root: &'a str },
    RotationChanged { phase: &'a crate::rotation::Phase, paused: bool },
}

impl Event<'_> {
    /// A token has been made for an identity.
    #[must_use]
    pub fn token_created<'a>(token: &'a str, id: &SpiffeId, expires: Timestamp, once: bool) -> Event<'a> {
        Event::TokenCreated { token, identity: id.to_string(), expires: expires.to_string(), once }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Writes an event down.
///
/// # Errors
/// If it cannot be written.
pub fn record(directory: &StateDirectory, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
    let line = Line { time: now.to_string(), event };
    let text = serde_json::to_string(&line).map_err(|error| StoreError::Io {
        doing: "append to",
        path: directory.path().join(FILE),
        source: error.into(),
    })?;
    directory.append(FILE, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let temp = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(&temp.path().join("state")).expect("open");
        let id = SpiffeId::new("td", "shop", "web").expect("an id");
        for event in [
            Event::token_created("a1", &id, Timestamp(60), true),
            Event::TokenUsed { token: "a1", identity: id.to_string() },
            Event::TokenRevoked { token: "two\nlines" },
        ] {
            record(&directory, &event, Timestamp(0)).expect("written");
        }
        let text = directory.read(FILE).expect("read").expect("there");
        let lines: Vec<_> = text.expose_text().expect("text").lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                r#"{"time":"1970-01-01T00:00:00Z","event":"token_created","token":"a1","identity":"spiffe://td/ns/shop/sa/web","expires":"1970-01-01T00:01:00Z","once":true}"#,
                r#"{"time":"1970-01-01T00:00:00Z","event":"token_used","token":"a1","identity":"spiffe://td/ns/shop/sa/web"}"#,
                r#"{"time":"1970-01-01T00:00:00Z","event":"token_revoked","token":"two\nlines"}"#,
            ]
        );
    }
}
