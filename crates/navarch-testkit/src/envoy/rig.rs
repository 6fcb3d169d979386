//! One running Envoy and its admin page.

use crate::{
    http::{Answer, Call},
    process::Process,
    wait, workspace,
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What Envoy starts from.
#[derive(Debug, Clone)]
pub enum Bootstrap {
    /// A bootstrap as JSON. Its admin address is replaced by an ephemeral loopback port.
    Json(Value),
    /// A file, passed to Envoy as it is. Only the admin address is overridden.
    File(PathBuf),
    /// A file, passed to Envoy as it is, admin address included.
    Exact(PathBuf),
}

impl From<Value> for Bootstrap {
    fn from(value: Value) -> Self {
        Bootstrap::Json(value)
    }
}

/// A real Envoy. It is killed when dropped; its files stay in [`Envoy::dir`].
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: SocketAddr,
    dir: PathBuf,
}

impl Envoy {
    /// Starts Envoy and waits until its admin page answers, which is before it is ready.
    pub async fn start(name: &str, bootstrap: impl Into<Bootstrap>) -> Result<Envoy> {
        Envoy::start_with(name, bootstrap, &[]).await
    }

    /// [`Envoy::start`] with more command line arguments, for example `["-l", "debug"]`.
    pub async fn start_with(name: &str, bootstrap: impl Into<Bootstrap>, args: &[&str]) -> Result<Envoy> {
        // Hot restart would share memory between Envoys of one base id.
        Envoy::launch(name, bootstrap.into(), &[&["--disable-hot-restart"], args].concat()).await
    }

    /// A process of an Envoy that is restarted hot: epoch 0 is the first, and each takes over from the one
    /// before. All that runs at a time with the same base id, in any test, is one Envoy.
    pub async fn start_epoch(
        name: &str,
        bootstrap: impl Into<Bootstrap>,
        base_id: u32,
        epoch: u32,
        args: &[&str],
    ) -> Result<Envoy> {
        let (base_id, epoch) = (base_id.to_string(), epoch.to_string());
        let restart = ["--base-id", &base_id, "--restart-epoch", &epoch];
        Envoy::launch(name, bootstrap.into(), &[&restart, args].concat()).await
    }

