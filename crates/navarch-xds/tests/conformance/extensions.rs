//! SDS, ECDS, VHDS, on-demand clusters, aliases, `xdstp` names and small print.

use std::collections::BTreeMap;
use std::time::Duration;

use navarch_xds::{Cause, Event, Protocol, Request, Wish};
use prost::Message;

use crate::client::{Client, Plan, both, delta, sotw};

#[test]
fn sds_01_rotation_is_a_secret_push_only() {
    for mut c in both("CDS a1 | LDS l1_s | SDS s1") {
        c.ask("CDS");
        c.ask("LDS");
        c.ask("SDS s");
        c.settle();
        assert_eq!(c.plan("SDS s2"), "SDS s2");
        c.ack("SDS");
        assert_eq!(c.sleep(60.0), "");
    }
}

#[test]
fn sds_02_missing_secret_ends_waiting_in_delta() {
    let mut c = delta("SDS s1");
    assert_eq!(c.ask("SDS unauthorised s"), "SDS s1 -unauthorised");
}

#[test]
fn sds_04_broken_secret_does_not_block_others() {
    for mut c in both("SDS a1 b1 c1") {
        c.ask("SDS a b c");
        // The error of a secret is still searched for names, only not kept.
        assert_eq!(c.nack("SDS", "b: bad key"), "SDS a1 c1");
        c.ack("SDS");
        assert_eq!(c.plan("SDS a2 b1 c1"), "SDS a2");
    }
}

#[test]
fn sds_05_secret_bytes_are_not_in_debug_output() {
    let mut c = delta("SDS s1secretbytes");
    c.ask("SDS s");
    let text = format!("{:?} {:?} {:?}", c.stream, c.log, c.stream.status());
    assert!(!text.contains("secretbytes"));
    let bytes = format!("{:?}", b"secretbytes");
    assert!(!text.contains(bytes.trim_matches(['[', ']'])));
}

#[test]
fn ecds_02_update_goes_without_the_listener() {
    for mut c in both("LDS l1 | ECDS e1") {
        c.ask("LDS");
        c.ask("ECDS e");
        c.settle();
        assert_eq!(c.plan("ECDS e2"), "ECDS e2");
    }
}

#[test]
fn odc_02_and_odc_03_on_demand_cluster_beside_the_wildcard() {
    let mut c = delta("CDS a1 (od1)");
    assert_eq!(c.ask("CDS"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.ask("CDS od"), "CDS od1");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a2 (od1)"), "CDS a2");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a2"), "CDS -od");
}

#[test]
fn odc_01_and_odc_02_the_cluster_appears_after_it_was_missing() {
    let mut c = delta("CDS a1");
    c.ask("CDS");
    c.ack("CDS");
    assert_eq!(c.ask("CDS od"), "CDS -od");
    c.ack("CDS");
    assert_eq!(c.plan("CDS a1 (od1) (other1)"), "CDS od1");
}

#[test]
fn sot_04_and_odc_03_envoy_names_a_cluster_and_keeps_all_others() {
    let mut c = sotw("CDS a1 (od1)");
    assert_eq!(c.ask("CDS"), "CDS a1");
    c.ack("CDS");
    assert_eq!(c.ask("CDS od"), "CDS a1 od1");
}

#[test]
fn vhds_01_hosts_are_sent_to_who_names_them() {
    let mut c = delta("VHDS (r/a1) (r/b1)");
    // A wildcard is answered, but they do not belong to it.
    assert_eq!(c.ask("VHDS *"), "VHDS");
    c.ack("VHDS");
    assert_eq!(c.ask("VHDS r/a"), "VHDS r/a1");
    c.ack("VHDS");
    assert_eq!(c.plan("VHDS (r/a1) (r/b2)"), "");
}

#[test]
fn odc_04_on_demand_cluster_gets_its_known_endpoints_again() {
    let mut c = delta("CDS a1 (od1) | EDS a1 od1");
    c.ask("CDS");
    c.ask("EDS a od");
    c.settle();
    assert_eq!(c.ask("CDS od"), "CDS od1; EDS od1");
}

#[test]
fn vhds_03_changed_routes_get_their_discovered_hosts_again() {
    let mut c = delta("RDS r1 s1 | VHDS r/a1 r/b1 s/a1");
    c.ask("RDS r s");
    c.ask("VHDS r/a s/a");
    c.settle();
    assert_eq!(c.plan("RDS r2 s1"), "RDS r2; VHDS r/a1");
}

