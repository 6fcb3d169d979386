//! Warming clusters and listeners (WRM).

use crate::client::{both, delta, sotw};

#[test]
fn wrm_01_endpoints_follow_a_changed_cluster_even_if_they_did_not_change() {
    for mut c in both("CDS a1 b1 | EDS a1 b1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("EDS a b");
        c.ack("EDS");
        let sent = c.plan("CDS a2 b1");
        assert!(sent.ends_with("; EDS a1"), "{sent}");
    }
}

#[test]
fn wrm_02_delta_sends_endpoints_without_being_asked() {
    let mut c = delta("CDS a1 | EDS a1");
    c.ask("CDS");
    c.ask("EDS a");
    c.ack("CDS");
    c.ack("EDS");
    assert_eq!(c.plan("CDS a2"), "CDS a2; EDS a1");
}

#[test]
fn wrm_03_repeated_endpoint_request_after_clusters_is_answered_once() {
    let mut c = sotw("CDS a1 | EDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    c.ask("EDS a b");
    c.ack("EDS");
    assert_eq!(c.plan("CDS a2"), "CDS a2; EDS a1");
    c.ack("EDS");
    let request = c.sotw_request("EDS a b");
    assert_eq!(c.request(request.clone()), "EDS a1 b1");
    c.ack("EDS");
    let request = c.sotw_request("EDS a b");
    assert_eq!(c.request(request), "");
}

#[test]
fn wrm_04_endpoints_sent_before_the_cluster_do_not_count() {
    for mut c in both("CDS a1 | EDS a1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("EDS a");
        c.ack("EDS");
        assert_eq!(c.plan("EDS a2"), "EDS a2");
        // Cluster and assignment are under way in the wrong order: the assignment goes again, when it may.
        assert_eq!(c.plan("CDS a2"), "CDS a2");
        assert_eq!(c.ack("EDS"), "EDS a2");
    }
}

#[test]
fn wrm_05_new_cluster_with_a_known_assignment_gets_it_again() {
    // Envoy asked for `shared` before; a new cluster of that name does not make it ask again.
    for mut c in both("CDS a1 | EDS shared1 a1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("EDS a shared");
        c.ack("EDS");
        let sent = c.plan("CDS a1 shared1");
        assert!(sent.ends_with("; EDS shared1"), "{sent}");
    }
}

#[test]
fn wrm_06_secret_follows_what_newly_refers_to_it() {
    for mut c in both("CDS a1 | LDS l1 | SDS cert1 other1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("LDS");
        c.ack("LDS");
        c.ask("SDS cert other");
        c.ack("SDS");
        let sent = c.plan("LDS l2_cert");
        assert_eq!(sent, "LDS l2_cert; SDS cert1");
        c.ack("SDS");
        let sent = c.plan("CDS a2_other");
        assert_eq!(sent, "CDS a2_other; EDS a(); SDS other1");
    }
}

#[test]
fn wrm_07_endpoints_secrets_and_listeners_flow_while_the_cluster_ack_is_withheld() {
    for mut c in both("CDS a1 | EDS a1 | SDS s1 | LDS l1") {
        c.ask("CDS");
        assert_eq!(c.ask("EDS a"), "EDS a1");
        assert_eq!(c.ask("SDS s"), "SDS s1");
        assert_eq!(c.ask("LDS"), "LDS l1");
        c.ack("EDS");
        assert_eq!(c.plan("EDS a2"), "EDS a2");
        assert_eq!(c.plan("LDS l2"), "");
        assert_eq!(c.ack("LDS"), "LDS l2");
    }
}

#[test]
fn wrm_08_startup_order_is_the_order_of_the_requests() {
    for mut c in both("CDS a1 | EDS a1 | LDS l1 | RDS r1 | RTDS layer1") {
        assert_eq!(c.ask("RTDS layer"), "RTDS layer1");
        assert_eq!(c.ask("CDS"), "CDS a1");
        assert_eq!(c.ask("EDS a"), "EDS a1");
        c.ack("EDS");
        c.ack("CDS");
        assert_eq!(c.ask("LDS"), "LDS l1");
        assert_eq!(c.ask("RDS r"), "RDS r1");
    }
}

#[test]
fn wrm_12_listener_update_with_the_same_route_name_needs_no_routes() {
    for mut c in both("LDS l1_r | RDS r1 s1") {
        c.ask("LDS");
        c.ack("LDS");
        c.ask("RDS r");
        c.ack("RDS");
        assert_eq!(c.plan("LDS l2_r"), "LDS l2_r");
        c.ack("LDS");
        assert_eq!(c.plan("LDS l3_s"), "LDS l3_s");
        assert_eq!(
            c.ask("RDS r s"),
            if c.protocol == navarch_xds::Protocol::Sotw { "RDS s1" } else { "RDS r1 s1" }
        );
    }
}

#[test]
fn wrm_13_listeners_go_strictly_after_clusters() {
    for mut c in both("CDS a1 | LDS l1") {
        c.ask("CDS");
        c.ack("CDS");
        c.ask("LDS");
        c.ack("LDS");
        let sent = c.plan("CDS a1 b1 | LDS l2_b");
        assert!(sent.starts_with("CDS") && sent.ends_with("LDS l2_b"), "{sent}");
    }
}

#[test]
fn wrm_16_correction_gets_through_while_the_ack_is_withheld() {
    for mut c in both("CDS a1") {
        c.ask("CDS");
        c.ack("CDS");
        assert_ne!(c.plan("CDS a1 stuck1"), "");
        assert_ne!(c.plan("CDS a1"), "");
    }
}
