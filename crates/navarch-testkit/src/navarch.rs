//! The product as a process: `navarch serve` under control, and one-off commands.

use crate::{http::Answer, http::Call, ports, process::Process, wait, workspace};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::OnceLock,
    time::Duration,
};

/// The `navarch` binary: the one `NAVARCH_BIN` names, else built from this checkout, so that a
/// test never runs an old one.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = std::env::var_os("NAVARCH_BIN") {
        return Ok(PathBuf::from(path));
    }
    if let Some(path) = BUILT.get() {
        return Ok(path.clone());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .arg("build")
        .arg("--quiet")
        .args(BINARIES)
        .current_dir(workspace::root())
        .output()
        .context("running cargo")?;
    if !output.status.success() {
        bail!("building navarch: {}", String::from_utf8_lossy(&output.stderr));
    }
    let path = workspace::target_dir().join("debug/navarch");
    Ok(BUILT.get_or_init(|| path).clone())
}

/// What cargo is told to build.
pub const BINARIES: [&str; 8] = [
    "--package",
    "navarch-cli",
    "--bin",
    "navarch",
    "--package",
    "navarch-agent-cli",
    "--bin",
    "navarch-agent",
];

/// The `navarch-agent` binary, which is beside [`binary`].
pub fn agent() -> Result<PathBuf> {
    Ok(binary()?.with_file_name("navarch-agent"))
}

/// Runs one `navarch` command to its end, and gives everything it said.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Output> {
    Command::new(binary()?).args(args).output().context("running navarch")
}

