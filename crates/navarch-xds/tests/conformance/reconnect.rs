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
fn rec_02_what_is_gone_is_removed_when_nothing_that_is_held_can_refer_to_it() {
    let mut c = delta("LDS a1 b1");
    assert_eq!(c.ask_with("LDS", &[("gone", "x")]), "LDS a1 b1 -gone");
    // Nothing else is asked for: the client may not have got round to it.
    let mut c = delta("CDS a1");
    let a = c.version("CDS", "a", "1");
    assert_eq!(c.ask_with("CDS", &[("a", &a), ("gone", &a)]), "CDS");
    assert_eq!(c.ack("CDS"), "");
    assert_eq!(c.stream.watermark(), 0);
    assert_eq!(c.sleep(4.9), "");
    assert_eq!(c.sleep(0.2), "CDS -gone");
    c.settle();
    assert_eq!(c.stream.watermark(), 1);
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
        c.sleep(5.0);
        c.settle();
        assert_eq!(c.stream.watermark(), 1, "{plan}");
        assert!(c.stream.status().iter().all(|ty| ty.state == SyncState::Synced), "{plan}");
        assert_eq!(c.settle(), "");
    };
    check("CDS a1 b1 | EDS a1 b1 | LDS l1 | RDS r1 s1", "CDS; LDS");
    check("CDS a1 b1 | EDS a2 b1 | LDS l1 | RDS r1 s2", "CDS; EDS a2; LDS; RDS s2");
    // What is gone is said to be gone; clusters and their endpoints at last.
    check("CDS a1 | EDS a1 | LDS l1 | RDS r1", "CDS; EDS -b; LDS; RDS -s");
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
    let (mut c, sent) = returning(plan, &["EDS a", "LDS l", "RDS r"]);
    assert_eq!(sent, "EDS a1");
    assert_eq!(ask_holding(&mut c, "CDS a"), "CDS; LDS");
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
    assert_eq!(c.ask("EDS a"), "EDS a()");
    assert_eq!(c.ask("LDS"), "LDS");
    assert_eq!(c.ask_with("RDS r", &[(&r.0, &r.1)]), "RDS r1");
}

/// What a restarted server or another replica has: a cluster was renamed, and the route that uses it moved.
const MOVED: &str = "CDS b1 | EDS b1 | LDS l1 | RDS r2";

/// An Envoy that returns with the former state to one that has [`MOVED`].
fn returning_to_moved() -> Client {
    let mut c = delta(MOVED);
    assert_eq!(ask_holding(&mut c, "CDS a"), "CDS b1");
    assert_eq!(ask_holding(&mut c, "EDS a"), "");
    // The cluster that is new is warm before the routes move, and the old one keeps its endpoints.
    assert_eq!(ask_holding(&mut c, "LDS l"), "EDS b1 -a; LDS");
    assert_eq!(ask_holding(&mut c, "RDS r"), "RDS r2");
    for short in ["CDS", "EDS", "LDS"] {
        assert_eq!(c.ack(short), "");
    }
    assert_eq!(c.sleep(60.0), "");
    c
}

#[test]
fn rec_15_a_cluster_goes_after_the_routes_of_a_returning_client_have_moved() {
    let mut c = returning_to_moved();
    assert_eq!(c.ack("RDS"), "CDS -a");
    assert_eq!(c.stream.watermark(), 0);
    assert_eq!(c.ack("CDS"), "EDS a()");
    c.settle();
    assert_eq!(c.stream.watermark(), 1);
    // Routes that it rejects still need the cluster.
    let mut c = returning_to_moved();
    assert_eq!(c.nack("RDS", "r: bad"), "");
    assert_eq!(c.sleep(600.0), "");
    assert_eq!(c.plan("RDS r3"), "RDS r3");
    assert_eq!(c.ack("RDS"), "CDS -a");
    // It comes back before it has gone.
    let mut c = returning_to_moved();
    assert_eq!(c.plan("CDS a1 b1 | EDS a1 b1"), "CDS a1; EDS a1");
    c.settle();
    assert_eq!(c.sleep(60.0), "");
}

