//! `navarch agent redirect` in real networks: applications talk mutual TLS and know nothing of it.

use anyhow::{Result, ensure};
use navarch_testkit::agent::Agent;
use navarch_testkit::navarch::Server;
use navarch_testkit::network::{self, Machine, Network};
use navarch_testkit::process::Process;
use navarch_testkit::{navarch, wait, workspace};

/// An application: says who calls, by their address and by what mutual TLS has proven.
const APPLICATION: &str = r#"
import http.server, socket, sys
class Application(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        identity = self.headers.get("x-forwarded-client-cert", "URI=nobody").split("URI=")[-1].split(";")[0]
        body = f"{self.client_address[0].removeprefix('::ffff:')} {identity}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[1])), Application).serve_forever()
"#;

/// A caller, which knows of no proxy.
const CALL: &str = r#"
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode(), end="")
"#;

/// The port of the application, one that is not led to Envoy, and the address of the service.
const PORT: &str = "8080";
const LEFT: &str = "9999";
const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/caller";
const GREETER: &str = "spiffe://cluster.local/ns/shop/sa/greeter";

/// Two machines with an application and an agent each.
struct Mesh {
    _server: Server,
    greeter: Machine,
    caller: Machine,
    _agents: [Agent; 2],
    _applications: [Process; 3],
    redirect: Vec<String>,
    /// The service, as a host of a URL.
    service: String,
}

impl Mesh {
    async fn start(network: &Network, mode: &str, is_v6: bool) -> Result<Mesh> {
        let address = if is_v6 { "fd96::10" } else { "10.96.0.10" };
        Mesh::start_with(network, mode, is_v6, Some(address), "", &[], &[]).await
    }

    /// The same with more configuration, more metadata of the proxies, and more flags for the rules.
    async fn start_with(
        network: &Network,
        mode: &str,
        is_v6: bool,
        service: Option<&str>,
        more: &str,
        metadata: &[&str],
        flags: &[&str],
    ) -> Result<Mesh> {
        let (greeter, caller) = (network.machine("greeter", 12)?, network.machine("caller", 13)?);
        for machine in [&greeter, &caller] {
            machine.resolv_conf("search shop.svc.cluster.local\nnameserver 10.77.0.1\n")?;
        }
        let at = |machine: &Machine| if is_v6 { machine.address_v6 } else { machine.address };
        let addresses = service.map(|address| format!("{address:?}")).unwrap_or_default();
        let directory = workspace::scratch("redirect")?;
        let (config, state) = (directory.join("config"), directory.join("state").display().to_string());
        std::fs::create_dir_all(&config)?;
        let text = format!(
            r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: shop}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: greeter, namespace: shop}}
spec:
  hosts: [greeter.shop]
  addresses: [{addresses}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {PORT}}}]
  workloadSelector: {{labels: {{app: greeter}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: greeter, namespace: shop}}
spec:
  address: "{}"
  serviceAccount: greeter
  labels: {{app: greeter, security.istio.io/tlsMode: istio}}
{more}"#,
            at(&greeter)
        );
        std::fs::write(config.join("mesh.yaml"), text)?;
        // The ports of Istio: this network has nobody else.
        let local = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let arguments = ["--state", &state, "--secure-addr", "10.77.0.1:15012", "--tls-name", "10.77.0.1"];
        let server =
            Server::start_on("redirect-serve", &config, local(15010), local(15014), &arguments).await?;
        let root = directory.join("root.pem");
        std::fs::write(&root, navarch::stdout(["ca", "root", "--state", &state])?)?;
        let agent = |machine: &Machine, account: &str| {
            let token = directory.join(format!("{account}.token"));
            let create = ["token", "create", "-n", "shop", "--service-account", account, "--state", &state];
            std::fs::write(&token, navarch::stdout(create)?)?;
            let (root, token) = (root.display().to_string(), token.display().to_string());
            let mode = format!("INTERCEPTION_MODE={mode}");
            let arguments = [
                &["sidecar", "--service", account, "-n", "shop", "--service-account", account][..],
                &["--server", "10.77.0.1:15012", "--root", &root, "--token", &token],
                &["--ip", &at(machine).to_string(), "--metadata", &mode, "--drain-min", "0s"],
            ];
            let metadata: Vec<&str> = metadata.iter().flat_map(|pair| ["--metadata", pair]).collect();
            let arguments = [arguments.concat(), metadata].concat();
            Agent::start_by(machine.as_proxy(), &format!("redirect-{account}"), &arguments, &[])
        };
        let agents = [agent(&greeter, "greeter")?, agent(&caller, "caller")?];
        for agent in &agents {
            agent.said("Envoy is ready", 1).await?;
        }
        let application = |machine: &Machine, port: &str| {
            machine.start("redirect-application", &["python3", "-c", APPLICATION, port])
        };
        let applications =
            [application(&greeter, PORT)?, application(&greeter, LEFT)?, application(&caller, PORT)?];
        let mut redirect: Vec<String> =
            vec![navarch::binary()?.display().to_string(), "agent".to_owned(), "redirect".to_owned()];
        redirect.extend(["--mode", mode, "--exclude-inbound-ports", LEFT].map(str::to_owned));
        redirect.extend(flags.iter().map(|flag| (*flag).to_owned()));
        if is_v6 {
            redirect.push("--ipv6".to_owned());
        }
        let service = match service {
            Some(address) if is_v6 => format!("[{address}]"),
            Some(address) => address.to_owned(),
            None => "greeter.shop".to_owned(),
        };
        let _server = server;
        Ok(Mesh { _server, greeter, caller, _agents: agents, _applications: applications, redirect, service })
    }

    fn redirect(&self, machine: &Machine, more: &[&str]) -> Result<String> {
        let words: Vec<&str> = self.redirect.iter().map(String::as_str).chain(more.iter().copied()).collect();
        machine.run(&words)
    }

    /// What the service answers to an application on a machine.
    async fn called_from(&self, machine: &Machine) -> Result<String> {
        let url = format!("http://{}/", self.service);
        wait::until("an answer", wait::STEP, || async { machine.python(CALL, &[&url]) }).await
    }
}

