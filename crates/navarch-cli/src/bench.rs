//! `navarch bench`: what changes cost, measured.

mod cluster;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use navarch_agent_cli::output::{self, Format};
use navarch_agent_cli::values::parse_duration;
use navarch_bench::{
    Axis, CertificateReport, CertificateSettings, Cluster, Kind, NameReport, NameSettings, Protocol,
    Settings, Shape, Target,
};

use self::cluster::ClusterArgs;

/// Measure what changes cost a control plane, with simulated proxies
///
/// Writes the configuration of a mesh of the given size, starts `navarch serve` on it, connects simulated
/// proxies, makes changes, and measures the time until every proxy concerned has acknowledged them, and the
/// server's processor time, memory and bytes. At the end everything that the proxies hold is compared with a
/// plan from scratch; exit status 1 if anything differs or was lost.
///
/// With --target another xDS server on this machine is measured: --load-command brings it the configuration
/// in $BENCH_CONFIG, --change-command a changed file of it, $BENCH_FILE.
///
/// With --kubernetes the configuration is in an API server, and changes are made there, whichever server
/// is measured.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  navarch bench\n  navarch bench --shape medium --repeat 20 -o json\n  navarch bench --shape medium --churn 100 \
                  --churn-for 60s --reconnect\n  navarch bench --shape medium --curve services=100,1000,10000 --svg cost.svg\n  navarch \
                  bench --target 127.0.0.1:15010 --pid 4711 --load-command 'kubectl apply -R -f $BENCH_CONFIG' --change-command 'kubectl \
                  apply -f $BENCH_FILE'\n  navarch bench --kubernetes --kubeconfig kubeconfig --services 10000 --endpoints 50000 --namespaces 100 --proxies \
                  10 --scope namespace\n  navarch bench --kubernetes --kubeconfig kubeconfig --target 127.0.0.1:15010 --pid 4711"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Size of the mesh: small (10 services, 50 proxies), medium (1,000 and 1,000), large (10,000 and
    /// 10,000), or gateway (a Gateway with 5,000 HTTPRoutes, 100 services and one proxy)
    #[arg(long, default_value = "small")]
    shape: ShapeName,
    /// Another number of services
    #[arg(long, value_name = "N")]
    services: Option<usize>,
    /// Another number of endpoints of all services together
    #[arg(long, value_name = "N")]
    endpoints: Option<usize>,
    /// Another number of proxies
    #[arg(long, value_name = "N")]
    proxies: Option<usize>,
    /// Another number of Deployments that the proxies belong to
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Another number of namespaces
    #[arg(long, value_name = "N")]
    namespaces: Option<usize>,
    /// Another number of HTTPRoutes on the gateway
    #[arg(long, value_name = "N")]
    routes: Option<usize>,
    /// Endpoints are Pods too
    #[arg(long)]
    pods: bool,
    /// What a proxy sees: its namespace (a Sidecar with `./*`) or everything
    #[arg(long)]
    scope: Option<Scope>,
    /// How the proxies speak: delta or sotw
    #[arg(long, default_value = "delta")]
    protocol: ProtocolName,
    /// What is changed, separated by commas: endpoint, route, subset, service, policy; or none
    #[arg(long, value_name = "KINDS", default_value = "endpoint,route,subset,service,policy")]
    changes: String,
    /// How often each change is made
    #[arg(long, value_name = "N", default_value_t = 10)]
    repeat: usize,
    /// Also change endpoints at a steady rate per second
    #[arg(long, value_name = "RATE")]
    churn: Option<f64>,
    /// How long endpoints change
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    churn_for: Duration,
    /// Connect over mutual TLS, with certificates made for the run
    #[arg(long, conflicts_with = "target")]
    tls: bool,
    /// Also break all connections at once
    #[arg(long)]
    reconnect: bool,
    /// Metadata of every node; the value may be JSON
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Classes, one proxy of which is compared with a plan from scratch; the others are compared with each
    /// other
    #[arg(long, value_name = "N", default_value_t = 20)]
    check_classes: usize,
    /// Directory for the configuration, which is left there; otherwise a temporary one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long a step may take
    #[arg(long, default_value = "120s", value_parser = parse_duration)]
    timeout: Duration,
    /// Another navarch binary to measure
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    server: Option<PathBuf>,
    /// More arguments of `navarch serve`, for example --serve-arg=--debounce=10ms
    #[arg(long, value_name = "ARG", conflicts_with = "target", allow_hyphen_values = true)]
    serve_arg: Vec<String>,
    /// Measure the xDS server that listens here instead
    #[arg(long, value_name = "ADDR", requires = "pid")]
    target: Option<SocketAddr>,
    /// Process of that server
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    /// Shell command that brings $BENCH_CONFIG to that server
    #[arg(long, value_name = "CMD", requires = "target")]
    load_command: Option<String>,
    /// Shell command that brings $BENCH_FILE to that server; its time counts
    #[arg(long, value_name = "CMD", requires = "target")]
    change_command: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Repeat for several sizes: services=N,N,... or proxies=N,N,...
    #[arg(long, value_name = "AXIS=SIZES", conflicts_with = "target")]
    curve: Option<String>,
    /// Draw the curves
    #[arg(long, value_name = "FILE", requires = "curve")]
    svg: Option<PathBuf>,
    /// A former report, printed with `-o json`: also print the ratio of each figure to its former one
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How to print: table or json
    #[arg(short, long, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum ShapeName {
    Small,
    Medium,
    Large,
    Gateway,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProtocolName {
    Delta,
    Sotw,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scope {
    Namespace,
    Everything,
}

/// Runs the benchmark and prints the report. Exit status 1 if a proxy holds something wrong, or a change was
/// lost.
pub fn run(args: BenchArgs) -> Result<ExitCode> {
    match &args.what {
        Some(What::Ca(ca)) => return ca.run(),
        Some(What::Names(names)) => return names.run(),
        None => {}
    }
    let settings = args.settings()?;
    // It is looked at before the run, which takes a while.
    let baseline = args
        .baseline
        .as_deref()
        .map(|file| std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display())));
    let baseline = baseline.transpose()?;
    let report = navarch_bench::run(&settings)?;
    if let (Some(file), Some((axis, _))) = (&args.svg, &settings.curve) {
        std::fs::write(file, navarch_bench::curves(&report, *axis))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Table => output::print(&report.text())?,
    }
    if let Some(former) = baseline {
        let beside = navarch_bench::beside(&report, &former).context("comparing with the baseline")?;
        match args.output {
            // What reads the JSON reads nothing else.
            Format::Json => output::note(&beside),
            Format::Table => output::print(&format!("\n{beside}"))?,
        }
    }
    Ok(if report.correct() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What is measured, if it is not changes.
#[derive(Subcommand)]
enum What {
    /// Measure how many requests for certificates the authority answers
    ///
    /// Starts `navarch serve` with an authority in a temporary directory, and asks for certificates with
    /// P-256 keys over TLS, each request with a join token that is checked. Exit status 1 if one is refused.
    #[command(
        after_help = "Examples:\n  navarch bench ca\n  navarch bench ca --rate 1000 --requests 20000\n  navarch bench ca --mutual --connections 64"
    )]
    Ca(CaArgs),
    /// Measure what the names of a mesh cost an agent, and how fast it answers for them
    ///
    /// Starts `navarch-agent` in a temporary directory, gives it names, and asks for them over UDP, each time
    /// for another one, from one processor that does nothing else. Exit status 1 if a question is not
    /// answered.
    #[command(
        after_help = "Examples:\n  navarch bench names\n  navarch bench names --names 1000 --rate 50000 --questions 500000"
    )]
    Names(NamesArgs),
}

