//! Streams without sockets: what a proxy says, what the control plane hears, and the other way round.

use navarch_envoy::Any;
use navarch_envoy::proto::envoy::config::core::v3::ControlPlane;
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::Secret as EnvoySecret;
use navarch_envoy::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource,
};
use navarch_xds::proto::Status;

use super::super::wire::TYPE_URL;
use super::*;

const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const SDS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The agent answers for `default` and `ROOTCA`.
fn is_local(type_url: &str, name: &str) -> bool {
    type_url == SDS && ["default", "ROOTCA"].contains(&name)
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A delta stream whose control plane is there, after the first words.
struct Delta(Session);

impl Delta {
    fn new() -> Self {
        let mut session = Session::new(Protocol::Delta, None);
        assert!(session.opened().is_empty(), "nobody has asked for anything");
        Delta(session)
    }

    fn say(&mut self, request: DeltaDiscoveryRequest) -> (Step, Option<DeltaDiscoveryRequest>) {
        let message = Bytes::from(request.encode_to_vec());
        let step = self.0.request(message, is_local, true).expect("a request");
        let upstream = step.upstream.as_ref();
        let upstream = upstream.map(|bytes| DeltaDiscoveryRequest::decode(&bytes[..]).expect("a request"));
        (step, upstream)
    }

    fn ask(&mut self, type_url: &str, names: &[&str]) -> (Step, Option<DeltaDiscoveryRequest>) {
        self.say(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: texts(names),
            ..DeltaDiscoveryRequest::default()
        })
    }

    fn answer(
        &mut self,
        type_url: &str,
        nonce: &str,
        error: Option<&str>,
    ) -> (Step, Option<DeltaDiscoveryRequest>) {
        self.say(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: error.map(|message| Status { code: 13, message: message.to_owned() }),
            ..DeltaDiscoveryRequest::default()
        })
    }

    /// The control plane sends these; the nonce that the proxy sees.
    fn hear(&mut self, nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> String {
        let resource = |(name, version): &(&str, &str)| Resource {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            resource: Some(Any { type_url: CDS.to_owned(), value: Bytes::new() }),
            ..Resource::default()
        };
        let message = DeltaDiscoveryResponse {
            resources: resources.iter().map(resource).collect(),
            removed_resources: texts(removed),
            nonce: nonce.to_owned(),
            type_url: CDS.to_owned(),
            ..DeltaDiscoveryResponse::default()
        };
        let sent = self.0.response(message.encode_to_vec().into()).client.expect("shown").concat();
        let sent = DeltaDiscoveryResponse::decode(&sent[..]).expect("a response");
        assert_eq!(sent.resources, message.resources);
        sent.nonce
    }

    /// Another control plane; what it hears.
    fn reopen(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let opened = self.0.opened();
        opened.iter().map(|bytes| DeltaDiscoveryRequest::decode(&bytes[..]).expect("a request")).collect()
    }
}

fn versions(request: &DeltaDiscoveryRequest) -> Vec<(&str, &str)> {
    request
        .initial_resource_versions
        .iter()
        .map(|(name, version)| (name.as_str(), version.as_str()))
        .collect()
}

