//! Mutual TLS of the mesh where nobody issues certificates.

use navarch_model::TrustDomains;
use navarch_model::finding::{Code, Finding, Severity};
use navarch_model::networking::{ClientTlsMode, DestinationRule};
use navarch_model::security::{MutualTlsMode, PeerAuthentication};
use navarch_snapshot::bound::BoundRule;
use navarch_snapshot::{BUCKETS, Bucket, View};

use crate::engine::{Cx, Gather};
use crate::findings::problem::Problem;

/// What needs certificates of the mesh, if no authority's roots are known. Whether one will be there, only a
/// server knows, which says so if not.
pub(super) struct WithoutAuthority;

impl Gather for WithoutAuthority {
    const NAME: &'static str = "analyzers.without_authority";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let view = cx.view();
        let domains = TrustDomains::of(&view.mesh().config);
        if domains.iter().next().is_some_and(|domain| view.trust_bundle(domain).is_some()) {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for bucket in 0..BUCKETS {
            problems.extend(cx.gather::<RulesOfBucket>(&bucket).iter().cloned());
        }
        problems.extend(view.wildcard_destination_rules().iter().flat_map(|rule| of_rule(rule)));
        problems.extend(strict(view));
        if view.is_without_authority() {
            problems.iter_mut().for_each(|problem| problem.finding.severity = Severity::Warning);
        }
        problems
    }
}

struct RulesOfBucket;

impl Gather for RulesOfBucket {
    const NAME: &'static str = "analyzers.mesh_tls_rules";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        cx.view().destination_rules_in(*bucket).values().flatten().flat_map(|rule| of_rule(rule)).collect()
    }
}

const HINT: &str = "start the server with an authority (`navarch serve --state DIR`), or the proxies with certificates in files";

fn of_rule(rule: &BoundRule) -> Vec<Problem> {
    let paths = mesh_tls(&rule.config.spec);
    let problem = |path: String| {
        let message = "the mesh's certificates are asked for, and no authority that issues them is known: without one, every call fails";
        let finding = Finding::new(Severity::Info, Code::InvalidCombination, message).hint(HINT);
        Problem { key: rule.config.key(), path, finding }
    };
    paths.into_iter().map(problem).collect()
}

/// Paths of settings with `ISTIO_MUTUAL`.
fn mesh_tls(rule: &DestinationRule) -> Vec<String> {
    let mut paths = Vec::new();
    let own = rule.traffic_policy.as_ref().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let of_subsets = rule.subsets.iter().enumerate().filter_map(|(index, subset)| {
        Some((format!("spec.subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()?))
    });
    for (path, policy) in own.into_iter().chain(of_subsets) {
        if policy.tls.as_ref().is_some_and(|tls| tls.mode == ClientTlsMode::IstioMutual) {
            paths.push(format!("{path}.tls.mode"));
        }
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            if port.tls.as_ref().is_some_and(|tls| tls.mode == ClientTlsMode::IstioMutual) {
                paths.push(format!("{path}.portLevelSettings[{index}].tls.mode"));
            }
        }
    }
    paths
}

fn strict(view: &View<'_>) -> Vec<Problem> {
    let policies = view.all_objects::<PeerAuthentication>();
    let strict = policies
        .iter()
        .filter(|policy| policy.spec.mtls.as_ref().is_some_and(|mtls| mtls.mode == MutualTlsMode::Strict));
    strict
        .map(|policy| {
            let message = "only mutual TLS is let in, and no authority that issues certificates is known: without one, every call is refused";
            let finding = Finding::new(Severity::Info, Code::InvalidCombination, message).hint(HINT);
            Problem { key: policy.key(), path: "spec.mtls.mode".to_owned(), finding }
        })
        .collect()
}
