//! Removals that are held because they would take most of what a client has (RMV-01).

use navarch_xds::{Event, Protocol};

use crate::client::{Client, braked, delta};

const MESH: &str = "CDS a1 b1 c1 d1 | EDS a1 b1 c1 d1 | LDS l1 m1 n1 o1 | RDS r1";

/// A client that has all of the mesh.
fn served(mut c: Client) -> Client {
    for ask in ["CDS", "EDS a b c d", "LDS", "RDS r"] {
        c.ask(ask);
    }
    c.settle();
    c.events();
    c
}

/// In state-of-the-world a removal is the rest.
fn removal(c: &Client, delta: &str, sotw: &str) -> String {
    if c.protocol == Protocol::Delta { delta.into() } else { sotw.into() }
}

#[test]
fn rmv_01_a_mesh_that_vanishes_stays_with_its_clients() {
    for mut c in braked(MESH).map(served) {
        assert_eq!(c.plan("CDS | EDS | LDS | RDS"), "");
        let events = c.events();
        assert!(matches!(events[..], [Event::RemovalsHeld { removals: 4, of: 4, .. }]), "{events:?}");
        let held = c.stream.held_removals().expect("held");
        assert_eq!(held.until - held.since, std::time::Duration::from_secs(600));
        assert_eq!(c.stream.status().iter().map(|ty| ty.leaving).max(), Some(4));
        // Not in effect, as long as it is held.
        assert_eq!(c.stream.watermark(), 1);
        // Endpoints that are asked for are those it had.
        let asked = c.ask("EDS a b c");
        assert!(asked.is_empty() || asked == "EDS a1 b1 c1", "{asked}");
        c.settle();
        assert_eq!(c.sleep(599.0), "");
        assert!(c.events().iter().all(|event| !matches!(event, Event::RemovalsReleased { .. })));
        // What has waited long enough is believed, listeners first.
        let released = removal(&c, "LDS -l -m -n -o", "LDS");
        assert_eq!(c.sleep(1.0), released);
        let rest = c.settle();
        assert_eq!(rest.split(";").next(), Some(removal(&c, "CDS -a -b -c -d", "CDS").as_str()), "{rest}");
        assert!(c.stream.held_removals().is_none());
        assert_eq!(c.stream.watermark(), 2);
    }
}

#[test]
fn rmv_01_additions_and_changes_go_on_while_removals_are_held() {
    for mut c in braked(MESH).map(served) {
        assert_eq!(c.plan("CDS a1 | EDS a1 | LDS l1 m1 n1 o1"), "");
        assert_eq!(
            c.plan("CDS a2 e1 | EDS a1 e1"),
            removal(&c, "CDS a2 e1", "CDS a2 b1 c1 d1 e1") + "; EDS a1 e1"
        );
        c.settle();
        assert!(c.stream.held_removals().is_some());
    }
}

#[test]
fn rmv_01_what_comes_back_was_never_away() {
    for mut c in braked(MESH).map(served) {
        assert_eq!(c.plan("CDS | EDS | LDS"), "");
        assert_eq!(c.plan("CDS a1 b1 c1 d1 | EDS a1 b1 c1 d1 | LDS l1 m1 n1 o1"), "");
        assert!(c.stream.held_removals().is_none());
        assert!(matches!(c.events()[1..], [Event::RemovalsReleased { removed: false }]));
        // Most of it: the rest is a removal like any other.
        assert_eq!(c.plan("CDS | EDS | LDS"), "");
        let sent = c.plan("CDS a1 b1 c1 | EDS a1 b1 c1 | LDS l1 m1 n1 o1");
        assert_eq!(sent, removal(&c, "CDS -d", "CDS a1 b1 c1"));
    }
}