#[test]
fn the_node_is_said_once_to_each_control_plane() {
    let mut delta = Delta::new();
    let first = DeltaDiscoveryRequest {
        node: Some(Bytes::from_static(b"\x0a\x01n")),
        type_url: CDS.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let (_, upstream) = delta.say(first);
    assert!(upstream.expect("forwarded").node.is_some());
    let (_, upstream) = delta.ask(SDS, &["kubernetes://a"]);
    assert!(upstream.expect("forwarded").node.is_none());
    let said: Vec<bool> = delta.reopen().iter().map(|request| request.node.is_some()).collect();
    assert_eq!(said, [true, false]);
}

#[test]
fn nonces_are_those_of_the_control_plane_that_is_there() {
    let mut delta = Delta::new();
    let (step, upstream) = delta.ask(CDS, &[]);
    assert!(step.wanted.all && upstream.is_some());
    let nonce = delta.hear("7", &[("a", "1")], &[]);
    let (step, upstream) = delta.answer(CDS, &nonce, None);
    assert_eq!(upstream.expect("forwarded").response_nonce, "7");
    assert!(step.accepted.is_some() && step.is_complete);

    // An answer to the one before, whose nonces may be the same, is not an answer to this one.
    let late = delta.hear("8", &[("b", "1")], &[]);
    delta.reopen();
    let (step, upstream) = delta.answer(CDS, &late, None);
    assert!(upstream.is_none() && step.accepted.is_some() && !step.is_complete);
}

#[test]
fn another_control_plane_hears_what_the_proxy_has() {
    let mut delta = Delta::new();
    delta.ask(CDS, &[]);
    let nonce = delta.hear("1", &[("a", "1"), ("b", "1"), ("c", "1")], &[]);
    delta.answer(CDS, &nonce, None);
    let nonce = delta.hear("2", &[("a", "2")], &["b"]);
    delta.answer(CDS, &nonce, None);
    let nonce = delta.hear("3", &[("c", "2")], &[]);
    let (step, _) = delta.answer(CDS, &nonce, Some("bad"));
    assert_eq!((step.rejected.as_deref(), step.accepted), (Some("bad"), None));
    // Not answered: it may be there, so it has to be taken away if it is gone.
    delta.hear("4", &[("d", "1")], &[]);

    let requests = delta.reopen();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(versions(request), [("a", "2"), ("c", "1"), ("d", "")]);
    assert!(request.resource_names_subscribe.is_empty(), "all of them, as the proxy has said it");
}

#[test]
fn names_that_are_added_to_all_do_not_take_all_away() {
    let mut delta = Delta::new();
    delta.ask(CDS, &[]);
    delta.ask(CDS, &["on-demand"]);
    assert_eq!(delta.reopen()[0].resource_names_subscribe, ["on-demand", "*"]);
    let leave = DeltaDiscoveryRequest {
        type_url: CDS.to_owned(),
        resource_names_unsubscribe: texts(&["*"]),
        ..DeltaDiscoveryRequest::default()
    };
    delta.say(leave);
    assert_eq!(delta.reopen()[0].resource_names_subscribe, ["on-demand"]);
}

#[test]
fn what_the_agent_answers_is_not_asked_of_the_control_plane() {
    let mut delta = Delta::new();
    let (step, upstream) = delta.ask(SDS, &["default", "ROOTCA"]);
    assert!(step.has_new_local && upstream.is_none() && step.wanted.is_empty());
    assert!(delta.reopen().is_empty());
    let sent = Sent { name: "default", version: "v1", message: b"secret" };
    let response = delta.0.own_response(SDS, "v", &[sent]);
    let response = DeltaDiscoveryResponse::decode(&response[..]).expect("a response");
    assert_eq!((response.type_url.as_str(), response.resources[0].name.as_str()), (SDS, "default"));
    let any = response.resources[0].resource.clone().expect("a resource");
    assert_eq!((any.type_url.as_str(), &any.value[..]), (SDS, &b"secret"[..]));
    let (step, upstream) = delta.answer(SDS, &response.nonce, None);
    assert!(upstream.is_none() && step.accepted.is_none());
    let expected = [("ROOTCA".to_owned(), None), ("default".to_owned(), Some("v1".to_owned()))];
    assert_eq!(delta.0.local(SDS), expected);

    let (step, upstream) = delta.ask(SDS, &["ROOTCA", "kubernetes://a"]);
    assert!(step.has_new_local);
    assert_eq!(upstream.expect("forwarded").resource_names_subscribe, ["kubernetes://a"]);
}

#[test]
fn what_came_from_the_store_is_what_the_proxy_has() {
    let mut delta = Delta::new();
    let session = &mut delta.0;
    let request = DeltaDiscoveryRequest { type_url: CDS.to_owned(), ..DeltaDiscoveryRequest::default() };
    let step = session.request(request.encode_to_vec().into(), is_local, false).expect("a request");
    assert!(step.upstream.is_none() && step.wanted.all);
    assert_eq!(session.wanted(), [(CDS.to_owned(), Wanted { all: true, names: Vec::new() })]);
    let sent = Sent { name: "a", version: "1", message: b"" };
    let response = session.stored_response(CDS, "", &[sent], &texts(&["gone"]));
    let response = DeltaDiscoveryResponse::decode(&response[..]).expect("a response");
    assert_eq!(response.removed_resources, ["gone"]);
    let (step, upstream) = delta.answer(CDS, &response.nonce, None);
    assert!(upstream.is_none() && step.accepted.is_none() && step.is_accepted);
    assert_eq!(versions(&delta.reopen()[0]), [("a", "1")]);
    // Now that it has something, the next response is not all there is.
    let nonce = delta.hear("1", &[("b", "1")], &[]);
    assert!(!delta.answer(CDS, &nonce, None).0.is_complete);
}

/// A state-of-the-world stream.
struct World(Session);

impl World {
    fn new() -> Self {
        let mut session = Session::new(Protocol::Sotw, None);
        session.opened();
        World(session)
    }

    fn say(
        &mut self,
        type_url: &str,
        names: &[&str],
        version: &str,
        nonce: &str,
    ) -> (Step, Option<DiscoveryRequest>) {
        let request = DiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names: texts(names),
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        };
        let step = self.0.request(request.encode_to_vec().into(), is_local, true).expect("a request");
        let upstream = step.upstream.as_ref();
        let upstream = upstream.map(|bytes| DiscoveryRequest::decode(&bytes[..]).expect("a request"));
        (step, upstream)
    }

    fn hear(&mut self, type_url: &str, version: &str, nonce: &str) -> String {
        let message = DiscoveryResponse {
            version_info: version.to_owned(),
            type_url: type_url.to_owned(),
            nonce: nonce.to_owned(),
            ..DiscoveryResponse::default()
        };
        let sent = self.0.response(message.encode_to_vec().into()).client.expect("shown").concat();
        DiscoveryResponse::decode(&sent[..]).expect("a response").nonce
    }
}

