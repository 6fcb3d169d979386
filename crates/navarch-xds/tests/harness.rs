//! The scenarios of the public conformance harness for xDS servers, in our own words and stricter: what is
//! sent is compared as a whole, so that a response too many fails. Driven as the harness does it, over its
//! control interface and real streams, against the adapter in `examples/harness`.

#[path = "../examples/harness/adapter.rs"]
mod adapter;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adapter::{Adapter, ClearState, Cleared, Done, OneResource, SERVICE, SetState};
use http::uri::PathAndQuery;
use navarch_envoy::proto::envoy::config::core::v3::Node;
use navarch_envoy::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use navarch_envoy::wire::put_field;
use navarch_envoy::{Any, XdsType};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
const ANSWER: Duration = Duration::from_secs(20);
/// How long nothing must come when nothing is to come.
const QUIET: Duration = Duration::from_millis(60);

/// How the harness speaks: its four variants.
#[derive(Clone, Copy, Debug)]
struct Variant {
    delta: bool,
    aggregated: bool,
}

const SOTW: [Variant; 2] =
    [Variant { delta: false, aggregated: false }, Variant { delta: false, aggregated: true }];
const DELTA: [Variant; 2] =
    [Variant { delta: true, aggregated: false }, Variant { delta: true, aggregated: true }];

const ALL: [XdsType; 4] = [XdsType::Cds, XdsType::Lds, XdsType::Rds, XdsType::Eds];
const ROOTS: [XdsType; 2] = [XdsType::Cds, XdsType::Lds];
const LEAVES: [XdsType; 2] = [XdsType::Rds, XdsType::Eds];

enum Wire {
    Sotw(mpsc::UnboundedSender<DiscoveryRequest>, Streaming<DiscoveryResponse>),
    Delta(mpsc::UnboundedSender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>),
}

/// One run of a scenario: a node, its state at the target, and its streams.
struct Run {
    variant: Variant,
    channel: Channel,
    node: String,
    /// By type; all in the one without a type if aggregated.
    streams: BTreeMap<Option<XdsType>, Wire>,
    /// State-of-the-world: names, and the version accepted last.
    asked: BTreeMap<XdsType, (Vec<String>, String, String)>,
    nonces: Vec<String>,
}

async fn channel() -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(Adapter::new().serve(listener));
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
    endpoint.connect().await.expect("connected")
}

