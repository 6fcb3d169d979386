//! Envoy's admin port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::http::{Call, HttpError};

/// Time for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Envoy's admin port.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub SocketAddr);

impl Admin {
    /// Whether Envoy has had its first configuration, and takes traffic.
    pub async fn is_ready(&self) -> bool {
        self.call(Method::GET, "/ready").await.is_ok()
    }

    /// Lets connections go: new requests are answered with `connection: close`, and listeners close at the
    /// end of the time that Envoy was started with. Of a sidecar only those that come in, so that the
    /// application can finish its work.
    ///
    /// # Errors
    /// If Envoy does not answer.
    pub async fn drain(&self, inbound_only: bool) -> Result<(), HttpError> {
        let which = if inbound_only { "inboundonly&graceful" } else { "graceful" };
        self.call(Method::POST, &format!("/drain_listeners?{which}")).await.map(drop)
    }

    /// Connections of clients that are open, without those to the admin port and to listeners of the agent.
    ///
    /// # Errors
    /// If Envoy does not answer.
    pub async fn connections(&self, inbound_only: bool) -> Result<u64, HttpError> {
        let outbound = if inbound_only {
            outbound(&self.call(Method::GET, "/config_dump?resource=dynamic_listeners").await?)
        } else {
            BTreeSet::new()
        };
        let text = self.call(Method::GET, "/stats?filter=downstream_cx_active%24&usedonly").await?;
        Ok(connections(&String::from_utf8_lossy(&text), &outbound))
    }

    /// A page.
    ///
    /// # Errors
    /// If Envoy does not answer.
    pub async fn get(&self, path: &str) -> Result<Bytes, HttpError> {
        self.call(Method::GET, path).await
    }

    async fn call(&self, method: Method, path: &str) -> Result<Bytes, HttpError> {
        let (address, headers) = (self.0.to_string(), HeaderMap::new());
        let (timeout, bytes_max) = (TIMEOUT, ANSWER_BYTES_MAX);
        Call { method, address: &address, path, headers, timeout, bytes_max }.body().await
    }
}

/// The connections in Envoy's statistics, without those of the listeners `except`. Each is counted by its
/// listener, by the threads of the listener and by what the listener leads to; those of listeners alone are
/// taken.
fn connections(stats: &str, except: &BTreeSet<String>) -> u64 {
    let counted = stats.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let listener = name.strip_prefix("listener.")?.strip_suffix(".downstream_cx_active")?;
        let is_thread = listener.contains(".worker_") || listener.contains(".main_thread");
        let is_own = listener == "admin" || ["_15021", "_15090"].iter().any(|own| listener.ends_with(own));
        let counts = !is_thread && !is_own && !except.contains(listener);
        counts.then(|| value.trim().parse::<u64>().ok())?
    });
    counted.sum()
}

/// The listeners for calls that go out, as Envoy names them in its statistics.
fn outbound(dump: &[u8]) -> BTreeSet<String> {
    let dump: Value = serde_json::from_slice(dump).unwrap_or_default();
    let listeners = dump["configs"].as_array().into_iter().flatten();
    let names = listeners.filter_map(|listener| {
        let listener = &listener["active_state"]["listener"];
        let address = &listener["address"]["socket_address"];
        let (ip, port) = (address["address"].as_str()?, address["port_value"].as_u64()?);
        // Colons would be taken for what separates a name from its value.
        let ip = if ip.contains(':') { format!("[{}]", ip.replace(':', "_")) } else { ip.to_owned() };
        (listener["traffic_direction"] == "OUTBOUND").then(|| format!("{ip}_{port}"))
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_clients_are_counted_once() {
        let stats = "http.inbound.downstream_cx_active: 3\n\
                     listener.0.0.0.0_15006.downstream_cx_active: 3\n\
                     listener.0.0.0.0_15006.worker_0.downstream_cx_active: 2\n\
                     listener.0.0.0.0_15001.downstream_cx_active: 5\n\
                     listener.127.0.2.1_9080.downstream_cx_active: 7\n\
                     listener.0.0.0.0_15021.downstream_cx_active: 11\n\
                     listener.admin.downstream_cx_active: 1\n\
                     listener.admin.main_thread.downstream_cx_active: 1\n";
        let dump = br#"{"configs": [
            {"active_state": {"listener": {"traffic_direction": "OUTBOUND",
                "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15001}}}}},
            {"active_state": {"listener": {"traffic_direction": "OUTBOUND",
                "address": {"socket_address": {"address": "127.0.2.1", "port_value": 9080}}}}},
            {"active_state": {"listener": {"traffic_direction": "INBOUND",
                "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}}}}}]}"#;
        assert_eq!(connections(stats, &outbound(dump)), 3);
        assert_eq!(connections(stats, &BTreeSet::new()), 15);
        assert_eq!(connections("", &outbound(b"what?")), 0);
    }
}
