//! Rules for requests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backend::{Backend, HttpBackend, MissingBackend};
use super::client::ClientMatch;
use crate::networking::{
    CorsPolicy, Headers, HttpDirectResponse, HttpFaultInjection, HttpRedirect, HttpRetry, RegexRewrite,
};
use crate::origin::Origin;
use crate::service::PersistentSession;
use crate::values::{Percent, StringMatch};

/// What becomes of requests that meet one of some conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRule {
    /// The field that the rule was made from; of a delegate, if it is one of its routes.
    pub origin: Origin,
    pub name: String,
    /// One of them has to hold; empty means every request.
    pub matches: Vec<HttpMatch>,
    pub action: HttpAction,
    /// Changes to headers of every request and response of the rule.
    pub headers: Option<Headers>,
    pub fault: Option<HttpFaultInjection>,
    pub cors: Option<CorsPolicy>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// Becomes part of the route's name.
    pub name: String,
    pub client: ClientMatch,
    pub path: Option<PathMatch>,
    pub ignore_path_case: bool,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    /// By name; names that start with `@request.auth.claims` stand for claims of the token.
    pub headers: BTreeMap<String, StringMatch>,
    /// As `headers`, and must not hold.
    pub without_headers: BTreeMap<String, StringMatch>,
    pub query_params: BTreeMap<String, StringMatch>,
    /// Statistics of the route get this prefix, if it is not empty.
    pub stat_prefix: String,
    /// Of the requests that meet everything else, this share; the others go on to the next condition. Shares
    /// of successive conditions include those before them, as one number is drawn for each request.
    pub share: Option<Percent>,
}

/// How specific a condition is. The greater one comes first. (Gateway API, HTTPRouteRule, matches.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Specificity {
    path: PathKind,
    /// Characters of the path.
    length: usize,
    has_method: bool,
    headers: usize,
    query_params: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum PathKind {
    /// Nor is there any other condition.
    #[default]
    NoCondition,
    /// There are conditions on other things only.
    Any,
    Regex,
    Prefix,
    Exact,
}

impl HttpMatch {
    /// How specific the condition is.
    pub fn specificity(&self) -> Specificity {
        let (path, length) = match &self.path {
            None => (PathKind::Any, 0),
            Some(PathMatch::Regex(pattern)) => (PathKind::Regex, pattern.len()),
            Some(PathMatch::Prefix(prefix) | PathMatch::PathPrefix(prefix)) => {
                (PathKind::Prefix, prefix.len())
            }
            Some(PathMatch::Exact(path)) => (PathKind::Exact, path.len()),
        };
        Specificity {
            path,
            length,
            has_method: self.method.is_some(),
            headers: self.headers.len() + self.without_headers.len(),
            query_params: self.query_params.len(),
        }
    }
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    Exact(String),
    /// The path starts with the text, wherever that ends. (VirtualService.)
    Prefix(String),
    /// The path starts with these segments: `/a` takes `/a` and `/a/b`, not `/ab`. (Gateway API, Ingress.)
    PathPrefix(String),
    /// The whole path is as the regular expression says.
    Regex(String),
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HttpAction {
    /// Answered with a redirect.
    Redirect(HttpRedirect),
    /// Answered without asking anybody.
    Respond(HttpDirectResponse),
    /// Passed on.
    Forward(Forward),
}

/// How a request is passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Forward {
    pub backends: Vec<HttpBackend>,
    pub missing: MissingBackend,
    pub rewrite: Option<Rewrite>,
    /// Unset means none.
    pub timeout: Option<Duration>,
    /// Unset means the default of the mesh settings.
    pub retries: Option<HttpRetry>,
    pub mirrors: Vec<Mirror>,
    /// Sends the requests of one client to one endpoint; comes before what the services say.
    pub session: Option<PersistentSession>,
}

/// Changes to the request before it is passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// Empty leaves it as it is.
    pub authority: String,
    pub path: Option<PathRewrite>,
}

/// A change to the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathRewrite {
    /// Replaces what the condition on the path matched.
    Matched(String),
    /// Replaces the prefix of whole segments that matched. Has no slash at the end. (Gateway API.)
    Prefix(String),
    /// Takes away the prefix that matched. What is left starts with a slash, also where nothing follows the
    /// prefix.
    RemovePrefix,
    Regex(RegexRewrite),
}

/// A share of the requests is copied to another service, whose answers are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    pub backend: Backend,
    pub share: Share,
    /// The field that names the backend. A delegate's rule may have it from the rule that delegates.
    pub origin: Origin,
}

/// A share of requests, as finely as it is stated: Envoy is told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// In whole percent.
    Percent(u32),
    Fine(Percent),
}

impl HttpRule {
    /// How requests of one client stick to an endpoint, if the rule says so.
    pub fn session(&self) -> Option<&PersistentSession> {
        self.forward()?.session.as_ref()
    }

    /// How requests are passed on, if they are.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            HttpAction::Forward(forward) => Some(forward),
            HttpAction::Redirect(_) | HttpAction::Respond(_) => None,
        }
    }
}
