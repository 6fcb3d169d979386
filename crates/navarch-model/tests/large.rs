//! Objects are as large as their authors like. Reading one may take time in proportion to its size, and no
//! more: with quadratic work, each of these would take minutes.

use navarch_model::{Parsed, parse_text};

const MANY: usize = 20_000;

fn parse(kind: &str, api: &str, spec: String) -> Parsed {
    parse_text("large", &format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n{spec}"))
}

fn many(line: impl Fn(usize) -> String) -> String {
    (0..MANY).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn hosts_and_routes() {
    let hosts = many(|n| format!("  - h{n}.example.com"));
    let routes = many(|n| {
        format!(
            "  - {{match: [{{uri: {{prefix: /{n}/}}}}], route: [{{destination: {{host: h{n}.example.com}}}}]}}"
        )
    });
    let spec = format!("  hosts:\n{hosts}\n  http:\n{routes}\n");
    let parsed = parse("VirtualService", "networking.istio.io/v1", spec);
    assert_eq!((parsed.objects.len(), parsed.findings.len()), (1, 0));
}

#[test]
fn server_names() {
    let hosts = many(|n| format!("  - h{n}.example.com"));
    let names = many(|n| format!("      - h{n}.example.com"));
    let spec = format!(
        "  hosts:\n{hosts}\n  tls:\n  - match:\n    - sniHosts:\n{names}\n    route: [{{destination: {{host: a}}}}]\n"
    );
    let parsed = parse("VirtualService", "networking.istio.io/v1", spec);
    assert_eq!((parsed.objects.len(), parsed.findings.len()), (1, 0));
}

#[test]
fn egress_hosts() {
    let hosts = many(|n| format!("    - n{n}/*"));
    let parsed = parse("Sidecar", "networking.istio.io/v1", format!("  egress:\n  - hosts:\n{hosts}\n"));
    assert_eq!((parsed.objects.len(), parsed.findings.len()), (1, 0));
}

/// A broken object is described up to a point, and is refused all the same.
#[test]
fn unknown_fields_and_wrong_values() {
    let parsed = parse(
        "DestinationRule",
        "networking.istio.io/v1",
        format!("  host: a\n{}", many(|n| format!("  x{n}: 1"))),
    );
    assert_eq!((parsed.objects.len(), parsed.findings.len()), (1, 101));
    assert!(parsed.findings.iter().any(|finding| finding.message == "19900 more problems are not shown"));

    let subsets = many(|_| "  - {name: x.y}".to_owned());
    let parsed =
        parse("DestinationRule", "networking.istio.io/v1", format!("  host: a\n  subsets:\n{subsets}"));
    assert_eq!((parsed.objects.len(), parsed.rejected.len(), parsed.findings.len()), (0, 1, 101));

    let spec = format!("{}\n  subsets: 7", many(|n| format!("  x{n}: 1")));
    let parsed = parse("DestinationRule", "networking.istio.io/v1", spec);
    assert_eq!((parsed.objects.len(), parsed.rejected.len()), (0, 1));
}

#[test]
fn repeated_keys() {
    let parsed = parse(
        "DestinationRule",
        "networking.istio.io/v1",
        format!("  host: a\n{}", many(|_| "  host: b".to_owned())),
    );
    assert_eq!((parsed.rejected.len(), parsed.findings.len()), (1, 100));
}
