//! Servers of gateways that get nothing, because another has the port or the host.

use navarch_model::finding::{Code, Finding};
use navarch_model::listener::GatewayProxies;
use navarch_snapshot::bound::selects;

use crate::engine::{Cx, Gather};
use crate::findings::problem::Problem;
use crate::gather::gateway::merge::{SelectedGateway, lost};

/// Servers that lose against others of the same proxies.
pub(super) struct Conflicts;

impl Gather for Conflicts {
    const NAME: &'static str = "analyzers.gateways";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let all: Vec<_> = cx.view().gateways().collect();
        let mut problems: Vec<Problem> = Vec::new();
        let mut done = Vec::new();
        for gateway in &all {
            let GatewayProxies::Labelled(labels) = &gateway.proxies else { continue };
            if done.contains(&labels) {
                continue;
            }
            done.push(labels);
            // What proxies with just these labels serve.
            let together = all.iter().filter(|other| match &other.proxies {
                GatewayProxies::Labelled(wanted) => !other.provisioned && selects(wanted, labels),
                GatewayProxies::Behind { .. } => false,
            });
            let selected: Vec<SelectedGateway> = together
                .map(|set| SelectedGateway {
                    set: (*set).clone(),
                    by_service: false,
                    ports: Default::default(),
                })
                .collect();
            for lost in lost(&selected) {
                let by = match lost.winner {
                    Some(winner) => format!("{} {}", winner.key, winner.field),
                    None => "another server".to_owned(),
                };
                let message = format!("proxies that serve both ignore this server: {} {by}", lost.why);
                let finding = Finding::error(Code::Unreachable, message)
                    .hint("use another port, host or selector, or remove one of the two");
                let problem = Problem { key: lost.loser.key, path: lost.loser.field.to_string(), finding };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        problems
    }
}
