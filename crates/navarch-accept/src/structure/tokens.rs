//! What the filter for tokens refers to is there.

use std::collections::BTreeSet;

use super::numbers;
use crate::violation::Rule;
use crate::walk::At;
use crate::wire::{message, messages, text};

/// Fields of the entries of a map.
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// Rules demand tokens of providers, and name requirements, that the filter has.
pub fn authentication(filter: &[u8], at: &mut At<'_>) {
    use numbers::{jwt_authentication as j, jwt_rule, jwt_state_rule};
    let names = |field| messages(filter, field).map(|entry| text(entry, KEY)).collect();
    let (providers, requirements): (BTreeSet<&str>, BTreeSet<&str>) =
        (names(j::PROVIDERS), names(j::REQUIREMENT_MAP));
    for (index, rule) in messages(filter, j::RULES).enumerate() {
        let place = format!("rules[{index}]");
        let named = text(rule, jwt_rule::REQUIREMENT_NAME);
        if !named.is_empty() && !requirements.contains(named) {
            let words = format!("is {named:?}, which is not in `requirement_map`");
            at.say(Rule::Structure, &format!("{place}.requirement_name"), words);
        }
        if let Some(requires) = message(rule, jwt_rule::REQUIRES) {
            requirement(requires, &providers, &format!("{place}.requires"), at);
        }
    }
    for entry in messages(filter, j::REQUIREMENT_MAP) {
        let place = format!("requirement_map[{:?}]", text(entry, KEY));
        requirement(message(entry, VALUE).unwrap_or_default(), &providers, &place, at);
    }
    let by_state = message(filter, j::FILTER_STATE_RULES).unwrap_or_default();
    for entry in messages(by_state, jwt_state_rule::REQUIRES) {
        let place = format!("filter_state_rules.requires[{:?}]", text(entry, KEY));
        requirement(message(entry, VALUE).unwrap_or_default(), &providers, &place, at);
    }
}

/// However deep requirements are nested.
fn requirement(requirement: &[u8], providers: &BTreeSet<&str>, place: &str, at: &mut At<'_>) {
    use numbers::{jwt_list, jwt_provider_with_audiences, jwt_requirement as r};
    let mut rest = vec![requirement];
    while let Some(requirement) = rest.pop() {
        let with_audiences = message(requirement, r::PROVIDER_AND_AUDIENCES);
        let with_audiences =
            with_audiences.map(|provider| text(provider, jwt_provider_with_audiences::PROVIDER_NAME));
        let named = Some(text(requirement, r::PROVIDER_NAME)).filter(|name| !name.is_empty());
        for name in named.into_iter().chain(with_audiences).filter(|name| !providers.contains(name)) {
            at.say(Rule::Structure, place, format!("demands a token of {name:?}, which is no provider"));
        }
        for list in [r::REQUIRES_ANY, r::REQUIRES_ALL] {
            let list = message(requirement, list).unwrap_or_default();
            rest.extend(messages(list, jwt_list::REQUIREMENTS));
        }
    }
}
