//! Machines in a network, as network namespaces: for what takes rules of the kernel, and the ports of Istio.
//!
//! Needs root, `ip` and `nft`. A test calls [`alone`], which starts it a second time in a namespace of its
//! own; whatever it does there, nobody else's network changes.

use crate::process::Process;
use anyhow::{Context, Result, bail, ensure};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
};

/// Names the namespace to a test that runs in it.
const VARIABLE: &str = "NAVARCH_TEST_NETWORK";
/// The programs, and the packages of Debian that have them.
const PROGRAMS: [(&str, &str); 3] = [("nft", "nftables"), ("ip", "iproute2"), ("setpriv", "util-linux")];
/// The user of proxies, whose traffic is not redirected.
pub const PROXY_USER: &str = "1337";

/// Installs what is missing, where there is a package manager of Debian and the right to use it.
pub fn obtain() -> Result<()> {
    let missing = missing();
    if !missing.is_empty() && Path::new("/usr/bin/apt-get").exists() && is_root() {
        for arguments in
            [vec!["update"], [&["install", "-y", "--no-install-recommends"], &missing[..]].concat()]
        {
            let mut command = Command::new("apt-get");
            command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
            let output = command.output().context("running apt-get")?;
            ensure!(
                output.status.success(),
                "{command:?}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    check()
}

/// What is missing is an error that says what to do.
fn check() -> Result<()> {
    let missing = missing();
    ensure!(
        missing.is_empty(),
        "install {} (packages of Debian): tests of networks need them",
        missing.join(", ")
    );
    ensure!(is_root(), "tests of networks make network namespaces, which takes root");
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let is_there = |program: &str| {
        ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
    };
    PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Runs `body` in a network of its own. `test` is the name of the test that calls this, with its modules.
pub fn alone(test: &str, body: impl AsyncFnOnce(Network) -> Result<()>) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if let Ok(name) = std::env::var(VARIABLE) {
        let network = Network::inside(name)?;
        return tokio::runtime::Runtime::new()?.block_on(body(network));
    }
    check()?;
    // What the test builds it builds here, where registries can be reached.
    let (navarch, envoy) = (crate::navarch::binary()?, crate::envoy::binary()?);
    let name = format!("nv{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let space = Namespace::add(&name)?;
    let mut command = space.command(std::env::current_exe()?);
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(VARIABLE, &name);
    command.env("NAVARCH_BIN", navarch).env("NAVARCH_ENVOY", envoy);
    let output = command.output().context("starting the test again")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("1 passed"), "there is no test {test}");
    Ok(())
}

/// Which of its two runs a program is in that has called [`enter`].
#[derive(Debug)]
pub enum Run {
    /// The second, which has ended.
    Ended(ExitStatus),
    /// The second, in this network.
    Inside(Network),
}

/// Starts this program a second time, with the same arguments and more of an environment, in a network of
/// its own, and waits for its end. Whatever it does there, nobody else's network changes.
pub fn enter(environment: &[(&str, &Path)]) -> Result<Run> {
    if let Ok(name) = std::env::var(VARIABLE) {
        return Ok(Run::Inside(Network::inside(name)?));
    }
    check()?;
    let space = Namespace::add(&format!("nv{}", std::process::id()))?;
    let mut command = space.command(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, &space.0).envs(environment.iter().copied());
    Ok(Run::Ended(command.status().context("starting again in a network")?))
}

/// A namespace; what runs in it ends with it.
#[derive(Debug)]
struct Namespace(String);

impl Namespace {
    fn add(name: &str) -> Result<Namespace> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let made = Namespace(name.to_owned());
        made.ip("link set lo up")?;
        Ok(made)
    }

    fn ip(&self, arguments: &str) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.0]).args(arguments.split(' ')))
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let kill =
            "ip netns pids \"$0\" | while read -r id; do kill -KILL \"$id\"; done; ip netns del \"$0\"";
        let _ = Command::new("/bin/sh").args(["-c", kill, &self.0]).output();
        let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(&self.0));
    }
}

/// A network of machines: 10.77.0.0/24 and fd77::/64, in which this process is the host 1.
#[derive(Debug)]
pub struct Network {
    name: String,
}

impl Network {
    /// Where this process can be reached.
    pub const HUB: [u8; 4] = [10, 77, 0, 1];

    fn inside(name: String) -> Result<Network> {
        for arguments in [
            "link add br0 type bridge",
            "addr add 10.77.0.1/24 dev br0",
            "addr add fd77::1/64 dev br0 nodad",
            "link set br0 up",
        ] {
            run(Command::new("ip").args(arguments.split(' ')))?;
        }
        Ok(Network { name })
    }

    /// A machine with the addresses `10.77.0.<host>` and `fd77::<host>`.
    pub fn machine(&self, name: &str, host: u8) -> Result<Machine> {
        let space = Namespace::add(&format!("{}-{name}", self.name))?;
        let near = format!("link add {name} type veth peer name eth0 netns {}", space.0);
        run(Command::new("ip").args(near.split(' ')))?;
        run(Command::new("ip").args(["link", "set", name, "master", "br0", "up"]))?;
        for arguments in [
            format!("addr add 10.77.0.{host}/24 dev eth0"),
            format!("addr add fd77::{host:x}/64 dev eth0 nodad"),
            "link set eth0 up".to_owned(),
            "route add default via 10.77.0.1".to_owned(),
            "-6 route add default via fd77::1".to_owned(),
        ] {
            space.ip(&arguments)?;
        }
        let v6 = [0xfd77, 0, 0, 0, 0, 0, 0, u16::from(host)];
        Ok(Machine { space, address: [10, 77, 0, host].into(), address_v6: v6.into() })
    }
}

/// A machine of a [`Network`].
#[derive(Debug)]
pub struct Machine {
    space: Namespace,
    pub address: IpAddr,
    pub address_v6: IpAddr,
}

impl Machine {
    /// A program on the machine.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.space.command(program)
    }

    /// Runs a program to its end, and gives what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("no program")?;
        run(self.command(program).args(arguments))
    }

    /// Runs a program of Python.
    pub fn python(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command("python3").args(["-c", program]).args(arguments))
    }

    /// Starts a program that goes on.
    pub fn start(&self, name: &str, words: &[&str]) -> Result<Process> {
        let (program, arguments) = words.split_first().context("no program")?;
        let log = crate::workspace::scratch(name)?.join("log");
        Process::start(name, self.command(program).args(arguments), &log)
    }

    /// What runs a program on the machine as the user of proxies. It may read what root may, since that is
    /// who has built it, and has what Envoy needs for TPROXY.
    pub fn as_proxy(&self) -> Vec<String> {
        let capabilities = "+net_admin,+dac_read_search";
        let words = format!(
            "ip netns exec {} setpriv --reuid {PROXY_USER} --regid {PROXY_USER} --clear-groups --inh-caps {capabilities} --ambient-caps {capabilities}",
            self.space.0
        );
        words.split(' ').map(str::to_owned).collect()
    }

    /// What the machine has as `/etc/resolv.conf`.
    pub fn resolv_conf(&self, text: &str) -> Result<()> {
        let directory: PathBuf = Path::new("/etc/netns").join(&self.space.0);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("resolv.conf"), text)?;
        Ok(())
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
