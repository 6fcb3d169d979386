//! How commands that stay log.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged, and how
#[derive(Args)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,navarch_xds=debug
    #[arg(long, default_value = "info", env = "NAVARCH_LOG_LEVEL")]
    log_level: String,
    /// How logs are written
    #[arg(long, default_value = "text", env = "NAVARCH_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl LogArgs {
    /// Logs to standard error from now on.
    pub fn init(&self) -> Result<()> {
        let filter = log_filter(&self.log_level)?;
        // Standard error may be a pipe whose reader has gone; that is not a reason to stop serving.
        let logs = layer().with_writer(std::io::stderr).log_internal_errors(false);
        let filtered = registry().with(filter);
        match self.log_format {
            LogFormat::Text => filtered.with(logs.with_ansi(std::io::stderr().is_terminal())).init(),
            LogFormat::Json => filtered.with(logs.json()).init(),
        }
        Ok(())
    }
}

/// What `--log-level` says. Of the client of API servers nothing unless it is named: it calls every attempt
/// that fails an error, without saying of what; `navarch_kubernetes` says it once, with the reason.
///
/// A lone word that is not a level would be taken as the name of a part of the program, and silence all
/// others.
///
/// `EnvFilter` also knows of spans and their fields, of which there are none here, and brings regular
/// expressions, which every agent would have in memory.
fn log_filter(text: &str) -> Result<Targets> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        let names_a_target = directive.contains(['=', ':']);
        if !names_a_target && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive)) {
            bail!("--log-level {directive} is not one of {}; for one part: name=debug", LEVELS.join(", "));
        }
    }
    format!("kube_client=off,{text}")
        .parse()
        .with_context(|| format!("--log-level {text} is not a level or a filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_does_not_exist_is_not_taken_for_a_part_of_the_program() {
        for (text, usable) in [
            ("info", true),
            ("WARN", true),
            ("info,navarch_xds=debug", true),
            ("navarch_xds=debug", true),
            ("off", true),
            ("loud", false),
            ("info,loud", false),
            ("", false),
            ("info=loud", false),
        ] {
            assert_eq!(log_filter(text).is_ok(), usable, "{text}");
        }
    }

    #[test]
    fn the_client_of_api_servers_is_silent_unless_it_is_named() {
        for (text, said) in [("info", "kube_client=off"), ("info,kube_client=warn", "kube_client=warn")] {
            let filter = log_filter(text).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == said), "{filter}");
            assert_eq!(filter.matches("kube_client").count(), 1, "{filter}");
        }
    }
}
