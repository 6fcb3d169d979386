//! Rejected responses: who is to blame, and what is done about the others.
//!
//! A client rejects a response as a whole but applies it resource by resource. Envoy forgets the versions of
//! the good resources of a rejected delta response, and deletes none of them later when it reconnects. So the
//! good ones are sent again without the bad one, and the bad one is set aside until its content changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{Resource, Version};

/// Bytes of an error text that are kept. Envoy's texts may contain the whole offending resource.
const TEXT_MAX: usize = 4096;

/// Responses in a row that may be rejected while looking for the bad resource. After that all suspects stay
/// aside: a client that rejects everything must not be asked forever.
const ATTEMPTS_MAX: u32 = 64;

/// The last rejection of a type on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// What the client said, shortened. Of a response with a secret in it only that there was an error: the
    /// text may contain the secret.
    pub text: String,
    /// `error_detail.code`. Zero is an error too: ztunnel sends it.
    pub code: i32,
    /// The nonce of the rejected response.
    pub nonce: String,
    /// When.
    pub at: Instant,
    /// The resources that are to blame, as far as they are known.
    pub names: Vec<Arc<str>>,
}

/// Shortens an error text to what may be kept. Of what is said about a secret nothing is.
#[must_use]
pub fn redact(is_secret: bool, text: &str) -> String {
    if is_secret {
        return "rejected (the reason is withheld: it may contain the secret)".to_owned();
    }
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// The words of an error text that may be resource names.
pub fn words(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '(' | ')' | '{' | '}' | ';'))
        .flat_map(|word| {
            let bare = word.trim_end_matches([':', '.', '!']);
            let unbracketed = bare.strip_prefix('[').map(|word| word.strip_suffix(']').unwrap_or(word));
            [Some(word), Some(bare), unbracketed].into_iter().flatten()
        })
        .filter(|word| !word.is_empty())
}

/// What the client holds in place of a resource that it rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing: it was new.
    Nothing,
    /// The last one it accepted on this stream.
    LastGood(Arc<Resource>),
    /// Whatever it had before it connected.
    Unknown,
}

/// One resource that is not sent because the client rejected it.
#[derive(Clone, Debug)]
pub struct Aside {
    /// The content it rejected. Other content is a new try.
    pub version: Version,
    /// What it holds instead.
    pub held: Held,
}

/// The resources of one type set aside on one stream.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    aside: BTreeMap<Arc<str>, Aside>,
    /// Groups of suspects still to be tried, each in a response of its own.
    groups: VecDeque<Vec<Arc<str>>>,
    attempts: u32,
}

impl Quarantine {
    /// Whether nothing is set aside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.aside.is_empty()
    }

    /// The entry of a resource.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Aside> {
        self.aside.get(name)
    }

    /// Entries in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Aside)> {
        self.aside.iter()
    }

    /// Whether this content of this resource was rejected.
    #[must_use]
    pub fn holds_back(&self, resource: &Resource) -> bool {
        self.aside.get(&**resource.name()).is_some_and(|aside| aside.version == resource.version())
    }

    /// Lets a resource out: its content changed, or nobody wants it any more.
    pub fn release(&mut self, name: &str) -> Option<Aside> {
        let released = self.aside.remove(name)?;
        self.attempts = 0;
        Some(released)
    }

    /// Whether suspects are waiting to be tried.
    #[must_use]
    pub fn has_suspects(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The next suspects to be tried, let out for it.
    pub fn next_suspects(&mut self) -> Vec<(Arc<str>, Aside)> {
        let group = self.groups.pop_front().unwrap_or_default();
        group.into_iter().filter_map(|name| self.aside.remove(&name).map(|aside| (name, aside))).collect()
    }

    /// Number of groups of suspects.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Sets suspects aside again that were let out and not tried.
    pub fn put_back(&mut self, group: Vec<(Arc<str>, Aside)>) {
        if !group.is_empty() {
            self.groups.push_back(group.iter().map(|(name, _)| name.clone()).collect());
            self.aside.extend(group);
        }
    }

    /// Keeps only what the client still wants and what is still the newest content.
    pub fn retain(&mut self, keep: impl Fn(&str, &Aside) -> bool) {
        self.aside.retain(|name, aside| keep(name, aside));
    }

    /// A response was accepted.
    pub fn accepted(&mut self) {
        if self.groups.is_empty() {
            self.attempts = 0;
        }
    }

    /// A response with these resources was rejected with this text. Returns who is to blame and who is to be
    /// sent again without them.
    ///
    /// If the text names resources of the response, they are to blame. If it does not, a single resource is,
    /// and several are halved until the bad ones are alone.
    pub fn reject(&mut self, text: &str, resources: Vec<(Arc<Resource>, Held)>) -> Blame {
        self.attempts += 1;
        let suspects: Suspects =
            resources.into_iter().map(|(r, held)| (r.name().clone(), (r, held))).collect();
        let mut blamed: Vec<Arc<str>> = words(text)
            .filter_map(|word| suspects.get_key_value(word).map(|(name, _)| name.clone()))
            .collect();
        blamed.sort_unstable();
        blamed.dedup();
        if blamed.is_empty() && suspects.len() > 1 {
            self.halve(suspects);
            return Blame::default();
        }
        if blamed.is_empty() {
            blamed = suspects.keys().cloned().collect();
        }
        let (guilty, innocent): (Suspects, Suspects) =
            suspects.into_iter().partition(|(name, _)| blamed.contains(name));
        self.set_aside(guilty);
        if self.attempts > ATTEMPTS_MAX {
            self.set_aside(innocent);
            return Blame { names: blamed, innocent: Vec::new() };
        }
        Blame { names: blamed, innocent: innocent.into_values().collect() }
    }

    /// Sets aside resources not yet known to be good or bad, to be tried together.
    pub fn suspect(&mut self, resources: Vec<(Arc<Resource>, Held)>) {
        self.attempts += 1;
        let suspects: Suspects =
            resources.into_iter().map(|(r, held)| (r.name().clone(), (r, held))).collect();
        if !suspects.is_empty() {
            if self.attempts <= ATTEMPTS_MAX {
                self.groups.push_back(suspects.keys().cloned().collect());
            }
            self.set_aside(suspects);
        }
    }

    /// Marks resources that may be bad and are sent all the same, because to leave them out might delete what
    /// the client has, and so no trial could tell.
    pub fn doubt(&mut self, resources: Vec<(Arc<Resource>, Held)>) {
        self.set_aside(resources.into_iter().map(|(r, _)| (r.name().clone(), (r, Held::Unknown))).collect());
    }

    /// Whether something is sent all the same although it may be bad.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        self.aside.values().any(|aside| aside.held == Held::Unknown)
    }

    /// The client was sent this in place of what it rejected. What is sent all the same stays so.
    pub fn is_replaced_by(&mut self, sent: &Arc<Resource>) {
        if let Some(aside) = self.aside.get_mut(&**sent.name())
            && aside.version != sent.version()
            && aside.held != Held::Unknown
        {
            aside.held = Held::LastGood(sent.clone());
        }
    }

    /// The client has accepted this content after all. Returns whether it was set aside.
    pub fn is_good(&mut self, resource: &Resource) -> bool {
        self.holds_back(resource) && self.release(resource.name()).is_some()
    }

    fn halve(&mut self, suspects: Suspects) {
        let names: Vec<Arc<str>> = suspects.keys().cloned().collect();
        self.set_aside(suspects);
        if self.attempts <= ATTEMPTS_MAX {
            let (left, right) = names.split_at(names.len() / 2);
            self.groups.push_front(right.to_vec());
            self.groups.push_front(left.to_vec());
        }
    }

    fn set_aside(&mut self, suspects: Suspects) {
        let aside = |(name, (resource, held)): (_, (Arc<Resource>, _))| {
            (name, Aside { version: resource.version(), held })
        };
        self.aside.extend(suspects.into_iter().map(aside));
    }
}

