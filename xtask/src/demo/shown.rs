//! How the demo shows things.

use navarch_testkit::workspace;
use std::path::Path;

/// Relative to the checkout where possible: short, and the same everywhere.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}
