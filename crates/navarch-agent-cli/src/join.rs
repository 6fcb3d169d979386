//! The file with which a machine joins a mesh: all that its agent has to be told, in one piece. Made by
//! `navarch token create --join`, read by `navarch agent sidecar --join`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use navarch_identity::store::StateDirectory;
use serde::{Deserialize, Serialize};

/// Bytes of a file that are read.
const BYTES_MAX: u64 = 1 << 20;

/// What the file says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Join {
    /// Host and port of the control plane.
    pub server: String,
    /// The name in its certificate, if it is not the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    /// The roots by which it is known, PEM.
    pub roots: String,
    /// Proves who the workload is. Secret.
    pub token: String,
    pub namespace: String,
    pub service_account: String,
}

impl Join {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let reading = || format!("cannot read {}", path.display());
        let mut text = String::new();
        let file = File::open(path).with_context(reading)?;
        file.take(BYTES_MAX).read_to_string(&mut text).with_context(reading)?;
        // What is wrong in it may be next to the token: say where, and not what.
        let made = serde_json::from_str(&text).map_err(|error| {
            anyhow::anyhow!("line {}, column {} is not understood", error.line(), error.column())
        });
        made.with_context(|| format!("{} is not a file of navarch token create --join", path.display()))
    }

    /// Puts roots and token where the agent reads them: in its own directory.
    pub fn place(&self, directory: &Path) -> Result<(PathBuf, PathBuf)> {
        ensure!(
            !self.roots.is_empty() && !self.token.is_empty(),
            "the file to join with has no roots or no token"
        );
        let state = StateDirectory::open(directory)?;
        let [roots, token] = ["join-root.pem", "join-token"];
        state.replace(roots, self.roots.as_bytes())?;
        state.replace(token, self.token.as_bytes())?;
        Ok((directory.join(roots), directory.join(token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_does_not_show_its_token() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("join");
        std::fs::write(&path, "{\"server\": \"a:1\", \"token\": SECRET}").expect("written");
        let error = format!("{:#}", Join::read(&path).err().expect("an error"));
        assert!(error.contains("line 1") && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn what_is_placed_is_private() {
        let temp = tempfile::tempdir().expect("a directory");
        let join = Join {
            server: "a:1".to_owned(),
            tls_name: None,
            roots: "roots".to_owned(),
            token: "token".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
        };
        let path = temp.path().join("join");
        std::fs::write(&path, serde_json::to_string(&join).expect("written")).expect("written");
        let (_, token) =
            Join::read(&path).and_then(|join| join.place(&temp.path().join("agent"))).expect("placed");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&token).expect("there").permissions());
        assert_eq!((mode & 0o777, std::fs::read_to_string(token).expect("read").as_str()), (0o600, "token"));
    }
}
