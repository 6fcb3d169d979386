//! What has to be sent, whatever was sent before.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

/// What the next response owes the client beside changes of its set.
///
/// Invariant: what is anticipated and what is unsent is among the names.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// All that is wanted.
    pub everything: bool,
    /// State-of-the-world: something was taken out of the whole state that no later change will show.
    pub full_state: bool,
    names: BTreeSet<Arc<str>>,
    /// Names that the client is about to ask for.
    anticipated: BTreeSet<Arc<str>>,
    /// Names that were sent before the client asked for them.
    sent_ahead: BTreeSet<Arc<str>>,
    /// Those of them that are due only because it has asked for them since.
    asked_since: BTreeSet<Arc<str>>,
    /// Names that the client asks for and was sent nothing of on this stream.
    unsent: BTreeSet<Arc<str>>,
    /// Names that the client is told are gone although they are there.
    taken_back: BTreeSet<Arc<str>>,
    /// Glob collections: their members, or word that there are none.
    globs: Vec<Arc<str>>,
}

impl Due {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        let Self {
            everything,
            full_state,
            names,
            anticipated: _,
            sent_ahead: _,
            asked_since: _,
            unsent: _,
            taken_back,
            globs,
        } = self;
        !everything && !full_state && names.is_empty() && taken_back.is_empty() && globs.is_empty()
    }

    /// Whether nothing is due by name.
    pub fn has_no_names(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether nothing is due of collections.
    pub fn has_no_globs(&self) -> bool {
        self.globs.is_empty()
    }

    /// Whether this name is due.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Makes a name due.
    pub fn name(&mut self, name: Arc<str>) {
        self.asked_since.remove(&name);
        self.names.insert(name);
    }

    /// Makes names due.
    pub fn names(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        names.into_iter().for_each(|name| self.name(name));
    }

    /// The client wants these, and did not before: they are due.
    pub fn ask(&mut self, added: impl IntoIterator<Item = Arc<str>>) {
        for name in added {
            let is_due = !self.names.insert(name.clone());
            match self.sent_ahead.remove(&name) {
                true if is_due => {}
                true => _ = self.asked_since.insert(name),
                false => _ = self.unsent.insert(name),
            }
        }
    }

    /// Whether there is any name that was sent ahead and asked for since.
    pub fn has_asked_since(&self) -> bool {
        !self.asked_since.is_empty()
    }

    /// The client has accepted what it was sent of this name ahead, and has asked for it before that: it was
    /// waiting for the name when it read what it was sent, and is not sent it again.
    pub fn accepted_ahead(&mut self, name: &str) {
        if self.asked_since.remove(name) {
            self.names.remove(name);
        }
    }

    /// Whether the client was sent nothing of this name on this stream. What all clients of its class were
    /// sent last says nothing about it then.
    pub fn is_unsent(&self, name: &str) -> bool {
        self.unsent.contains(name)
    }

    /// Makes a name due that the client will ask for.
    pub fn anticipate(&mut self, name: Arc<str>) {
        self.name(name.clone());
        self.anticipated.insert(name);
    }

    /// The client is told that it does not hold this one.
    pub fn take_back(&mut self, name: Arc<str>) {
        self.taken_back.insert(name);
    }

    /// Whether the client is to be told that it does not hold something.
    pub fn has_taken_back(&self) -> bool {
        !self.taken_back.is_empty()
    }

    /// What the client is told not to hold. It is no longer due.
    pub fn take_taken_back(&mut self) -> BTreeSet<Arc<str>> {
        mem::take(&mut self.taken_back)
    }

    /// Makes collections due.
    pub fn globs(&mut self, globs: impl IntoIterator<Item = Arc<str>>) {
        self.globs.extend(globs);
    }

    /// A name is not wanted any more.
    pub fn forget(&mut self, name: &str) {
        self.names.remove(name);
        self.anticipated.remove(name);
        self.sent_ahead.remove(name);
        self.asked_since.remove(name);
        self.unsent.remove(name);
    }

    /// The names, each with whether it is anticipated. They are no longer due.
    pub fn take_names(&mut self) -> impl Iterator<Item = (Arc<str>, bool)> + use<> {
        let anticipated = mem::take(&mut self.anticipated);
        // One that was asked for meanwhile is anticipated no longer.
        self.sent_ahead.extend(anticipated.difference(&self.unsent).cloned());
        self.unsent.clear();
        self.asked_since.clear();
        mem::take(&mut self.names).into_iter().map(move |name| {
            let is_anticipated = anticipated.contains(&name);
            (name, is_anticipated)
        })
    }

    /// The collections. They are no longer due.
    pub fn take_globs(&mut self) -> Vec<Arc<str>> {
        mem::take(&mut self.globs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_not_anticipated_either() {
        let mut due = Due::default();
        due.anticipate("a".into());
        due.anticipate("b".into());
        due.name("c".into());
        due.forget("a");
        let taken: Vec<_> =
            due.take_names().map(|(name, anticipated)| (name.to_string(), anticipated)).collect();
        assert_eq!(taken, [("b".to_owned(), true), ("c".to_owned(), false)]);
        assert!(due.is_empty());
    }

    #[test]
    fn a_name_is_unsent_until_its_answer_is_taken() {
        let mut due = Due::default();
        due.anticipate("sent ahead".into());
        due.take_names().for_each(drop);
        due.ask(["sent ahead".into(), "asked".into()]);
        due.name("due again".into());
        let unsent = |due: &Due| ["sent ahead", "asked", "due again"].map(|name| due.is_unsent(name));
        assert_eq!(unsent(&due), [false, true, false]);
        due.take_names().for_each(drop);
        assert_eq!(unsent(&due), [false; 3]);
        due.ask(["sent ahead".into()]);
        assert!(due.is_unsent("sent ahead"), "it counts once");
    }

    #[test]
    fn what_was_sent_ahead_is_not_sent_again_if_it_was_asked_for_before_it_was_accepted() {
        let check = |steps: &[fn(&mut Due)], expected: bool| {
            let mut due = Due::default();
            due.anticipate("a".into());
            due.take_names().for_each(drop);
            steps.iter().for_each(|step| step(&mut due));
            assert_eq!(due.has_name("a"), expected);
        };
        let ask: fn(&mut Due) = |due| due.ask(["a".into()]);
        let accept: fn(&mut Due) = |due| due.accepted_ahead("a");
        let resend: fn(&mut Due) = |due| due.name("a".into());
        check(&[ask], true);
        check(&[ask, accept], false);
        check(&[accept, ask], true);
        // It is due for another reason too: its cluster has changed.
        check(&[ask, resend, accept], true);
        check(&[resend, ask, accept], true);
        check(&[ask, accept, ask], true);
    }

    #[test]
    fn each_kind_counts() {
        let check = |make: fn(&mut Due)| {
            let mut due = Due::default();
            assert!(due.is_empty());
            make(&mut due);
            assert!(!due.is_empty());
        };
        check(|due| due.everything = true);
        check(|due| due.full_state = true);
        check(|due| due.name("a".into()));
        check(|due| due.take_back("a".into()));
        check(|due| due.globs(["a".into()]));
    }
}
