//! What objects do wrong together, looked for as Istio's analyzers do: `docs/analyzers.md` is the table.
//!
//! Every analyzer is a gather over what it reads, most of them a bucket of hosts at a time, so an edit looks
//! again only at what it concerns.

mod authority;
mod conflicts;
mod gateways;
mod routes;
mod rules;
mod services;

use navarch_snapshot::BUCKETS;

use crate::engine::{Cx, Gather};
use crate::findings::problem::Problem;

/// All analyzers.
pub struct Analyzers;

impl Gather for Analyzers {
    const NAME: &'static str = "analyzers.all";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(cx.gather::<gateways::Conflicts>(&()).iter().cloned());
        problems.extend(cx.gather::<conflicts::OfKinds>(&()).iter().cloned());
        problems.extend(cx.gather::<authority::WithoutAuthority>(&()).iter().cloned());
        problems.extend(cx.gather::<services::WithoutAddresses>(&()).iter().cloned());
        for bucket in 0..BUCKETS {
            problems.extend(cx.gather::<services::InBucket>(&bucket).iter().cloned());
            problems.extend(cx.gather::<rules::InBucket>(&bucket).iter().cloned());
        }
        problems.extend(routes::all(cx));
        problems
    }
}