#[derive(Args)]
struct NamesArgs {
    /// Names that the mesh has
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    names: usize,
    /// Questions in all
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    questions: usize,
    /// Questions in a second
    #[arg(long, value_name = "RATE", default_value_t = 10_000.0)]
    rate: f64,
    /// Binary of the agent; the one beside this one if it is not said
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Format,
}

impl NamesArgs {
    fn run(&self) -> Result<ExitCode> {
        ensure!(self.rate > 0.0 && self.rate.is_finite(), "--rate is not a rate");
        let agent = match &self.agent {
            Some(agent) => agent.clone(),
            None => {
                std::env::current_exe().context("looking for the own binary")?.with_file_name("navarch-agent")
            }
        };
        let report = navarch_bench::names(&NameSettings {
            agent,
            names: self.names,
            questions: self.questions,
            rate: self.rate,
        })?;
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Table => output::print(&name_table(&report))?,
        }
        Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn name_table(report: &NameReport) -> String {
    let NameReport { names, private_kb_without, private_kb, private_kb_after, peak_kb, .. } = report;
    let NameReport { questions, failed, per_second, p50_ms, p99_ms, max_ms, cpu_us_per_question, .. } =
        report;
    let more = private_kb.saturating_sub(*private_kb_without);
    format!(
        "{names} names: {more} kB of the agent's own memory ({private_kb_without} without, {private_kb} with them, \
         {private_kb_after} after the questions; {peak_kb} resident at most)\n\
         {questions} questions, {failed} failed: {per_second:.0} answers a second\n\
         half within {p50_ms:.3} ms, 99 of 100 within {p99_ms:.3} ms, all within {max_ms:.1} ms\n\
         {cpu_us_per_question:.1} us of the agent's processor time each\n"
    )
}

#[derive(Args)]
struct CaArgs {
    /// Requests in all
    #[arg(long, value_name = "N", default_value_t = 30_000)]
    requests: usize,
    /// Connections, with one request at a time on each
    #[arg(long, value_name = "N", default_value_t = 32)]
    connections: usize,
    /// Workloads that ask; one may ask for a hundred certificates a second
    #[arg(long, value_name = "N", default_value_t = 100)]
    identities: usize,
    /// Requests in a second; as many as there can be if it is not said
    #[arg(long, value_name = "RATE")]
    rate: Option<f64>,
    /// Mutual TLS: each connection has a certificate, which its requests replace, and no token
    #[arg(long)]
    mutual: bool,
    /// Binary of the server; this one if it is not said
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Format,
}

impl CaArgs {
    fn run(&self) -> Result<ExitCode> {
        ensure!(self.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()), "--rate is not a rate");
        let binary = match &self.server {
            Some(binary) => binary.clone(),
            None => std::env::current_exe().context("looking for the own binary")?,
        };
        let report = navarch_bench::certificates(&CertificateSettings {
            binary,
            arguments: Vec::new(),
            identities: self.identities,
            connections: self.connections,
            requests: self.requests,
            rate: self.rate,
            mutual: self.mutual,
        })?;
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Table => output::print(&certificate_table(&report))?,
        }
        Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn certificate_table(report: &CertificateReport) -> String {
    let CertificateReport { requests, failed, seconds, per_second, .. } = report;
    let CertificateReport { p50_ms, p99_ms, max_ms, cpu_ms_per_request, failure, .. } = report;
    let mut text = format!(
        "{requests} requests in {seconds:.1} s, {failed} failed: {per_second:.0} certificates a second\n\
         half within {p50_ms:.1} ms, 99 of 100 within {p99_ms:.1} ms, all within {max_ms:.1} ms\n\
         {cpu_ms_per_request:.2} ms of the server's processor time each\n"
    );
    if let Some(failure) = failure {
        text += &format!("the first failure: {failure}\n");
    }
    text
}

impl BenchArgs {
    fn settings(&self) -> Result<Settings> {
        ensure!(self.repeat > 0, "--repeat 0 measures nothing; --changes none leaves changes out");
        let churn = match self.churn {
            Some(rate) if rate > 0.0 && rate.is_finite() => Some((rate, self.churn_for)),
            Some(rate) => bail!("--churn {rate} is not a rate"),
            None => None,
        };
        Ok(Settings {
            shape: self.shape(),
            target: self.target()?,
            cluster: self.cluster.cluster().map(|cluster| Rc::new(cluster) as Rc<dyn Cluster>),
            protocol: match self.protocol {
                ProtocolName::Delta => Protocol::Delta,
                ProtocolName::Sotw => Protocol::Sotw,
            },
            kinds: kinds(&self.changes)?,
            repeat: self.repeat,
            churn,
            tls: self.tls,
            reconnect: self.reconnect,
            check_classes: self.check_classes,
            metadata: self.metadata.iter().map(|pair| metadata(pair)).collect::<Result<_>>()?,
            directory: self.dir.clone(),
            timeout: self.timeout,
            curve: self.curve.as_deref().map(curve).transpose()?,
        })
    }

