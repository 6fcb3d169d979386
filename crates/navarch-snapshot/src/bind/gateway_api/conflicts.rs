//! Listeners of a gateway that contradict each other.
//!
//! A gateway's own listeners come first, in their order, then those of ListenerSets, the oldest set first. A
//! listener that cannot be told apart from one before it is not opened. (Gateway API,
//! `ListenerConditionConflicted`.)

use navarch_model::gateway_api::Listener;

/// Why a listener is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Another one has the port for a protocol that cannot be told apart.
    Protocol,
    /// Another one has the host.
    Hostname,
}

impl Conflict {
    pub const fn reason(self) -> &'static str {
        match self {
            Conflict::Protocol => "ProtocolConflict",
            Conflict::Hostname => "HostnameConflict",
        }
    }
}

/// The listeners that are opened so far.
#[derive(Debug, Default)]
pub struct Opened<'a>(Vec<&'a Listener>);

impl<'a> Opened<'a> {
    /// Opens a listener, unless one before it is in its way.
    pub fn open(&mut self, listener: &'a Listener) -> Result<(), Conflict> {
        match self.0.iter().find_map(|other| conflict(listener, other)) {
            Some(conflict) => Err(conflict),
            None => {
                self.0.push(listener);
                Ok(())
            }
        }
    }
}

/// What keeps two listeners from being told apart.
fn conflict(listener: &Listener, other: &Listener) -> Option<Conflict> {
    if listener.port() != other.port() {
        return None;
    }
    let same = listener.protocol == other.protocol;
    let datagrams = |listener: &Listener| &*listener.protocol == "UDP";
    if datagrams(listener) != datagrams(other) {
        return None;
    }
    let bytes = |listener: &Listener| matches!(&*listener.protocol, "TCP" | "UDP");
    let named = |listener: &Listener| matches!(&*listener.protocol, "HTTP" | "HTTPS" | "TLS");
    let (both_named, both_bytes) = (named(listener) && named(other), bytes(listener) && bytes(other));
    let distinct = match () {
        () if both_bytes || bytes(listener) && named(other) || named(listener) && bytes(other) => false,
        () if both_named => listener.host() != other.host(),
        () => !same,
    };
    let hostname = same && !both_bytes;
    (!distinct).then_some(if hostname { Conflict::Hostname } else { Conflict::Protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_a_port_if_their_traffic_can_be_told_apart() {
        let listener = |port, protocol: &str, hostname: &str| Listener {
            port,
            protocol: protocol.into(),
            hostname: (!hostname.is_empty()).then(|| hostname.into()),
            ..Listener::default()
        };
        let check = |a: (u32, &str, &str), b: (u32, &str, &str), expected: Option<Conflict>| {
            let (a, b) = (listener(a.0, a.1, a.2), listener(b.0, b.1, b.2));
            let mut opened = Opened::default();
            assert_eq!(opened.open(&a), Ok(()));
            assert_eq!(opened.open(&b).err(), expected, "{a:?} {b:?}");
        };
        check((80, "HTTP", ""), (81, "HTTP", ""), None);
        check((80, "HTTP", ""), (80, "HTTP", "a.com"), None);
        check((80, "HTTP", "a.com"), (80, "HTTP", "a.com"), Some(Conflict::Hostname));
        check((80, "HTTP", ""), (80, "HTTP", "*"), Some(Conflict::Hostname));
        check((443, "HTTPS", "a.com"), (443, "TLS", "b.com"), None);
        check((443, "HTTPS", "a.com"), (443, "TLS", "a.com"), Some(Conflict::Protocol));
        check((80, "HTTP", ""), (80, "TCP", ""), Some(Conflict::Protocol));
        check((80, "TCP", ""), (80, "TCP", ""), Some(Conflict::Protocol));
        // A port for datagrams is another one. (DNS has both.)
        check((80, "TCP", ""), (80, "UDP", ""), None);
        check((80, "UDP", ""), (80, "UDP", ""), Some(Conflict::Protocol));
        // A ListenerSet may leave the port to the protocol.
        check((80, "HTTP", "a.com"), (0, "HTTP", "a.com"), Some(Conflict::Hostname));
    }

    #[test]
    fn a_listener_that_is_not_opened_is_in_nobodys_way() {
        let listener =
            |protocol: &str| Listener { port: 80, protocol: protocol.into(), ..Listener::default() };
        let [http, tcp, again] = ["HTTP", "TCP", "TCP"].map(listener);
        let mut opened = Opened::default();
        assert_eq!(opened.open(&http), Ok(()));
        assert_eq!(opened.open(&tcp), Err(Conflict::Protocol));
        assert_eq!(opened.open(&again), Err(Conflict::Protocol));
        assert_eq!(opened.0.len(), 1);
    }
}
