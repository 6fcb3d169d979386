use std::collections::BTreeSet;

use navarch_envoy::json::pool;
use navarch_envoy::proto::validate::{FieldRules, TimestampRules, field_rules::Type};

use super::*;

/// Every rule of the API is one that is compiled; a new kind of rule must not be ignored in silence.
#[test]
fn every_rule_of_the_api_is_understood() {
    let mut kinds = BTreeSet::new();
    let mut rules = 0;
    for kind in pool().all_messages() {
        for field in kind.fields() {
            let found = compile::rules(&field);
            rules += usize::from(found != FieldRules::default());
            collect(&found, &mut kinds);
        }
        assert!(compile::slots(&kind) <= compile::SLOTS, "{} needs too many slots", kind.full_name());
    }
    assert!(rules > 1000, "only {rules} fields have rules: did the options survive?");
    assert_eq!(kinds, BTreeSet::new());
}

/// The kinds of rules that are not compiled.
fn collect(rules: &FieldRules, kinds: &mut BTreeSet<String>) {
    let mut unknown = |what: &str| {
        kinds.insert(what.to_owned());
    };
    match &rules.r#type {
        Some(Type::String(text)) => {
            use navarch_envoy::proto::validate::string_rules::WellKnown;
            if !matches!(text.well_known, None | Some(WellKnown::WellKnownRegex(_))) {
                unknown(&format!("string {:?}", text.well_known));
            }
            if text.pattern.as_ref().is_some_and(|pattern| regex::Regex::new(pattern).is_err()) {
                unknown(&format!("string pattern {:?}", text.pattern));
            }
        }
        Some(Type::Bytes(bytes)) if bytes.well_known.is_some() || bytes.pattern.is_some() => {
            unknown(&format!("{bytes:?}"));
        }
        Some(Type::Map(map)) => {
            if map.no_sparse() {
                unknown("map no_sparse");
            }
            map.keys.iter().chain(&map.values).for_each(|rules| collect(rules, kinds));
        }
        Some(Type::Repeated(repeated)) => repeated.items.iter().for_each(|rules| collect(rules, kinds)),
        Some(Type::Timestamp(rules))
            if *rules != (TimestampRules { required: rules.required, ..TimestampRules::default() }) =>
        {
            unknown(&format!("{rules:?}"));
        }
        _ => {}
    }
}

#[test]
fn a_type_without_rules_has_no_fields() {
    let shape = shape_of("google.protobuf.Struct").unwrap();
    assert_eq!((shape.fields.len(), shape.needed.len()), (0, 0));
    assert!(shape_of("a.B").is_none());
}
