//! What is beside discovery: status, load reports, questions; and removals and restarts over real
//! connections.

use super::*;

#[tokio::test]
async fn ops_04_and_ops_05_sync_status_is_answered_once_and_per_namespace() {
    use navarch_envoy::proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
    let running = start(settings()).await;
    let of = |id: &str, namespace: &str| {
        let kind = Some(prost_types::value::Kind::StringValue(namespace.to_owned()));
        let fields = [("NAMESPACE".to_owned(), prost_types::Value { kind })];
        let metadata = Some(prost_types::Struct { fields: fields.into_iter().collect() });
        node(id).map(|node| WireNode { metadata, ..node })
    };
    let mut proxies = Vec::new();
    for (id, namespace) in [("a", "default"), ("b", "other")] {
        let mut proxy: Sotw = running.open(SOTW).await.expect("a stream");
        proxy.send(DiscoveryRequest { node: of(id, namespace), ..ask(XdsType::Cds, id) });
        proxy.next().await.expect("clusters");
        proxies.push(proxy);
    }
    for (namespace, expected) in [("istio-system", vec!["a", "b"]), ("default", vec!["a"])] {
        let mut asking: Sotw = running.open(SOTW).await.expect("a stream");
        let request = DiscoveryRequest {
            type_url: SYNCZ.into(),
            node: of("istioctl", namespace),
            ..Default::default()
        };
        asking.send(request.clone());
        let answer = asking.next().await.expect("an answer");
        let configs: Vec<_> = answer
            .resources
            .iter()
            .map(|any| ClientConfig::decode(any.value.clone()).expect("a client config"))
            .collect();
        let ids: Vec<_> =
            configs.iter().filter_map(|config| config.node.as_ref()).map(|node| node.id.clone()).collect();
        assert_eq!(ids, expected);
        assert_eq!(configs[0].generic_xds_configs[0].config_status, i32::from(ConfigStatus::Stale));
        assert_eq!(answer.control_plane.expect("a control plane").identifier, "replica-1");
        asking.send(DiscoveryRequest { response_nonce: answer.nonce, ..request });
        assert!(asking.is_quiet().await);
    }
}

#[tokio::test]
async fn ops_03_client_status_service_answers_for_every_visible_stream() {
    use navarch_envoy::proto::envoy::service::status::v3::{
        ClientStatusRequest, ClientStatusResponse, ConfigStatus,
    };
    let running = start(settings()).await;
    let mut proxies = Vec::new();
    for id in ["a", "hidden", "b"] {
        let mut proxy: Sotw = running.open(SOTW).await.expect("a stream");
        proxy.send(ask(XdsType::Cds, id));
        proxy.next().await.expect("clusters");
        proxies.push(proxy);
    }
    for method in ["StreamClientStatus", "FetchClientStatus"] {
        let path: &'static str = match method {
            "StreamClientStatus" => {
                "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus"
            }
            _ => "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus",
        };
        let mut asking: Open<ClientStatusRequest, ClientStatusResponse> =
            running.open(path).await.expect("a stream");
        asking.send(ClientStatusRequest::default());
        let answer = asking.next().await.expect("an answer");
        let shown: Vec<_> = answer
            .config
            .iter()
            .map(|config| {
                let id = config.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
                (id, config.generic_xds_configs.len(), config.generic_xds_configs[0].config_status)
            })
            .collect();
        let stale = i32::from(ConfigStatus::Stale);
        assert_eq!(shown, [("a".to_owned(), 1, stale), ("b".to_owned(), 1, stale)], "{method}");
    }
}

