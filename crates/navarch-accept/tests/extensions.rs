//! The table of extensions is what the pinned Envoy says of itself. `NAVARCH_UPDATE=1` (or `cargo xtask
//! golden --update`) rewrites it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use navarch_accept::extensions::TABLE;
use navarch_testkit::envoy::{Envoy, VERSION};
use serde_json::{Value, json};

#[tokio::test]
async fn the_golden_table_of_extensions_is_what_envoy_registers() -> Result<()> {
    let mut envoy = Envoy::start("extensions", json!({ "node": { "id": "a", "cluster": "a" } })).await?;
    envoy.wait_live().await?;
    let table = table(&envoy.config_dump().await?)?;
    if std::env::var_os("NAVARCH_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("tables/extensions.txt"), &table)?;
        return Ok(());
    }
    ensure!(table == TABLE, "Envoy registers other extensions: run `cargo xtask golden --update`");
    Ok(())
}

/// `<category> <name> [<type>,...]`, a line for each extension, below the version.
fn table(dump: &Value) -> Result<String> {
    let extensions = dump["configs"][0]["bootstrap"]["node"]["extensions"].as_array();
    let mut lines = BTreeSet::new();
    for extension in extensions.context("the node has no extensions")? {
        let text = |field: &str| extension[field].as_str().context("an extension without a name");
        let types = extension["type_urls"].as_array().into_iter().flatten();
        let types: BTreeSet<&str> = types.filter_map(Value::as_str).collect();
        let types: Vec<&str> = types.into_iter().collect();
        lines.insert(format!("{} {} {}", text("category")?, text("name")?, types.join(",")));
    }
    let lines: String = lines.iter().map(|line| format!("{}\n", line.trim_end())).collect();
    Ok(format!("Envoy {VERSION}\n{lines}"))
}