#[test]
fn rmv_01_confirmed_removals_go_and_later_ones_are_judged_again() {
    for mut c in braked(MESH).map(served) {
        assert_eq!(c.plan("CDS a1 | EDS a1"), "");
        // An older revision is not what is held.
        assert!(!c.stream.confirm_removals(1));
        assert_eq!(c.sent(), "");
        assert!(c.stream.confirm_removals(2));
        assert_eq!(c.sent(), removal(&c, "CDS -b -c -d", "CDS a1"));
        c.settle();
        c.sleep(60.0);
        assert_eq!(c.plan("LDS"), "");
        assert!(c.stream.held_removals().is_some());
        // A revision that is confirmed beforehand is not held.
        c.stream.confirm_removals(3);
        assert_eq!(c.sent(), removal(&c, "LDS -l -m -n -o", "LDS"));
    }
}

#[test]
fn rmv_01_small_and_partial_removals_are_not_held() {
    for mut c in braked(MESH).map(served) {
        assert_eq!(c.plan("CDS a1 b1 | EDS a1 b1"), removal(&c, "CDS -c -d", "CDS a1 b1"));
        c.settle();
        // One after the other within seconds is one removal; after a while it counts as a new one.
        assert_eq!(c.plan("CDS | EDS"), "");
        assert_eq!(c.plan("CDS a1 b1 | EDS a1 b1"), "");
        c.sleep(60.0);
        assert_eq!(c.plan("CDS | EDS"), removal(&c, "CDS -a -b", "CDS"));
    }
    for mut c in braked(MESH).map(served) {
        assert_eq!(c.plan("LDS l1 m1"), removal(&c, "LDS -n -o", "LDS l1 m1"));
    }
}

#[test]
fn rmv_01_a_listener_that_is_held_gives_way_to_one_on_its_address() {
    for mut c in braked("LDS l1@x m1@y n1@z o1@w").map(served) {
        assert_eq!(c.plan("LDS new1@x"), removal(&c, "LDS new1@x -l", "LDS m1@y n1@z new1@x o1@w"));
        c.settle();
        assert_eq!(
            c.plan("LDS new1@x more1@y"),
            removal(&c, "LDS more1@y -m", "LDS more1@y n1@z new1@x o1@w")
        );
    }
}

/// A server that starts with nothing, and clients that come back with what they had.
#[test]
fn rmv_01_an_empty_server_takes_nothing_from_a_delta_client_that_returns() {
    let [_, mut c] = braked(MESH);
    let held = |c: &Client, ty: &str, names: &[&'static str]| {
        names.iter().map(|name| (*name, c.version(ty, name, "1"))).collect::<Vec<_>>()
    };
    let clusters = held(&c, "CDS", &["a", "b", "c", "d"]);
    let clusters: Vec<_> = clusters.iter().map(|(name, version)| (*name, version.as_str())).collect();
    c.plan("CDS | EDS | LDS | RDS");
    assert_eq!(c.ask_with("CDS", &clusters), "CDS");
    c.ack("CDS");
    // Not an empty assignment: active clusters keep their endpoints, warming ones stop waiting.
    assert_eq!(c.ask("EDS a b"), "EDS -a -b");
    c.ack("EDS");
    assert!(c.stream.held_removals().is_some());
    // One comes back, another one is new.
    assert_eq!(c.plan("CDS a1 e1"), "CDS a1 e1; EDS a() e()");
    c.settle();
    assert_eq!(c.sleep(601.0), "CDS -b -c -d");
    assert_eq!(c.ack("CDS"), "EDS b()");
    // Without the brake it is told when nothing else that it may hold needs them.
    let mut c = delta("CDS");
    assert_eq!(c.ask_with("CDS", &clusters), "CDS");
    assert_eq!(c.sleep(5.0), "CDS -a -b -c -d");
}

/// A server without any configuration is at revision zero.
#[test]
fn rmv_01_revision_zero_is_not_confirmed() {
    let [_, mut c] = braked("CDS");
    let clusters = ["a", "b", "c"].map(|name| (name, c.version("CDS", name, "1")));
    let clusters: Vec<_> = clusters.iter().map(|(name, version)| (*name, version.as_str())).collect();
    c.stream.resources(std::sync::Arc::new(navarch_envoy::ProxyResources::new(0)));
    assert_eq!(c.ask_with("CDS", &clusters), "CDS");
    assert!(c.stream.held_removals().is_some());
    assert!(c.stream.confirm_removals(0));
    assert_eq!(c.sleep(5.0), "CDS -a -b -c");
}