#[test]
fn in_state_of_the_world_two_answer_for_one_type() {
    let mut world = World::new();
    let (step, upstream) = world.say(SDS, &["default"], "", "");
    assert!(step.has_new_local && upstream.is_none());
    let sent = Sent { name: "default", version: "v1", message: b"" };
    let own = world.0.own_response(SDS, "own", &[sent]);
    let own = DiscoveryResponse::decode(&own[..]).expect("a response");
    assert!(world.say(SDS, &["default"], "own", &own.nonce).1.is_none());

    // The control plane hears of its own names, versions and nonces alone.
    let (step, upstream) = world.say(SDS, &["default", "kubernetes://a"], "own", &own.nonce);
    let upstream = upstream.expect("forwarded");
    assert_eq!(upstream.resource_names, ["kubernetes://a"]);
    assert_eq!((upstream.version_info.as_str(), upstream.response_nonce.as_str()), ("", ""));
    assert_eq!(step.wanted.names, ["kubernetes://a"]);
    let nonce = world.hear(SDS, "7", "n1");
    let (step, upstream) = world.say(SDS, &["default", "kubernetes://a"], "7", &nonce);
    let upstream = upstream.expect("forwarded");
    assert_eq!((upstream.version_info.as_str(), upstream.response_nonce.as_str()), ("7", "n1"));
    assert!(step.accepted.is_some() && !step.is_complete && !step.has_new_local);
    let (_, upstream) = world.say(SDS, &["default"], "own", &own.nonce);
    let upstream = upstream.expect("it is told that the name is not wanted any more");
    assert!(upstream.resource_names.is_empty());
    assert_eq!((upstream.version_info.as_str(), upstream.response_nonce.as_str()), ("7", "n1"));
}

#[test]
fn in_state_of_the_world_another_control_plane_hears_the_version() {
    let mut world = World::new();
    let (step, _) = world.say(CDS, &[], "", "");
    assert!(step.wanted.all);
    let nonce = world.hear(CDS, "7", "n");
    let (step, _) = world.say(CDS, &[], "7", &nonce);
    assert!(step.is_complete);
    let opened = world.0.opened();
    let request = DiscoveryRequest::decode(&opened[0][..]).expect("a request");
    assert_eq!((request.version_info.as_str(), request.response_nonce.as_str()), ("7", ""));
    assert!(world.say(CDS, &[], "7", &nonce).1.is_none(), "it answered the one before");
}

const ROOTS: Followed = Followed { type_url: SDS, name: "ROOTCA", component: "ours" };