async fn check(network: Network, mode: &str, is_v6: bool) -> Result<()> {
    let mesh = Mesh::start(&network, mode, is_v6).await?;
    let Mesh { greeter, caller, .. } = &mesh;
    let at = |machine: &Machine| match is_v6 {
        true => format!("[{}]", machine.address_v6),
        false => machine.address.to_string(),
    };
    let direct = format!("http://{}:{PORT}/", at(greeter));
    // From here, where there is no proxy, and from the caller while it has no rules.
    let plain = |url: &String| caller.run(&["python3", "-c", CALL, url]);
    let left = format!("http://{}:{LEFT}/", at(greeter));
    let own = format!("http://{}:{PORT}/", at(caller));
    wait::until("the applications to answer", wait::STEP, || async {
        [&direct, &left, &own].map(plain).into_iter().collect::<Result<Vec<_>>>()
    })
    .await?;

    for machine in [greeter, caller] {
        mesh.redirect(machine, &[])?;
        // Again, with the same result.
        let rules = machine.run(&["nft", "list", "ruleset"])?;
        mesh.redirect(machine, &[])?;
        let again = machine.run(&["nft", "list", "ruleset"])?;
        ensure!(rules == again && rules.contains("table inet navarch"), "{rules}\n{again}");
    }
    let answer = mesh.called_from(caller).await?;
    let (address, identity) = answer.split_once(' ').unwrap_or_default();
    ensure!(identity == CALLER, "{answer}");
    if mode == "TPROXY" {
        ensure!(address == at(caller).trim_matches(['[', ']']), "the application sees {address}");
    }
    // A service that calls itself comes in as everybody does.
    let itself = mesh.called_from(greeter).await?;
    ensure!(itself.ends_with(GREETER), "{itself}");
    // What is no service of the mesh is passed on, from its own address.
    let passed = caller.python(CALL, &[&left])?;
    ensure!(passed.ends_with(" nobody"), "{passed}");
    // An application that talks to its own machine does so.
    let own = caller.python(CALL, &[&format!("http://127.0.0.1:{PORT}/")])?;
    ensure!(own == "127.0.0.1 nobody", "{own}");

    // Without its proxy the caller speaks plaintext, and is not heard.
    mesh.redirect(caller, &["--undo"])?;
    ensure!(caller.run(&["nft", "list", "ruleset"])?.trim().is_empty(), "rules are left");
    for command in [&["ip", "rule"][..], &["ip", "-6", "rule"], &["ip", "-6", "addr", "show", "dev", "lo"]] {
        let left = caller.run(command)?;
        ensure!(!left.contains("0x539") && !left.contains("::6/"), "{left}");
    }
    ensure!(plain(&direct).is_err(), "plaintext is heard");
    ensure!(plain(&left)?.ends_with(" nobody"), "the port that is left");
    mesh.redirect(greeter, &["--undo"])?;
    ensure!(plain(&direct)?.ends_with(" nobody"), "the rules are still there");
    Ok(())
}

#[test]
fn applications_need_no_changes() -> Result<()> {
    network::alone("applications_need_no_changes", async |network| check(network, "REDIRECT", false).await)
}

#[test]
fn applications_need_no_changes_with_ipv6() -> Result<()> {
    network::alone("applications_need_no_changes_with_ipv6", async |network| {
        check(network, "REDIRECT", true).await
    })
}

#[test]
fn with_tproxy_they_see_who_calls() -> Result<()> {
    network::alone("with_tproxy_they_see_who_calls", async |network| check(network, "TPROXY", false).await)
}

