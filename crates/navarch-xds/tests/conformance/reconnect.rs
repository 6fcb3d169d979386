//! Streams that come back (REC).

use crate::client::{Client, both, delta, sotw};

#[test]
fn rec_01_sotw_is_skipped_only_for_a_pure_wildcard_with_the_exact_version() {
    let mut c = sotw("CDS a1 | EDS a1");
    c.ask("CDS");
    let clusters = c.last_response("CDS").version.clone();
    c.ask("EDS a");
    let endpoints = c.last_response("EDS").version.clone();
    c.reconnect("envoy");
    assert_eq!(c.ask_at("CDS", &clusters), "");
    assert_eq!(c.ask_at("EDS a", &endpoints), "EDS a1");
    c.settle();
    assert_eq!(c.stream.watermark(), 1);
    assert_eq!(c.plan("CDS a2"), "CDS a2; EDS a1");

    c.reconnect("envoy");
    assert_eq!(c.ask_at("CDS", &clusters), "CDS a2");
    c.reconnect("envoy");
    assert_eq!(c.ask_at("CDS a", &clusters), "CDS a2");
}

#[test]
fn rec_02_what_is_gone_is_removed_in_the_first_answer() {
    let mut c = delta("CDS a1");
    let a = c.version("CDS", "a", "1");
    assert_eq!(c.ask_with("CDS", &[("a", &a), ("gone", &a)]), "CDS -gone");
    let mut c = delta("LDS a1 b1");
    assert_eq!(c.ask_with("LDS", &[("gone", "x")]), "LDS a1 b1 -gone");
}

#[test]
fn rec_03_unknown_and_empty_versions_are_sent_again() {
    let mut c = delta("CDS a1 b1 d1");
    let d = c.version("CDS", "d", "1");
    assert_eq!(c.ask_with("CDS", &[("a", ""), ("b", "17"), ("d", &d)]), "CDS a1 b1");
}

#[test]
fn rec_04_named_resources_are_sent_even_at_an_equal_version() {
    for short in ["EDS", "SDS", "RDS", "ECDS"] {
        let mut c = delta(&format!("{short} a1"));
        let a = c.version(short, "a", "1");
        assert_eq!(c.ask_with(&format!("{short} a"), &[("a", &a)]), format!("{short} a1"));
    }
    let mut c = delta("CDS a1 b1");
    let (a, b) = (c.version("CDS", "a", "1"), c.version("CDS", "b", "1"));
    assert_eq!(c.ask_with("CDS * a", &[("a", &a), ("b", &b)]), "CDS a1");
}

#[test]
fn rec_05_lost_while_warming_endpoints_are_answered_without_clusters() {
    for mut c in both("CDS a1 | EDS a1 | LDS l1 | RDS r1") {
        assert_eq!(c.ask("EDS a"), "EDS a1");
        assert_eq!(c.ask("LDS"), "LDS l1");
        assert_eq!(c.ask("RDS r"), "RDS r1");
        c.settle();
        let sent = c.ask("CDS");
        assert!(sent.starts_with("CDS a1"), "{sent}");
    }
}

#[test]
fn rec_06_endpoints_of_a_cluster_that_is_gone_are_answered_empty() {
    for mut c in both("CDS | EDS") {
        assert_eq!(c.ask("EDS a"), "EDS a()");
    }
}

#[test]
fn rec_07_endpoints_go_again_after_clusters() {
    for mut c in both("CDS a1 | EDS a1") {
        c.ask("EDS a");
        c.ack("EDS");
        assert_eq!(c.ask("CDS"), "CDS a1; EDS a1");
    }
}

#[test]
fn rec_08_leftover_names_create_nothing() {
    let mut c = delta("CDS a1");
    assert_eq!(c.ask("CDS * od1"), "CDS a1 -od1");
    c.ack("CDS");
    assert_eq!(c.ask("RDS leftover"), "RDS -leftover");
}

#[test]
fn rec_09_returning_client_gets_the_current_state() {
    let mut c = delta("CDS a1");
    c.ask("CDS");
    c.settle();
    c.reconnect("envoy");
    c.plan("CDS b1");
    assert_eq!(c.ask("CDS"), "CDS b1");
}

#[test]
fn rec_13_equal_configuration_on_another_replica_sends_nothing_again() {
    let plan = "CDS a1 b1 | LDS l1";
    let mut first = delta(plan);
    first.ask("CDS");
    first.ask("LDS");
    let held = |c: &Client, short: &str| {
        let resources = c.last_response(short).resources.iter();
        resources.map(|r| (r.name().to_string(), r.version().to_string())).collect::<Vec<_>>()
    };
    let (clusters, listeners) = (held(&first, "CDS"), held(&first, "LDS"));
    let mut second = delta(plan);
    let borrow = |held: &[(String, String)]| held.to_vec();
    let ask = |c: &mut Client, short: &str, held: &[(String, String)]| {
        let held = borrow(held);
        let held: Vec<_> = held.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
        c.ask_with(short, &held)
    };
    assert_eq!(ask(&mut second, "CDS", &clusters), "CDS");
    assert_eq!(ask(&mut second, "LDS", &listeners), "LDS");
}