#[test]
fn rec_15_a_client_moves_between_replicas_of_different_revisions_and_back() {
    let mut c = returning_to_moved();
    // Lost before its routes were accepted, it goes to a replica that is still at the former state: nothing
    // of it has to be sent but the routes, if it had taken them.
    c.reconnect("envoy");
    c.plan("CDS a1 | EDS a1 | LDS l1 | RDS r1");
    let held = |c: &Client, short: &str, name: &str, content: &str| {
        (name.to_owned(), c.version(short, name, content))
    };
    let clusters = [held(&c, "CDS", "a", "1"), held(&c, "CDS", "b", "1")];
    let endpoints = [held(&c, "EDS", "a", "1"), held(&c, "EDS", "b", "1")];
    let routes = [held(&c, "RDS", "r", "2")];
    let mut ask = |text: &str, held: &[(String, String)]| {
        let held: Vec<_> = held.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
        c.ask_with(text, &held)
    };
    assert_eq!(ask("CDS", &clusters), "CDS");
    assert_eq!(ask("EDS a b", &endpoints), "");
    assert_eq!(ask("LDS", &[]), "EDS -b; LDS l1");
    assert_eq!(ask("RDS r", &routes), "RDS r1");
    for short in ["CDS", "EDS", "LDS"] {
        assert_eq!(c.ack(short), "");
    }
    assert_eq!(c.sleep(60.0), "");
    assert_eq!(c.ack("RDS"), "CDS -b");
}

#[test]
fn rec_14_routes_wait_until_a_client_that_warms_a_cluster_asks_for_clusters() {
    let asks = ["EDS a", "LDS l", "RDS r"];
    let (mut c, sent) = returning("CDS a1 b1 | EDS a1 b1 | LDS l1 | RDS r2", &asks);
    assert_eq!(sent, "EDS a1");
    c.ack("EDS");
    assert_eq!(ask_holding(&mut c, "CDS a"), "CDS b1; EDS b1; LDS; RDS r2");
    // Not for long.
    let (mut c, _) = returning("CDS a1 b1 | EDS a1 b1 | LDS l1 | RDS r2", &asks);
    assert_eq!(c.sleep(4.9), "");
    assert_eq!(c.sleep(0.2), "LDS; RDS r2");
    // And endpoints of clusters that it may have stay until then.
    let (mut c, sent) = returning("CDS | EDS | LDS l1 | RDS r2", &["EDS a", "LDS l", "RDS r"]);
    assert_eq!(sent, "EDS -a");
    c.ack("EDS");
    assert_eq!(c.sleep(4.9), "");
}

#[test]
fn rec_14_routes_wait_until_a_client_says_which_clusters_are_new() {
    for mut c in both("CDS a1 | EDS a1 | LDS l1 | RDS r1") {
        for ask in ["CDS", "EDS a", "LDS", "RDS r"] {
            c.ask(ask);
        }
        c.settle();
        let version = |c: &Client, short: &str| c.last_response(short).version.clone();
        let versions = ["CDS", "EDS", "LDS", "RDS"].map(|short| version(&c, short));
        c.reconnect("envoy");
        c.plan("CDS a1 b1 | EDS a1 b1 | LDS l1 | RDS r2");
        if c.protocol == Protocol::Sotw {
            assert_eq!(c.ask_at("CDS", &versions[0]), "CDS a1 b1");
            assert_eq!(c.ask_at("RDS r", &versions[3]), "");
            assert_eq!(c.ask_at("EDS a", &versions[1]), "EDS a1 b1; RDS r2");
        } else {
            assert_eq!(ask_holding(&mut c, "CDS a"), "CDS b1");
            assert_eq!(ask_holding(&mut c, "LDS l"), "");
            assert_eq!(ask_holding(&mut c, "RDS r"), "");
            assert_eq!(ask_holding(&mut c, "EDS a"), "EDS b1; LDS; RDS r2");
        }
    }
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