/// Like [`run`], but an exit code other than 0 is an error; gives stdout.
pub fn stdout<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<String> {
    let args: Vec<S> = args.into_iter().collect();
    let shown: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    let shown = shown.join(" ");
    let output = run(&args)?;
    if !output.status.success() {
        bail!("navarch {shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("navarch {shown} printed something else than text"))
}

/// The bootstrap of a proxy, as `navarch bootstrap` prints it. `metadata` are keys and values;
/// a value may be JSON. `extra` are more arguments, for example `["--sotw"]`.
pub fn bootstrap(node_id: &str, metadata: &[(&str, &str)], xds: SocketAddr, extra: &[&str]) -> Result<Value> {
    let mut args: Vec<String> = ["bootstrap", "--node-id", node_id].map(str::to_owned).to_vec();
    args.extend(["--xds-addr".to_owned(), xds.to_string()]);
    args.extend(extra.iter().map(|arg| (*arg).to_owned()));
    for (key, value) in metadata {
        args.extend(["--metadata".to_owned(), format!("{key}={value}")]);
    }
    let text = stdout(args)?;
    serde_json::from_str(&text).with_context(|| format!("`navarch bootstrap` printed {text}"))
}

/// A running `navarch serve`. It is killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Option<Process>,
    config: PathBuf,
    xds: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    extra: Vec<String>,
}

impl Server {
    /// Serves the directory `config` on free loopback ports and waits until it is ready.
    pub async fn start(name: &str, config: &Path) -> Result<Server> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
        Server::start_on(name, config, xds, admin, &[]).await
    }

    /// [`Server::start`] on the given addresses, with more command line arguments.
    pub async fn start_on(
        name: &str,
        config: &Path,
        xds: SocketAddr,
        admin: SocketAddr,
        extra: &[&str],
    ) -> Result<Server> {
        let log = workspace::scratch(name)?.join("serve.log");
        let extra = extra.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Server { process: None, config: config.to_path_buf(), xds, admin, log, extra };
        server.launch().await?;
        Ok(server)
    }

    async fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(binary()?);
        command.arg("serve").arg("--config").arg(&self.config).args(&self.extra);
        command.args(["--xds-addr", &self.xds.to_string(), "--admin-addr", &self.admin.to_string()]);
        let mut process = Process::start("navarch serve", &mut command, &self.log)?;
        let url = format!("http://{}/ready", self.admin);
        wait::until("navarch serve to be ready", wait::STEP, || {
            let (running, call) = (process.check_running(), Call::get(url.clone()));
            async move {
                running?;
                call.send().await?.ok()
            }
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Where proxies connect.
    pub fn xds(&self) -> SocketAddr {
        self.xds
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The directory that it serves.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// All that it has logged, over restarts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// A page of the admin address, for example `/metrics`.
    pub async fn admin_get(&self, path: &str) -> Result<Answer> {
        Call::get(format!("http://{}{path}", self.admin)).send().await?.ok()
    }

    /// What it says about every connected proxy: `{revision, proxies: [{name, revision, types}]}`.
    pub async fn fleet(&self) -> Result<Value> {
        self.admin_get("/debug/proxies").await?.json()
    }

    /// The newest revision of the configuration.
    pub async fn revision(&self) -> Result<u64> {
        self.fleet().await?["revision"].as_u64().context("no revision in /debug/proxies")
    }

    /// Waits until a revision after `revision` is in effect on every connected proxy.
    pub async fn reached_since(&self, revision: u64) -> Result<()> {
        wait::until("the edit to reach every proxy", wait::STEP, || async {
            let fleet = self.fleet().await?;
            let newer = |value: &Value| value["revision"].as_u64().is_some_and(|found| found > revision);
            let mut proxies = fleet["proxies"].as_array().into_iter().flatten();
            ensure!(newer(&fleet) && proxies.all(newer), "{fleet}");
            Ok(())
        })
        .await
    }

    /// All samples of `/metrics` of one name, summed.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.admin_get("/metrics").await?.text();
        Ok(sum_of(&text, name, ""))
    }

    /// As [`Server::metric`], only samples whose labels contain `label`, for example
    /// `type="eds"`.
    pub async fn metric_with(&self, name: &str, label: &str) -> Result<f64> {
        let text = self.admin_get("/metrics").await?.text();
        Ok(sum_of(&text, name, label))
    }

    /// Writes a file of the configuration the way editors do: a temporary file, then a rename.
    pub fn write(&self, file: &str, content: &str) -> Result<()> {
        replace(&self.config.join(file), content)
    }

    /// Runs a `navarch` command with `--admin-addr` of this server, and gives its stdout.
    pub fn command(&self, args: &[&str]) -> Result<String> {
        let admin = self.admin.to_string();
        stdout(args.iter().copied().chain(["--admin-addr", &admin]))
    }

    /// Its process, if it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Sends it a signal, for example `HUP`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.process.as_ref().context("not running")?.signal(signal)
    }

    /// Ends it with SIGKILL. [`Server::restart`] starts it again on the same addresses.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.take().context("not running")?.terminate(within).await
    }

    /// [`Server::restart`] with these arguments in place of those that it was started with.
    pub async fn restart_with(&mut self, extra: &[&str]) -> Result<()> {
        self.extra = extra.iter().map(|arg| (*arg).to_owned()).collect();
        self.restart().await
    }

    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.launch().await
    }
}

/// Replaces a file atomically. The temporary file has a name that no loader takes for YAML.
pub fn replace(file: &Path, content: &str) -> Result<()> {
    let partial = file.with_extension("partial~");
    std::fs::write(&partial, content).with_context(|| format!("writing {}", partial.display()))?;
    std::fs::rename(&partial, file).with_context(|| format!("replacing {}", file.display()))
}

fn sum_of(metrics: &str, name: &str, label: &str) -> f64 {
    let samples = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (family, labels) = series.split_once('{').unwrap_or((series, ""));
        (family == name && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed() {
        let text = "# HELP a x\na{type=\"cds\"} 1\na{type=\"eds\"} 2.5\nab 7\nb 4\n";
        for (name, label, expected) in
            [("a", "", 3.5), ("a", "type=\"eds\"", 2.5), ("b", "", 4.0), ("c", "", 0.0)]
        {
            assert_eq!(sum_of(text, name, label), expected, "{name} {label}");
        }
    }
}
