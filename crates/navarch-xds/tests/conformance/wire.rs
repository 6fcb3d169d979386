//! Any bytes as requests: the entry of the fuzzer in `fuzz/`, and of a test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use navarch_envoy::{ProxyResources, Resource, ResourceSet, XdsType};
use navarch_xds::{ClassMemory, ClientRules, Encoder, Node, Protocol, Request, Stream};

/// Reads `data` as messages, each with its length and a byte before it, and gives them to a stream.
///
/// # Panics
/// If the stream does not stop sending.
pub fn run(data: &[u8]) {
    let Some((flags, mut rest)) = data.split_first() else { return };
    let protocol = if flags & 1 == 0 { Protocol::Delta } else { Protocol::Sotw };
    let node = match Node::decode(Bytes::copy_from_slice(rest)) {
        Ok(node) if flags & 2 != 0 => node,
        _ => Node { id: "n".into(), user_agent_name: "envoy".into(), ..Node::default() },
    };
    let mut stream = Stream::new(1, protocol, ClientRules::of(&node), Arc::new(ClassMemory::default()));
    let encoder = Encoder::new("fuzz");
    let mut now = Instant::now();
    for revision in 1..50 {
        let [kind, length, tail @ ..] = rest else { return };
        let (message, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        if kind & 0x80 != 0 {
            stream.resources(plan(revision));
        }
        let Ok(mut request) = Request::decode(protocol, Bytes::copy_from_slice(message)) else { continue };
        if let Some(ty) = XdsType::ALL.get(usize::from(kind & 0x0f)) {
            ty.type_url().clone_into(&mut request.type_url);
        }
        stream.request(request, now);
        let mut sent = 0;
        while let Some(response) = stream.poll(now) {
            sent += 1;
            assert!(sent < 1000, "the stream does not stop sending");
            assert!(!encoder.grpc_message(protocol, &response).is_empty(), "an empty message");
        }
        now += Duration::from_secs(1);
    }
}

fn plan(revision: u64) -> Arc<ProxyResources> {
    let resource = |ty, name: &str| Arc::new(Resource::of(ty, name, &revision.to_le_bytes()));
    let all = XdsType::ALL.into_iter().fold(ProxyResources::new(revision), |plan, ty| {
        plan.with(ty, ResourceSet::of([resource(ty, "a"), resource(ty, "xdstp://a/b/c")]))
    });
    Arc::new(all)
}
