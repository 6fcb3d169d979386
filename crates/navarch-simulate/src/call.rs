//! What an application or a client does.

use std::net::SocketAddr;

/// One call as it reaches the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The address and port dialled. For a gateway, the port that it listens on.
    pub destination: SocketAddr,
    /// From the application beside the proxy, or to it. Gateways get calls as [`Direction::Outbound`].
    pub direction: Direction,
    /// What is spoken, inside TLS if there is TLS.
    pub protocol: Protocol,
    /// The TLS handshake of the client, if it makes one.
    pub tls: Option<Tls>,
    /// `Host` or `:authority`, with the port if the client sends it.
    pub host: String,
    /// `:method`.
    pub method: String,
    /// `:path`, with the query.
    pub path: String,
    /// Other headers in the order sent; names in any case.
    pub headers: Vec<(String, String)>,
}

impl Call {
    /// A `GET /` of HTTP/1.1 in plain text, from the application.
    #[must_use]
    pub fn http(destination: SocketAddr, host: impl Into<String>) -> Self {
        Self {
            destination,
            direction: Direction::Outbound,
            protocol: Protocol::Http1,
            tls: None,
            host: host.into(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
        }
    }

    /// Bytes in plain text from the application, of no protocol that the proxy can tell.
    #[must_use]
    pub fn tcp(destination: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, ..Self::http(destination, "") }
    }

    /// The path without query and fragment, which is what Envoy compares.
    pub(crate) fn bare_path(&self) -> &str {
        self.path.split(['?', '#']).next().unwrap_or_default()
    }

    /// The parameters of the query, not decoded, as Envoy compares them.
    pub(crate) fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        let path = self.path.split('#').next().unwrap_or_default();
        let query = path.split_once('?').map_or("", |(_, query)| query);
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// All values of a header, joined as Envoy joins them; pseudo headers too.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match name.to_ascii_lowercase().as_str() {
            ":method" => return Some(self.method.clone()),
            ":path" => return Some(self.path.clone()),
            ":authority" | "host" => return Some(self.host.clone()),
            ":scheme" => return Some(scheme.to_owned()),
            _ => {}
        }
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// From which side a call reaches a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the application, redirected to the port for outbound traffic.
    Outbound,
    /// To the application, redirected to the port for inbound traffic.
    Inbound,
}

/// What is spoken over the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; over plain text with prior knowledge.
    Http2,
    /// Anything else in which the client speaks first.
    Tcp,
}

/// What the client says in its handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Server name indication; empty if not sent.
    pub sni: String,
    /// Application protocols in the order offered.
    pub alpn: Vec<String>,
    /// Whether the client can show a certificate that the proxy trusts.
    pub client_certificate: bool,
}
