//! A container, as a process that sees the network and the files of its pod.

use super::fields::field;
use crate::{
    objects::{items, text},
    programs::Programs,
};
use anyhow::{Context, Result, ensure};
use navarch_testkit::{network::Machine, process::Process};
use serde_json::Value;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

/// Lays files over those of the machine, for itself alone: `ip netns exec` has given it mounts of its own.
/// Where containers have files is theirs to write (in memory); what is mounted is then bound there, and at
/// last the program takes the place of this. Arguments: a directory, pairs of what is bound where, `--`, the
/// program.
const MOUNT: &str = r#"
set -e
own=$1
shift
mount -t tmpfs rig "$own"
for top in etc run var; do
  mkdir "$own/$top" "$own/.$top"
  mount -t overlay rig -o "lowerdir=/$top,upperdir=$own/$top,workdir=$own/.$top" "/$top"
done
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")" && touch "$2"; fi
  mount --bind "$1" "$2"
  shift 2
done
shift
exec "$@"
"#;

/// Where `MOUNT` makes what is not there without the machine noticing.
const OVERLAID: [&str; 3] = ["/etc/", "/run/", "/var/"];

/// A container that is about to be started.
pub struct Container<'a> {
    pub machine: &'a Machine,
    pub programs: &'a Programs,
    pub pod: &'a Value,
    pub container: &'a Value,
    /// What is kept of the pod.
    pub dir: &'a Path,
}

impl Container<'_> {
    pub fn name(&self) -> &str {
        text(self.container, "/name")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name()))
    }

    /// Starts it. It is written down for those who ask for its log, or run something beside it.
    pub fn start(&self) -> Result<Process> {
        let process = Process::start(self.name(), &mut self.command()?, &self.log())?;
        std::fs::write(self.dir.join(format!("{}.pid", self.name())), process.id().to_string())?;
        Ok(process)
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<()> {
        let output = self.command()?.output()?;
        std::fs::write(self.log(), [output.stdout.as_slice(), &output.stderr].concat())?;
        ensure!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let own = self.dir.join(format!("{}.files", self.name()));
        std::fs::create_dir_all(&own)?;
        let mut command = self.machine.command("/bin/sh");
        command.args(["-c", MOUNT, "mount"]).arg(own);
        for (from, to) in self.mounts()? {
            command.arg(from).arg(to);
        }
        command.arg("--").args(self.user());
        let environment = self.environment()?;
        let image = self.programs.image(text(self.container, "/image"))?;
        let (program, words) = match items(self.container, "/command").split_first() {
            None => (image.program, [].as_slice()),
            // Programs of one image lie beside each other.
            Some((named, words)) => {
                let name = Path::new(named.as_str().unwrap_or_default()).file_name();
                (image.program.with_file_name(name.unwrap_or_default()), words)
            }
        };
        command.arg(program);
        let arguments = words.iter().chain(items(self.container, "/args")).filter_map(Value::as_str);
        command.args(arguments.map(|argument| expanded(argument, &environment)));
        command
            .env_clear()
            .env("PATH", self.programs.path())
            .env("HOSTNAME", text(self.pod, "/metadata/name"));
        command.envs(image.environment.iter().map(|(name, value)| (name, value))).envs(environment);
        Ok(command)
    }

    /// What is bound where: volumes, and the files by which names are found.
    fn mounts(&self) -> Result<Vec<(PathBuf, String)>> {
        let files = ["hosts", "resolv.conf"].map(|file| (self.dir.join(file), format!("/etc/{file}")));
        let mut mounts = Vec::from(files);
        for mount in items(self.container, "/volumeMounts") {
            let (volume, path) = (text(mount, "/name"), text(mount, "/mountPath"));
            let is_overlaid = OVERLAID.iter().any(|top| path.starts_with(top));
            ensure!(is_overlaid || Path::new(path).exists(), "cannot mount {volume} at {path}");
            mounts
                .push((self.dir.join("volumes").join(volume).join(text(mount, "/subPath")), path.to_owned()));
        }
        Ok(mounts)
    }

    /// What makes the process that of another user, who may still run what root has built.
    fn user(&self) -> Vec<String> {
        let of = |at: &str| self.container.pointer(at).or(self.pod.pointer(&format!("/spec{at}")));
        let Some(user) = of("/securityContext/runAsUser").filter(|user| **user != 0) else {
            return Vec::new();
        };
        let words = format!(
            "setpriv --reuid {user} --regid {user} --clear-groups --inh-caps +dac_read_search --ambient-caps \
             +dac_read_search"
        );
        words.split(' ').map(str::to_owned).collect()
    }

    fn environment(&self) -> Result<Vec<(String, String)>> {
        let mut all: Vec<(String, String)> = Vec::new();
        for variable in items(self.container, "/env") {
            let name = text(variable, "/name").to_owned();
            let value = match variable.get("valueFrom") {
                Some(from) => {
                    let path = from.pointer("/fieldRef/fieldPath").and_then(Value::as_str);
                    let path = path.with_context(|| format!("the variable {name} is not of a field"))?;
                    field(self.pod, self.address(), path)?
                }
                None => expanded(text(variable, "/value"), &all),
            };
            all.push((name, value));
        }
        Ok(all)
    }

    fn address(&self) -> IpAddr {
        self.machine.address
    }
}

/// A text with the variables that it names, `$(NAME)`.
fn expanded(text: &str, variables: &[(String, String)]) -> String {
    let replace = |text: String, (name, value): &(String, String)| text.replace(&format!("$({name})"), value);
    variables.iter().fold(text.to_owned(), replace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_known_are_expanded() {
        let variables = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())];
        assert_eq!(expanded("$(A)-$(B)-$(A)-$(C)", &variables), "1-2-1-$(C)");
    }
}