fn list(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

impl Run {
    /// `state` is `"CDS A B | LDS C"`, everything at version 1.
    async fn new(channel: &Channel, variant: Variant, state: &str) -> Run {
        static NODES: AtomicUsize = AtomicUsize::new(0);
        let node = format!("test-id-{}", NODES.fetch_add(1, Ordering::Relaxed));
        let (channel, streams, asked) = (channel.clone(), BTreeMap::new(), BTreeMap::new());
        let run = Run { variant, channel, node, streams, asked, nonces: Vec::new() };
        let mut resources = Vec::new();
        for part in state.split(" | ") {
            let (short, names) = part.split_once(' ').expect("a type and names");
            let ty = XdsType::ALL.into_iter().find(|ty| ty.short() == short).expect("a type");
            for name in list(names) {
                let mut body = Vec::new();
                put_field(&mut body, 0x0a, name.as_bytes());
                resources.push(Any { type_url: ty.type_url().into(), value: body.into() });
            }
        }
        let state = SetState { node: run.node.clone(), version: "1".into(), resources };
        assert!(run.control::<_, Done>("SetState", state).await.success);
        run
    }

    async fn control<Q, S>(&self, method: &str, message: Q) -> S
    where
        Q: Message + Default + 'static,
        S: Message + Default + 'static,
    {
        let path: PathAndQuery = format!("{SERVICE}{method}").parse().expect("a path");
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.expect("ready");
        let codec = ProstCodec::<Q, S>::default();
        let answer = grpc.unary(tonic::Request::new(message), path, codec).await;
        answer.expect("an answer of the adapter").into_inner()
    }

    async fn change(&self, method: &str, ty: XdsType, name: &str, version: &str) {
        let (node, type_url) = (self.node.clone(), ty.type_url().into());
        let one = OneResource { node, type_url, name: name.into(), version: version.into() };
        assert!(self.control::<_, Done>(method, one).await.success, "{method} {ty} {name}");
    }

    fn stream_of(&self, ty: XdsType) -> Option<XdsType> {
        (!self.variant.aggregated).then_some(ty)
    }

    async fn open(&mut self, ty: XdsType) {
        let key = self.stream_of(ty);
        if self.streams.contains_key(&key) {
            return;
        }
        let path = match (key, self.variant.delta) {
            (None, false) => format!("{ADS}StreamAggregatedResources"),
            (None, true) => format!("{ADS}DeltaAggregatedResources"),
            (Some(ty), delta) => {
                let method = if delta { ty.delta_method() } else { ty.sotw_method() };
                format!("/{}/{}", ty.service().expect("a service"), method.expect("a method"))
            }
        };
        let path = path.parse().expect("a path");
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.expect("ready");
        let wire = if self.variant.delta {
            let (sender, receiver) = mpsc::unbounded_channel();
            let request = tonic::Request::new(UnboundedReceiverStream::new(receiver));
            let stream = grpc.streaming(request, path, ProstCodec::default()).await.expect("a stream");
            Wire::Delta(sender, stream.into_inner())
        } else {
            let (sender, receiver) = mpsc::unbounded_channel();
            let request = tonic::Request::new(UnboundedReceiverStream::new(receiver));
            let stream = grpc.streaming(request, path, ProstCodec::default()).await.expect("a stream");
            Wire::Sotw(sender, stream.into_inner())
        };
        self.streams.insert(key, wire);
    }

    /// Subscribes: in state-of-the-world to exactly these names, in delta to these in addition.
    async fn subscribe(&mut self, ty: XdsType, names: &str) {
        self.open(ty).await;
        let node = Some(Node { id: self.node.clone(), ..Node::default() });
        let (type_url, names) = (ty.type_url().to_owned(), list(names));
        match self.streams.get(&self.stream_of(ty)) {
            Some(Wire::Delta(sender, _)) => {
                let resource_names_subscribe = names;
                let request =
                    DeltaDiscoveryRequest { node, type_url, resource_names_subscribe, ..Default::default() };
                sender.send(request).expect("an open stream");
            }
            _ => {
                let (_, version, nonce) = self.asked.remove(&ty).unwrap_or_default();
                self.asked.insert(ty, (names, version, nonce));
                self.send_sotw(ty, node);
            }
        }
    }

    fn send_sotw(&self, ty: XdsType, node: Option<Node>) {
        let Some(Wire::Sotw(sender, _)) = self.streams.get(&self.stream_of(ty)) else { return };
        let (names, version, nonce) = self.asked.get(&ty).cloned().unwrap_or_default();
        let request = DiscoveryRequest {
            node,
            type_url: ty.type_url().into(),
            resource_names: names,
            version_info: version,
            response_nonce: nonce,
            ..Default::default()
        };
        sender.send(request).expect("an open stream");
    }

    fn unsubscribe(&self, ty: XdsType, names: &str) {
        let Some(Wire::Delta(sender, _)) = self.streams.get(&self.stream_of(ty)) else { return };
        let request = DeltaDiscoveryRequest {
            type_url: ty.type_url().into(),
            resource_names_unsubscribe: list(names),
            ..Default::default()
        };
        sender.send(request).expect("an open stream");
    }

    /// The next response on the stream of the type, accepted: `"CDS 2: A2 B1 -C"`.
    async fn next(&mut self, ty: XdsType) -> String {
        let key = self.stream_of(ty);
        let late = || panic!("no answer: {:?} {ty}", self.variant);
        let (url, nonce, version, mut shown) = match self.streams.get_mut(&key).expect("a stream") {
            Wire::Sotw(_, responses) => {
                let Ok(response) = tokio::time::timeout(ANSWER, responses.message()).await else { late() };
                let response = response.expect("no error").expect("a response");
                let shown: Vec<_> = response.resources.iter().map(|any| show(&any.value)).collect();
                (response.type_url, response.nonce, response.version_info, shown)
            }
            Wire::Delta(_, responses) => {
                let Ok(response) = tokio::time::timeout(ANSWER, responses.message()).await else { late() };
                let response = response.expect("no error").expect("a response");
                let shown = response.resources.iter().map(|resource| {
                    let any = resource.resource.as_ref().map(|any| any.value.clone()).unwrap_or_default();
                    if any.len() > resource.name.len() + 2 {
                        assert_eq!(show(&any), format!("{}{}", resource.name, resource.version));
                        show(&any)
                    } else {
                        format!("{}()", resource.name)
                    }
                });
                let removed = response.removed_resources.iter().map(|name| format!("-{name}"));
                let shown = shown.chain(removed).collect();
                (response.type_url, response.nonce, response.system_version_info, shown)
            }
        };
        assert!(!nonce.is_empty() && !self.nonces.contains(&nonce), "the nonce {nonce} is not new");
        self.nonces.push(nonce.clone());
        let ty = XdsType::from_type_url(&url).expect("a type");
        match self.streams.get(&key) {
            Some(Wire::Delta(sender, _)) => {
                let (type_url, response_nonce) = (url, nonce);
                let ack = DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() };
                sender.send(ack).expect("an open stream");
            }
            _ => {
                let names = self.asked.remove(&ty).unwrap_or_default().0;
                self.asked.insert(ty, (names, version.clone(), nonce));
                self.send_sotw(ty, None);
            }
        }
        shown.sort();
        // A hash, where nothing in the response has a version of the harness.
        let version = if version.len() > 8 { "-" } else { version.as_str() };
        format!("{} {version}: {}", ty.short(), shown.join(" ")).trim_end().to_owned()
    }

    async fn expect(&mut self, ty: XdsType, expected: &str) {
        let found = self.next(ty).await;
        assert_eq!(found, format!("{} {expected}", ty.short()), "{:?}", self.variant);
    }

    /// Nothing comes any more, on any stream.
    async fn quiet(&mut self) {
        for (key, wire) in &mut self.streams {
            let more = match wire {
                Wire::Sotw(_, responses) => {
                    tokio::time::timeout(QUIET, responses.message()).await.map(|more| format!("{more:?}"))
                }
                Wire::Delta(_, responses) => {
                    tokio::time::timeout(QUIET, responses.message()).await.map(|more| format!("{more:?}"))
                }
            };
            assert!(more.is_err(), "{:?} {key:?}: {more:?}", self.variant);
        }
        let cleared = self.control::<_, Cleared>("ClearState", ClearState { node: self.node.clone() }).await;
        assert_eq!(cleared.response, "cleared");
    }
}