/// What an Envoy asks that takes its virtual hosts on demand: the type alone, and hosts when it needs them.
#[test]
fn vhds_02_routes_whose_hosts_are_discovered_are_released() {
    use navarch_envoy::wire::put_field;
    use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType};
    let routes = |revision, content: &str| {
        let resources = ["r", "fixed"].map(|name| {
            let mut body = Vec::new();
            put_field(&mut body, 0x0a, name.as_bytes());
            put_field(&mut body, 0x7a, content.as_bytes());
            if name == "r" {
                put_field(&mut body, 0x4a, b"");
            }
            std::sync::Arc::new(Resource::of(XdsType::Rds, name, &body))
        });
        std::sync::Arc::new(ProxyResources::new(revision).with(XdsType::Rds, ResourceSet::of(resources)))
    };
    let mut c = delta("RDS");
    c.stream.resources(routes(2, "1"));
    assert_eq!(c.ask("RDS fixed r"), "RDS fixed() r()");
    c.ack("RDS");
    assert_eq!(c.ask("VHDS"), "VHDS -r/");
    c.ack("VHDS");
    assert_eq!(c.ask("VHDS"), "");
    // A change makes it wait again.
    c.stream.resources(routes(3, "2"));
    assert_eq!(c.sent(), "RDS fixed() r(); VHDS -r/");
    c.settle();
    // A host that is known or not releases it too.
    assert_eq!(c.ask("VHDS r/a"), "VHDS r/a()");
    c.ack("VHDS");
    c.stream.resources(routes(4, "3"));
    assert_eq!(c.sent(), "RDS fixed() r(); VHDS r/a()");
    c.settle();
    assert_eq!(c.stream.watermark(), 4);
    // In state-of-the-world there are no virtual hosts.
    let mut c = sotw("RDS");
    c.stream.resources(routes(2, "1"));
    c.ask("RDS r");
    assert_eq!(c.ask("VHDS"), "");
}

/// A plan with one resource `name` that has aliases.
fn aliased(aliases: &[&str]) -> Client {
    let mut c = Client::new(Protocol::Delta, "", Plan::default(), "WDS");
    let builder = navarch_envoy::Resource::builder(navarch_envoy::XdsType::Address.type_url(), "uid", b"x");
    let resource = builder.aliases(aliases.iter().map(|alias| (*alias).into())).build();
    let set = navarch_envoy::ResourceSet::of([std::sync::Arc::new(resource)]);
    let resources = navarch_envoy::ProxyResources::new(2).with(navarch_envoy::XdsType::Address, set);
    c.stream.resources(std::sync::Arc::new(resources));
    c
}

#[test]
fn del_10_subscription_by_alias() {
    let mut c = aliased(&["net/10.0.0.1", "net/10.0.0.2"]);
    assert_eq!(c.ask("WDS net/10.0.0.1"), "WDS uid()");
    let response = c.last_response("WDS");
    let resource = response.resources.iter().next().expect("a resource");
    assert!(resource.aliases().iter().any(|alias| &**alias == "net/10.0.0.1"));
    c.ack("WDS");
    // A removal carries the name, not the alias.
    let empty = navarch_envoy::ProxyResources::new(3);
    c.stream.resources(std::sync::Arc::new(empty));
    assert_eq!(c.sent(), "WDS -uid");
    assert_eq!(aliased(&[]).ask("WDS net/10.0.0.1"), "WDS -net/10.0.0.1");
}

#[test]
fn ztn_02_a_virtual_address_is_its_service_and_its_workloads() {
    let mut c = Client::new(Protocol::Delta, "", Plan::default(), "WDS");
    let publish = |c: &mut Client, revision, workloads: &[&str]| {
        let one = |name: &str, aliases: &[&str]| {
            let builder = navarch_envoy::Resource::builder("t", name, name.as_bytes());
            std::sync::Arc::new(builder.aliases(aliases.iter().map(|alias| (*alias).into())).build())
        };
        let service = one("ns/svc", &["net/10.0.0.1"]);
        let workloads = workloads.iter().map(|name| one(name, &["net/10.0.0.1", "ns/svc"]));
        let set = navarch_envoy::ResourceSet::of(workloads.chain([service]).collect::<Vec<_>>());
        let plan = navarch_envoy::ProxyResources::new(revision).with(navarch_envoy::XdsType::Address, set);
        c.stream.resources(std::sync::Arc::new(plan));
        c.sent()
    };
    publish(&mut c, 2, &["w1", "w2"]);
    let request = c.delta_request("WDS", "*", "*");
    assert_eq!(c.request(request), "");
    assert_eq!(c.ask("WDS net/10.0.0.1"), "WDS ns/svc() w1() w2()");
    c.ack("WDS");
    // They are tracked: one comes, one goes.
    assert_eq!(publish(&mut c, 3, &["w1", "w3"]), "WDS w3() -w2");
    c.ack("WDS");
    // By its name too.
    c.drop("WDS net/10.0.0.1");
    assert_eq!(c.ask("WDS ns/svc"), "WDS ns/svc() w1() w3()");
}

