//! Which service accounts may read Secrets: the API server that keeps them is asked (SubjectAccessReview), as
//! istiod asks it, and never on the way of an answer to a proxy.
//!
//! Proxies get the keys that configuration names for them if they could read them themselves, or else whoever
//! may write a Gateway in a namespace would reach all of its Secrets. Which accounts that counts for is what
//! has been planned; what the API server says is a fact, which plans read. An account that it has not
//! answered about may not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use navarch_kubernetes::{AskError, Questions};
use navarch_model::ClusterId;
use navarch_model::document::WrittenIn;
use navarch_model::fact::{Account, Fact, FactKey, SecretAccess};
use navarch_sources::Source;
use navarch_sources::memory::Memory;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::fleet::Fleet;

/// How long an answer is good for. Who has been allowed is asked about again less often: a permission that is
/// taken away takes no key back that a proxy has (istiod has the same times).
const DENIED_FOR: Duration = Duration::from_secs(60);
const ALLOWED_FOR: Duration = Duration::from_secs(300);

/// How long until it is asked again where there was no answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Asks, and states what comes of it.
pub struct SecretReaders {
    facts: Memory,
    questions: Questions,
}

/// What is known of an account.
#[derive(Debug)]
struct Known {
    /// What is stated.
    access: Option<SecretAccess>,
    /// When it is asked about again; never while it is being asked about.
    due: Option<Instant>,
}

impl SecretReaders {
    /// Nobody has been asked about yet.
    #[must_use]
    pub fn new(questions: Questions) -> Self {
        let name = "secret readers";
        let facts = Memory::new(name, WrittenIn::Cluster { id: ClusterId::LOCAL, name: name.into() });
        facts.complete();
        SecretReaders { facts, questions }
    }

    /// For the pipeline.
    #[must_use]
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.facts.clone())
    }

    /// Asks about the accounts of a fleet for which it counts, for ever.
    pub async fn run(self, fleet: Arc<Fleet>) {
        let planned = fleet.review_secrets();
        let mut known: BTreeMap<Account, Known> = BTreeMap::new();
        let mut asked = JoinSet::new();
        loop {
            self.forget(&mut known, &fleet.secret_readers());
            for (account, known) in &mut known {
                if known.due.is_some_and(|due| due <= Instant::now()) {
                    known.due = None;
                    let (questions, account) = (self.questions.clone(), account.clone());
                    asked.spawn(async move {
                        let answer = questions.may_list_secrets(&account.namespace, &account.name).await;
                        (account, answer)
                    });
                }
            }
            let due = known.values().filter_map(|known| known.due).min();
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = planned.notified() => {}
                () = due => {}
                Some(Ok((account, answer))) = asked.join_next() => self.answered(&mut known, account, answer),
            }
        }
    }

    /// Keeps what is known of accounts for which it counts, and of no others.
    fn forget(&self, known: &mut BTreeMap<Account, Known>, wanted: &BTreeSet<Account>) {
        known.retain(|account, _| {
            let stays = wanted.contains(account);
            if !stays {
                self.facts.retract(FactKey::SecretReader(account.clone()));
            }
            stays
        });
        for account in wanted {
            let unknown = || Known { access: None, due: Some(Instant::now()) };
            known.entry(account.clone()).or_insert_with(unknown);
        }
    }

    fn answered(
        &self,
        known: &mut BTreeMap<Account, Known>,
        account: Account,
        answer: Result<bool, AskError>,
    ) {
        // It may have been forgotten meanwhile.
        let Some(known) = known.get_mut(&account) else { return };
        let (access, good_for) = match answer {
            Ok(true) => (SecretAccess::Allowed, ALLOWED_FOR),
            Ok(false) => (SecretAccess::Denied, DENIED_FOR),
            Err(error) => {
                let reason = error.to_string().as_str().into();
                let access = match &known.access {
                    // What it said last stays: proxies lose nothing because an API server is away.
                    Some(last @ (SecretAccess::Allowed | SecretAccess::Denied)) => last.clone(),
                    Some(SecretAccess::Unanswered { .. }) | None => SecretAccess::Unanswered { reason },
                };
                (access, AGAIN)
            }
        };
        known.due = Some(Instant::now() + good_for);
        if known.access.as_ref() == Some(&access) {
            return;
        }
        match &access {
            SecretAccess::Allowed => tracing::debug!(%account, "may read Secrets"),
            SecretAccess::Denied => {
                tracing::warn!(%account, "its proxies get no keys: it may not list Secrets in its namespace");
            }
            SecretAccess::Unanswered { reason } => {
                tracing::warn!(%account, %reason, "its proxies get no keys: whether it may read Secrets is not known");
            }
        }
        known.access = Some(access.clone());
        self.facts.state(Fact::SecretReader { account, access });
    }
}

#[cfg(test)]
mod tests {
    use navarch_kubernetes::{Access, Kubernetes, Options};
    use navarch_sources::Batch;

    use super::*;

    #[tokio::test]
    async fn without_an_answer_the_last_one_holds_and_before_the_first_nobody_may() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let address = "127.0.0.1:9".parse()?;
        let kubeconfig = navarch_testkit::cluster::Cluster::kubeconfig(directory.path(), address)?;
        let options = Options {
            access: Access { kubeconfig: Some(kubeconfig), context: None },
            cluster: "main".into(),
            revision: Default::default(),
            namespaces: Default::default(),
            kept: None,
            candidate: None,
        };
        let readers = SecretReaders::new(Kubernetes::follow(&options).await?.questions());
        let mut source = readers.source();
        let account = Account { namespace: "edge".into(), name: "gateway".into() };
        let mut known = BTreeMap::new();
        readers.forget(&mut known, &BTreeSet::from([account.clone()]));
        let mut check = |answer: Result<bool, &str>, expected: Option<SecretAccess>, again: Duration| {
            let before = Instant::now();
            let answer = answer.map_err(|reason| AskError::Failed { reason: reason.to_owned() });
            readers.answered(&mut known, account.clone(), answer);
            let Batch { facts, .. } = source.read().expect("what is stated");
            let stated = facts.into_iter().map(|fact| match fact {
                Fact::SecretReader { access, .. } => access,
                other => panic!("{other:?}"),
            });
            assert_eq!(stated.collect::<Vec<_>>(), Vec::from_iter(expected));
            let due = known[&account].due.expect("it is asked about again");
            assert!((again..again + AGAIN).contains(&(due - before)), "{due:?}");
        };
        let unanswered = |reason: &str| Some(SecretAccess::Unanswered { reason: reason.into() });
        check(Err("a"), unanswered("a"), AGAIN);
        check(Err("a"), None, AGAIN);
        check(Err("b"), unanswered("b"), AGAIN);
        check(Ok(true), Some(SecretAccess::Allowed), ALLOWED_FOR);
        check(Err("a"), None, AGAIN);
        check(Ok(false), Some(SecretAccess::Denied), DENIED_FOR);
        check(Err("a"), None, AGAIN);
        check(Ok(true), Some(SecretAccess::Allowed), ALLOWED_FOR);
        readers.forget(&mut known, &BTreeSet::new());
        assert_eq!(source.read()?.retracted, [FactKey::SecretReader(account)]);
        Ok(())
    }
}
