//! Time to live (TTL).

use std::time::Duration;

use navarch_xds::Protocol;

use crate::client::{Client, Plan};

fn timed(protocol: Protocol, plan: &str) -> Client {
    Client::new(protocol, "envoy", Plan::default().with_ttl(Duration::from_secs(30)), plan)
}

#[test]
fn ttl_01_delta_heartbeats_every_third() {
    let mut c = timed(Protocol::Delta, "CDS a1");
    assert_eq!(c.ask("CDS"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.sleep(9.9), "");
    assert_eq!(c.sleep(0.2), "CDS ~a");
    c.ack("CDS");
    assert_eq!(c.sleep(10.0), "CDS ~a");
}

#[test]
fn ttl_02_full_body_after_any_doubt() {
    let mut c = timed(Protocol::Delta, "EDS a1");
    c.ask("EDS a");
    assert_eq!(c.sleep(10.0), "");
    assert_eq!(c.ack("EDS"), "EDS a1");
}

#[test]
fn ttl_03_reconnect_sends_in_full() {
    let mut c = timed(Protocol::Delta, "EDS a1");
    c.ask("EDS a");
    c.ack("EDS");
    c.reconnect("envoy");
    assert_eq!(c.ask("EDS a"), "EDS a1");
}

#[test]
fn ttl_04_sotw_never_sends_without_a_body() {
    let mut c = timed(Protocol::Sotw, "CDS a1 b1");
    c.ask("CDS");
    c.ack("CDS");
    let sent = c.sleep(10.0);
    assert_eq!(sent, "CDS a1 b1");
}

#[test]
fn ttl_05_refresh_does_not_wait_for_clusters_to_be_acknowledged() {
    let mut c = timed(Protocol::Delta, "CDS a1");
    c.ask("CDS");
    assert_eq!(c.sleep(10.0), "CDS a1");
}
