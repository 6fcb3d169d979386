//! Printing for people and for programs.
//!
//! Commands print through these functions and never with `println!`, which panics when the reader of a pipe
//! has gone (`navarch analyze | head -1`).

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints a value as indented JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Prints a line.
pub fn line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Prints text as it is.
///
/// # Errors
/// If standard output cannot be written to; see [`is_closed_pipe`].
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a line to standard error. If nobody can read it, there is nobody to tell.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Exit status when the reader of the output has gone: what a shell reports of a program that SIGPIPE ended.
const CLOSED_PIPE: u8 = 141;

/// What a program ends with; an error is printed.
pub fn exit(outcome: Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        // As a program that the signal SIGPIPE ends.
        Err(error) if is_closed_pipe(&error) => ExitCode::from(CLOSED_PIPE),
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Whether a command failed only because the reader of its output has gone.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn only_a_reader_that_has_gone_is_a_closed_pipe() {
        let check = |kind: io::ErrorKind, expected: bool| {
            let failed: Result<()> = Err(io::Error::from(kind)).context("printing");
            assert_eq!(failed.is_err_and(|error| is_closed_pipe(&error)), expected, "{kind:?}");
        };
        check(io::ErrorKind::BrokenPipe, true);
        check(io::ErrorKind::StorageFull, false);
    }
}
