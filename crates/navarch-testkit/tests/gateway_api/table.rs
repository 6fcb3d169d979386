//! The table of features in `docs/gateway-api.md`.

use anyhow::{Context, Result, ensure};
use navarch_testkit::workspace;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const START: &str = "<!-- table of features -->\n";
const END: &str = "<!-- end of the table -->\n";

/// The features that no test here shows, and why.
const OTHERS: &[(&str, &str)] = &[
    ("GatewayAddressEmpty", "yes, with `--deploy-gateways`: `cargo xtask conformance`"),
    ("GatewayInfrastructurePropagation", "yes, with `--deploy-gateways`: `cargo xtask conformance`"),
    ("GatewayStaticAddresses", "yes, as hosts of Services: `cargo xtask conformance`"),
    (
        "MeshClusterIPMatching",
        "no: sidecars route by the host of a request, as Istio's do, whatever the address",
    ),
];

/// The profile that a feature belongs to, by its name.
fn profile(feature: &str) -> &'static str {
    match feature {
        feature if feature.starts_with("Mesh, GRPC") => "MESH-GRPC",
        feature if feature.starts_with("Mesh") => "MESH-HTTP",
        feature if feature.starts_with("GRPC") => "GATEWAY-GRPC",
        feature if feature.starts_with("TLS") => "GATEWAY-TLS",
        feature if feature.starts_with("TCP") => "GATEWAY-TCP",
        feature if feature.starts_with("UDP") => "GATEWAY-UDP",
        _ => "GATEWAY-HTTP",
    }
}

/// Compares the table with the tests, or writes it if goldens are rewritten.
pub fn check(shown: &[&[(&str, &str)]]) -> Result<()> {
    let path = workspace::root().join("docs/gateway-api.md");
    let text = std::fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(START).context("no table")?;
    let (stated, after) = rest.split_once(END).context("the table has no end")?;
    let table = table(shown);
    if std::env::var_os("NAVARCH_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{START}{table}{END}{after}"))?;
        return Ok(());
    }
    ensure!(
        stated == table,
        "the table in docs/gateway-api.md is not that of the tests: NAVARCH_UPDATE=1 writes it"
    );
    Ok(())
}

fn table(shown: &[&[(&str, &str)]]) -> String {
    let mut rows: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for (feature, test) in shown.iter().copied().flatten() {
        rows.insert((profile(feature), feature), format!("yes: `{test}`"));
    }
    for (feature, why) in OTHERS {
        rows.entry((profile(feature), feature)).or_insert_with(|| (*why).to_owned());
    }
    let mut text = String::from("\n| Profile | Feature | |\n|---|---|---|\n");
    for ((profile, feature), state) in rows {
        let _ = writeln!(text, "| {profile} | {feature} | {state} |");
    }
    text.push('\n');
    text
}
