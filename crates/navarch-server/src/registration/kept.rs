//! Registrations in the state directory: a restarted server serves the endpoints that workloads had, until
//! they are back or it is clear that they are not coming.

use std::path::{Path, PathBuf};
use std::time::Duration;

use navarch_identity::store::{StateDirectory, StoreError};
use navarch_sources::{Kept, Registered, Registrations};

/// The file below the state directory.
const FILE: &str = "registrations.json";

/// Time between two looks at whether anything has changed.
const LOOK: Duration = Duration::from_secs(1);

/// Time in which workloads come back to a server that serves again: agents try every five seconds, and
/// hundreds are let in per second.
const RETURN: Duration = Duration::from_secs(20);

/// What was kept. What cannot be read is as good as nothing: workloads come back by themselves.
pub fn read(state: &Path) -> Vec<Kept> {
    let read = || {
        let directory = StateDirectory::open_existing(state).ok()?;
        let text = directory.read(FILE).ok()??;
        serde_json::from_slice(text.expose()).ok()
    };
    read().unwrap_or_default()
}

/// Lets go of those that were there before the start, when they have had the time to come back.
pub async fn await_return(restored: Vec<Registered>) {
    tokio::time::sleep(RETURN).await;
    drop(restored);
}

/// Keeps registrations, for ever.
pub async fn follow(registrations: Registrations, state: PathBuf) {
    let mut known = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some((changes, kept)) = registrations.kept(known) else { continue };
        let state = state.clone();
        match tokio::task::spawn_blocking(move || write(&state, &kept)).await {
            Ok(Ok(())) => known = changes,
            Ok(Err(error)) => tracing::warn!(%error, "registrations cannot be kept for the next start"),
            Err(error) => tracing::error!(%error, "registrations are not kept for the next start"),
        }
    }
}

fn write(state: &Path, kept: &[Kept]) -> Result<(), StoreError> {
    let directory = StateDirectory::open_existing(state)?;
    directory.replace(FILE, &serde_json::to_vec(kept).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use navarch_sources::KnownHealth;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_read_again_and_what_is_broken_is_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        StateDirectory::open(&state).expect("made");
        assert_eq!(read(&state), []);
        let registrations = Registrations::new(Duration::from_secs(10));
        let _stream =
            registrations.join("n/a", json!({"metadata": {"annotations": {}}}), KnownHealth::Unchecked);
        let (_, kept) = registrations.kept(0).expect("a change");
        write(&state, &kept).expect("written");
        assert_eq!((read(&state), kept.len()), (kept, 1));
        std::fs::write(state.join(FILE), "[{").expect("broken");
        assert_eq!(read(&state), []);
    }
}