    async fn launch(name: &str, bootstrap: Bootstrap, args: &[&str]) -> Result<Envoy> {
        let dir = workspace::scratch(name)?;
        let admin_file = dir.join("admin.addr");
        let any_port = json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}});

        let mut command = Command::new(super::binary()?);
        command.args(["--concurrency", "1", "--drain-time-s", "1"]);
        command.arg("--admin-address-path").arg(&admin_file).args(args);
        match bootstrap {
            Bootstrap::Json(mut value) => {
                let object = value.as_object_mut().context("a bootstrap is an object")?;
                object.insert("admin".to_owned(), any_port);
                let file = dir.join("bootstrap.json");
                std::fs::write(&file, serde_json::to_vec_pretty(&value)?)?;
                command.arg("-c").arg(file);
            }
            Bootstrap::File(file) => {
                command.arg("-c").arg(file).arg("--config-yaml");
                command.arg(json!({"admin": any_port}).to_string());
            }
            Bootstrap::Exact(file) => {
                command.arg("-c").arg(file);
            }
        }
        let mut process = Process::start(name, &mut command, &dir.join("envoy.log"))?;
        let admin = wait::until("Envoy's admin address", wait::STEP, || {
            let (running, address) = (process.check_running(), read_address(&admin_file));
            async move { running.and(address) }
        });
        let admin = admin.await?;
        Ok(Envoy { process, admin, dir })
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The directory with `envoy.log` and the bootstrap.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Any admin page, for example `/config_dump?resource=dynamic_listeners`.
    pub async fn admin_get(&self, path: &str) -> Result<Answer> {
        Call::get(format!("http://{}{path}", self.admin)).send().await
    }

    pub async fn admin_post(&self, path: &str) -> Result<Answer> {
        Call::post(format!("http://{}{path}", self.admin)).send().await?.ok()
    }

    async fn json(&self, path: &str) -> Result<Value> {
        self.admin_get(path).await?.ok()?.json()
    }

    /// `LIVE`, `DRAINING`, `PRE_INITIALIZING` or `INITIALIZING`: what `/server_info` says.
    pub async fn state(&self) -> Result<String> {
        let info = self.json("/server_info").await?;
        Ok(info["state"].as_str().unwrap_or("LIVE").to_owned())
    }

    /// Whether `/ready` answers 200.
    pub async fn ready(&self) -> Result<bool> {
        Ok(self.admin_get("/ready").await?.status.is_success())
    }

    /// Waits for `LIVE`: all of the first configuration has arrived, listeners accept.
    pub async fn wait_live(&mut self) -> Result<()> {
        self.wait_live_within(wait::STEP).await
    }

    pub async fn wait_live_within(&mut self, within: Duration) -> Result<()> {
        let url = format!("http://{}/ready", self.admin);
        let process = &mut self.process;
        let live = wait::until("Envoy to be LIVE", within, || {
            let (running, call) = (process.check_running(), Call::get(url.clone()));
            async move {
                running?;
                call.send().await?.ok()
            }
        });
        match live.await {
            Ok(_) => Ok(()),
            Err(error) if error.is::<wait::Fatal>() => Err(error),
            Err(error) => {
                let log = crate::process::tail(&self.process.log(), 25);
                Err(error.context(format!("Envoy's log ends with:\n{log}")))
            }
        }
    }

    /// `/config_dump` with endpoints.
    pub async fn config_dump(&self) -> Result<Value> {
        self.json("/config_dump?include_eds").await
    }

    /// `/clusters` as JSON: each host with its health and statistics.
    pub async fn clusters(&self) -> Result<Value> {
        self.json("/clusters?format=json").await
    }

    /// Names of the active listeners and the addresses they accept on.
    pub async fn listeners(&self) -> Result<BTreeMap<String, SocketAddr>> {
        let list = self.json("/listeners?format=json").await?;
        let mut found = BTreeMap::new();
        for status in list["listener_statuses"].as_array().into_iter().flatten() {
            let socket = &status["local_address"]["socket_address"];
            let (Some(name), Some(ip), Some(port)) =
                (status["name"].as_str(), socket["address"].as_str(), socket["port_value"].as_u64())
            else {
                continue;
            };
            found.insert(name.to_owned(), SocketAddr::new(ip.parse()?, u16::try_from(port)?));
        }
        Ok(found)
    }

    /// Counters and gauges whose names match the regular expression `filter`.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>> {
        let filter: String = filter.bytes().map(percent).collect();
        let text = self.admin_get(&format!("/stats?filter={filter}")).await?.ok()?.text();
        let lines = text.lines().filter_map(|line| line.rsplit_once(": "));
        Ok(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// One counter or gauge; zero if Envoy has not created it.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let escaped = name.replace('.', "\\.");
        Ok(self.stats(&format!("^{escaped}$")).await?.get(name).copied().unwrap_or(0))
    }

    /// Updates that Envoy refused, by statistic; empty when all is well. Covers CDS, LDS, RDS,
    /// EDS, SDS, ECDS and the number of listeners that could not be created.
    pub async fn rejections(&self) -> Result<BTreeMap<String, u64>> {
        let mut found = self.stats(r"(update_rejected|listener_create_failure|config_fail)$").await?;
        found.retain(|_, count| *count > 0);
        Ok(found)
    }

    /// Starts a graceful drain of all listeners.
    pub async fn drain(&self) -> Result<()> {
        self.admin_post("/drain_listeners?graceful").await.map(drop)
    }

    /// Ends Envoy with SIGTERM and waits for it.
    pub async fn terminate(self) -> Result<std::process::ExitStatus> {
        self.process.terminate(wait::STEP).await
    }
}

/// The file appears empty first, then with the address.
fn read_address(file: &Path) -> Result<SocketAddr> {
    let text = std::fs::read_to_string(file).context("not written yet")?;
    text.trim().parse().with_context(|| format!("not an address: {text:?}"))
}

/// Percent-encodes all but unreserved characters.
fn percent(byte: u8) -> String {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}
