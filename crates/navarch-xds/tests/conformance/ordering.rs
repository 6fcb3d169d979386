//! The order of a push (ORD), flow control (FLW).

use navarch_xds::Protocol;

use crate::client::{self, Client, both, delta, grpc, sotw};

const PLAN: &str = "CDS a1 | EDS a1 | SDS s1 | LDS l1 | RDS r1";

/// A client that has everything and has acknowledged it.
fn synced(mut c: Client) -> Client {
    for ask in ["CDS", "EDS a", "SDS s", "LDS", "RDS r"] {
        c.ask(ask);
        c.settle();
    }
    c
}

#[test]
fn ord_01_push_order() {
    for c in both(PLAN) {
        let mut c = synced(c);
        let sent = c.plan("RDS r2 | LDS l2 | SDS s2 | EDS a2 | CDS a2");
        assert_eq!(sent, "CDS a2; EDS a2; SDS s2; LDS l2; RDS r2");
    }
}

#[test]
fn ord_02_endpoints_of_a_new_cluster_go_before_the_routes_to_it() {
    // Envoy asks for them only after it has read the cluster. Routes that are there before they are answered
    // find a cluster that is still warming.
    for c in both(PLAN) {
        let mut c = synced(c);
        let sent = c.plan("CDS a1 b1 | EDS a1 b1 | RDS r2");
        assert!(sent.ends_with("; EDS b1; RDS r2"), "{sent}");
        // Asked for, they are answered like any other request.
        c.settle();
        assert_eq!(c.ask("EDS a b"), if c.protocol == Protocol::Sotw { "EDS b1" } else { "EDS a1 b1" });
    }
    let mut c = synced(grpc(PLAN));
    c.ask("CDS a b");
    c.settle();
    assert_eq!(c.plan("CDS a1 b1 | EDS a1 b1 | RDS r2"), "CDS a1 b1; RDS r2");
}

#[test]
fn ord_02_endpoints_that_were_sent_ahead_are_not_sent_again_to_a_client_that_waited_for_them() {
    let ahead = || {
        let mut c = synced(delta(PLAN));
        assert_eq!(c.plan("CDS a1 b1 | EDS a1 b1"), "CDS b1; EDS b1");
        c
    };
    // As Envoy: it has read the cluster, and asks, before it reads the assignment.
    let mut c = ahead();
    assert_eq!(c.ask("EDS b"), "");
    assert_eq!(c.ack("EDS"), "");
    assert_eq!(c.plan("EDS a1 b2"), "EDS b2");
    // Who takes it first may have dropped it: nothing of its own was waiting.
    let mut c = ahead();
    c.ack("EDS");
    assert_eq!(c.ask("EDS b"), "EDS b1");
    // And so may one that asks with what accepts: it had read the assignment before it asked.
    let mut c = ahead();
    let mut both = c.delta_request("EDS", "b", "");
    both.nonce = c.answer(client::ty("EDS"), None).nonce;
    assert_eq!(c.request(both), "EDS b1");
    // What has changed since is.
    let mut c = ahead();
    assert_eq!(c.ask("EDS b"), "");
    assert_eq!(c.plan("EDS a1 b2"), "");
    assert_eq!(c.ack("EDS"), "EDS b2");
}

#[test]
fn ord_03_cluster_goes_after_the_routes_that_stopped_using_it() {
    let mut c = synced(delta(PLAN));
    assert_eq!(c.plan("CDS b1 | EDS b1 | RDS r2"), "CDS b1; EDS b1; RDS r2");
    c.ack("EDS");
    assert_eq!(c.ack("CDS"), "");
    assert_eq!(c.ack("RDS"), "CDS -a");
    // The assignment goes after its cluster, if the client still asks for it.
    assert_eq!(c.ack("CDS"), "EDS a()");
}

#[test]
fn ord_04_sotw_sends_the_union_first() {
    let mut c = synced(sotw(PLAN));
    assert_eq!(c.plan("CDS b1 | RDS r2"), "CDS a1 b1; EDS b(); RDS r2");
    c.ack("CDS");
    assert_eq!(c.ack("RDS"), "CDS b1");
    let mut c = synced(delta(PLAN));
    assert_eq!(c.plan("CDS b1 | RDS r2"), "CDS b1; EDS b(); RDS r2");
    c.ack("CDS");
    assert_eq!(c.ack("RDS"), "CDS -a");
}

#[test]
fn ord_05_all_types_of_a_push_are_of_one_snapshot() {
    for c in both(PLAN) {
        let mut c = synced(c);
        c.log.clear();
        c.events();
        c.plan("CDS a2 | EDS a2 | LDS l2 | RDS r2");
        let revisions: Vec<_> = c
            .events()
            .into_iter()
            .filter_map(|event| match event {
                navarch_xds::Event::Sent { revision, .. } => Some(revision),
                _ => None,
            })
            .collect();
        assert_eq!(revisions, [2, 2, 2, 2]);
    }
}

#[test]
fn ord_06_new_snapshot_in_the_middle_starts_again_at_clusters() {
    let mut c = synced(delta(PLAN));
    assert_eq!(c.plan("CDS b1 | EDS a1 b1 | RDS r2"), "CDS b1; EDS b1; RDS r2");
    // Before the routes are acknowledged there is another snapshot, with a third cluster.
    assert_eq!(c.plan("CDS c1 | EDS a1 b1 c1 | RDS r3"), "CDS c1");
    assert_eq!(c.ack("RDS"), "");
    assert_eq!(c.ack("EDS"), "EDS c1; RDS r3");
    c.ack("CDS");
    c.ack("CDS");
    assert_eq!(c.ack("RDS"), "CDS -a -b");
}

