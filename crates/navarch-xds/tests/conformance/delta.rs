//! Delta subscriptions (DEL).

use navarch_xds::Protocol;

use crate::client::{Client, Plan, delta};

/// ztunnel: a delta client that does not name itself.
fn ztunnel(plan: &str) -> Client {
    Client::new(Protocol::Delta, "", Plan::default(), plan)
}

#[test]
fn del_01_first_empty_request_is_a_wildcard() {
    let mut c = delta("CDS a1 b1");
    assert_eq!(c.ask("CDS"), "CDS a1 b1");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 b2"), "CDS b2");
    let held = c.version("CDS", "a", "1");
    c.reconnect("envoy");
    assert_eq!(c.ask_with("CDS", &[("a", &held)]), "CDS b2");
}

#[test]
fn del_02_explicit_wildcard_with_names() {
    assert_eq!(delta("CDS a1 b1").ask("CDS *"), "CDS a1 b1");
    assert_eq!(delta("CDS a1 b1").ask("CDS * od"), "CDS a1 b1 -od");
}

#[test]
fn del_03_names_beside_and_after_a_wildcard() {
    let mut c = delta("CDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    assert_eq!(c.ask("CDS a"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 b2"), "CDS b2");
    c.ack("CDS");
    assert_eq!(c.drop("CDS *"), "");
    assert_eq!(c.plan("CDS a2 b3"), "CDS a2");
    c.ack("CDS");
    assert_eq!(c.drop("CDS a"), "");
    assert_eq!(c.ask("CDS"), "");
    assert_eq!(c.plan("CDS a3 b4"), "");
}

