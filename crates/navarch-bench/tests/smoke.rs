//! The benchmark itself, small and short: every phase runs, everything arrives, everything is right. Times
//! are not looked at.

use std::time::Duration;

use navarch_bench::{
    Axis, CertificateSettings, Kind, NameSettings, Protocol, Report, Settings, Shape, Target, certificates,
    names,
};

fn settings(shape: Shape, protocol: Protocol) -> Settings {
    Settings {
        shape,
        target: Target::Navarch {
            binary: navarch_testkit::navarch::binary().expect("the binary"),
            arguments: vec!["--debounce=10ms".to_owned()],
        },
        cluster: None,
        protocol,
        kinds: Kind::ALL.to_vec(),
        repeat: 2,
        churn: None,
        tls: false,
        reconnect: false,
        check_classes: 4,
        metadata: serde_json::Map::new(),
        directory: None,
        timeout: Duration::from_secs(120),
        curve: None,
    }
}

fn check(settings: &Settings, affected: &[usize]) -> Report {
    let report = navarch_bench::run(settings).expect("a report");
    assert!(report.correct(), "{}", report.text());
    for run in &report.runs {
        assert_eq!(run.check.proxies, run.shape.proxies, "{}", report.text());
        assert_eq!(run.check.planned, run.shape.classes.min(settings.check_classes), "{}", report.text());
        assert_eq!(run.broken_connections, 0, "{}", report.text());
        assert!(run.cold.resources as usize > run.shape.proxies, "{}", report.text());
        let counts: Vec<usize> = run.changes.iter().map(|change| change.affected).collect();
        assert_eq!(counts, affected, "{}", report.text());
        for change in &run.changes {
            assert_eq!(change.to_ack.samples, change.affected * change.repeats, "{}", report.text());
        }
    }
    report
}

#[test]
fn every_phase_with_delta() {
    let settings = Settings {
        churn: Some((20.0, Duration::from_secs(1))),
        reconnect: true,
        ..settings(Shape::small(), Protocol::Delta)
    };
    let report = check(&settings, &[50; 5]);
    let run = report.runs.first().expect("one run");
    assert_eq!(run.churn.as_ref().map(|churn| churn.changes), Some(20));
    assert!(run.churn.as_ref().is_some_and(|churn| churn.samples.len() >= 2));
    // Who comes back with what it holds is sent what was changed meanwhile, and nothing else.
    let reconnect = run.reconnect.as_ref().expect("a reconnect");
    assert!(reconnect.resources * 10 < run.cold.resources, "{}", report.text());
}

#[test]
fn namespaces_with_state_of_the_world_along_a_curve() {
    let shape = Shape { namespaces: 2, classes: 2, scoped: true, ..Shape::small() };
    let settings = Settings {
        curve: Some((Axis::Proxies, vec![4, 10])),
        kinds: vec![Kind::Endpoint, Kind::Policy],
        ..settings(shape, Protocol::Sotw)
    };
    let report = navarch_bench::run(&settings).expect("a report");
    assert!(report.correct(), "{}", report.text());
    let affected: Vec<_> = report.runs.iter().flat_map(|run| &run.changes).map(|c| c.affected).collect();
    assert_eq!(affected, [2, 2, 5, 5]);
    // A line for each kind in each of two charts. Processor time may be too short to be seen, the delay never
    // is.
    let svg = navarch_bench::curves(&report, Axis::Proxies);
    assert_eq!(svg.matches("<polyline").count(), 4);
    assert!(svg.matches("<circle").count() >= 4, "{svg}");
}

#[test]
fn over_mutual_tls() {
    let settings = Settings {
        tls: true,
        kinds: vec![Kind::Endpoint],
        reconnect: true,
        ..settings(Shape { namespaces: 2, scoped: true, ..Shape::small() }, Protocol::Delta)
    };
    check(&settings, &[25]);
}