#[test]
fn ord_07_adding_again_cancels_the_removal() {
    let mut c = synced(delta(PLAN));
    assert_eq!(c.plan("CDS | RDS r2"), "RDS r2");
    assert_eq!(c.plan("CDS a1 | RDS r3"), "");
    assert_eq!(c.ack("RDS"), "RDS r3");
    assert_eq!(c.ack("RDS"), "");
    let mut c = synced(delta(PLAN));
    c.plan("CDS | RDS r2");
    assert_eq!(c.plan("CDS a2"), "CDS a2; EDS a1");
    assert_eq!(c.ack("RDS"), "");
}

#[test]
fn ord_08_listeners_and_routes_wait_for_clusters_that_warm_slowly() {
    for c in both(PLAN) {
        let mut c = synced(c);
        let sent = c.plan("CDS a1 dns9 | LDS l2 | RDS r2");
        assert!(sent.starts_with("CDS") && !sent.contains("LDS"), "{sent}");
        assert_eq!(c.ack("CDS"), "LDS l2; RDS r2");
    }
    // At most five seconds.
    for c in both(PLAN) {
        let mut c = synced(c);
        c.plan("CDS a1 dns9 | LDS l2 | RDS r2");
        assert_eq!(c.sleep(4.9), "");
        assert_eq!(c.sleep(0.2), "LDS l2; RDS r2");
    }
}

#[test]
fn ord_08_rejected_routes_keep_their_old_clusters() {
    for c in both(PLAN) {
        let mut c = synced(c);
        c.plan("CDS b1 | RDS r2");
        c.ack("CDS");
        assert_eq!(c.nack("RDS", "r: bad"), "");
        assert_eq!(c.sleep(600.0), "");
        assert_eq!(c.plan("RDS r3"), "RDS r3");
        let removal = if c.protocol == Protocol::Sotw { "CDS b1" } else { "CDS -a" };
        assert_eq!(c.ack("RDS"), removal);
    }
}

#[test]
fn ord_09_secrets_precede_the_listener_and_extensions_follow_it() {
    for mut c in both("LDS l1 | SDS s1 | ECDS e1") {
        c.ask("LDS");
        c.settle();
        c.ask("SDS s");
        c.settle();
        c.ask("ECDS e");
        c.settle();
        assert_eq!(c.plan("ECDS e2 | LDS l2 | SDS s2"), "SDS s2; LDS l2; ECDS e2");
    }
}

#[test]
fn ord_10_grpc_is_answered_in_arrival_order() {
    let mut c = grpc("LDS t1 | RDS r1 | CDS a1 | EDS a1");
    assert_eq!(c.ask("LDS t"), "LDS t1");
    assert_eq!(c.ask("RDS r"), "RDS r1");
    assert_eq!(c.ask("CDS a"), "CDS a1");
    assert_eq!(c.ask("EDS a"), "EDS a1");
}

#[test]
fn ord_11_listener_rename_is_one_response() {
    let mut c = synced(delta(PLAN));
    assert_eq!(c.plan("LDS m1"), "LDS m1 -l");
    let mut c = synced(sotw(PLAN));
    assert_eq!(c.plan("LDS m1"), "LDS m1");
}

#[test]
fn srd_01_scoped_routes_follow_listeners_and_precede_routes() {
    for mut c in both("LDS l1 | SRDS s1 | RDS r1") {
        assert_eq!(c.ask("SRDS"), "SRDS s1");
        c.ask("LDS");
        c.ask("RDS r");
        c.settle();
        assert_eq!(c.plan("RDS r2 | SRDS s2 | LDS l2"), "LDS l2; SRDS s2; RDS r2");
    }
}

#[test]
fn flw_01_one_response_under_way_and_the_newest_state_after_it() {
    for c in both(PLAN) {
        let mut c = synced(c);
        assert_eq!(c.plan("RDS r2"), "RDS r2");
        for content in 3..100 {
            assert_eq!(c.plan(&format!("RDS r{content}")), "");
        }
        assert_eq!(c.ack("RDS"), "RDS r99");
    }
}

#[test]
fn flw_01_clusters_are_bounded_by_count_and_time() {
    let mut c = synced(delta(PLAN));
    assert_eq!(c.plan("CDS a2"), "CDS a2; EDS a1");
    assert_eq!(c.plan("CDS a3"), "CDS a3");
    assert_eq!(c.plan("CDS a4"), "CDS a4");
    assert_eq!(c.plan("CDS a5"), "");
    assert_eq!(c.plan("CDS a6"), "");
    assert_eq!(c.sleep(1.0), "CDS a6");
}

#[test]
fn ord_08_blocked_type_does_not_hold_up_others_for_long() {
    // The clusters cannot be sent for a second, and the listeners wait for them; not longer than five seconds
    // if the endpoints cannot be sent at all.
    let mut c = synced(delta(PLAN));
    assert_eq!(c.plan("EDS a2"), "EDS a2");
    assert_eq!(c.plan("EDS a3 | LDS l2"), "");
    assert_eq!(c.sleep(5.0), "LDS l2");
}

#[test]
fn sot_14_watermark_follows_the_slowest_type() {
    let mut c = synced(delta(PLAN));
    assert_eq!(c.stream.watermark(), 1);
    c.plan("CDS a2 | RDS r2");
    c.ack("CDS");
    c.ack("EDS");
    assert_eq!(c.stream.watermark(), 1);
    c.ack("RDS");
    assert_eq!(c.stream.watermark(), 2);
    // A revision that changes nothing for the client counts at once.
    c.plan("SDS s1 other1");
    assert_eq!(c.stream.watermark(), 3);
    c.plan("RDS r3");
    assert_eq!(c.stream.watermark(), 3);
    c.nack("RDS", "bad");
    c.plan("SDS s1");
    assert_eq!(c.stream.watermark(), 3);
}