#[tokio::test]
async fn ops_01_and_ops_02_load_reports_are_asked_for_once_and_kept_while_the_node_reports() {
    use navarch_envoy::proto::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
    use navarch_envoy::proto::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
    const LRS: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
    let running = start(Settings { load_report_interval: Duration::from_secs(7), ..settings() }).await;
    let nameless: Result<Open<LoadStatsRequest, LoadStatsResponse>, _> = running.open(LRS).await;
    let mut nameless = nameless.expect("a stream");
    nameless.send(LoadStatsRequest::default());
    assert_eq!(nameless.code().await, Code::InvalidArgument);

    let mut stream: Open<LoadStatsRequest, LoadStatsResponse> = running.open(LRS).await.expect("a stream");
    stream.send(LoadStatsRequest { node: node("n"), ..Default::default() });
    let answer = stream.next().await.expect("an answer");
    assert!(answer.send_all_clusters && answer.clusters.is_empty());
    assert_eq!(answer.load_reporting_interval.map(|interval| interval.seconds), Some(7));
    let locality = |good, bad| UpstreamLocalityStats {
        total_successful_requests: good,
        total_error_requests: bad,
        ..Default::default()
    };
    let report = |good| LoadStatsRequest {
        cluster_stats: vec![ClusterStats {
            cluster_name: "c".into(),
            upstream_locality_stats: vec![locality(good, 1), locality(2, 0)],
            total_dropped_requests: 4,
            ..Default::default()
        }],
        ..Default::default()
    };
    let seen = || {
        let loads = running.loads.get();
        let load = loads.get("n").and_then(|node| node.get("c"));
        load.map(|load| (load.succeeded, load.failed, load.dropped))
    };
    stream.send(report(10));
    eventually("a report", || seen() == Some((12, 1, 4))).await;
    stream.send(report(3));
    eventually("a newer report", || seen() == Some((5, 1, 4))).await;
    assert!(stream.is_quiet().await);
    // A second stream of the node, as in a hot restart. The end of one leaves the reports of the other.
    let mut second: Open<LoadStatsRequest, LoadStatsResponse> = running.open(LRS).await.expect("a stream");
    second.send(LoadStatsRequest { node: node("n"), ..Default::default() });
    second.next().await.expect("an answer");
    second.send(report(20));
    eventually("a newer report", || seen() == Some((22, 1, 4))).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(seen(), Some((22, 1, 4)));
    drop(second);
    eventually("forgotten", || running.loads.get().is_empty()).await;
}

#[tokio::test]
async fn ops_03_client_status_of_the_nodes_that_are_asked_for() {
    use navarch_envoy::proto::envoy::service::status::v3::{ClientStatusRequest, ClientStatusResponse};
    use navarch_envoy::proto::envoy::r#type::matcher::v3::{
        NodeMatcher, RegexMatcher, StringMatcher, string_matcher::MatchPattern,
    };
    const CSDS: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
    let running = start(settings()).await;
    let mut proxies = Vec::new();
    for id in ["a1", "a2", "b1"] {
        let mut proxy: Sotw = running.open(SOTW).await.expect("a stream");
        proxy.send(ask(XdsType::Cds, id));
        proxy.next().await.expect("clusters");
        proxies.push(proxy);
    }
    let ask = |pattern| {
        let node_id = Some(StringMatcher { ignore_case: false, match_pattern: Some(pattern) });
        let node_matchers = vec![NodeMatcher { node_id, node_metadatas: Vec::new() }];
        ClientStatusRequest { node_matchers, ..Default::default() }
    };
    let regex =
        |regex: &str| MatchPattern::SafeRegex(RegexMatcher { regex: regex.into(), engine_type: None });
    for (pattern, expected) in [
        (MatchPattern::Exact("b1".into()), vec!["b1"]),
        (MatchPattern::Prefix("a".into()), vec!["a1", "a2"]),
        (regex(".2"), vec!["a2"]),
    ] {
        let mut asking: Open<ClientStatusRequest, ClientStatusResponse> =
            running.open(CSDS).await.expect("a stream");
        asking.send(ask(pattern));
        let answer = asking.next().await.expect("an answer");
        let ids = answer.config.iter().filter_map(|config| Some(config.node.as_ref()?.id.as_str()));
        assert_eq!(ids.collect::<Vec<_>>(), expected);
    }
    let mut asking: Open<ClientStatusRequest, ClientStatusResponse> =
        running.open(CSDS).await.expect("a stream");
    asking.send(ask(regex("(")));
    assert_eq!(asking.code().await, Code::InvalidArgument);
}

