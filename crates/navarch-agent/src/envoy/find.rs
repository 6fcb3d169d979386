//! Where the Envoy binary is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// There is no Envoy.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no Envoy: none is on the PATH{}; install one (https://www.envoyproxy.io/docs/envoy/latest/start/install), or name it with \
     --envoy or NAVARCH_ENVOY", places(.looked_at)
)]
pub struct NotFound {
    /// Other places that were looked at.
    pub looked_at: Vec<PathBuf>,
}

fn places(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!(", nor is there {}", path.display())).collect()
}

/// The binary: the one that is named, else an `envoy` on `path`, else one of `others`.
///
/// # Errors
/// If there is none.
pub fn find(named: Option<&Path>, path: Option<&OsStr>, others: &[PathBuf]) -> Result<PathBuf, NotFound> {
    if let Some(named) = named {
        // Whether it can be started shows when it is.
        return Ok(named.to_owned());
    }
    let on_path = path.into_iter().flat_map(std::env::split_paths).map(|directory| directory.join("envoy"));
    let mut candidates = on_path.chain(others.iter().cloned());
    let found = candidates.find(|candidate| candidate.is_file());
    found.ok_or_else(|| NotFound { looked_at: others.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_counts_then_the_path_then_the_rest() {
        let temp = tempfile::tempdir().expect("a directory");
        let (one, two) = (temp.path().join("one"), temp.path().join("two"));
        for directory in [&one, &two] {
            std::fs::create_dir(directory).expect("made");
        }
        let path = std::env::join_paths([&one, &two]).expect("a path");
        let other = temp.path().join("other");
        let check = |named: Option<&Path>, expected: Option<&Path>| {
            let found = find(named, Some(&path), std::slice::from_ref(&other)).ok();
            assert_eq!(found.as_deref(), expected);
        };
        check(None, None);
        std::fs::write(&other, "").expect("written");
        check(None, Some(&other));
        std::fs::write(two.join("envoy"), "").expect("written");
        check(None, Some(&two.join("envoy")));
        check(Some(Path::new("/named")), Some(Path::new("/named")));
        let error = find(None, None, &[]).expect_err("none").to_string();
        assert!(error.contains("--envoy"), "{error}");
    }
}
