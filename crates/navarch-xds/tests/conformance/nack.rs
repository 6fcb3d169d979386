//! Nonces, acknowledgements, rejections (NCK).

use navarch_xds::{Event, SyncState};

use crate::client::{both, delta, sotw, ty};

fn state(c: &crate::client::Client, short: &str) -> SyncState {
    c.stream.status().into_iter().find(|status| status.ty == ty(short)).expect("a status").state
}

#[test]
fn nck_01_error_detail_rejects_whatever_its_code() {
    for code in [0, 3, 13] {
        let mut c = delta("CDS a1");
        c.ask("CDS");
        let mut nack = c.answer(ty("CDS"), Some("bad"));
        nack.error = Some(navarch_xds::Error { code, text: "bad".into() });
        c.request(nack);
        assert_eq!(state(&c, "CDS"), SyncState::Error, "{code}");
    }
}

#[test]
fn nck_02_nothing_is_sent_again_until_content_changes() {
    for mut c in both("CDS a1 | EDS a1") {
        c.ask("CDS");
        assert_eq!(c.nack("CDS", "bad a"), "");
        assert_eq!(c.sleep(60.0), "");
        assert_eq!(c.plan("EDS a2"), "");
        assert_eq!(c.plan("CDS a2"), "CDS a2");
        c.ask("EDS a");
        assert_eq!(c.nack("EDS", "bad a"), "");
        assert_eq!(c.sleep(60.0), "");
    }
}

#[test]
fn nck_03_names_on_a_nack_are_honoured() {
    let mut c = sotw("EDS a1 b1");
    c.ask("EDS a");
    let mut nack = c.answer(ty("EDS"), Some("bad a"));
    if let navarch_xds::Wish::Exactly { names, .. } = &mut nack.wish {
        names.push("b".into());
    }
    assert_eq!(c.request(nack), "EDS b1");
}

#[test]
fn nck_04_nack_at_an_unchanged_version_is_recognised() {
    let mut c = sotw("EDS a1 b1");
    c.ask("EDS a");
    c.ack("EDS");
    assert_eq!(c.ask("EDS a b"), "EDS b1");
    assert_eq!(c.nack("EDS", "bad b"), "");
    assert_eq!(state(&c, "EDS"), SyncState::Error);
}

#[test]
fn nck_05_siblings_of_a_rejected_resource_are_sent_again() {
    let mut c = delta("EDS a1 b1 c1");
    c.ask("EDS a b c");
    assert_eq!(c.nack("EDS", "b: malformed IP address"), "EDS a1 c1");
    assert_eq!(c.ack("EDS"), "");
}

#[test]
fn nck_06_good_resources_are_sent_again_alone_and_the_bad_one_on_change() {
    let mut c = delta("CDS a1 b1 c1");
    c.ask("CDS");
    assert_eq!(c.nack("CDS", "Error adding/updating cluster(s) b: bad"), "CDS a1 c1");
    assert_eq!(c.ack("CDS"), "");
    assert_eq!(c.plan("CDS a2 b1 c1"), "CDS a2");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a2 b2 c1"), "CDS b2");
    c.ack("CDS");
    assert_eq!(state(&c, "CDS"), SyncState::Synced);
}

#[test]
fn nck_06_last_good_version_is_served_in_sotw() {
    let mut c = sotw("CDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a2 b2"), "CDS a2 b2");
    assert_eq!(c.nack("CDS", "Error adding/updating cluster(s) b: bad"), "CDS a2 b1");
    c.ack("CDS");
    // Other updates keep flowing, and the bad one stays as it was.
    assert_eq!(c.plan("CDS a3 b2"), "CDS a3 b1");
    c.ack("CDS");
    assert_eq!(state(&c, "CDS"), SyncState::Error);
    assert_eq!(c.plan("CDS a3 b3"), "CDS a3 b3");
    c.ack("CDS");
    assert_eq!(state(&c, "CDS"), SyncState::Synced);
}

#[test]
fn nck_06_new_bad_resource_is_left_out_in_sotw() {
    let mut c = sotw("CDS a1");
    c.ask("CDS");
    c.ack("CDS");
    c.plan("CDS a2 x1");
    assert_eq!(c.nack("CDS", "cluster(s) x: bad"), "CDS a2");
}

