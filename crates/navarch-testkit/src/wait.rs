//! Bounded waiting by polling.

use anyhow::{Result, anyhow};
use std::{fmt, future::Future, time::Duration};
use tokio::time::Instant;

/// How long any single step of a test may take on a busy machine, unless it says otherwise.
pub const STEP: Duration = Duration::from_secs(30);

/// A reason that no more waiting can cure, for example that the process has ended.
#[derive(Debug)]
pub struct Fatal(pub String);

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fatal {}

/// Polls `probe` every 10 ms until it gives a value, or fails with the last reason it gave. A
/// [`Fatal`] reason ends it at once.
pub async fn until<T, F, Fut>(what: &str, within: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        let reason = match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) if reason.is::<Fatal>() => {
                return Err(reason.context(format!("waiting for {what}")));
            }
            Ok(Err(reason)) => reason,
            // What the one before said is worth more than that the bound fell into this one.
            Err(_) => last.take().unwrap_or_else(|| anyhow!("no attempt finished")),
        };
        if Instant::now() >= deadline {
            return Err(reason.context(format!("gave up after {within:?} waiting for {what}")));
        }
        last = Some(reason);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Like [`until`], for a condition without a value.
pub async fn until_true<F, Fut>(what: &str, within: Duration, mut probe: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    until(what, within, || {
        let probe = probe();
        async { if probe.await? { Ok(()) } else { Err(anyhow!("not yet")) } }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn polls_until_a_value_or_the_bound() {
        let calls = Cell::new(0);
        let probe = || {
            calls.set(calls.get() + 1);
            let n = calls.get();
            async move { if n < 3 { Err(anyhow!("only {n}")) } else { Ok(n) } }
        };
        assert_eq!(until("three", STEP, probe).await.unwrap(), 3);

        let never = || async { Err::<(), _>(anyhow!("the reason")) };
        let error = until("ever", Duration::from_millis(30), never).await.unwrap_err();
        assert!(format!("{error:#}").contains("the reason"), "{error:#}");

        let calls = Cell::new(0);
        let dead = || {
            calls.set(calls.get() + 1);
            async { Err::<(), _>(anyhow!(Fatal("it ended".to_owned())).context("more")) }
        };
        assert!(until("dead", STEP, dead).await.is_err());
        assert_eq!(calls.get(), 1);

        let stuck = || std::future::pending::<Result<()>>();
        assert!(until("stuck", Duration::from_millis(30), stuck).await.is_err());
    }
}
