//! Ports that no other test, in this process or another, is using.

use anyhow::{Context, Result, bail};
use std::{
    fs::{File, TryLockError},
    net::Ipv4Addr,
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
};
use tokio::net::TcpSocket;

/// Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port
/// between our choice and its use.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Locks on the ports handed out; they last as long as the process.
static CLAIMED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A TCP port that is free on every loopback address. It is ours until the process ends: a lock
/// file keeps other test processes of the same user from choosing it.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let dir = std::env::temp_dir().join(format!("navarch-ports-{}", user()));
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let n = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + ((u32::from(start) + u32::from(n)) % u32::from(COUNT)) as u16;
        let lock = File::create(dir.join(port.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error).context("locking a port"),
        }
        if nobody_listens(port)? {
            CLAIMED.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(lock);
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Binds on every address and does not listen. A child that is just being forked may hold a copy
/// of the socket for a moment; not listening, it is in nobody's way.
fn nobody_listens(port: u16) -> Result<bool> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    Ok(socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).is_ok())
}

/// A name for the lock directory that differs between users of one machine.
fn user() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "nobody".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn ports_are_distinct_and_usable() {
        let (a, b) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(a, b);
        let _listening = TcpListener::bind((Ipv4Addr::LOCALHOST, a)).unwrap();
        assert!(!nobody_listens(a).unwrap());
        assert!(nobody_listens(b).unwrap());
    }
}