#[test]
fn nck_06_without_names_the_bad_one_is_found_by_halving() {
    let mut c = delta("EDS a1 b1 c1 d1");
    assert_eq!(c.ask("EDS a b c d"), "EDS a1 b1 c1 d1");
    assert_eq!(c.nack("EDS", "malformed"), "EDS a1 b1");
    assert_eq!(c.ack("EDS"), "EDS c1 d1");
    assert_eq!(c.nack("EDS", "malformed"), "EDS c1");
    assert_eq!(c.nack("EDS", "malformed"), "EDS d1");
    assert_eq!(c.ack("EDS"), "");
    let status = &c.stream.status()[0];
    assert_eq!(status.set_aside.iter().map(|name| &**name).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn nck_06_last_good_is_kept_while_the_bad_one_changes_and_is_rejected_again() {
    let mut c = sotw("CDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    c.plan("CDS a1 b2");
    assert_eq!(c.nack("CDS", "b: bad"), "");
    assert_eq!(c.plan("CDS a1 b3"), "CDS a1 b3");
    assert_eq!(c.nack("CDS", "b: bad"), "");
    assert_eq!(c.plan("CDS a2 b3"), "CDS a2 b1");
}

#[test]
fn nck_07_neither_ack_nor_nack_is_not_answered() {
    let mut c = sotw("EDS a1");
    c.ask("EDS a");
    c.ack("EDS");
    let old = c.last_response("EDS").version.clone();
    c.plan("EDS a2");
    // No watcher is left: new nonce, old version, no names, no error.
    let mut request = c.sotw_request("EDS");
    request.nonce = c.last_response("EDS").nonce.clone();
    request.wish = navarch_xds::Wish::Exactly { names: vec![], version: old };
    assert_eq!(c.request(request), "");
    assert_eq!(c.sleep(60.0), "");
}

#[test]
fn nck_08_missing_ack_does_no_harm() {
    let mut c = delta("CDS a1 | EDS a1 | LDS l1");
    c.ask("CDS");
    c.ask("EDS a");
    c.ask("LDS");
    assert_eq!(c.sleep(3600.0), "");
    assert_eq!(c.plan("EDS a2"), "");
    assert_eq!(c.ack("EDS"), "EDS a2");
}

#[test]
fn nck_09_names_on_a_stale_nonce_are_honoured() {
    let mut c = sotw("EDS a1 b1");
    c.ask("EDS a");
    c.ack("EDS");
    let stale = c.last_response("EDS").nonce.clone();
    assert_eq!(c.plan("EDS a2 b1"), "EDS a2");
    let mut request = c.sotw_request("EDS a b");
    request.nonce = stale;
    assert_eq!(c.request(request), "");
    let mut ack = c.sotw_request("EDS a b");
    ack.nonce = c.last_response("EDS").nonce.clone();
    assert_eq!(c.request(ack), "EDS b1");
}

#[test]
fn nck_10_nonce_of_another_stream_on_the_first_message_is_ignored() {
    for mut c in both("CDS a1") {
        c.ask("CDS");
        let nonce = c.last_response("CDS").nonce.clone();
        c.reconnect("envoy");
        let mut request = match c.protocol {
            navarch_xds::Protocol::Sotw => c.sotw_request("CDS"),
            navarch_xds::Protocol::Delta => c.delta_request("CDS", "", ""),
        };
        request.nonce = nonce;
        assert_eq!(c.request(request), "CDS a1");
    }
}

#[test]
fn nck_11_first_message_with_a_version_is_a_reconnect() {
    let mut c = sotw("CDS a1");
    assert_eq!(c.ask_at("CDS", "some-other-version"), "CDS a1");
    assert_eq!(state(&c, "CDS"), SyncState::Stale);
}

#[test]
fn nck_12_nonces_survive_unsubscribing_from_everything() {
    let mut c = sotw("EDS a1");
    c.ask("EDS a");
    c.ack("EDS");
    c.ask("EDS");
    let nonce = c.last_response("EDS").nonce.clone();
    let mut request = c.sotw_request("EDS a");
    request.nonce = nonce;
    assert_eq!(c.request(request), "EDS a1");
}

#[test]
fn nck_14_secret_errors_are_not_kept() {
    let mut c = delta("SDS a1");
    c.ask("SDS a");
    c.nack("SDS", "bad key -----BEGIN");
    let error = c.stream.status()[0].error.clone().expect("an error");
    assert!(!error.text.contains("BEGIN"), "{}", error.text);
    let told = c.events().into_iter().any(|event| format!("{event:?}").contains("BEGIN"));
    assert!(!told);
    // A secret that holds nothing but names of files may be talked about, if it came alone.
    for (sent, asked, kept) in [("file1", "file", true), ("a1 file1", "a file", false)] {
        let mut c = delta(&format!("SDS {sent}"));
        c.ask(&format!("SDS {asked}"));
        c.nack("SDS", "no such file");
        let error = c.stream.status()[0].error.clone().expect("an error");
        assert_eq!(error.text == "no such file", kept, "{sent}: {}", error.text);
    }
}

#[test]
fn nck_15_rejections_are_counted_and_reported() {
    let mut c = delta("CDS a1 b1");
    c.ask("CDS");
    c.events();
    c.nack("CDS", "b: bad");
    let rejected = c.events().into_iter().find_map(|event| match event {
        Event::Rejected { ty, names, aside, text, .. } => Some((ty, names, aside, text)),
        _ => None,
    });
    let (rejected_type, names, aside, text) = rejected.expect("an event");
    assert_eq!(aside.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["b"], "with what it refused");
    assert_eq!((rejected_type, &*names[0], text.as_str()), (ty("CDS"), "b", "b: bad"));
    assert_eq!(c.stream.status()[0].rejected_total, 1);
}

#[test]
fn nck_16_error_is_cleared_by_a_newer_ack_only() {
    let mut c = delta("CDS a1");
    c.ask("CDS");
    c.plan("CDS a2");
    // The second one is rejected before the first one is accepted.
    let first = c.answer(ty("CDS"), None);
    let second = c.answer(ty("CDS"), Some("a: bad"));
    c.request(second);
    c.request(first);
    assert_eq!(state(&c, "CDS"), SyncState::Error);
    c.plan("CDS a3");
    c.ack("CDS");
    assert_eq!(state(&c, "CDS"), SyncState::Synced);
}

/// A client that returns with a version of another set may hold anything. Two responses are under way, both
/// with something bad in them, and the client does not say what.
#[test]
fn nck_06_what_a_returning_client_holds_is_not_guessed() {
    let mut c = sotw("CDS a2 c2 e5");
    assert_eq!(c.ask_at("CDS", "of another set"), "CDS a2 c2 e5");
    assert_eq!(c.plan("CDS a1 b5 c1 e1"), "CDS a1 b5 c1 e1");
    assert_eq!(c.nack("CDS", "malformed"), "");
    let sent = c.nack("CDS", "malformed");
    // What it applied of the last response must not be taken back by what it was sent before.
    assert!(!sent.contains("a2") && !sent.contains("c2"), "{sent}");
    let sent = c.nack("CDS", "malformed");
    assert!(!sent.contains("a2") && !sent.contains("c2"), "{sent}");
}
