//! The benchmark itself, small and short: every phase runs, everything arrives, everything is right. Times are not looked at.

use std::time::Duration;

use navarch_bench::{Axis, Kind, Protocol, Report, Settings, Shape, Target};

fn settings(shape: Shape, protocol: Protocol) -> Settings {
    Settings {
        shape,
        target: Target::Navarch {
            binary: navarch_testkit::navarch::binary().expect("the binary"),
            arguments: vec!["--debounce=10ms".to_owned()],
        },
        protocol,
        kinds: Kind::ALL.to_vec(),
        repeat: 2,
        churn: None,
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
    // Who comes back with what it holds is not sent everything again: clusters, listeners that did not change and routes stay.
    let reconnect = run.reconnect.as_ref().expect("a reconnect");
    assert!(reconnect.resources < run.cold.resources, "{}", report.text());
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
    // A line for each kind in each of two charts. Processor time may be too short to be seen, the delay never is.
    let svg = navarch_bench::curves(&report, Axis::Proxies);
    assert_eq!(svg.matches("<polyline").count(), 4);
    assert!(svg.matches("<circle").count() >= 4, "{svg}");
}
