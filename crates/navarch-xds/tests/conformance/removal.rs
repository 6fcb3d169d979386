//! Removal and non-existence (RMV), endpoints (EDS).

use crate::client::{both, delta, grpc, sotw};

#[test]
fn rmv_01_absence_deletes_in_sotw() {
    let mut c = sotw("LDS a1 b1");
    c.ask("LDS");
    c.ack("LDS");
    assert_eq!(c.plan("LDS a1"), "LDS a1");
    c.ack("LDS");
    assert_eq!(c.plan("LDS"), "LDS");
}

#[test]
fn rmv_02_named_types_send_nothing_for_a_removal_in_sotw() {
    for short in ["RDS", "SDS", "ECDS"] {
        let mut c = sotw(&format!("{short} a1 b1"));
        c.ask(&format!("{short} a b"));
        c.ack(short);
        assert_eq!(c.plan(&format!("{short} b1")), "", "{short}");
        assert_eq!(c.sleep(60.0), "", "{short}");
    }
}

#[test]
fn rmv_03_delta_clusters_and_listeners_are_removed() {
    for short in ["CDS", "LDS", "SRDS"] {
        let mut c = delta(&format!("{short} a1 b1"));
        c.ask(short);
        c.ack(short);
        assert_eq!(c.plan(&format!("{short} b1")), format!("{short} -a"));
        assert_eq!(c.ack(short), "");
    }
}

#[test]
fn rmv_04_endpoints_are_taken_away_by_an_empty_assignment() {
    for mut c in both("EDS a1 b1") {
        c.ask("EDS a b");
        c.ack("EDS");
        assert_eq!(c.plan("EDS b1"), "EDS a()");
        assert_eq!(c.ack("EDS"), "");
    }
}

#[test]
fn rmv_05_routes_that_a_listener_waits_for_are_answered_with_a_stub() {
    // The content of the listener mentions the route.
    let listener = "LDS l1_route";
    for mut c in both(listener) {
        assert_eq!(c.ask("RDS route"), "RDS route()");
        c.ack("RDS");
        assert_eq!(c.plan("RDS route1"), "RDS route1");
    }
    assert_eq!(delta(listener).ask("RDS other"), "RDS -other");
    assert_eq!(sotw(listener).ask("RDS other"), "");
    // Removal from the plan is not told: the listener in use keeps its routes, a waiting one goes on waiting.
    let mut c = delta("RDS r1 s1");
    c.ask("RDS r s");
    c.ack("RDS");
    assert_eq!(c.plan("RDS s1"), "");
}

#[test]
fn rmv_06_missing_secret_is_removed_so_that_warming_ends() {
    assert_eq!(delta("SDS a1").ask("SDS x"), "SDS -x");
    let mut c = delta("SDS a1");
    c.ask("SDS a");
    c.ack("SDS");
    assert_eq!(c.plan("SDS"), "SDS -a");
}

#[test]
fn rmv_07_extensions_are_never_removed() {
    let mut c = delta("ECDS a1");
    assert_eq!(c.ask("ECDS a x"), "ECDS a1");
    c.ack("ECDS");
    assert_eq!(c.plan("ECDS"), "");
    assert_eq!(c.plan("ECDS x1"), "ECDS x1");
}

#[test]
fn rmv_08_cluster_that_is_warming_can_be_removed() {
    for mut c in both("CDS a1 | EDS a1") {
        c.ask("CDS");
        c.ack("CDS");
        c.plan("CDS a1 stuck1");
        let sent = c.plan("CDS a1");
        assert!(sent == "CDS a1" || sent == "CDS -stuck", "{sent}");
    }
}

#[test]
fn rmv_09_grpc_gets_no_response_without_the_name_while_it_exists() {
    let mut c = grpc("LDS a1 b1");
    c.ask("LDS a");
    c.ack("LDS");
    assert_eq!(c.plan("LDS a1"), "");
    assert_eq!(c.plan("LDS a2"), "LDS a2");
    c.ack("LDS");
    assert_eq!(c.plan("LDS"), "LDS");
}

#[test]
fn rmv_11_deleted_and_created_again_before_it_is_sent() {
    for mut c in both("CDS a1 b1 | LDS l1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("LDS");
        c.ack("LDS");
        assert_eq!(c.plans(&["CDS b1 | LDS", "CDS a1 b1 | LDS l1"]), "");
    }
}

#[test]
fn eds_01_every_name_gets_an_assignment() {
    for mut c in both("EDS a1") {
        assert_eq!(c.ask("EDS a x"), "EDS a1 x()");
        c.ack("EDS");
        assert_eq!(c.plan("EDS a1 x1"), "EDS x1");
    }
}

#[test]
fn eds_06_endpoint_change_sends_one_assignment_and_the_last_state_wins() {
    for mut c in both("CDS a1 b1 | EDS a1 b1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("EDS a b");
        c.ack("EDS");
        assert_eq!(c.plan("EDS a2 b1"), "EDS a2");
        assert_eq!(c.plans(&["EDS a3 b1", "EDS a4 b1", "EDS a5 b1"]), "");
        assert_eq!(c.ack("EDS"), "EDS a5");
    }
}

#[test]
fn eds_07_scale_to_zero_and_back_does_not_touch_clusters() {
    for mut c in both("CDS a1 | EDS a1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("EDS a");
        c.ack("EDS");
        assert_eq!(c.plan("EDS"), "EDS a()");
        c.ack("EDS");
        assert_eq!(c.plan("EDS a1"), "EDS a1");
    }
}

#[test]
fn eds_10_removed_cluster_is_not_repeated() {
    let mut c = sotw("CDS a1 | EDS a1");
    c.ask("CDS");
    c.ack("CDS");
    c.ask("EDS a");
    c.ack("EDS");
    assert_eq!(c.plan("CDS | EDS"), "CDS");
    // The client drops the endpoints before it acknowledges the clusters.
    c.ask("EDS");
    assert_eq!(c.ack("CDS"), "");
}

#[test]
fn odc_01_unknown_cluster_is_removed_at_once() {
    let mut c = delta("CDS a1");
    c.ask("CDS");
    c.ack("CDS");
    assert_eq!(c.ask("CDS od"), "CDS -od");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 od1"), "CDS od1");
}

#[test]
fn rtds_01_missing_layer_is_answered_empty() {
    for mut c in both("CDS a1") {
        assert_eq!(c.ask("RTDS layer"), "RTDS layer()");
    }
}

#[test]
fn vhds_01_unknown_host_is_answered_without_a_body() {
    let mut c = delta("VHDS r/a1");
    assert_eq!(c.ask("VHDS r/a"), "VHDS r/a1");
    c.ack("VHDS");
    assert_eq!(c.ask("VHDS r/x"), "VHDS r/x()");
    let response = c.last_response("VHDS");
    let resource = response.resources.iter().next().expect("a resource");
    assert!(!resource.has_body());
    assert_eq!(&*resource.aliases()[0], "r/x");
}

#[test]
fn xtp_07_missing_name_is_an_error_entry_for_grpc_once() {
    let mut c = grpc("LDS a1");
    assert_eq!(c.ask("LDS x"), "LDS ?x");
    c.ack("LDS");
    assert_eq!(c.sleep(60.0), "");
    assert_eq!(c.plan("LDS x1"), "LDS x1");
}
