//! What an agent sees in its Envoy: which of the clusters and listeners that the proxy has accepted are not
//! in use yet, because something that they need has not come. Only Envoy's admin port knows; the agent tells,
//! in a request of a type of its own ([`RUNNING`]), which is not answered.

use serde::{Deserialize, Serialize};

/// The type of requests in which an agent says what its Envoy runs. What it has to say is JSON in the text of
/// `error_detail`, where Istio's agents put what they say of the workload
/// ([`HEALTH`](crate::server::HEALTH)).
pub const RUNNING: &str = "type.googleapis.com/navarch.v1.Running";

/// Resources that are named, of each type, and what each is said to wait for. What is above is counted.
const NAMED_MAX: usize = 10;
const WAITS_MAX: usize = 4;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a report.
const BYTES_MAX: usize = 64 << 10;

/// What Envoy runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Running {
    /// Clusters.
    pub clusters: InUse,
    /// Listeners.
    pub listeners: InUse,
}

/// How much of a type is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InUse {
    /// The nonce of the newest response that the proxy had accepted when its agent looked; empty if it has
    /// accepted none on this stream.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// How many resources warm: they are accepted, and what was there before stays in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub warming: usize,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<Warming>,
}

/// A resource that is not in use yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Warming {
    /// Its name.
    pub name: String,
    /// What it waits for, as far as Envoy says it: `SDS kubernetes://web`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl InUse {
    /// All of these warm.
    #[must_use]
    pub fn of(mut warming: Vec<Warming>) -> Self {
        warming.sort_unstable();
        let count = warming.len();
        warming.truncate(NAMED_MAX);
        for Warming { name, waits_for } in &mut warming {
            waits_for.truncate(WAITS_MAX);
            std::iter::once(name).chain(waits_for).for_each(shorten);
        }
        InUse { nonce: String::new(), warming: count, named: warming }
    }
}

impl Running {
    /// As it is sent.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what was sent; nothing if it is not a report, or larger than one can be.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let Running { clusters, listeners } = serde_json::from_str(text).ok()?;
        let bounded = |InUse { nonce, warming, named }: InUse| {
            let bounded = InUse::of(named);
            InUse { nonce, warming: warming.max(bounded.warming), ..bounded }
        };
        Some(Running { clusters: bounded(clusters), listeners: bounded(listeners) })
    }
}

fn shorten(text: &mut String) {
    let mut end = text.len().min(NAME_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warming(name: &str) -> Warming {
        Warming { name: name.to_owned(), waits_for: vec!["SDS a".to_owned()] }
    }

    #[test]
    fn what_is_told_is_read_and_bounded() {
        let check = |running: Running, expected: (usize, usize)| {
            let read = Running::parse(&running.to_text()).expect("a report");
            assert_eq!((read.listeners.warming, read.listeners.named.len()), expected);
            assert_eq!(read.clusters, running.clusters);
        };
        check(Running::default(), (0, 0));
        let listeners = InUse::of(vec![warming("b"), warming("a")]);
        assert_eq!(listeners.named[0].name, "a");
        let nonce = "17".to_owned();
        check(Running { listeners, clusters: InUse { nonce, ..InUse::default() } }, (2, 2));
        let many: Vec<Warming> = (0..1000).map(|n| warming(&format!("{n}{}", "ä".repeat(500)))).collect();
        check(Running { listeners: InUse::of(many.clone()), ..Running::default() }, (1000, NAMED_MAX));
        // Of somebody who does not keep to it.
        let listeners = InUse { named: many[..60].to_vec(), ..InUse::default() };
        check(Running { listeners, ..Running::default() }, (60, NAMED_MAX));
    }

    #[test]
    fn what_is_not_a_report_says_nothing() {
        for text in ["", "warming", "{\"routes\": {}}", &(" ".repeat(BYTES_MAX) + "{}")] {
            assert_eq!(Running::parse(text), None, "{text:.40}");
        }
    }
}