/// The verdict on a rejected response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blame {
    /// Resources that are now set aside for good.
    pub names: Vec<Arc<str>>,
    /// Resources to be sent again at once, and what the client holds of them for sure.
    pub innocent: Vec<(Arc<Resource>, Held)>,
}

/// Resources of a rejected response: the rejected content, and what the client holds instead.
type Suspects = BTreeMap<Arc<str>, (Arc<Resource>, Held)>;

#[cfg(test)]
mod tests {
    use navarch_envoy::XdsType;

    use super::*;

    fn suspects(names: &str) -> Vec<(Arc<Resource>, Held)> {
        names
            .split_whitespace()
            .map(|name| (Arc::new(Resource::of(XdsType::Cds, name, b"x")), Held::Nothing))
            .collect()
    }

    fn check(text: &str, sent: &str, blamed: &str, innocent: &str) {
        let mut quarantine = Quarantine::default();
        let blame = quarantine.reject(text, suspects(sent));
        let again: Vec<Arc<str>> =
            blame.innocent.iter().map(|(resource, _)| resource.name().clone()).collect();
        assert_eq!((blame.names.join(" "), again.join(" ")), (blamed.into(), innocent.into()), "{text}");
    }

    #[test]
    fn names_are_found_in_the_text() {
        let text = "Error adding/updating cluster(s) outbound|80||a.b: Proto constraint validation failed";
        check(text, "outbound|80||a.b outbound|80||a", "outbound|80||a.b", "outbound|80||a");
        check(
            "Error adding/updating listener(s) 0.0.0.0_80: x, v6: y\n",
            "0.0.0.0_80 v6 ok",
            "0.0.0.0_80 v6",
            "ok",
        );
        check("[b]: bad", "a b c", "b", "a c");
        check("bad", "a", "a", "");
        check("", "a", "a", "");
        check("bad", "a b c", "", "");
    }

    #[test]
    fn halving_finds_the_bad_ones_and_ends() {
        let all = "a b c d e f g h i";
        let bad = ["c", "h"];
        let mut quarantine = Quarantine::default();
        quarantine.reject("no name", suspects(all));
        let mut rounds = 0;
        while quarantine.has_suspects() {
            rounds += 1;
            let group: Vec<_> = quarantine.next_suspects().into_iter().map(|(name, _)| name).collect();
            if group.iter().any(|name| bad.contains(&&**name)) {
                quarantine.reject("no name", suspects(&group.join(" ")));
            }
        }
        assert_eq!(quarantine.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), bad);
        assert!(rounds < 20);
    }

    #[test]
    fn a_client_that_rejects_everything_is_not_asked_forever() {
        let all = (0..1000).map(|n| format!("c{n}")).collect::<Vec<_>>().join(" ");
        let mut quarantine = Quarantine::default();
        quarantine.reject("no name", suspects(&all));
        let mut rounds = 0;
        while quarantine.has_suspects() {
            rounds += 1;
            let group: Vec<_> = quarantine.next_suspects().into_iter().map(|(name, _)| name).collect();
            quarantine.reject("no name", suspects(&group.join(" ")));
        }
        assert!(rounds <= 3 * ATTEMPTS_MAX, "{rounds}");
        assert_eq!(quarantine.iter().count(), 1000);
    }

    #[test]
    fn nck_14_texts_are_shortened_and_secrets_withheld() {
        assert!(!redact(true, "bad key MIIE").contains("MIIE"));
        assert_eq!(redact(false, &"é".repeat(5000)).len(), TEXT_MAX);
        assert_eq!(redact(false, "short"), "short");
    }
}
