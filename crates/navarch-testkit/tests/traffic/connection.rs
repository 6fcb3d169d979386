//! Clients that keep their connection, over plaintext and over TLS.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header::CONNECTION};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use navarch_testkit::wait;
use std::{ffi::OsStr, net::Ipv4Addr, path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// One HTTP/1.1 connection. It is never opened again: losing it is an error.
pub struct Connection(SendRequest<Empty<Bytes>>);

impl Connection {
    pub async fn open(port: u16) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends when `sender` is dropped or the peer closes.
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    /// The status, the body, and whether the gateway has announced that it will close the connection.
    pub async fn get(&mut self, host: &str) -> Result<(StatusCode, Bytes, bool)> {
        let exchange = async {
            self.0.ready().await.context("the connection was closed")?;
            let request = Request::get("/").header("host", host).body(Empty::new())?;
            let response = self.0.send_request(request).await.context("the connection was lost")?;
            let status = response.status();
            let closing = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
            Ok((status, response.into_body().collect().await?.to_bytes(), closing))
        };
        timeout(wait::STEP, exchange).await.context("no answer")?
    }
}

/// One connection over TLS, through `openssl s_client`, that has verified the server's name and certificate.
pub struct TlsConnection {
    /// Ends with this value.
    _client: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl TlsConnection {
    /// The handshake happens with the first request.
    pub fn open(port: u16, server_name: &str, authority: &Path) -> Result<TlsConnection> {
        TlsConnection::open_with(port, server_name, authority, &[])
    }

    /// [`TlsConnection::open`] with more arguments, for example a certificate of the client.
    pub fn open_with(
        port: u16,
        server_name: &str,
        authority: &Path,
        extra: &[&OsStr],
    ) -> Result<TlsConnection> {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", server_name])
            .args(["-servername", server_name, "-connect", &format!("127.0.0.1:{port}"), "-CAfile"])
            .arg(authority)
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting openssl")?;
        let stdin = client.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(client.stdout.take().context("no stdout")?);
        Ok(TlsConnection { _client: client, stdin, stdout })
    }

    /// The status and the body of `GET /`.
    pub async fn get(&mut self, host: &str) -> Result<(u16, String)> {
        timeout(wait::STEP, self.exchange(host)).await.context("no answer")?
    }

    async fn exchange(&mut self, host: &str) -> Result<(u16, String)> {
        self.stdin.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.context("not an HTTP response")?;
        let mut length = 0;
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else {
                ensure!(line.is_empty(), "not a header: {line}");
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
            ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "a body in chunks");
        }
        let mut body = vec![0; length];
        self.stdout.read_exact(&mut body).await?;
        Ok((status, String::from_utf8(body)?))
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line).await? == 0 {
            bail!("the TLS connection was refused or closed");
        }
        Ok(line.trim_end().to_owned())
    }
}
