use serde_json::{Value as Json, json};

use super::*;
use crate::json::{from_json, to_json};
use crate::proto::envoy::config::cluster::v3::Cluster;
use crate::wkt;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

/// `patch` merged into `base`, both clusters, gives `expected`.
fn check_merge(lists: Lists, base: Json, patch: Json, expected: Json) {
    let mut merged = from_json(CLUSTER, &base).unwrap();
    merge(&mut merged, &from_json(CLUSTER, &patch).unwrap(), lists).unwrap();
    assert_eq!(to_json(CLUSTER, &encode(&merged)), expected, "{base} + {patch}");
}

#[test]
fn merges_by_kind_of_field() {
    for (base, patch, expected) in [
        (
            json!({ "name": "a", "altStatName": "b" }),
            json!({ "name": "c" }),
            json!({ "altStatName": "b", "name": "c" }),
        ),
        (
            json!({ "connectTimeout": "1s" }),
            json!({ "connectTimeout": "0.5s" }),
            json!({ "connectTimeout": "0.500s" }),
        ),
        (
            json!({ "outlierDetection": { "consecutive5xx": 1, "interval": "1s" } }),
            json!({ "outlierDetection": { "consecutive5xx": 2 } }),
            json!({ "outlierDetection": { "consecutive5xx": 2, "interval": "1s" } }),
        ),
        (
            json!({ "metadata": { "filterMetadata": { "a": { "x": 1 }, "b": {} } } }),
            json!({ "metadata": { "filterMetadata": { "a": { "y": 2 } } } }),
            json!({ "metadata": { "filterMetadata": { "a": { "y": 2 }, "b": {} } } }),
        ),
        (
            json!({ "type": "EDS" }),
            json!({ "clusterType": { "name": "x" } }),
            json!({ "clusterType": { "name": "x" } }),
        ),
        // Istio's quirk: a wrapper's default value is not seen.
        (
            json!({ "respectDnsTtl": true, "perConnectionBufferLimitBytes": 5 }),
            json!({ "perConnectionBufferLimitBytes": 0 }),
            json!({ "respectDnsTtl": true, "perConnectionBufferLimitBytes": 5 }),
        ),
        (json!({}), json!({ "commonLbConfig": {} }), json!({ "commonLbConfig": {} })),
    ] {
        check_merge(Lists::Append, base.clone(), patch.clone(), expected.clone());
        check_merge(Lists::Replace, base, patch, expected);
    }
}

#[test]
fn lists_append_or_replace() {
    let thresholds = |retries: &[u32]| {
        let items: Vec<Json> = retries.iter().map(|max| json!({ "maxRetries": max })).collect();
        json!({ "circuitBreakers": { "thresholds": items } })
    };
    check_merge(Lists::Append, thresholds(&[1]), thresholds(&[2]), thresholds(&[1, 2]));
    check_merge(Lists::Replace, thresholds(&[1]), thresholds(&[2]), thresholds(&[2]));
}

#[test]
fn refuses_another_type() {
    let mut base = from_json(CLUSTER, &json!({})).unwrap();
    let patch = from_json("envoy.config.listener.v3.Listener", &json!({})).unwrap();
    assert!(matches!(merge(&mut base, &patch, Lists::Append), Err(DynamicError::Mismatch { .. })));
    assert!(matches!(decode("x.Y", b""), Err(DynamicError::Type(_))));
    assert!(matches!(decode(CLUSTER, &[0xff]), Err(DynamicError::Payload { .. })));
}

#[test]
fn merges_packed_messages() {
    let packed = |json: Json| {
        let value = encode(&from_json(CLUSTER, &json).unwrap());
        Any { type_url: crate::any::type_url::<Cluster>(), value }
    };
    let base = packed(json!({ "name": "a", "altStatName": "b" }));
    let merged = merge_any(&base, &packed(json!({ "name": "c" })), Lists::Append).unwrap();
    assert_eq!(merged, packed(json!({ "name": "c", "altStatName": "b" })));

    let router = crate::proto::envoy::extensions::filters::http::router::v3::Router::default();
    let other = merge_any(&base, &crate::any::any(&router), Lists::Append);
    assert!(matches!(other, Err(DynamicError::Mismatch { .. })));
}

#[test]
fn keeps_fields_that_no_descriptor_knows() {
    // Field 1000, a varint.
    let unknown = [0xc0, 0x3e, 0x07];
    let mut base = decode(CLUSTER, b"\x0a\x01a").unwrap();
    merge(&mut base, &decode(CLUSTER, &unknown).unwrap(), Lists::Append).unwrap();
    assert!(encode(&base).windows(3).any(|bytes| bytes == unknown));
}

#[test]
fn encodes_maps_in_the_order_of_their_keys() {
    let fields = |count| {
        (0..count).map(|index| {
            (format!("key-{index:02}"), wkt::object([("b", wkt::number(1.0)), ("a", wkt::boolean(true))]))
        })
    };
    let cluster = Cluster {
        name: "a".to_owned(),
        metadata: Some(wkt::metadata("istio", wkt::structure(fields(40)))),
        ..Cluster::default()
    };
    let dynamic = from_typed(&cluster).unwrap();
    assert_eq!(encode(&dynamic), crate::any::any(&cluster).value);

    // The same inside a list, and with fields that are unknown.
    let patch =
        json!({ "transportSocketMatches": [{ "name": "x", "match": { "c": 1, "b": 2, "a": 3, "d": 4 } }] });
    let mut message = from_json(CLUSTER, &patch).unwrap();
    message.merge([0xc0, 0x3e, 0x07].as_slice()).unwrap();
    let bytes = encode(&message);
    for _ in 0..20 {
        assert_eq!(encode(&decode(CLUSTER, &bytes).unwrap()), bytes);
    }
    assert_eq!(decode(CLUSTER, &bytes).unwrap(), message);
}
