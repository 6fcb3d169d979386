//! What one more stream costs when something changes: the push, and the acknowledgement. `cargo bench -p
//! navarch-xds -- push`.
//!
//! Names are `piece/size`; the size is the number of clusters that the client has, each with an assignment.
//! Comparisons and long responses are shared by the streams of a class, so they are not in it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType, dynamic, json};
use navarch_xds::proto::{DeltaDiscoveryRequest, DiscoveryRequest};
use navarch_xds::{ClassMemory, ClientRules, Encoder, Node, Protocol, Request, Response, Stream};
use prost::Message;
use serde_json::{Value, json};

const SIZES: [usize; 2] = [100, 1_000];
const PROTOCOLS: [(&str, Protocol); 2] = [("delta", Protocol::Delta), ("sotw", Protocol::Sotw)];
/// What changes.
const CHANGES: [(&str, XdsType); 2] = [("endpoint", XdsType::Eds), ("cluster", XdsType::Cds)];

/// A client that has everything, on a stream.
struct Rig {
    protocol: Protocol,
    stream: Stream,
    encoder: Encoder,
    names: Vec<String>,
    /// Two states that differ in one resource.
    states: [ProxyResources; 2],
    revision: u64,
}

impl Rig {
    fn new(protocol: Protocol, size: usize, changed: XdsType) -> Self {
        let node =
            Node { user_agent_name: "envoy".into(), user_agent_version: "1.40.0".into(), ..Node::default() };
        let stream = Stream::new(1, protocol, ClientRules::of(&node), Arc::new(ClassMemory::default()));
        let names: Vec<String> = (0..size)
            .map(|index| format!("outbound|80||service-{index}.namespace-{}.svc.cluster.local", index % 10))
            .collect();
        let first = state(&names, 1, 1);
        let second = state(&names[..1], 2, 2).set(changed).iter().next().cloned();
        let resources = first.set(changed).iter().skip(1).cloned().chain(second);
        let second = first.clone().with(changed, ResourceSet::of(resources));
        let mut rig = Rig {
            protocol,
            stream,
            encoder: Encoder::new("bench"),
            names,
            states: [first, second],
            revision: 0,
        };
        rig.stream.resources(Arc::new(rig.states[0].at_revision(0)));
        for ty in [XdsType::Cds, XdsType::Eds] {
            let request = rig.request(ty, "", "");
            rig.take(request);
        }
        rig.push();
        rig
    }

    /// A request for all names of the type; in delta only the first one names anything.
    fn request(&self, ty: XdsType, nonce: &str, version: &str) -> Bytes {
        let (type_url, response_nonce) = (ty.type_url().to_owned(), nonce.to_owned());
        let names = if ty == XdsType::Eds { self.names.clone() } else { Vec::new() };
        match self.protocol {
            Protocol::Sotw => DiscoveryRequest {
                type_url,
                response_nonce,
                version_info: version.to_owned(),
                resource_names: names,
                ..DiscoveryRequest::default()
            }
            .encode_to_vec(),
            Protocol::Delta => DeltaDiscoveryRequest {
                type_url,
                response_nonce,
                resource_names_subscribe: if nonce.is_empty() { names } else { Vec::new() },
                ..DeltaDiscoveryRequest::default()
            }
            .encode_to_vec(),
        }
        .into()
    }

    fn take(&mut self, request: Bytes) {
        let request = Request::decode(self.protocol, request).expect("a request");
        self.stream.request(request, Instant::now());
    }

    /// Everything the stream has to send, as bytes.
    fn send(&mut self) -> Vec<Response> {
        let responses: Vec<Response> = std::iter::from_fn(|| self.stream.poll(Instant::now())).collect();
        for response in &responses {
            black_box(self.encoder.grpc_message(self.protocol, response));
        }
        responses
    }

    /// The other state is published, sent and acknowledged. Returns how long the server took to send it, and
    /// to read that it was accepted.
    fn push(&mut self) -> [Duration; 2] {
        self.revision += 1;
        let state = Arc::new(self.states[(self.revision % 2) as usize].at_revision(self.revision));
        let start = Instant::now();
        self.stream.resources(state);
        let responses = self.send();
        let pushed = start.elapsed();

        let answers: Vec<Bytes> = responses
            .iter()
            .map(|response| self.request(response.ty, &response.nonce, &response.version))
            .collect();
        let start = Instant::now();
        answers.into_iter().for_each(|answer| self.take(answer));
        assert!(self.stream.poll(Instant::now()).is_none(), "all has been sent");
        let acknowledged = start.elapsed();
        assert_eq!(self.stream.watermark(), self.revision);
        self.stream.take_events().for_each(drop);
        [pushed, acknowledged]
    }
}

/// A cluster and an assignment for each name.
fn state(names: &[String], timeout: u32, host: u32) -> ProxyResources {
    let set = |ty: XdsType, body: &dyn Fn(&str) -> Value| {
        let resource = |name: &String| {
            let type_name = ty.type_url().trim_start_matches("type.googleapis.com/");
            let message = json::from_json(type_name, &body(name)).expect("a valid resource");
            Arc::new(Resource::of(ty, name.as_str(), &dynamic::encode(&message)))
        };
        ResourceSet::of(names.iter().map(resource))
    };
    let cluster = |name: &str| {
        let source = json!({"ads": {}, "resource_api_version": "V3"});
        json!({
            "name": name, "type": "EDS", "connect_timeout": format!("{timeout}s"),
            "eds_cluster_config": {"service_name": name, "eds_config": source},
            "circuit_breakers": {"thresholds": [{"max_connections": 1000, "track_remaining": true}]},
            "common_lb_config": {"locality_weighted_lb_config": {}},
        })
    };
    let assignment = |name: &str| {
        let endpoint = |host: u32| {
            let address = json!({"address": format!("10.0.0.{host}"), "port_value": 8080});
            json!({"endpoint": {"address": {"socket_address": address}}, "load_balancing_weight": 1})
        };
        let endpoints = [endpoint(host), endpoint(host + 1)];
        json!({"cluster_name": name, "endpoints": [{
            "locality": {"zone": "z"}, "load_balancing_weight": 2, "lb_endpoints": endpoints}]})
    };
    ProxyResources::new(0)
        .with(XdsType::Cds, set(XdsType::Cds, &cluster))
        .with(XdsType::Eds, set(XdsType::Eds, &assignment))
}

fn push(c: &mut Criterion) {
    for (protocol_name, protocol) in PROTOCOLS {
        for (change, ty) in CHANGES {
            for size in SIZES {
                let mut known = None;
                for (index, piece) in ["push", "ack"].into_iter().enumerate() {
                    c.bench_function(&format!("{piece} {protocol_name} {change}/{size}"), |b| {
                        let rig = known.get_or_insert_with(|| Rig::new(protocol, size, ty));
                        b.iter_custom(|times| (0..times).map(|_| rig.push()[index]).sum());
                    });
                }
            }
        }
    }
}

criterion_group! {
    name = streams;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = push
}
criterion_main!(streams);