#[tokio::test]
async fn ops_04_questions_over_delta_and_questions_that_are_not_for_the_client() {
    let running = start(settings()).await;
    let mut proxy: Delta = running.open(DELTA).await.expect("a stream");
    proxy.send(ask_delta(XdsType::Cds, "a"));
    proxy.next().await.expect("clusters");
    let mut nonces = Vec::new();
    let mut asking: Delta = running.open(DELTA).await.expect("a stream");
    for _ in 0..2 {
        let request =
            DeltaDiscoveryRequest { type_url: SYNCZ.into(), node: node("cli"), ..Default::default() };
        asking.send(request.clone());
        let answer = asking.next().await.expect("an answer");
        assert_eq!(answer.type_url, SYNCZ);
        assert_eq!(answer.resources.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["a"]);
        nonces.push(answer.nonce.clone());
        asking.send(DeltaDiscoveryRequest { response_nonce: answer.nonce, ..request });
        assert!(asking.is_quiet().await);
    }
    assert_ne!(nonces[0], nonces[1]);
    let forbidden = DeltaDiscoveryRequest { type_url: "forbidden".into(), ..Default::default() };
    asking.send(forbidden);
    assert_eq!(asking.code().await, Code::Unauthenticated);
}

#[tokio::test]
async fn rmv_01_held_removals_go_when_they_are_confirmed() {
    let brake = Brake { percent_max: 50, removals_min: 2, hold: Duration::from_secs(600) };
    let running = start(Settings { brake: Some(brake), ..settings() }).await;
    let listeners = |revision, names: &[&str]| {
        let set = ResourceSet::of(names.iter().map(|name| named(XdsType::Lds, name, 10)));
        Arc::new(ProxyResources::new(revision).with(XdsType::Lds, set))
    };
    running.class.publish(listeners(2, &["a", "b", "c"]));
    let mut stream: Delta = running.open(DELTA).await.expect("a stream");
    stream.send(ask_delta(XdsType::Lds, "n"));
    let answer = stream.next().await.expect("listeners");
    let ask = ask_delta(XdsType::Lds, "n");
    stream.send(DeltaDiscoveryRequest { response_nonce: answer.nonce, ..ask });
    running.class.publish(listeners(3, &[]));
    let registry = running.registry();
    eventually("held", || registry.holding() == 1).await;
    assert!(stream.is_quiet().await);
    assert_eq!(registry.confirm_removals(2), 0);
    assert_eq!(registry.confirm_removals(3), 1);
    assert_eq!(stream.next().await.expect("removals").removed_resources, ["a", "b", "c"]);
    // What is meant is meant for those who come later, too.
    let mut late: Delta = running.open(DELTA).await.expect("a stream");
    let held = ["a", "b", "c"].map(|name| (name.to_owned(), "x".to_owned())).into_iter().collect();
    late.send(DeltaDiscoveryRequest { initial_resource_versions: held, ..ask_delta(XdsType::Lds, "n") });
    assert_eq!(late.next().await.expect("removals").removed_resources, ["a", "b", "c"]);
}

/// Clients take a resource for absent 15 seconds after they asked. A restarted server, to which everybody
/// returns within a moment, must be far from that also for the last one.
#[tokio::test]
async fn rmv_10_first_answers_after_a_restart_come_long_before_the_clients_give_up() {
    const CLIENTS: usize = 400;
    // Half of them wait for their turn, and nobody is refused: no wait is longer than this.
    let settings = Settings { streams_per_second: 200.0, ..settings() };
    assert!(settings.admission_wait_max < Duration::from_secs(15) / 2);
    let running = start(settings).await;
    let clusters: Vec<_> = (0..300).map(|n| named(XdsType::Cds, &format!("cluster-{n}"), 200)).collect();
    let plan = ProxyResources::new(2).with(XdsType::Cds, ResourceSet::of(clusters));
    running.class.publish(Arc::new(plan));
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(running.channel().await);
    }
    let client = async |channel: Channel, id: String| {
        let mut stream: Delta = open(channel, DELTA).await.expect("admitted");
        stream.send(ask_delta(XdsType::Cds, &id));
        let answer = stream.next().await.expect("an answer");
        assert_eq!(answer.resources.len(), 300);
        stream
    };
    let all = (0..CLIENTS).map(|n| tokio::spawn(client(channels[n % 10].clone(), format!("n{n}"))));
    let mut streams = Vec::new();
    for task in all.collect::<Vec<_>>() {
        streams.push(task.await.expect("answered"));
    }
    assert_eq!(running.registry().len(), CLIENTS);
}
