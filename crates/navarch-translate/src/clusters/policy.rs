//! Which traffic policy applies to a cluster: DestinationRule, its port, its subset, the subset's port,
//! mesh-wide defaults.

use navarch_model::networking::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LbPolicy,
    LoadBalancerSettings, OutlierDetection, PortTrafficPolicy, ProxyProtocol, RetryBudget, SimpleLb, Subset,
    TrafficPolicy,
};

use super::ClusterMesh;

/// The parts of a policy that remain after precedence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy<'a> {
    pub connection_pool: Option<&'a ConnectionPoolSettings>,
    pub outlier_detection: Option<&'a OutlierDetection>,
    pub load_balancer: Option<&'a LoadBalancerSettings>,
    pub tls: Option<&'a ClientTlsSettings>,
    pub proxy_protocol: Option<&'a ProxyProtocol>,
    pub retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Policy<'a> {
    /// A port-level policy replaces the policy as a whole: what it leaves out is not inherited (Istio:
    /// `portLevelSettings`).
    pub fn of_port(policy: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else { return Policy::default() };
        match port_level(policy, port) {
            Some(at_port) => Policy {
                connection_pool: at_port.connection_pool.as_ref(),
                outlier_detection: at_port.outlier_detection.as_ref(),
                load_balancer: at_port.load_balancer.as_ref(),
                tls: at_port.tls.as_ref(),
                proxy_protocol: None,
                retry_budget: None,
            },
            None => Policy {
                connection_pool: policy.connection_pool.as_ref(),
                outlier_detection: policy.outlier_detection.as_ref(),
                load_balancer: policy.load_balancer.as_ref(),
                tls: policy.tls.as_ref(),
                proxy_protocol: policy.proxy_protocol.as_ref(),
                retry_budget: policy.retry_budget.as_ref(),
            },
        }
    }

    /// Blocks that the rule leaves out come from `meshConfig.defaultTrafficPolicy`.
    pub fn with_defaults(self, mesh: &'a ClusterMesh) -> Self {
        Policy {
            connection_pool: self.connection_pool.or(mesh.default_connection_pool.as_ref()),
            outlier_detection: self.outlier_detection.or(mesh.default_outlier_detection.as_ref()),
            ..self
        }
    }

    /// Blocks of a subset win over those of the rule; if the subset has a policy for the port, the four main
    /// blocks are taken from there even where it leaves them out.
    pub fn with_subset(self, subset: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = subset else { return self };
        let over = Policy::of_port(subset, port);
        let replaces = port_level(policy, port).is_some();
        Policy {
            connection_pool: pick(over.connection_pool, self.connection_pool, replaces),
            outlier_detection: pick(over.outlier_detection, self.outlier_detection, replaces),
            load_balancer: pick(over.load_balancer, self.load_balancer, replaces),
            tls: pick(over.tls, self.tls, replaces),
            proxy_protocol: over.proxy_protocol.or(self.proxy_protocol),
            retry_budget: over.retry_budget.or(self.retry_budget),
        }
    }

    /// Whether calls go to the address that the application dialled.
    pub fn is_passthrough(&self) -> bool {
        self.load_balancer.is_some_and(|balancer| simple(balancer) == SimpleLb::Passthrough)
    }
}

fn pick<T>(over: Option<T>, under: Option<T>, replaces: bool) -> Option<T> {
    if replaces { over } else { over.or(under) }
}

/// The simple load balancer of a policy; unspecified if there is another kind.
pub fn simple(balancer: &LoadBalancerSettings) -> SimpleLb {
    match balancer.lb_policy {
        Some(LbPolicy::Simple(simple)) => simple,
        _ => SimpleLb::Unspecified,
    }
}

/// The policy of a rule for a port and a subset (empty: no subset), without mesh-wide defaults.
pub fn of_subset<'a>(rule: Option<&'a DestinationRule>, port: u16, subset: &str) -> Policy<'a> {
    let Some(rule) = rule else { return Policy::default() };
    let subset = find_subset(rule, subset).and_then(|subset| subset.traffic_policy.as_ref());
    Policy::of_port(rule.traffic_policy.as_ref(), port).with_subset(subset, port)
}

/// The TLS mode that a rule sets for a port and a subset. Unlike other blocks, it is inherited where a port
/// leaves it out, because it says what the server accepts.
pub fn tls_mode(rule: Option<&DestinationRule>, port: u16, subset: &str) -> Option<ClientTlsMode> {
    let rule = rule?;
    let whole = || mode_at(rule.traffic_policy.as_ref(), port);
    if subset.is_empty() {
        return whole();
    }
    let subset = find_subset(rule, subset)?;
    mode_at(subset.traffic_policy.as_ref(), port).or_else(whole)
}

fn mode_at(policy: Option<&TrafficPolicy>, port: u16) -> Option<ClientTlsMode> {
    let policy = policy?;
    let at_port = port_level(policy, port).and_then(|at_port| at_port.tls.as_ref());
    at_port.or(policy.tls.as_ref()).map(|tls| tls.mode)
}

fn find_subset<'a>(rule: &'a DestinationRule, name: &str) -> Option<&'a Subset> {
    rule.subsets.iter().find(|subset| subset.name == name)
}

fn port_level(policy: &TrafficPolicy, port: u16) -> Option<&PortTrafficPolicy> {
    policy
        .port_level_settings
        .iter()
        .find(|at_port| at_port.port.as_ref().is_some_and(|selector| selector.number == u32::from(port)))
}
