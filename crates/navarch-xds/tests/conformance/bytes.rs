//! Whatever bytes a client sends, the stream does not panic and comes to rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use navarch_envoy::XdsType;
use navarch_xds::{ClassMemory, ClientRules, Node, Protocol, Request, Stream};
use proptest::prelude::*;

use crate::client::Plan;

/// Fields of a request with the type first, so that most of what is made up is looked at, and then anything.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof!["[a-c*]", "1\\.[0-9]", "xdstp://[a-c]{0,3}/[a-c*?&=/]{0,8}", ".{0,6}"];
    let field = (1..10u8, text).prop_map(|(number, text)| {
        let mut field = vec![number << 3 | 2, u8::try_from(text.len()).unwrap_or(0)];
        field.extend(text.bytes().take(usize::from(field[1])));
        field
    });
    let fields = prop::collection::vec(field, 0..6);
    (fields, prop::collection::vec(any::<u8>(), 0..4), any::<bool>()).prop_map(|(fields, rest, with_rest)| {
        let mut bytes = fields.concat();
        if with_rest {
            bytes.extend(rest);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(
        requests in prop::collection::vec((request(), 0..XdsType::COUNT), 1..30),
    ) {
        for protocol in [Protocol::Sotw, Protocol::Delta] {
            let node = Node { id: "n".into(), user_agent_name: "envoy".into(), ..Node::default() };
            let mut stream = Stream::new(1, protocol, ClientRules::of(&node), Arc::new(ClassMemory::default()));
            let mut plan = Plan::default();
            let mut now = Instant::now();
            for (step, (bytes, ty)) in requests.iter().enumerate() {
                if step % 3 == 0 {
                    stream.resources(plan.set(&format!("CDS a{step} | EDS a{step} b1 | LDS c{step} | RDS c1")));
                }
                let Ok(mut request) = Request::decode(protocol, Bytes::from(bytes.clone())) else { continue };
                if let Some(ty) = XdsType::ALL.get(*ty) {
                    ty.type_url().clone_into(&mut request.type_url);
                }
                stream.request(request, now);
                let sent = (0..1000).take_while(|_| stream.poll(now).is_some()).count();
                prop_assert!(sent < 1000, "the stream does not stop sending");
                now += Duration::from_secs(1);
            }
        }
    }

    #[test]
    fn any_wire_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        crate::wire::run(&bytes);
    }
}