#[test]
fn del_02_and_del_03_names_beside_a_wildcard_add_what_is_outside_of_it() {
    let plan = "CDS a1 (od1) (other1)";
    assert_eq!(delta(plan).ask("CDS *"), "CDS a1");
    assert_eq!(delta(plan).ask("CDS * od"), "CDS a1 od1");
    let mut c = delta(plan);
    assert_eq!(c.ask("CDS"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 (od2) (other2)"), "");
    assert_eq!(c.ask("CDS od"), "CDS od2");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 (od3) (other3)"), "CDS od3");
    c.ack("CDS");
    // The wildcard goes, the name stays.
    assert_eq!(c.drop("CDS *"), "");
    assert_eq!(c.plan("CDS a2 (od4)"), "CDS od4");
    c.ack("CDS");
    assert_eq!(c.drop("CDS od"), "");
    assert_eq!(c.plan("CDS a3 (od5)"), "");
}

#[test]
fn del_03_what_leaves_the_wildcard_is_removed_for_who_does_not_name_it() {
    let mut c = delta("CDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 (b1)"), "CDS -b");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 b1"), "CDS b1");
    c.ack("CDS");
    c.ask("CDS b");
    c.ack("CDS");
    // It is named and stays; to leave the wildcard changes its version.
    assert_eq!(c.plan("CDS a1 (b1)"), "CDS b1");
}

#[test]
fn del_02_reconnect_with_an_on_demand_name() {
    let mut c = delta("CDS a1 (od1) (other1)");
    let held: Vec<_> = ["a", "od", "other"].map(|name| (name, c.version("CDS", name, "1"))).to_vec();
    let held: Vec<_> = held.iter().map(|(name, version)| (*name, version.as_str())).collect();
    // What it holds and does not name any more is taken away.
    assert_eq!(c.ask_with("CDS * od", &held), "CDS od1");
    c.settle();
    assert_eq!(c.sleep(5.0), "CDS -other");
}

#[test]
fn del_09_unsubscribing_what_is_outside_the_wildcard_is_a_removal() {
    let mut c = delta("CDS a1 (od1)");
    c.ask("CDS * od a");
    c.ack("CDS");
    assert_eq!(c.drop("CDS a"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.drop("CDS od"), "CDS -od");
}

#[test]
fn del_04_subscribe_and_unsubscribe_star_in_one_message_is_nothing() {
    let mut c = ztunnel("WDS a1");
    let request = c.delta_request("WDS", "*", "*");
    assert_eq!(c.request(request), "");
    assert_eq!(c.plan("WDS a2"), "");
    assert_eq!(c.ask("WDS a"), "WDS a2");
}

#[test]
fn del_05_name_subscribed_again_is_sent_again() {
    for short in ["EDS", "RDS", "SDS", "ECDS", "CDS"] {
        let mut c = delta(&format!("{short} a1"));
        assert_eq!(c.ask(&format!("{short} a")), format!("{short} a1"));
        c.ack(short);
        assert_eq!(c.ask(&format!("{short} a")), format!("{short} a1"));
    }
}

#[test]
fn del_06_missing_name_is_told_at_once_and_sent_when_it_appears() {
    for short in ["CDS", "LDS", "SDS", "RDS"] {
        let mut c = delta(&format!("{short} a1"));
        assert_eq!(c.ask(&format!("{short} x")), format!("{short} -x"));
        c.ack(short);
        assert_eq!(c.plan(&format!("{short} a1 x1")), format!("{short} x1"));
    }
}

#[test]
fn del_07_unsubscribing_from_unknown_names_is_fine() {
    let mut c = delta("EDS a1");
    c.ask("EDS a");
    c.ack("EDS");
    assert_eq!(c.drop("EDS x"), "");
    assert_eq!(c.plan("EDS a2"), "EDS a2");
}

#[test]
fn del_08_unsubscribing_is_silent_and_ends_updates() {
    let mut c = delta("EDS a1 b1");
    c.ask("EDS a b");
    c.ack("EDS");
    assert_eq!(c.drop("EDS a"), "");
    assert_eq!(c.plan("EDS a2 b2"), "EDS b2");
}

#[test]
fn del_09_unsubscribing_a_name_under_a_wildcard_is_answered_once() {
    let mut c = delta("CDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    c.ask("CDS a x");
    c.ack("CDS");
    assert_eq!(c.drop("CDS a"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.drop("CDS x"), "CDS -x");
    assert_eq!(c.ack("CDS"), "");
}

#[test]
fn del_12_name_is_never_both_sent_and_removed() {
    // `Client::check` holds every response to it.
    let mut c = delta("LDS a1");
    c.ask_with("LDS * a x", &[("a", "old"), ("x", "old"), ("y", "old")]);
    assert_eq!(c.log.len(), 1);
    assert_eq!(c.last_response("LDS").removed.len(), 2);
}

#[test]
fn del_14_nonces_are_set_and_unique() {
    let mut c = delta("CDS a1 | EDS a1");
    c.ask("CDS");
    c.ask("EDS a");
    let nonces: Vec<_> = c.log.iter().map(|response| response.nonce.clone()).collect();
    assert_eq!(nonces.len(), 2);
    assert_ne!(nonces[0], nonces[1]);
    c.reconnect("envoy");
    c.ask("CDS");
    assert!(!nonces.contains(&c.last_response("CDS").nonce));
}

#[test]
fn del_15_subscriptions_on_ack_nack_and_stale_nonce_count() {
    let mut c = delta("EDS a1 b1 d1 e1");
    c.ask("EDS a");
    let nonce = c.last_response("EDS").nonce.clone();
    let mut ack = c.delta_request("EDS", "b", "");
    ack.nonce = nonce.clone();
    assert_eq!(c.request(ack), "EDS b1");
    let mut nack = c.delta_request("EDS", "d", "");
    nack.nonce = c.last_response("EDS").nonce.clone();
    nack.error = Some(navarch_xds::Error { code: 13, text: "bad b".into() });
    assert_eq!(c.request(nack), "EDS d1");
    let mut stale = c.delta_request("EDS", "e", "");
    stale.nonce = nonce;
    assert_eq!(c.request(stale), "");
    let mut ack = c.delta_request("EDS", "", "");
    ack.nonce = c.last_response("EDS").nonce.clone();
    assert_eq!(c.request(ack), "EDS e1");
}

#[test]
fn del_16_system_version_is_set_and_is_the_version_of_the_snapshot() {
    let mut c = delta("CDS a1 b1 | EDS a1 b1");
    c.ask("CDS");
    c.ask("EDS a");
    assert_eq!(c.last_response("CDS").version.len(), 32);
    let mut d = delta("EDS b1 a1");
    d.ask("EDS b");
    assert_eq!(c.last_response("EDS").version, d.last_response("EDS").version);
}

#[test]
fn del_17_resource_version_is_its_content() {
    let (mut c, mut d) = (delta("CDS a1"), delta("CDS a1 b1"));
    c.ask("CDS a");
    d.ask("CDS a");
    let version = |c: &Client| c.last_response("CDS").resources.iter().next().map(|r| r.version());
    assert_eq!(version(&c), version(&d));
}

#[test]
fn del_18_first_wildcard_answer_is_sent_even_if_empty() {
    assert_eq!(delta("CDS").ask("CDS"), "CDS");
    assert_eq!(delta("LDS").ask("LDS *"), "LDS");
    assert_eq!(ztunnel("WDS").ask("WDS *"), "WDS");
    assert_eq!(ztunnel("WADS").ask("WADS *"), "WADS");
}

#[test]
fn del_19_update_of_one_sends_one() {
    let mut c = delta("CDS a1 b1 c1");
    c.ask("CDS");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 b2 c1"), "CDS b2");
}

#[test]
fn del_20_nothing_outside_the_subscription_is_sent() {
    let mut c = delta("EDS a1 b1 | RDS r1 s1");
    assert_eq!(c.ask("EDS a"), "EDS a1");
    c.ack("EDS");
    assert_eq!(c.ask("RDS r"), "RDS r1");
    c.ack("RDS");
    assert_eq!(c.plan("EDS a1 b2 | RDS r1 s2"), "");
}

#[test]
fn del_21_first_answer_is_complete_in_one_response() {
    let plan =
        (0..5000).map(|n| format!("c{}x1", "abcdefghij".chars().nth(n % 10).unwrap())).collect::<Vec<_>>();
    let mut c = delta(&format!("CDS {}", plan.join(" ")));
    c.ask("CDS");
    assert_eq!(c.log.len(), 1);
}

#[test]
fn del_22_several_cluster_responses_are_acknowledged_in_order() {
    let mut c = delta("CDS a1");
    c.ask("CDS");
    assert_eq!(c.plan("CDS a2"), "CDS a2");
    assert_eq!(c.plan("CDS a3"), "CDS a3");
    c.ack("CDS");
    assert!(c.stream.watermark() < 3);
    c.ack("CDS");
    c.ack("CDS");
    assert_eq!(c.stream.watermark(), 3);
}

#[test]
fn ztn_01_both_wildcards_get_a_first_response() {
    let mut c = ztunnel("WDS a1 | WADS");
    assert_eq!(c.ask("WDS *"), "WDS a1");
    assert_eq!(c.ask("WADS *"), "WADS");
}

#[test]
fn ztn_02_on_demand_names_are_answered_or_removed() {
    let mut c = ztunnel("WDS a1");
    let request = c.delta_request("WDS", "*", "*");
    c.request(request);
    assert_eq!(c.ask("WDS a x"), "WDS a1 -x");
}

#[test]
fn ztn_03_held_keys_are_subscriptions() {
    let mut c = ztunnel("WDS a1 b2");
    let current = c.version("WDS", "a", "1");
    let mut request = c.delta_request("WDS", "*", "*");
    if let navarch_xds::Wish::Change { held, .. } = &mut request.wish {
        held.extend([("a", current.as_str()), ("b", "old"), ("x", "")].map(|(n, v)| (n.into(), v.into())));
    }
    // `a` is up to date, `b` is not, `x` is asked for and does not exist.
    assert_eq!(c.request(request), "WDS b2 -x");
    c.ack("WDS");
    assert_eq!(c.plan("WDS a2 b2 x1"), "WDS a2 x1");
}

#[test]
fn ztn_04_content_versions_make_a_reconnect_a_delta() {
    let mut c = ztunnel("WDS a1 b1");
    c.ask("WDS *");
    c.ack("WDS");
    let (a, b) = (c.version("WDS", "a", "1"), c.version("WDS", "b", "1"));
    c.reconnect("");
    assert_eq!(c.ask_with("WDS *", &[("a", &a), ("b", &b)]), "WDS");
}

#[test]
fn ztn_05_code_zero_rejects() {
    let mut c = ztunnel("WDS a1");
    c.ask("WDS *");
    let ty = crate::client::ty("WDS");
    let mut nack = c.answer(ty, Some("a: invalid"));
    nack.error = Some(navarch_xds::Error { code: 0, text: "a: invalid".into() });
    assert_eq!(c.request(nack), "");
    assert_eq!(c.stream.status()[0].state, navarch_xds::SyncState::Error);
}

#[test]
fn del_12_what_is_held_as_nothing_and_asked_for_is_not_removed_too() {
    let mut c = delta("EDS");
    // From an earlier stream the client holds that there is nothing under the name.
    assert_eq!(c.ask_with("EDS * a", &[("a", "0"), ("b", "0")]), "EDS -a");
    c.settle();
    // Clusters that it may ask for yet could use them until then.
    assert_eq!(c.sleep(4.9), "");
    assert_eq!(c.sleep(0.2), "EDS a() b()");
}

#[test]
fn del_09_name_dropped_beside_its_collection_is_answered() {
    let mut c = delta("RDS xdstp://x/t/foo/a1");
    c.ask("RDS xdstp://x/t/foo/* xdstp://x/t/foo/a");
    c.settle();
    assert_eq!(c.drop("RDS xdstp://x/t/foo/a"), "RDS xdstp://x/t/foo/a1");
}

#[test]
fn del_03_what_went_while_the_wildcard_came_is_removed() {
    let mut c = delta("CDS a1 b1");
    c.ask("CDS a b");
    c.ack("CDS");
    // Both before the transport takes anything.
    let wish = c.delta_request("CDS", "*", "");
    let plan = c.plan.set("CDS b1");
    c.stream.resources(plan);
    assert_eq!(c.request(wish), "CDS b1; CDS -a");
}