/// Name and version.
fn show(body: &[u8]) -> String {
    use navarch_envoy::wire::{Fields, Value};
    let texts = Fields::new(body).filter_map(|(_, value)| match value {
        Value::Bytes(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    });
    texts.collect()
}

/// Runs a scenario for every variant and type, all at a time.
macro_rules! scenario {
    ($name:ident, $variants:expr, $types:expr, |$run:ident, $ty:ident| $state:expr, $body:block) => {
        #[tokio::test]
        async fn $name() {
            let channel = channel().await;
            let mut runs = tokio::task::JoinSet::new();
            for variant in $variants {
                for $ty in $types {
                    let channel = channel.clone();
                    runs.spawn(async move {
                        #[allow(unused_mut)]
                        let mut $run = Run::new(&channel, variant, &format!("{} {}", $ty.short(), $state)).await;
                        $body
                        $run.quiet().await;
                    });
                }
            }
            while let Some(run) = runs.join_next().await {
                run.expect("the scenario holds");
            }
        }
    };
}

scenario!(hrn_01_wildcard_is_everything_at_once, SOTW, ROOTS, |run, ty| "A B C", {
    run.subscribe(ty, "").await;
    run.expect(ty, "1: A1 B1 C1").await;
});

scenario!(hrn_02_wildcard_is_sent_whole_when_one_changes, SOTW, ROOTS, |run, ty| "A B C", {
    run.subscribe(ty, "").await;
    run.expect(ty, "1: A1 B1 C1").await;
    run.change("UpdateResource", ty, "A", "2").await;
    run.expect(ty, "2: A2 B1 C1").await;
});

scenario!(hrn_03_new_resource_reaches_the_wildcard, SOTW, ROOTS, |run, ty| "A B C", {
    run.subscribe(ty, "").await;
    run.expect(ty, "1: A1 B1 C1").await;
    run.change("AddResource", ty, "D", "2").await;
    run.expect(ty, "2: A1 B1 C1 D2").await;
});

scenario!(hrn_04_names_get_what_they_name, SOTW.into_iter().chain(DELTA), ALL, |run, ty| "A B C D", {
    run.subscribe(ty, "B D").await;
    run.expect(ty, "1: B1 D1").await;
});

scenario!(hrn_05_named_roots_are_sent_whole_when_one_changes, SOTW, ROOTS, |run, ty| "A B C D", {
    run.subscribe(ty, "B D").await;
    run.expect(ty, "1: B1 D1").await;
    run.change("UpdateResource", ty, "B", "2").await;
    run.expect(ty, "2: B2 D1").await;
});

scenario!(hrn_06_named_leaf_that_changes_is_sent, SOTW, LEAVES, |run, ty| "A B C D", {
    run.subscribe(ty, "B D").await;
    run.expect(ty, "1: B1 D1").await;
    run.change("UpdateResource", ty, "B", "2").await;
    run.expect(ty, "2: B2").await;
});

scenario!(hrn_07_missing_root_is_sent_with_the_others_when_it_is_there, SOTW, ROOTS, |run, ty| "A B C", {
    run.subscribe(ty, "A Z").await;
    run.expect(ty, "1: A1").await;
    run.change("AddResource", ty, "Z", "2").await;
    run.expect(ty, "2: A1 Z2").await;
});

scenario!(hrn_08_missing_leaf_is_sent_when_it_is_there, SOTW, [XdsType::Rds], |run, ty| "A B C D", {
    run.subscribe(ty, "A Z").await;
    run.expect(ty, "1: A1").await;
    run.change("AddResource", ty, "Z", "2").await;
    run.expect(ty, "2: Z2").await;
});

scenario!(hrn_08_missing_endpoints_are_none_until_there_are_some, SOTW, [XdsType::Eds], |run, ty| "A B", {
    run.subscribe(ty, "A Z").await;
    // An assignment without endpoints, so that its cluster does not wait for it.
    run.expect(ty, "1: A1 Z").await;
    run.change("AddResource", ty, "Z", "2").await;
    run.expect(ty, "2: Z2").await;
});

scenario!(hrn_10_fewer_named_roots, SOTW, ROOTS, |run, ty| "A B C D F", {
    run.subscribe(ty, "A B C").await;
    run.expect(ty, "1: A1 B1 C1").await;
    run.subscribe(ty, "A").await;
    run.change("UpdateResource", ty, "A", "2").await;
    run.expect(ty, "2: A2").await;
});

scenario!(hrn_11_fewer_named_leaves, SOTW, LEAVES, |run, ty| "A B C D", {
    run.subscribe(ty, "B D").await;
    run.expect(ty, "1: B1 D1").await;
    run.subscribe(ty, "B").await;
    run.change("UpdateResource", ty, "D", "2").await;
    run.change("UpdateResource", ty, "B", "2").await;
    run.expect(ty, "2: B2").await;
});

scenario!(
    hrn_12_no_names_at_last_is_silence,
    SOTW,
    [XdsType::Cds, XdsType::Lds, XdsType::Rds, XdsType::Eds],
    |run, ty| "A B C D",
    {
        run.subscribe(ty, "A B").await;
        run.expect(ty, "1: A1 B1").await;
        run.subscribe(ty, "").await;
        run.change("UpdateResource", ty, "B", "2").await;
    }
);

scenario!(hrn_13_names_one_after_the_other, DELTA, ALL, |run, ty| "A B C", {
    run.subscribe(ty, "A").await;
    run.expect(ty, "1: A1").await;
    run.subscribe(ty, "B").await;
    run.expect(ty, "1: B1").await;
});

scenario!(hrn_14_only_what_changes_is_sent, DELTA, ALL, |run, ty| "A B C", {
    run.subscribe(ty, "A B C").await;
    run.expect(ty, "1: A1 B1 C1").await;
    run.change("UpdateResource", ty, "A", "2").await;
    run.expect(ty, "2: A2").await;
});

scenario!(
    hrn_15_missing_is_said_and_sent_when_it_is_there,
    DELTA,
    [XdsType::Cds, XdsType::Lds, XdsType::Rds],
    |run, ty| "A",
    {
        run.subscribe(ty, "A B").await;
        run.expect(ty, "1: -B A1").await;
        run.change("AddResource", ty, "B", "1").await;
        run.expect(ty, "1: B1").await;
    }
);

scenario!(hrn_16_removal_is_said_and_return_is_sent, DELTA, ALL, |run, ty| "A B", {
    run.subscribe(ty, "A B").await;
    run.expect(ty, "1: A1 B1").await;
    run.change("RemoveResource", ty, "B", "").await;
    run.expect(ty, "-: -B").await;
    run.change("AddResource", ty, "B", "2").await;
    run.expect(ty, "2: B2").await;
});

scenario!(hrn_17_dropped_names_are_not_sent, DELTA, ALL, |run, ty| "A B", {
    run.subscribe(ty, "A B").await;
    run.expect(ty, "1: A1 B1").await;
    run.unsubscribe(ty, "B");
    // The stream has read it when it answers what comes after.
    run.subscribe(ty, "A").await;
    run.expect(ty, "1: A1").await;
    run.change("UpdateResource", ty, "B", "2").await;
    run.change("UpdateResource", ty, "A", "2").await;
    run.expect(ty, "2: A2").await;
    run.unsubscribe(ty, "A");
});

/// Two types in one stream, in state-of-the-world and in delta.
#[tokio::test]
async fn hrn_09_and_hrn_18_two_types_in_one_stream() {
    let channel = channel().await;
    for variant in [SOTW[1], DELTA[1]] {
        for (first, second) in [(XdsType::Cds, XdsType::Lds), (XdsType::Rds, XdsType::Eds)] {
            let state = format!("{} A B C | {} A B C", first.short(), second.short());
            let mut run = Run::new(&channel, variant, &state).await;
            run.subscribe(first, "B").await;
            run.expect(first, "1: B1").await;
            run.subscribe(second, "B").await;
            run.expect(second, "1: B1").await;
            run.change("UpdateResource", first, "B", "2").await;
            run.expect(first, "2: B2").await;
            run.change("UpdateResource", second, "B", "2").await;
            run.expect(second, "2: B2").await;
            run.quiet().await;
        }
    }
}