    fn shape(&self) -> Shape {
        let base = match self.shape {
            ShapeName::Small => Shape::small(),
            ShapeName::Medium => Shape::medium(),
            ShapeName::Large => Shape::large(),
            ShapeName::Gateway => Shape::gateway(),
        };
        Shape {
            services: self.services.unwrap_or(base.services),
            endpoints: self.endpoints.unwrap_or(base.endpoints),
            proxies: self.proxies.unwrap_or(base.proxies),
            classes: self.classes.unwrap_or(base.classes),
            namespaces: self.namespaces.unwrap_or(base.namespaces),
            scoped: self.scope.map_or(base.scoped, |scope| matches!(scope, Scope::Namespace)),
            routes: self.routes.unwrap_or(base.routes),
            pods: self.pods || self.cluster.is_given(),
            ..base
        }
    }

    fn target(&self) -> Result<Target> {
        match (self.target, self.pid) {
            (Some(address), Some(pid)) => {
                ensure!(
                    self.change_command.is_some() || self.cluster.is_given(),
                    "--target needs a --change-command that brings changes to the server, or --kubernetes"
                );
                Ok(Target::Running {
                    address,
                    pid,
                    load_command: self.load_command.clone(),
                    change_command: self.change_command.clone(),
                })
            }
            _ => {
                let binary = match &self.server {
                    Some(binary) => binary.clone(),
                    None => std::env::current_exe().context("looking for the own binary")?,
                };
                Ok(Target::Navarch { binary, arguments: self.serve_arg.clone() })
            }
        }
    }
}

fn kinds(text: &str) -> Result<Vec<Kind>> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let kind = |name: &str| Kind::parse(name).with_context(|| format!("{name} is not a kind of change"));
    text.split(',').map(|name| kind(name.trim())).collect()
}

fn metadata(pair: &str) -> Result<(String, serde_json::Value)> {
    let (key, value) = pair.split_once('=').with_context(|| format!("{pair} is not KEY=VALUE"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::from(value));
    Ok((key.to_owned(), value))
}

fn curve(text: &str) -> Result<(Axis, Vec<usize>)> {
    let (axis, sizes) = text.split_once('=').with_context(|| format!("{text} is not AXIS=N,N,..."))?;
    let axis = match axis {
        "services" => Axis::Services,
        "proxies" => Axis::Proxies,
        other => bail!("{other} is not an axis: services or proxies"),
    };
    let size = |text: &str| text.trim().parse().with_context(|| format!("{text} is not a size"));
    Ok((axis, sizes.split(',').map(size).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_curve_is_said() {
        assert_eq!(curve("services=10, 100").expect("a curve"), (Axis::Services, vec![10, 100]));
        for (text, expected) in [("services", "AXIS"), ("cats=1", "cats"), ("proxies=1,x", "x is not")] {
            let error = curve(text).expect_err("no curve").to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(kinds("endpoint,cat").is_err() && kinds("none").expect("nothing").is_empty());
    }
}
