//! State-of-the-world subscriptions (SOT).

use crate::client::{grpc, sotw};

#[test]
fn sot_01_first_empty_request_is_a_wildcard() {
    let mut c = sotw("CDS a1 b1 | LDS l1");
    assert_eq!(c.ask("CDS"), "CDS a1 b1");
    assert_eq!(c.ask("LDS"), "LDS l1");
    assert_eq!(sotw("CDS").ask("CDS"), "CDS");
}

#[test]
fn sot_02_star_is_a_wildcard() {
    let mut c = sotw("CDS a1 b1");
    assert_eq!(c.ask("CDS *"), "CDS a1 b1");
    assert_eq!(sotw("CDS a1 b1").ask("CDS * a"), "CDS a1 b1");
}

#[test]
fn sot_02_names_beside_a_wildcard_add_what_is_outside_of_it() {
    let mut c = sotw("CDS a1 (od1) (other1)");
    assert_eq!(c.ask("CDS *"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 (od2) (other1)"), "");
    assert_eq!(c.ask("CDS * od"), "CDS a1 od2");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 (od3) (other2)"), "CDS a1 od3");
    c.ack("CDS");
    // No longer named: it is left out from now on.
    assert_eq!(c.ask("CDS *"), "");
    assert_eq!(c.plan("CDS a2 (od3) (other2)"), "CDS a2");
    c.ack("CDS");
    // Part of the wildcard, and then not any more.
    assert_eq!(c.plan("CDS a2 od3"), "CDS a2 od3");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a2 (od3)"), "CDS a2");
}

#[test]
fn sot_02_and_sot_15_version_is_that_of_what_is_subscribed() {
    let version = |plan: &str, ask: &str| {
        let mut c = sotw(plan);
        c.ask(ask);
        c.last_response("CDS").version.clone()
    };
    assert_eq!(version("CDS a1 (od1)", "CDS"), version("CDS a1", "CDS"));
    assert_ne!(version("CDS a1 (od1)", "CDS * od"), version("CDS a1", "CDS"));
    // So a returning client is not sent what it has, whatever is on demand now.
    assert_eq!(sotw("CDS a1 (od2)").ask_at("CDS", &version("CDS a1 (od1)", "CDS")), "");
}

#[test]
fn sot_03_empty_list_after_a_name_means_nothing() {
    let mut c = grpc("CDS a1 b1 | EDS a1");
    assert_eq!(c.ask("EDS a"), "EDS a1");
    c.ack("EDS");
    assert_eq!(c.ask("EDS"), "");
    assert_eq!(c.plan("EDS a2"), "");
    assert_eq!(c.ask("CDS a"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.ask("CDS"), "");
    assert_eq!(c.plan("CDS a2 b2"), "");
}

#[test]
fn sot_04_envoy_keeps_the_implicit_wildcard_when_it_names_a_cluster() {
    let mut c = sotw("CDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    assert_eq!(c.ask("CDS b"), "CDS a1 b1");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a2 b1"), "CDS a2 b1");
}

#[test]
fn sot_05_first_empty_request_of_a_named_type_is_nothing() {
    for short in ["EDS", "RDS", "SDS", "ECDS"] {
        let mut c = sotw(&format!("{short} a1"));
        assert_eq!(c.ask(short), "", "{short}");
        assert_eq!(c.plan(&format!("{short} a2")), "", "{short}");
        assert_eq!(c.ask(&format!("{short} a")), format!("{short} a2"));
    }
    // gRPC may do it for root types after a reconnect.
    let mut c = grpc("LDS a1");
    assert_eq!(c.ask("LDS"), "");
    assert_eq!(c.ask("LDS a"), "LDS a1");
}

#[test]
fn sot_06_added_name_is_sent_although_the_version_did_not_move() {
    let mut c = sotw("EDS a1 b1");
    c.ask("EDS b");
    c.ack("EDS");
    assert_eq!(c.ask("EDS a b"), "EDS a1");
}

#[test]
fn sot_07_name_dropped_and_named_again_is_sent_again() {
    let mut c = grpc("EDS c1");
    c.ask("EDS c");
    c.ack("EDS");
    assert_eq!(c.ask("EDS"), "");
    assert_eq!(c.ask("EDS c"), "EDS c1");
}

#[test]
fn sot_08_last_cluster_goes_and_comes_back() {
    let mut c = sotw("CDS a1 | EDS a1");
    c.ask("CDS");
    c.ack("CDS");
    c.ask("EDS a");
    c.ack("EDS");
    assert_eq!(c.plan("CDS"), "CDS");
    c.ack("CDS");
    assert_eq!(c.ask("EDS"), "");
    assert_eq!(c.plan("CDS a1"), "CDS a1; EDS a1");
    c.ack("CDS");
    c.settle();
    assert_eq!(c.ask("EDS"), "");
    assert_eq!(c.ask("EDS a"), "EDS a1");
}

#[test]
fn sot_09_missing_name_is_sent_when_it_appears() {
    let mut c = sotw("SDS a1 | CDS");
    assert_eq!(c.ask("SDS x"), "");
    assert_eq!(c.plan("SDS a2"), "");
    assert_eq!(c.plan("SDS a2 x1"), "SDS x1");
    assert_eq!(c.ask("CDS x"), "");
    assert_eq!(c.plan("CDS a1 x1"), "CDS x1");
}

#[test]
fn sot_10_root_types_send_all_and_others_what_changed() {
    let mut c = sotw("CDS a1 b1 | EDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    c.ask("EDS a b");
    c.ack("EDS");
    assert_eq!(c.plan("EDS a2 b1"), "EDS a2");
    c.ack("EDS");
    assert_eq!(c.plan("CDS a2 b1"), "CDS a2 b1; EDS a2");
}

#[test]
fn sot_11_named_root_type_gets_all_of_its_names_and_no_others() {
    let mut c = grpc("LDS a1 b1 c1");
    assert_eq!(c.ask("LDS a b"), "LDS a1 b1");
    c.ack("LDS");
    assert_eq!(c.plan("LDS a1 b2 c1"), "LDS a1 b2");
    c.ack("LDS");
    assert_eq!(c.plan("LDS a1 b2 c2"), "");
}

#[test]
fn sot_12_names_are_a_set() {
    let mut c = sotw("EDS a1 b1");
    assert_eq!(c.ask("EDS b a"), "EDS a1 b1");
    c.ack("EDS");
    assert_eq!(c.ask("EDS a b a b"), "");
}

#[test]
fn sot_13_no_name_twice_in_a_response() {
    // `Client::check` holds every response to it; this one has every reason to repeat a name.
    let mut c = sotw("EDS a1 | CDS a1");
    c.ask("CDS");
    c.ack("CDS");
    c.ask("EDS a a");
    c.plan("EDS a2 | CDS a2");
    assert_eq!(c.ack("EDS"), "EDS a2");
}

#[test]
fn sot_14_ack_and_no_change_are_silent() {
    let mut c = sotw("CDS a1 | LDS l1 | RDS r1");
    c.ask("CDS");
    assert_eq!(c.ack("CDS"), "");
    c.ask("LDS");
    c.ack("LDS");
    c.ask("RDS r");
    c.ack("RDS");
    assert_eq!(c.plan("CDS a1 | LDS l1 | RDS r1"), "");
    // A change of one type does not move the version of another.
    assert_eq!(c.plan("RDS r2"), "RDS r2");
}

#[test]
fn sot_15_version_is_a_hash_of_what_is_subscribed() {
    let version = |plan: &str, ask: &str| {
        let mut c = sotw(plan);
        c.ask(ask);
        c.last_response("EDS").version.clone()
    };
    assert_eq!(version("EDS a1 b1", "EDS a"), version("EDS a1 b2", "EDS a"));
    assert_ne!(version("EDS a1 b1", "EDS a"), version("EDS a2 b1", "EDS a"));
    assert_ne!(version("EDS a1 b1", "EDS a"), version("EDS a1 b1", "EDS a b"));

    // A response that still has a resource that is about to go has a version of its own.
    let mut c = sotw("CDS a1 b1");
    c.ask("CDS");
    let first = c.last_response("CDS").version.clone();
    c.ack("CDS");
    c.ask("LDS");
    c.ack("LDS");
    assert_eq!(c.plan("CDS a1 | LDS l1"), "LDS l1");
    assert_eq!(c.ack("LDS"), "CDS a1");
    assert_ne!(c.last_response("CDS").version, first);
}

#[test]
fn sot_16_content_change_changes_the_version() {
    let mut c = sotw("CDS a1");
    c.ask("CDS");
    let first = c.last_response("CDS").version.clone();
    c.ack("CDS");
    c.plan("CDS a2");
    assert_ne!(c.last_response("CDS").version, first);
}

#[test]
fn sot_17_newer_request_supersedes_unanswered_ones() {
    let mut c = sotw("EDS a1 b1 d1");
    c.ask("EDS a");
    // Both are waiting until the first response is acknowledged; the answer is one.
    assert_eq!(c.ask("EDS a b"), "");
    assert_eq!(c.ask("EDS a d"), "");
    let request = c.sotw_request("EDS a d");
    let request = navarch_xds::Request { nonce: c.last_response("EDS").nonce.clone(), ..request };
    assert_eq!(c.request(request), "EDS d1");
}
