//! AuthorizationPolicy: who may do what.

use crate::types::{PolicyTargetReference, WorkloadSelector};
use crate::yaml::{closed_enum, message, oneof};

message! {
    /// Who may do what. Without rules, ALLOW denies everything.
    pub struct AuthorizationPolicy {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        rules: Vec<Rule>,
        action: AuthorizationAction,
        ;
        oneof action_detail: ActionDetail,
    }
}

oneof! {
    /// What an action needs besides its name.
    pub enum ActionDetail {
        provider => Provider(ExtensionProviderRef),
    }
}

closed_enum! {
    /// What happens to requests that match. CUSTOM is asked first, then DENY, then ALLOW. Istio:
    /// `AuthorizationPolicy.Action`.
    pub enum AuthorizationAction {
        Allow = 0 "ALLOW",
        Deny = 1 "DENY",
        Audit = 2 "AUDIT",
        Custom = 3 "CUSTOM",
    }
}

message! {
    /// An external authoriser of the mesh settings, by name. Istio: `AuthorizationPolicy.ExtensionProvider`.
    pub struct ExtensionProviderRef {
        name: String,
    }
}

message! {
    /// Matches if one of `from`, one of `to` and all of `when` do. An empty rule matches everything.
    pub struct Rule {
        from: Vec<RuleFrom>,
        to: Vec<RuleTo>,
        when: Vec<Condition>,
    }
}

message! {
    /// One kind of source. Istio: `Rule.From`.
    pub struct RuleFrom {
        source: Option<Source>,
    }
}

message! {
    /// One kind of operation. Istio: `Rule.To`.
    pub struct RuleTo {
        operation: Option<Operation>,
    }
}

message! {
    /// Where a request comes from. All fields that are set must hold; within one, one value.
    pub struct Source {
        principals: Vec<String>,
        not_principals: Vec<String>,
        request_principals: Vec<String>,
        not_request_principals: Vec<String>,
        namespaces: Vec<String>,
        not_namespaces: Vec<String>,
        service_accounts: Vec<String>,
        not_service_accounts: Vec<String>,
        ip_blocks: Vec<String>,
        not_ip_blocks: Vec<String>,
        remote_ip_blocks: Vec<String>,
        not_remote_ip_blocks: Vec<String>,
        trust_domains: Vec<String>,
        not_trust_domains: Vec<String>,
    }
}

message! {
    /// What a request does. All fields that are set must hold; within one, one value.
    pub struct Operation {
        hosts: Vec<String>,
        not_hosts: Vec<String>,
        ports: Vec<String>,
        not_ports: Vec<String>,
        methods: Vec<String>,
        not_methods: Vec<String>,
        paths: Vec<String>,
        not_paths: Vec<String>,
    }
}

message! {
    /// A condition on an attribute.
    pub struct Condition {
        key: String,
        values: Vec<String>,
        not_values: Vec<String>,
    }
}
