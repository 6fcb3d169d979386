//! Header operations of rules and of backends.

use std::collections::BTreeMap;

use navarch_envoy::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use navarch_envoy::proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use navarch_model::networking::Headers;

/// Header operations in Envoy's terms.
#[derive(Default)]
pub(super) struct HeaderMutations {
    pub request_add: Vec<HeaderValueOption>,
    pub request_remove: Vec<String>,
    pub response_add: Vec<HeaderValueOption>,
    pub response_remove: Vec<String>,
    /// Setting `host` or `:authority` is a rewrite of the host.
    pub authority: Option<String>,
}

impl HeaderMutations {
    pub fn of(headers: &Headers) -> Self {
        let mut out = HeaderMutations::default();
        if let Some(request) = &headers.request {
            extend(&mut out.request_add, &request.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
            extend(&mut out.request_add, &request.add, HeaderAppendAction::AppendIfExistsOrAdd);
            out.request_remove = removable(&request.remove);
            out.authority = authority(&request.set).or_else(|| authority(&request.add));
        }
        if let Some(response) = &headers.response {
            extend(&mut out.response_add, &response.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
            extend(&mut out.response_add, &response.add, HeaderAppendAction::AppendIfExistsOrAdd);
            out.response_remove = removable(&response.remove);
        }
        out
    }
}

/// One header to be added or set.
pub(super) fn header_value(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}

fn extend(out: &mut Vec<HeaderValueOption>, headers: &BTreeMap<String, String>, action: HeaderAppendAction) {
    out.extend(
        headers
            .iter()
            .filter(|(key, _)| !is_internal(key))
            .map(|(key, value)| header_value(key, value, action)),
    );
}

fn removable(keys: &[String]) -> Vec<String> {
    keys.iter().filter(|key| !is_internal(key)).cloned().collect()
}

/// Envoy refuses to change these as headers.
fn is_internal(key: &str) -> bool {
    key.starts_with(':') || key.eq_ignore_ascii_case("host")
}

fn authority(headers: &BTreeMap<String, String>) -> Option<String> {
    headers
        .iter()
        .filter(|(key, value)| {
            !value.is_empty() && (key.eq_ignore_ascii_case(":authority") || key.eq_ignore_ascii_case("host"))
        })
        .map(|(_, value)| value.clone())
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::networking::HeaderOperations;

    #[test]
    fn the_host_is_rewritten_rather_than_set() {
        let check = |set: &[(&str, &str)], add: &[(&str, &str)], authority: Option<&str>, added: usize| {
            let map = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
            };
            let request =
                HeaderOperations { set: map(set), add: map(add), remove: vec!["Host".into(), "x".into()] };
            let out = HeaderMutations::of(&Headers { request: Some(request), response: None });
            assert_eq!(out.authority.as_deref(), authority);
            assert_eq!(out.request_add.len(), added);
            assert_eq!(out.request_remove, ["x"]);
        };
        check(&[("x-a", "1")], &[("x-b", "2")], None, 2);
        check(&[("Host", "a.example")], &[("host", "b.example")], Some("a.example"), 0);
        check(&[], &[(":authority", "b.example"), (":path", "/")], Some("b.example"), 0);
    }
}
