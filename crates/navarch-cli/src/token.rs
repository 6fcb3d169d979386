//! `navarch token`: how machines without Kubernetes get their first certificate.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use navarch_agent_cli::join::Join;
use navarch_agent_cli::output::{self, Format};
use navarch_agent_cli::values::parse_duration;
use navarch_identity::Timestamp;
use navarch_identity::tokens::join::{JoinTokens, Listed};
use navarch_model::SpiffeId;

use crate::ca::StateArgs;
use crate::table;

/// Tokens with which machines get their first certificate
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token for a service account, and print it
    ///
    /// It is shown once. Whoever has it gets certificates of that service account until it ends; with --once
    /// one certificate. What it is good for, and who used it when, is in audit.jsonl in the state directory.
    #[command(
        after_help = "Examples:\n  navarch token create --state /var/lib/navarch -n shop --service-account reviews --ttl 10m --once > token\n  navarch token create --state /var/lib/navarch -n shop --service-account reviews --join navarch.example.com:15012 > join"
    )]
    Create(CreateArgs),
    /// List the tokens that were made
    List(ListArgs),
    /// Make a token worthless; certificates that it got stay valid until they end
    Revoke(RevokeArgs),
}

#[derive(Args)]
pub struct CreateArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Namespace of the service account
    #[arg(short, long)]
    namespace: String,
    /// The service account that the machine runs as
    #[arg(long)]
    service_account: String,
    /// How long the token is good for, such as 10m or 24h; 30 days at most
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    ttl: Duration,
    /// Good for one certificate
    #[arg(long)]
    once: bool,
    /// Trust domain of the mesh, if it is not the one that the authority was made for
    #[arg(long)]
    trust_domain: Option<String>,
    /// Print a file for `navarch agent --join` instead of the token: it also says where the control plane is,
    /// and by which roots it is known
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// With --join: the name in the control plane's certificate, if it is not the host
    #[arg(long, value_name = "NAME", requires = "join")]
    tls_name: Option<String>,
}

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    state: StateArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Format,
}

#[derive(Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The id of the token, as `navarch token list` shows it
    id: String,
}

/// Works on the files of the state directory; a server that runs sees it at once.
pub fn run(command: &TokenCommand) -> Result<ExitCode> {
    let now = Timestamp::from(SystemTime::now());
    match command {
        TokenCommand::Create(args) => args.create(now)?,
        TokenCommand::List(args) => {
            let listed = tokens(&args.state)?.list(now)?;
            match args.output {
                Format::Json => output::json(&listed)?,
                Format::Table => output::print(&rows(&listed))?,
            }
        }
        TokenCommand::Revoke(args) => tokens(&args.state)?.revoke(&args.id, now)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tokens(state: &StateArgs) -> Result<JoinTokens> {
    Ok(JoinTokens::new(Arc::new(state.open()?)))
}

impl CreateArgs {
    fn create(&self, now: Timestamp) -> Result<()> {
        let known = match &self.trust_domain {
            Some(domain) => Some(domain.clone()),
            None => self.state.trust_domain()?,
        };
        let domain = known.context("the state directory has no authority of its own: say --trust-domain")?;
        let identity = SpiffeId::new(&domain, &self.namespace, &self.service_account)?;
        let (claims, token) = tokens(&self.state)?.create(&identity, self.ttl, self.once, now)?;
        let uses = if claims.once { "for one certificate" } else { "for any number of certificates" };
        output::note(&format!("token {} for {identity}, {uses}, until {}", claims.id, claims.expires));
        let token = token.expose_text().context("a token is text")?;
        let Some(server) = &self.join else { return output::line(token) };
        let join = Join {
            server: server.clone(),
            tls_name: self.tls_name.clone(),
            roots: self.state.roots()?,
            token: token.to_owned(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        };
        output::json(&join)
    }
}

fn rows(listed: &[Listed]) -> String {
    let header = ["ID", "IDENTITY", "USES", "EXPIRES", "STATUS"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for Listed { claims, created: _, status } in listed {
        let identity = claims.identity().map_or_else(|error| error.to_string(), |id| id.to_string());
        rows.push(vec![
            claims.id.clone(),
            identity,
            if claims.once { "one" } else { "any" }.to_owned(),
            claims.expires.to_string(),
            format!("{status:?}").to_lowercase(),
        ]);
    }
    table::render(&rows)
}

#[cfg(test)]
mod tests {
    use navarch_identity::store::StateDirectory;

    use super::*;

    #[test]
    fn a_list_has_a_row_for_each_token() {
        let temp = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(&temp.path().join("state")).expect("a directory");
        let tokens = JoinTokens::new(Arc::new(directory));
        let now = Timestamp(1_800_000_000);
        let id = SpiffeId::new("td", "shop", "web").expect("an id");
        let (claims, _) = tokens.create(&id, Duration::from_secs(60), true, now).expect("a token");
        let text = rows(&tokens.list(now).expect("a list"));
        let row = format!(
            "{}     spiffe://td/ns/shop/sa/web     one      2027-01-15T08:01:00Z     valid\n",
            claims.id
        );
        assert!(text.ends_with(&row), "{text}");
    }
}
