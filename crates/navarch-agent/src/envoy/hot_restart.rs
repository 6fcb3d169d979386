//! Hot restart: one Envoy hands its sockets to the next, which may be of another version or have another
//! bootstrap, and ends once its connections have gone. (Envoy, "Hot restart".)

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Where the two Envoys have their common memory.
const SHARED_MEMORY: &str = "/dev/shm";
/// The sockets that they talk over. Envoy appends who listens there, and its epoch.
const SOCKET: &str = "hot";

/// What the Envoys of one agent have in common.
#[derive(Clone, Debug)]
pub struct HotRestart {
    /// Names the common memory, which other agents on the machine must not use.
    base_id: u32,
    /// In the agent's directory: on the abstract socket that Envoy would use, anybody could ask for its
    /// sockets.
    socket: PathBuf,
    /// Seconds after which an Envoy ends that has handed over.
    parent_seconds: u64,
}

impl HotRestart {
    /// Hot restart for the agent with this directory. `None` if the machine has no shared memory.
    #[must_use]
    pub fn for_directory(directory: &Path, parent_seconds: u64) -> Option<Self> {
        let hash = xxh3_64(directory.as_os_str().as_encoded_bytes());
        // Envoy multiplies it by ten, for the epochs.
        let base_id = u32::try_from(hash & 0x0fff_ffff).ok()?;
        let is_there = Path::new(SHARED_MEMORY).is_dir();
        is_there.then(|| HotRestart { base_id, socket: directory.join(SOCKET), parent_seconds })
    }

    /// The arguments for the Envoy that is the `epoch`th after one that took over from nobody.
    pub(super) fn arguments(&self, epoch: u32) -> [OsString; 10] {
        [
            "--base-id".into(),
            self.base_id.to_string().into(),
            "--restart-epoch".into(),
            epoch.to_string().into(),
            "--parent-shutdown-time-s".into(),
            self.parent_seconds.to_string().into(),
            "--socket-mode".into(),
            "600".into(),
            "--socket-path".into(),
            self.socket.clone().into(),
        ]
    }
}

/// Why an Envoy does not hand over to another.
#[derive(Debug, thiserror::Error)]
pub enum HotRestartError {
    #[error("this machine has no shared memory ({SHARED_MEMORY})")]
    Unavailable,
    #[error("Envoy is not ready")]
    NotReady,
    #[error(
        "the Envoy before still has connections; it ends {parent_seconds} s after it has handed over at the latest"
    )]
    Busy { parent_seconds: u64 },
    #[error("the next Envoy refuses its configuration: {said}")]
    Refused { said: String },
    #[error("cannot start the next Envoy")]
    Start(#[source] std::io::Error),
    #[error("the next Envoy ended {how} before it was ready; the one before goes on")]
    Ended { how: String },
    #[error("the agent ends")]
    Ending,
}

impl HotRestart {
    /// What is said to who asks while the Envoy before has not gone.
    pub(crate) fn busy(&self) -> HotRestartError {
        HotRestartError::Busy { parent_seconds: self.parent_seconds }
    }
}
