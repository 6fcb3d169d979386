//! `navarch await-ready`: holds an application back until the proxy beside it is ready.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use navarch_agent_cli::values::parse_duration;

/// How often the proxy is asked.
const POLL: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct AwaitReadyArgs {
    /// Where readiness is asked for
    #[arg(long, default_value = "http://127.0.0.1:15021/healthz/ready")]
    url: hyper::Uri,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Asks until the answer is 200.
pub async fn run(args: AwaitReadyArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let request = Request::get(&args.url).body(Empty::new()).context("this is not a URL")?;
        let left = args.timeout.saturating_sub(started.elapsed());
        let asked = tokio::time::timeout(left, client.request(request)).await;
        let said = match asked {
            Ok(Ok(answer)) if answer.status().is_success() => return Ok(ExitCode::SUCCESS),
            Ok(Ok(answer)) => answer.status().to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if started.elapsed() >= args.timeout {
            bail!("the proxy is not ready after {:?}: {} says {said}", args.timeout, args.url);
        }
        tokio::time::sleep(POLL).await;
    }
}
