//! Servers of gateways that get nothing, because another has the port or the host.

use std::collections::HashMap;
use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::listener::{GatewayListener, GatewayProxies};
use navarch_model::object::ObjectKey;
use navarch_model::{Hashed, Kind, Name};
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
                let by = match &lost.winner {
                    Some(winner) => format!("{} {}", winner.key, winner.field),
                    None => "another server".to_owned(),
                };
                let message = format!("proxies that serve both ignore this server: {} {by}", lost.why);
                let mut finding = Finding::error(Code::Unreachable, message)
                    .hint("use another port, host or selector, or remove one of the two");
                if let Some(winner) = lost.winner {
                    finding = finding.against(winner.key, winner.field.to_string());
                }
                let problem = Problem { key: lost.loser.key, path: lost.loser.field.to_string(), finding };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        let listeners =
            all.iter().flat_map(|set| set.listeners.iter().map(|listener| (&set.proxies, listener)));
        shared_certificates(listeners, &mut problems);
        problems
    }
}

/// Servers of different gateways that show one certificate on one port of the same proxies: a browser
/// that finds the host of the second in the certificate of the first sends requests for it on the
/// connection that it has (RFC 9113, 9.1.1), where routes of the second gateway do not count.
fn shared_certificates<'a>(
    listeners: impl Iterator<Item = (&'a GatewayProxies, &'a Arc<Hashed<GatewayListener>>)>,
    problems: &mut Vec<Problem>,
) {
    let mut first: HashMap<(&GatewayProxies, u16, &Name, &str), &GatewayListener> = HashMap::new();
    for (proxies, listener) in listeners {
        let listener: &GatewayListener = listener;
        // The Gateway API's are answered with 421, which makes browsers open another connection.
        if listener.origin.key.kind == Kind::KubernetesGateway {
            continue;
        }
        let Some(tls) = listener.tls.as_ref().filter(|tls| !tls.credential_name.is_empty()) else { continue };
        let namespace = &listener.origin.key.namespace;
        let key = (proxies, listener.port, namespace, tls.credential_name.as_str());
        let Some(other) = first.get(&key) else {
            first.insert(key, listener);
            continue;
        };
        let other: &ObjectKey = &other.origin.key;
        if *other == listener.origin.key {
            continue;
        }
        let message = format!(
            "{other} shows the same certificate: browsers send requests for this server's hosts on connections to the other's, and get 404"
        );
        let finding = Finding::warning(Code::Risky, message)
            .hint("put the hosts into one Gateway, or use a certificate for each")
            .against(other.clone(), "spec.servers");
        let path = format!("{}.tls.credentialName", listener.origin.field);
        problems.push(Problem { key: listener.origin.key.clone(), path, finding });
    }
}
