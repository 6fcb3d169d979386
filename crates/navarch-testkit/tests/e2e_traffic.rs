//! What the configuration promises, as calls feel it: a stock Envoy that `navarch serve` configures stands
//! between this test and its backends. Nothing here reads a configuration.

mod traffic;

use anyhow::{Result, ensure};
use traffic::{changes, churn, edge::Edge, files, resilience, restarts, routing, tls};

/// Tries every capability, and fails with all that do not hold.
macro_rules! capabilities {
    ($edge:expr, $($capability:path),+ $(,)?) => {{
        let mut broken = Vec::new();
        $(if let Err(error) = $capability(&$edge).await {
            broken.push(format!("{}: {error:#}", stringify!($capability)));
        })+
        ensure!(broken.is_empty(), "{}", broken.join("\n"));
        $edge.nothing_rejected().await
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_do_what_they_say() -> Result<()> {
    let edge = Edge::new("traffic-routing", &[]).await?;
    capabilities!(
        edge,
        routing::weights,
        routing::header_match_and_header_changes,
        routing::subsets_choose_by_labels,
        routing::uri_rewrite,
        routing::redirect,
        routing::direct_response,
        routing::timeout,
        routing::retries,
        routing::fault_abort,
        routing::fault_delay,
        routing::mirroring,
        routing::cors_preflight,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancing_and_failures() -> Result<()> {
    let edge = Edge::new("traffic-resilience", &["--locality", "near/a/1"]).await?;
    capabilities!(
        edge,
        resilience::consistent_hashing,
        resilience::circuit_breaking,
        resilience::outlier_ejection,
        resilience::locality_failover,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn transport_security() -> Result<()> {
    let site = tls::Site::new("traffic-tls").await?;
    capabilities!(
        site,
        tls::termination_with_a_credential,
        tls::mutual_termination_asks_for_a_certificate,
        tls::redirect_to_https,
        tls::passthrough_by_sni,
        tls::origination,
        tls::rotation_without_a_lost_connection,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn transport_security_with_files() -> Result<()> {
    let files = files::Files::new("traffic-tls-files").await?;
    capabilities!(
        files,
        files::a_gateway_terminates_with_files_and_sees_that_they_change,
        files::a_gateway_asks_for_certificates_of_an_authority_in_a_file,
        files::origination_with_files,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_lose_nothing() -> Result<()> {
    let edge = Edge::new("traffic-changes", &[]).await?;
    capabilities!(
        edge,
        changes::routes_subsets_and_listeners_change_under_load,
        changes::endpoints_and_settings_change_under_load,
        changes::policies_change_under_load,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_lose_nothing() -> Result<()> {
    // Who comes back again and again before anything could be removed has much to lose at once.
    let mut edge = Edge::with("traffic-restarts", &[], &["--removals-max", "100"]).await?;
    let plan = restarts::Plan::from_environment()?;
    restarts::nothing_is_lost_when_the_server_restarts(&mut edge, plan).await?;
    edge.nothing_rejected().await
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_routes_lose_nothing() -> Result<()> {
    let edge = Edge::new("traffic-churn", &[]).await?;
    churn::nothing_is_lost_while_routes_and_services_change(&edge, churn::Plan::from_environment()?).await?;
    edge.nothing_rejected().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_of_routes_changes_and_loses_nothing() -> Result<()> {
    let mut edge = Edge::with("traffic-form", &[], &["--routes", "whole"]).await?;
    churn::nothing_is_lost_when_routes_are_to_be_split(&mut edge).await?;
    edge.nothing_rejected().await
}
