//! One line on a terminal that says what goes on; nothing anywhere else.

use std::io::{IsTerminal, Write};

/// The line.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown if standard error is a terminal.
    #[must_use]
    pub fn new() -> Self {
        Progress { shown: std::io::stderr().is_terminal() }
    }

    /// Replaces the line.
    pub fn say(&self, text: impl AsRef<str>) {
        if self.shown {
            self.write(&format!("\r\x1b[2K{}", text.as_ref()));
        }
    }

    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        // A terminal that is gone needs no progress.
        let _ = stderr.write_all(text.as_bytes());
        let _ = stderr.flush();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            self.write("\r\x1b[2K");
        }
    }
}