/// A server that was started by somebody else, and that gets its configuration by commands: another navarch.
#[test]
fn a_server_that_runs_is_measured_as_well() {
    let free = || navarch_testkit::ports::free_port().expect("a port");
    let (xds, admin) = (free(), free());
    let directory = navarch_testkit::workspace::scratch("bench-target").expect("a directory").join("config");
    std::fs::create_dir_all(&directory).expect("created");
    let mut server = std::process::Command::new(navarch_testkit::navarch::binary().expect("the binary"))
        .args(["serve", "--log-level", "error", "--debounce", "10ms", "--config"])
        .arg(&directory)
        .args(["--xds-addr", &format!("127.0.0.1:{xds}"), "--admin-addr", &format!("127.0.0.1:{admin}")])
        .spawn()
        .expect("started");
    let to = directory.display();
    let settings = Settings {
        target: Target::Running {
            address: ([127, 0, 0, 1], xds).into(),
            pid: server.id(),
            load_command: Some(format!("cp -r \"$BENCH_CONFIG/.\" '{to}' && sleep 1")),
            change_command: Some(format!(
                "cd \"$BENCH_CONFIG\" && cp --parents \"${{BENCH_FILE#$BENCH_CONFIG/}}\" '{to}'"
            )),
        },
        kinds: vec![Kind::Endpoint, Kind::Service],
        ..settings(Shape::small(), Protocol::Delta)
    };
    let report = navarch_bench::run(&settings);
    server.kill().expect("killed");
    server.wait().expect("ended");
    let report = report.expect("a report");
    assert!(report.correct(), "{}", report.text());
    let run = report.runs.first().expect("one run");
    assert_eq!((run.check.proxies, run.check.planned), (50, 0), "{}", report.text());
    assert!(run.changes.iter().all(|change| change.to_ack.samples == 100), "{}", report.text());
}

#[test]
fn who_asks_for_a_certificate_gets_one() {
    for mutual in [false, true] {
        let report = certificates(&CertificateSettings {
            binary: navarch_testkit::navarch::binary().expect("the binary"),
            arguments: Vec::new(),
            identities: 3,
            connections: 4,
            requests: 40,
            rate: None,
            mutual,
        });
        let report = report.expect("a report");
        assert_eq!((report.requests, report.failed), (40, 0), "{:?}", report.failure);
    }
}

#[test]
fn an_agent_with_names_answers_for_them() {
    let agent = navarch_testkit::navarch::agent().expect("the binary");
    let report = names(&NameSettings { agent, names: 3000, questions: 500, rate: 1000.0 });
    let report = report.expect("a report");
    assert_eq!((report.questions, report.failed), (500, 0));
    assert!(report.private_kb_without > 0 && report.peak_kb >= report.private_kb, "{report:?}");
}

#[test]
fn a_gateway_whose_routes_change_beside_a_former_report() {
    let shape = Shape { services: 10, endpoints: 10, routes: 20, ..Shape::gateway() };
    let kinds = vec![Kind::Route, Kind::Endpoint, Kind::Service];
    let report = check(&Settings { kinds, ..settings(shape, Protocol::Delta) }, &[1; 3]);
    let route = report.runs.first().and_then(|run| run.changes.first()).expect("a change");
    assert_eq!((route.responses, route.resources), (1.0, 1.0), "one host is sent\n{}", report.text());
    let former = serde_json::to_string(&report).expect("JSON");
    let beside = navarch_bench::beside(&report, &former).expect("runs of one shape");
    let rows: Vec<&str> = beside.lines().filter(|line| line.starts_with("route, kB")).collect();
    assert!(rows.len() == 1 && rows.iter().all(|row| row.ends_with(" 1.00")), "{beside}");
    for wrong in ["", "{}", &former.replace("\"routes\":20", "\"routes\":21")] {
        assert!(navarch_bench::beside(&report, wrong).is_err(), "{wrong}");
    }
}
