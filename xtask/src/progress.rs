//! Nothing is silent for long: what builds, downloads or waits says so, with and without a terminal.

use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead, BufReader, IsTerminal, Read, Write},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

/// The longest silence. Well under the ten seconds after which people wonder.
pub const SILENCE_MAX: Duration = Duration::from_secs(8);

/// Runs a program to its end, with its output passed on as it comes, and a line of ours whenever it has said
/// nothing for [`SILENCE_MAX`]. `what` is what it does, for that line.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    // The output goes through pipes, so cargo has to be told about the terminal.
    if std::io::stderr().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let (said, lines) = mpsc::channel();
    let out = child.stdout.take().map(|from| pass_on(from, std::io::stdout, said.clone()));
    let err = child.stderr.take().map(|from| pass_on(from, std::io::stderr, said.clone()));
    drop(said);
    report(what, &lines);
    for reader in [out, err].into_iter().flatten() {
        reader.join().map_err(|_| anyhow::anyhow!("passing on the output of {command:?} failed"))?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Does `work` on a thread of its own, and says that it still does.
pub fn during<T: Send>(what: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<String>();
        let worker = scope.spawn(move || {
            let result = work();
            drop(done);
            result
        });
        report(what, &waiting);
        worker.join().map_err(|_| anyhow::anyhow!("{what} panicked"))?
    })
}

/// Copies lines from `from` to `to`, and tells `said` each of them.
fn pass_on<R, W>(from: R, to: fn() -> W, said: Sender<String>) -> thread::JoinHandle<()>
where
    R: Read + Send + 'static,
    W: Write + 'static,
{
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let mut to = to();
            // Whoever reads our output has gone; the program still runs to its end.
            let _ = to.write_all(&line).and_then(|()| to.flush());
            let _ = said.send(String::from_utf8_lossy(&line).trim().to_owned());
            line.clear();
        }
    })
}

/// Until the other end of `lines` is dropped: a line on stderr after each silence.
fn report(what: &str, lines: &mpsc::Receiver<String>) {
    let started = Instant::now();
    let mut last = String::new();
    loop {
        match lines.recv_timeout(SILENCE_MAX) {
            Ok(line) if line.is_empty() => {}
            Ok(line) => last = line,
            Err(RecvTimeoutError::Timeout) => eprintln!("{}", silence(what, started.elapsed(), &last)),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn silence(what: &str, elapsed: Duration, last: &str) -> String {
    let last = if last.is_empty() { String::new() } else { format!("; last: {last}") };
    format!("    ... {what}, {} s so far{last}", elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_says_what_goes_on() {
        let line = silence("building navarch", Duration::from_secs(24), "Compiling navarch-envoy v0.1.0");
        assert_eq!(line, "    ... building navarch, 24 s so far; last: Compiling navarch-envoy v0.1.0");
        assert_eq!(silence("waiting", Duration::from_secs(8), ""), "    ... waiting, 8 s so far");
    }

    #[test]
    fn a_program_that_fails_is_an_error_and_its_result_is_kept() {
        let sh = |script: &str| run("testing", Command::new("/bin/sh").args(["-c", script]));
        sh("echo one; echo two >&2").unwrap();
        assert!(sh("exit 3").unwrap_err().to_string().contains("exit status: 3"));
        assert_eq!(during("counting", || Ok(3)).unwrap(), 3);
        assert!(during("failing", || -> Result<()> { bail!("no") }).is_err());
    }
}
