//! The static way: what `navarch render` prints is run by a stock Envoy with no control plane.

mod common;

use anyhow::Result;
use common::{Fixture, METADATA, NODE};
use navarch_testkit::{
    envoy::{Bootstrap, Envoy},
    navarch,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_rendered_configuration_routes_traffic() -> Result<()> {
    let fixture = Fixture::new("static").await?;
    let mut args = vec!["render", "--node-id", NODE, "--admin-port", "0", "--config"];
    let config = fixture.config.display().to_string();
    args.push(&config);
    let metadata: Vec<String> = METADATA.iter().map(|(key, value)| format!("{key}={value}")).collect();
    args.extend(metadata.iter().flat_map(|pair| ["--metadata", pair]));
    let text = navarch::stdout(args)?;

    let file = fixture.config.with_file_name("static.json");
    std::fs::write(&file, text)?;
    // Exactly what a user would type: `envoy -c static.json`.
    let mut envoy = Envoy::start("static-envoy", Bootstrap::Exact(file)).await?;
    envoy.wait_live().await?;
    assert_eq!(fixture.version().await?, "v1");
    Ok(())
}
