//! Pages of Envoy, where labels are what peers have said of themselves, and these sayings.

use navarch_agent::status::standard::Standard;
use navarch_agent::workload::Workload;

/// Lines of a page.
pub const PAGE: &str = r#"# TYPE envoy_istiocustom_istio_requests_total counter
envoy_istiocustom_istio_requests_total{navarch_reporter="destination",navarch_service="[{\"host\":\"a\"}]",navarch_principals="a b",navarch_peer="CggKAUEaAxoBYg==",navarch_removed="x,y"} 1
# TYPE envoy_istiocustom_x histogram
envoy_istiocustom_x_bucket{navarch_reporter="source",navarch_peer="a;b;c;d;e",le="0.5"} 1
envoy_istiocustom_x_sum{navarch_reporter="source",navarch_peer="a;b;c;d;e"} 1
"#;

pub fn run(data: &[u8]) {
    let Some((way, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match way % 2 {
        0 => page(&text),
        _ => {
            let _ = Workload::of_endpoint(&text);
            let Some(said) = Workload::of_header(&text) else { return };
            // What is said again is understood as it was.
            assert_eq!(Workload::of_header(&said.to_header()), Some(said));
        }
    }
}

fn page(text: &str) {
    let own = Workload::of_endpoint("a;b;c;d;e").unwrap_or_default();
    let mut standard = Standard::new(&own);
    let taken = text.lines().filter(|line| standard.takes(line)).count();
    let mut written = String::new();
    standard.write(&mut written);
    assert!(taken > 0 || written.is_empty(), "{written}");
    // Nobody can add a line, and so a metric of somebody else, by what he says.
    for line in written.lines() {
        assert!(line.starts_with("# TYPE ") || line.contains('{'), "{line}");
    }
}