#[test]
fn xtp_02_equal_names_are_one_subscription() {
    let mut c = delta("EDS xdstp://x/t/a");
    let set = navarch_envoy::Resource::of(navarch_envoy::XdsType::Eds, "xdstp://x/t/a?p=1&q=2", b"");
    let set = navarch_envoy::ResourceSet::of([std::sync::Arc::new(set)]);
    let plan = navarch_envoy::ProxyResources::new(2).with(navarch_envoy::XdsType::Eds, set);
    c.stream.resources(std::sync::Arc::new(plan));
    assert_eq!(c.ask("EDS xdstp://x/t/a?q=2&p=1"), "EDS xdstp://x/t/a?p=1&q=2()");
}

#[test]
fn xtp_03_glob_collection_is_its_members() {
    let mut c = delta("RDS xdstp://x/t/foo/b1 xdstp://x/t/foo/a1 xdstp://x/t/bar/a1");
    assert_eq!(c.ask("RDS xdstp://x/t/foo/*"), "RDS xdstp://x/t/foo/a1 xdstp://x/t/foo/b1");
    c.ack("RDS");
    let sent = c.plan("RDS xdstp://x/t/foo/b1 xdstp://x/t/foo/c1 xdstp://x/t/bar/a2");
    assert_eq!(sent, "RDS xdstp://x/t/foo/c1");
}

#[test]
fn xtp_04_glob_is_not_a_wildcard() {
    let mut c = delta("CDS a1 xdstp://x/t/foo/a1");
    assert_eq!(c.ask("CDS xdstp://x/t/foo/*"), "CDS xdstp://x/t/foo/a1");
    c.ack("CDS");
    assert_eq!(c.ask("CDS"), "");
    assert_eq!(c.plan("CDS a2 xdstp://x/t/foo/a1"), "");
}

#[test]
fn led_01_empty_collection_is_answered_with_its_name() {
    let mut c = delta("LEDS");
    assert_eq!(c.ask("LEDS xdstp://x/t/foo/*"), "LEDS -xdstp://x/t/foo/* ?xdstp://x/t/foo/*");
    c.ack("LEDS");
    // Envoy may ask twice.
    assert_eq!(c.ask("LEDS xdstp://x/t/foo/*"), "LEDS -xdstp://x/t/foo/* ?xdstp://x/t/foo/*");
    c.ack("LEDS");
    assert_eq!(c.plan("LEDS xdstp://x/t/foo/a1 xdstp://x/t/bar/a1"), "LEDS xdstp://x/t/foo/a1");
    c.ack("LEDS");
    assert_eq!(c.plan("LEDS xdstp://x/t/bar/a1"), "LEDS -xdstp://x/t/foo/a");
}

#[test]
fn led_01_changed_cluster_gets_the_endpoints_of_its_localities_again() {
    // The content of an assignment names the collection.
    let mut c = delta("CDS a1 b1 | EDS a1_xdstp://x/t/foo/* b1 | LEDS xdstp://x/t/foo/a1");
    c.ask("CDS");
    c.ask("EDS a b");
    c.ask("LEDS xdstp://x/t/foo/*");
    c.settle();
    let again = "CDS a2; EDS a1_xdstp://x/t/foo/*; LEDS xdstp://x/t/foo/a1";
    assert_eq!(c.plan("CDS a2 b1"), again);
    c.settle();
    assert_eq!(c.plan("CDS a2 b2"), "CDS b2; EDS b1");
}

#[test]
fn xtp_05_unknown_authority_is_an_error_and_not_silence() {
    let mut c = sotw("LDS a1");
    assert_eq!(c.ask("LDS xdstp://nobody/t/a"), "LDS ?xdstp://nobody/t/a");
    let mut c = delta("LDS a1");
    assert_eq!(c.ask("LDS xdstp://nobody/t/a"), "LDS -xdstp://nobody/t/a ?xdstp://nobody/t/a");
}