#[test]
fn with_tproxy_and_ipv6_too() -> Result<()> {
    network::alone("with_tproxy_and_ipv6_too", async |network| check(network, "TPROXY", true).await)
}

/// A server of names outside of the mesh: knows one name, and writes down what it is asked.
const SERVER: &str = r#"
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.77.0.1", 53))
while True:
    question, client = server.recvfrom(4096)
    print(question.hex(), flush=True)
    end = question.index(b"\0", 12) + 5
    is_known = question[12:end - 4] == b"\7outside\7example\0" and question[end - 3] == 1
    flags = b"\x81\x80" if is_known or b"\7outside" in question else b"\x81\x83"
    answer = question[:2] + flags + b"\0\1\0" + bytes([is_known]) + b"\0\0\0\0" + question[12:end]
    if is_known:
        answer += b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4" + bytes([192, 0, 2, 7])
    server.sendto(answer, client)
"#;

/// Says which of several it is, to whoever connects.
const NUMBERED: &str = r#"
import socket, sys
server = socket.create_server(("10.77.0.1", int(sys.argv[1])))
while True:
    client, _ = server.accept()
    client.sendall(sys.argv[1].encode())
    client.close()
"#;

/// Resolves a name as any program does, or connects to it.
const RESOLVE: &str = r#"
import socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], None, type=socket.SOCK_STREAM)
    print(*sorted({address[4][0] for address in found}), end="")
except socket.gaierror as error:
    print(error.args[1], end="")
"#;
const CONNECT: &str = r#"
import socket, sys
print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(16).decode(), end="")
"#;
/// Asks over a connection.
const ASK_STREAM: &str = r#"
import socket, sys
name = b"".join(bytes([len(label)]) + label.encode() for label in sys.argv[1].split("."))
question = bytes.fromhex("000701000001000000000000") + name + bytes.fromhex("0000010001")
stream = socket.create_connection(("10.77.0.1", 53), 5)
stream.sendall(len(question).to_bytes(2, "big") + question)
print(stream.makefile("rb").read(2 + 12).hex(), end="")
"#;

/// Two services on one port that have no addresses but those that are allocated.
const NUMBERS: &str = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: one, namespace: shop}
spec:
  hosts: [one.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 7000, name: tcp, protocol: TCP}]
  endpoints: [{address: 10.77.0.1, ports: {tcp: 7001}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: two, namespace: shop}
spec:
  hosts: [two.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 7000, name: tcp, protocol: TCP}]
  endpoints: [{address: 10.77.0.1, ports: {tcp: 7002}}]
";

#[test]
fn names_of_the_mesh_are_answered_by_the_agent() -> Result<()> {
    network::alone("names_of_the_mesh_are_answered_by_the_agent", async |network| {
        let start = |name: &str, program: &str, arguments: &[&str]| {
            let log = workspace::scratch(name)?.join("log");
            let mut command = std::process::Command::new("python3");
            Process::start(name, command.args(["-c", program]).args(arguments), &log)
        };
        let server = start("names-server", SERVER, &[])?;
        let _numbered = [start("one", NUMBERED, &["7001"])?, start("two", NUMBERED, &["7002"])?];
        let metadata = ["DNS_CAPTURE=true"];
        let flags = ["--redirect-dns"];
        let mesh = Mesh::start_with(&network, "REDIRECT", false, None, NUMBERS, &metadata, &flags).await?;
        let Mesh { greeter, caller, .. } = &mesh;
        let resolved = |name: &str| caller.python(RESOLVE, &[name]);
        ensure!(resolved("outside.example")? == "192.0.2.7", "the server outside does not answer");
        for machine in [greeter, caller] {
            mesh.redirect(machine, &[])?;
        }
        // By name, with no address in any file.
        let answer = mesh.called_from(caller).await?;
        ensure!(answer.ends_with(CALLER), "{answer}");
        let numbers = ["one.example", "two.example"].map(|host| caller.python(CONNECT, &[host, "7000"]));
        let [one, two] = numbers;
        ensure!((one?.as_str(), two?.as_str()) == ("7001", "7002"), "they are not told apart");
        let allocated = resolved("one.example")?;
        ensure!(allocated.starts_with("240.240."), "{allocated}");

        // What nobody in the mesh has is asked elsewhere, byte for byte, and so is what comes back.
        ensure!(resolved("outside.example")? == "192.0.2.7", "names outside are not known any more");
        let unknown = resolved("nosuch.example")?;
        ensure!(unknown.contains("not known"), "{unknown}");
        let mut asked: Vec<String> = server.log().lines().map(str::to_owned).collect();
        asked.dedup();
        ensure!(
            !asked.iter().any(|question| question.contains("036f6e65")),
            "one.example was asked elsewhere"
        );
        // Over a connection, too.
        let answer = caller.python(ASK_STREAM, &["greeter.shop"])?;
        ensure!(answer.ends_with("000785800001000100000000"), "{answer}");
        Ok(())
    })
}