/// A response of a control plane, of secrets with these names and versions.
fn secrets(protocol: Protocol, component: &str, nonce: &str, found: &[&str], removed: &[&str]) -> Bytes {
    let control_plane = Some(ControlPlane { identifier: format!(r#"{{"Component":"{component}"}}"#) });
    let (type_url, nonce) = (SDS.to_owned(), nonce.to_owned());
    let any = |name: &str| {
        let secret = EnvoySecret { name: name.to_owned(), ..EnvoySecret::default() };
        Any { type_url: SDS.to_owned(), value: secret.encode_to_vec().into() }
    };
    let encoded = match protocol {
        Protocol::Delta => {
            let resource = |name: &&str| Resource {
                name: (*name).to_owned(),
                version: format!("{name}-{nonce}"),
                resource: Some(any(name)),
                ..Resource::default()
            };
            DeltaDiscoveryResponse {
                resources: found.iter().map(resource).collect(),
                removed_resources: texts(removed),
                type_url,
                nonce,
                control_plane,
                ..DeltaDiscoveryResponse::default()
            }
            .encode_to_vec()
        }
        Protocol::Sotw => DiscoveryResponse {
            resources: found.iter().map(|name| any(name)).collect(),
            version_info: format!("v{nonce}"),
            type_url,
            nonce,
            control_plane,
            ..DiscoveryResponse::default()
        }
        .encode_to_vec(),
    };
    encoded.into()
}

/// What the client sees of a response of secrets: nonce and names, a minus before those that go.
fn seen(protocol: Protocol, heard: &Heard) -> Option<(String, Vec<String>)> {
    let message = heard.client.as_ref()?.concat();
    Some(match protocol {
        Protocol::Delta => {
            let response = DeltaDiscoveryResponse::decode(&message[..]).expect("a response");
            let gone = response.removed_resources.iter().map(|name| format!("-{name}"));
            (response.nonce, response.resources.into_iter().map(|found| found.name).chain(gone).collect())
        }
        Protocol::Sotw => {
            let response = DiscoveryResponse::decode(&message[..]).expect("a response");
            let name = |any: Any| EnvoySecret::decode(&any.value[..]).expect("a secret").name;
            (response.nonce, response.resources.into_iter().map(name).collect())
        }
    })
}

/// What the control plane hears: names that are asked for, and the nonce.
fn told(protocol: Protocol, message: &[u8]) -> (Vec<String>, String) {
    match protocol {
        Protocol::Delta => {
            let request = DeltaDiscoveryRequest::decode(message).expect("a request");
            assert_eq!(request.type_url, SDS);
            (request.resource_names_subscribe, request.response_nonce)
        }
        Protocol::Sotw => {
            let request = DiscoveryRequest::decode(message).expect("a request");
            assert_eq!(request.type_url, SDS);
            (request.resource_names, request.response_nonce)
        }
    }
}

/// A request for secrets by the client.
fn request(protocol: Protocol, names: &[&str], nonce: &str, error: Option<&str>) -> Bytes {
    let (type_url, response_nonce) = (SDS.to_owned(), nonce.to_owned());
    let error_detail = error.map(|message| Status { code: 13, message: message.to_owned() });
    let names = texts(names);
    match protocol {
        Protocol::Delta => DeltaDiscoveryRequest {
            type_url,
            response_nonce,
            resource_names_subscribe: if nonce.is_empty() { names } else { Vec::new() },
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
        .encode_to_vec()
        .into(),
        Protocol::Sotw => DiscoveryRequest {
            type_url,
            response_nonce,
            resource_names: names,
            error_detail,
            ..DiscoveryRequest::default()
        }
        .encode_to_vec()
        .into(),
    }
}

const BOTH: [Protocol; 2] = [Protocol::Delta, Protocol::Sotw];

/// A stream whose control plane has shown that it has what is followed, by a response of another type.
fn following(protocol: Protocol) -> Session {
    let mut session = Session::new(protocol, None).following(Some(ROOTS));
    session.opened();
    let other = DeltaDiscoveryRequest { type_url: CDS.to_owned(), ..DeltaDiscoveryRequest::default() };
    let other_sotw = DiscoveryRequest { type_url: CDS.to_owned(), ..DiscoveryRequest::default() };
    let first = match protocol {
        Protocol::Delta => other.encode_to_vec(),
        Protocol::Sotw => other_sotw.encode_to_vec(),
    };
    session.request(first.into(), is_local, true).expect("a request");
    let mut shown = secrets(protocol, "ours", "0", &[], &[]).to_vec();
    put_field(&mut shown, tag(TYPE_URL), CDS.as_bytes());
    let heard = session.response(shown.into());
    assert!(heard.client.is_some() && !heard.is_foreign);
    let [asked] = &heard.upstream[..] else { panic!("{heard:?}") };
    assert_eq!(told(protocol, asked), (texts(&["ROOTCA"]), String::new()));
    session
}

#[test]
fn roots_are_followed_where_the_client_does_not_ask_for_them() {
    for protocol in BOTH {
        let mut session = following(protocol);
        let heard = session.response(secrets(protocol, "ours", "1", &["ROOTCA"], &[]));
        assert!(heard.client.is_none(), "nobody but the agent has asked");
        assert!(heard.followed.is_some());
        let [accepted] = &heard.upstream[..] else { panic!("{heard:?}") };
        assert_eq!(told(protocol, accepted).1, "1");

        // The next one who is asked hears what is there.
        let opened = session.opened();
        let [_, reopened] = &opened[..] else { panic!("{opened:?}") };
        assert_eq!(told(protocol, reopened).0, ["ROOTCA"]);
        match protocol {
            Protocol::Delta => {
                let reopened = DeltaDiscoveryRequest::decode(&reopened[..]).expect("a request");
                assert_eq!(versions(&reopened), [("ROOTCA", "ROOTCA-1")]);
            }
            Protocol::Sotw => {
                let reopened = DiscoveryRequest::decode(&reopened[..]).expect("a request");
                assert_eq!(reopened.version_info, "v1");
            }
        }

        // Who asks for other secrets sees them alone, and answers for both.
        let step = session.request(request(protocol, &["kubernetes://a"], "", None), is_local, true);
        let names = told(protocol, &step.expect("a request").upstream.expect("forwarded")).0;
        assert!(names.contains(&"kubernetes://a".to_owned()), "{names:?}");
        let heard = session.response(secrets(protocol, "ours", "2", &["ROOTCA", "kubernetes://a"], &[]));
        assert!(heard.upstream.is_empty() && heard.followed.is_some());
        let (nonce, names) = seen(protocol, &heard).expect("shown");
        assert_eq!(names, ["kubernetes://a"]);
        let step = session.request(request(protocol, &["kubernetes://a"], &nonce, None), is_local, true);
        let (names, nonce) = told(protocol, &step.expect("a request").upstream.expect("forwarded"));
        assert_eq!(nonce, "2");
        assert_eq!(names.contains(&"ROOTCA".to_owned()), protocol == Protocol::Sotw, "{names:?}");
        assert_eq!(session.wanted().iter().filter(|(ty, _)| ty == SDS).count(), 1);
    }
}

#[test]
fn roots_that_the_client_uses_are_accepted_by_the_client() {
    for protocol in BOTH {
        let mut session = following(protocol);
        let step = session.request(request(protocol, &["ROOTCA"], "", None), is_local, true);
        let step = step.expect("a request");
        assert!(step.has_new_local && step.upstream.is_none(), "it is asked for already");
        for (number, error) in [("1", Some("bad")), ("2", None)] {
            let heard = session.response(secrets(protocol, "ours", number, &["ROOTCA"], &[]));
            assert!(heard.upstream.is_empty() && heard.followed.is_none(), "not yet");
            let (nonce, names) = seen(protocol, &heard).expect("shown");
            assert_eq!(names, ["ROOTCA"]);
            let sent = session.local(SDS)[0].1.clone();
            let expected = EnvoySecret { name: "ROOTCA".to_owned(), ..EnvoySecret::default() };
            assert_eq!(sent, Some(version_of(&expected.encode_to_vec())), "it is not sent once more");
            let step = session.request(request(protocol, &["ROOTCA"], &nonce, error), is_local, true);
            let step = step.expect("a request");
            assert_eq!(told(protocol, &step.upstream.expect("forwarded")).1, number);
            assert_eq!(step.followed.is_some(), error.is_none());
        }
        assert!(session.wanted().iter().all(|(ty, _)| ty != SDS), "none of it is stored");
    }
}

#[test]
fn control_planes_without_roots_are_not_asked_for_them() {
    for protocol in BOTH {
        let mut session = Session::new(protocol, None).following(Some(ROOTS));
        session.opened();
        let names = ["ROOTCA", "kubernetes://a"];
        session.request(request(protocol, &names, "", None), is_local, true).expect("a request");
        let heard = session.response(secrets(protocol, "theirs", "1", &["kubernetes://a"], &["ROOTCA"]));
        assert!(heard.is_foreign && heard.upstream.is_empty() && heard.followed.is_none());
        // It does not take away what it does not have.
        assert_eq!(seen(protocol, &heard).expect("shown").1, ["kubernetes://a"]);
        assert_eq!(told(protocol, &session.opened()[0]).0, ["kubernetes://a"]);
    }
    // One that had them is followed by one that has not.
    for protocol in BOTH {
        let mut session = following(protocol);
        assert_eq!(session.opened().len(), 2);
        assert!(session.response(secrets(protocol, "theirs", "1", &[], &[])).is_foreign);
        assert_eq!(session.opened().len(), 1);
    }
}

#[test]
fn no_bytes_panic() {
    let words: [&[u8]; 6] =
        [b"", b"\xff", b"\x0a\xff\x01", b"\x12\x01a\x1a\x01*", b"\x22\x7f", b"\x2a\x03agent"];
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let mut session = Session::new(protocol, Some(SDS)).following(Some(ROOTS));
        for one in words {
            for other in words {
                let message = Bytes::from([one, other].concat());
                let _ = session.request(message.clone(), is_local, true);
                let _ = session.response(message);
                session.opened();
            }
        }
    }
}

/// What the control plane sends of the names: one resource without a name.
fn names_of(nonce: &str, version: &str, table: &'static [u8]) -> Bytes {
    let resource = Resource {
        version: version.to_owned(),
        resource: Some(Any { type_url: NAMES.to_owned(), value: Bytes::from_static(table) }),
        ..Resource::default()
    };
    let message = DeltaDiscoveryResponse {
        resources: vec![resource],
        nonce: nonce.to_owned(),
        type_url: NAMES.to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    message.encode_to_vec().into()
}

#[test]
fn names_are_the_agent_s_and_the_proxy_hears_nothing_of_them() {
    let mut delta = Delta(Session::new(Protocol::Delta, None).wanting_names(true));
    delta.0.opened();
    let own = |step: &Step| {
        let own = step.own.as_ref();
        own.map(|bytes| DeltaDiscoveryRequest::decode(&bytes[..]).expect("a request").type_url)
    };
    assert_eq!(own(&delta.ask(CDS, &[]).0), None, "before the proxy wants listeners");
    assert_eq!(own(&delta.ask(LISTENERS, &[]).0).as_deref(), Some(NAMES));
    assert_eq!(own(&delta.ask(CDS, &["more"]).0), None, "asked twice");
    let heard = delta.0.response(names_of("7", "v1", b"table"));
    assert_eq!((heard.client, heard.names.as_deref()), (None, Some(&b"table"[..])));
    let [acknowledged] = &heard.upstream[..] else { panic!("{} requests", heard.upstream.len()) };
    let acknowledged = DeltaDiscoveryRequest::decode(&acknowledged[..]).expect("a request");
    assert_eq!((acknowledged.type_url.as_str(), acknowledged.response_nonce.as_str()), (NAMES, "7"));
    // The next control plane hears which ones there are.
    let again = delta.reopen().into_iter().find(|request| request.type_url == NAMES).expect("asked again");
    assert_eq!(versions(&again), [("", "v1")]);
}

#[test]
fn clients_that_are_no_proxies_need_no_names() {
    let mut session = Session::new(Protocol::Sotw, None).wanting_names(true);
    session.opened();
    let ask = |type_url: &str, names: &[&str]| {
        let request = DiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names: texts(names),
            ..DiscoveryRequest::default()
        };
        Bytes::from(request.encode_to_vec())
    };
    let step = session.request(ask(LISTENERS, &["web.shop:80"]), is_local, true).expect("a request");
    assert!(step.own.is_none());
    // One that asks itself is answered itself.
    let step = session.request(ask(NAMES, &[]), is_local, true).expect("a request");
    assert!(step.own.is_none() && step.upstream.is_some());
    let message = DiscoveryResponse { type_url: NAMES.to_owned(), ..DiscoveryResponse::default() };
    let heard = session.response(message.encode_to_vec().into());
    assert!(heard.names.is_none() && heard.client.is_some());
}
