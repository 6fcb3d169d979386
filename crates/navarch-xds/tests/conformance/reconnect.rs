//! Streams that come back (REC).

use std::time::Duration;

use navarch_xds::{Protocol, SyncState};

use crate::client::{Client, Plan, both, delta, sotw};

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
    for (agent, short) in [
        ("envoy", "EDS"),
        ("envoy", "SDS"),
        ("envoy", "ECDS"),
        ("somebody", "EDS"),
        ("somebody", "SDS"),
        ("somebody", "RDS"),
        ("somebody", "ECDS"),
    ] {
        let mut c = Client::new(Protocol::Delta, agent, Plan::default(), &format!("{short} a1"));
        let a = c.version(short, "a", "1");
        assert_eq!(c.ask_with(&format!("{short} a"), &[("a", &a)]), format!("{short} a1"));
    }
    let mut c = delta("CDS a1 b1");
    let (a, b) = (c.version("CDS", "a", "1"), c.version("CDS", "b", "1"));
    assert_eq!(c.ask_with("CDS * a", &[("a", &a), ("b", &b)]), "CDS a1");
}

/// An Envoy that returns with everything at content 1: `asks` one type after the other, with what it holds.
fn returning(plan: &str, asks: &[&str]) -> (Client, String) {
    let mut c = delta(plan);
    let sent: Vec<_> =
        asks.iter().map(|text| ask_holding(&mut c, text)).filter(|sent| !sent.is_empty()).collect();
    let sent = sent.join("; ");
    (c, sent)
}

/// `"EDS a b"` asks for these and says that they are held at content 1. Clusters and listeners are not named.
fn ask_holding(c: &mut Client, text: &str) -> String {
    let (short, names) = text.split_once(' ').unwrap_or((text, ""));
    let held: Vec<_> = names.split_whitespace().map(|name| (name, c.version(short, name, "1"))).collect();
    let held: Vec<_> = held.iter().map(|(name, version)| (*name, version.as_str())).collect();
    c.ask_with(if matches!(short, "CDS" | "LDS") { short } else { text }, &held)
}

#[test]
fn rec_04_envoy_that_waits_for_nothing_is_sent_only_what_differs() {
    let asks = ["CDS a b", "EDS a b", "LDS l", "RDS r s"];
    let check = |plan: &str, expected: &str| {
        let (mut c, sent) = returning(plan, &asks);
        assert_eq!(sent, expected, "{plan}");
        c.settle();
        assert_eq!(c.stream.watermark(), 1, "{plan}");
        assert!(c.stream.status().iter().all(|ty| ty.state == SyncState::Synced), "{plan}");
        assert_eq!(c.settle(), "");
    };
    check("CDS a1 b1 | EDS a1 b1 | LDS l1 | RDS r1 s1", "CDS; LDS");
    check("CDS a1 b1 | EDS a2 b1 | LDS l1 | RDS r1 s2", "CDS; EDS a2; LDS; RDS s2");
    // What is gone is said to be gone.
    check("CDS a1 | EDS a1 | LDS l1 | RDS r1", "CDS -b; EDS b(); LDS; RDS -s");
    // A changed cluster waits for its assignment, and a new listener may wait for its routes.
    check("CDS a1 b2 | EDS a1 b1 | LDS l1 | RDS r1 s1", "CDS b2; EDS b1; LDS");
    check("CDS a1 b1 | EDS a1 b1 | LDS l2_r | RDS r1 s1", "CDS; LDS l2_r; RDS r1");
    // Later changes are sent as ever.
    let (mut c, _) = returning("CDS a1 b1 | EDS a1 b1 | LDS l1 | RDS r1 s1", &asks);
    c.settle();
    assert_eq!(c.plan("EDS a2 b1 | RDS r1 s2"), "EDS a2; RDS s2");
    c.settle();
    assert_eq!(c.plan("CDS a2 b1"), "CDS a2; EDS a2");
}

#[test]
fn rec_04_envoy_that_may_be_warming_is_sent_assignments() {
    let plan = "CDS a1 | EDS a1 | LDS l1 | RDS r1";
    // It does not ask for clusters: one of them warms.
    let (_, sent) = returning(plan, &["EDS a", "LDS l", "RDS r"]);
    assert_eq!(sent, "EDS a1; LDS");
    // It does not ask for listeners: it is starting, and then a cluster may wait although it asks for
    // clusters.
    let (mut c, sent) = returning(plan, &["CDS a", "EDS a"]);
    assert_eq!(sent, "CDS");
    assert_eq!(c.sleep(0.9), "");
    assert_eq!(c.sleep(0.2), "EDS a1");
    // An older Envoy may have lost the endpoints of a cluster that it waited for in vain.
    let (_, sent) = returning(plan, &["CDS a", "EDS a", "LDS l"]);
    assert_eq!(sent, "CDS; LDS");
    let mut c = Client::new(Protocol::Delta, "envoy/1.28.0", Plan::default(), plan);
    assert_eq!(ask_holding(&mut c, "CDS a"), "CDS");
    assert_eq!(ask_holding(&mut c, "EDS a"), "EDS a1");
}

#[test]
fn rec_04_a_time_to_live_is_started_on_every_stream() {
    let plan = Plan::default().with_ttl(Duration::from_secs(30));
    let mut c = Client::new(Protocol::Delta, "envoy", plan, "CDS a1 | RDS r1 | LDS");
    let held = |c: &Client, short: &str| {
        let resource = c.plan.current.as_ref().expect("a plan").set(crate::client::ty(short)).iter().next();
        let resource = resource.expect("a resource");
        (resource.name().to_string(), resource.version().to_string())
    };
    let (a, r) = (held(&c, "CDS"), held(&c, "RDS"));
    assert_eq!(c.ask_with("CDS", &[(&a.0, &a.1)]), "CDS a1");
    assert_eq!(c.ask("LDS"), "LDS");
    assert_eq!(c.ask_with("RDS r", &[(&r.0, &r.1)]), "RDS r1");
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