#[test]
fn xtp_06_locator_without_parameters_is_a_name() {
    let locator = navarch_xds::proto::ResourceLocator { name: "a".into() };
    let request = navarch_xds::proto::DeltaDiscoveryRequest {
        type_url: navarch_envoy::XdsType::Eds.type_url().into(),
        resource_locators_subscribe: vec![locator],
        ..Default::default()
    };
    let request = Request::decode(Protocol::Delta, request.encode_to_vec().into()).expect("a request");
    let wish = Wish::Change { subscribe: vec!["a".into()], unsubscribe: vec![], held: BTreeMap::new() };
    assert_eq!(request.wish, wish);
    assert_eq!(delta("EDS a1").request(request), "EDS a1");
}

#[test]
fn ttl_06_body_without_ttl_clears_the_timer() {
    let plan = Plan::default().with_ttl(Duration::from_secs(30));
    let mut c = Client::new(Protocol::Delta, "envoy", plan, "EDS a1 b1");
    c.ask("EDS a b");
    c.ack("EDS");
    c.plan.without_ttl();
    assert_eq!(c.plan("EDS a2 b1"), "EDS a2 b1");
    c.ack("EDS");
    assert_eq!(c.sleep(60.0), "");
}

#[test]
fn flw_04_requests_are_answered_while_pushes_go_on() {
    let mut c = delta("EDS a1 b1");
    c.ask("EDS a");
    c.ack("EDS");
    for content in 2..20 {
        c.plan(&format!("EDS a{content} b1"));
        if content == 10 {
            assert_eq!(c.ask("EDS b"), "");
        }
        let sent = c.ack("EDS");
        assert_eq!(sent, if content == 10 { "EDS b1" } else { "" }, "{content}");
        if content == 10 {
            c.ack("EDS");
        }
    }
}

#[test]
fn str_07_unknown_types_are_counted() {
    let mut c = delta("CDS a1");
    c.stream.request(Request { type_url: "no.such.Type".into(), ..Request::default() }, c.now);
    assert_eq!(c.events(), [Event::UnknownType("no.such.Type".into())]);
    assert!(c.stream.status().is_empty());
}

#[test]
fn ops_07_version_of_another_server_is_judged_by_its_content() {
    // After a failover the version of the other server comes back in state-of-the-world.
    let mut other = sotw("CDS a1");
    other.ask("CDS");
    let version = other.last_response("CDS").version.clone();
    assert_eq!(sotw("CDS a1").ask_at("CDS", &version), "");
    assert_eq!(sotw("CDS a2").ask_at("CDS", &version), "CDS a2");
}

#[test]
fn ops_08_foreign_versions_are_sent_again() {
    let mut c = delta("CDS a1 b1");
    assert_eq!(c.ask_with("CDS", &[("a", "v17"), ("b", "v17"), ("foreign", "v3")]), "CDS a1 b1");
    c.settle();
    assert_eq!(c.sleep(5.0), "CDS -foreign");
}

#[test]
fn ops_09_acceptance_tells_the_revision_and_how_long_it_took() {
    let mut c = delta("CDS a1");
    let asked = c.now;
    c.ask("CDS");
    c.events();
    c.now += Duration::from_millis(40);
    c.ack("CDS");
    let accepted = |revision, after, cause| Event::Accepted {
        ty: navarch_envoy::XdsType::Cds,
        revision,
        after: Duration::from_millis(after),
        cause,
    };
    assert_eq!(c.events(), [accepted(1, 40, Cause::Asked(asked))]);
    // What comes to a client that has something is the doing of the revision.
    c.plan("CDS a2");
    c.events();
    c.ack("CDS");
    assert_eq!(c.events(), [accepted(2, 0, Cause::Revision)]);
}

#[test]
fn flw_06_large_deltas_are_cut_for_clients_with_a_limit() {
    let names: Vec<_> = ('a'..='f').map(String::from).collect();
    let set = navarch_envoy::ResourceSet::of(names.iter().map(|name| {
        let body = vec![0; 1 << 20];
        std::sync::Arc::new(navarch_envoy::Resource::of(navarch_envoy::XdsType::Rds, name.as_str(), &body))
    }));
    let plan =
        std::sync::Arc::new(navarch_envoy::ProxyResources::new(2).with(navarch_envoy::XdsType::Rds, set));
    for (agent, responses) in [("other", 2), ("envoy", 1)] {
        let mut c = Client::new(Protocol::Delta, agent, Plan::default(), "CDS");
        c.stream.resources(plan.clone());
        c.ask(&format!("RDS {}", names.join(" ")));
        c.settle();
        assert_eq!(c.log.len(), responses, "{agent}");
        assert_eq!(c.log.iter().map(|response| response.resources.len()).sum::<usize>(), 6);
        assert_eq!(c.stream.watermark(), 2);
    }
}
