//! The command line as a program among others: readers that go away, words that are wrong, exit statuses.

use std::io::{Write, pipe};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::Result;
use navarch_testkit::{navarch, workspace};
use serde_json::Value;

const EDGE: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {app: edge}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]
";

/// A directory with one Gateway, as text.
fn mesh(name: &str) -> Result<String> {
    let directory = workspace::scratch(name)?.join("mesh");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("edge.yaml"), EDGE)?;
    Ok(directory.display().to_string())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_reader_that_goes_away_is_not_a_crash() -> Result<()> {
    let mesh = mesh("cli-pipe")?;
    let render = ["render", "--config", &mesh, "--type", "router", "--name", "edge", "-l", "app=edge"];
    for arguments in [
        ["analyze", "--config", &mesh].as_slice(),
        &["analyze", &mesh, "-o", "json"],
        &["analyze", &mesh, "-o", "sarif"],
        &["convert", &mesh],
        &["crds"],
        &render,
        &["bootstrap", "--name", "web"],
        &["completion", "bash"],
    ] {
        let (reader, writer) = pipe()?;
        drop(reader);
        let output = Command::new(navarch::binary()?)
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()?
            .wait_with_output()?;
        // As of a program that the signal SIGPIPE ends.
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
    // Nobody hears the error either.
    let (reader, writer) = pipe()?;
    drop(reader);
    let status = Command::new(navarch::binary()?)
        .args(["proxy-status", "--admin-addr", "127.0.0.1:1"])
        .stderr(writer)
        .status()?;
    assert_eq!(status.code(), Some(2));
    Ok(())
}

#[test]
fn an_analysis_for_programs_has_findings_and_statuses() -> Result<()> {
    let mesh = mesh("cli-json")?;
    std::fs::write(
        Path::new(&mesh).join("broken.yaml"),
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: broken}\nspec: {servers: 1}\n",
    )?;
    let output = Command::new(navarch::binary()?).args(["analyze", &mesh, "-o", "json"]).output()?;
    assert_eq!(output.status.code(), Some(79), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let entries = |what: &str| report[what].as_array().cloned().unwrap_or_default();
    let of_broken = |entry: &&Value| entry["object"].as_str().is_some_and(|key| key.ends_with("/broken"));
    let finding = entries("findings").iter().find(of_broken).map(|finding| finding["severity"].clone());
    assert_eq!(finding, Some("error".into()), "{report}");
    let accepted = |entry: &Value| -> Option<Value> {
        let conditions = entry["conditions"].as_array()?;
        Some(conditions.iter().find(|condition| condition["type"] == "Accepted")?["status"].clone())
    };
    let statuses = entries("statuses");
    assert_eq!(statuses.iter().find(of_broken).and_then(accepted), Some("False".into()), "{report}");
    assert!(statuses.iter().filter_map(accepted).any(|status| status == "True"), "{report}");
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_said() -> Result<()> {
    let mesh = mesh("cli-words")?;
    for (arguments, status, said) in [
        (
            ["render", "--config", &mesh, "--type", "router", "--name", "other", "-l", "app=other"]
                .as_slice(),
            2,
            "nothing would listen",
        ),
        (&["serve", "--config", &mesh, "--log-level", "loud"], 2, "loud is not one of"),
        (&["serve", "--config", &mesh, "--xds-addr", "15010"], 2, "15010 is not host:port"),
        (&["bootstrap", "--name", "web", "--tls-ca", "absent.pem"], 2, "cannot read absent.pem"),
    ] {
        let output = navarch::run(arguments)?;
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert_eq!(output.stdout, b"", "{arguments:?}");
    }
    Ok(())
}

#[test]
fn what_is_piped_in_is_analyzed_with_what_is_there() -> Result<()> {
    let mesh = mesh("cli-stdin")?;
    let route = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: ['*']
  gateways: [edge]
  http: [{route: [{destination: {host: web.example.com}, weight: -1}]}]
";
    let check = |arguments: &[&str], said: &str| -> Result<()> {
        let mut child = Command::new(navarch::binary()?)
            .args(["analyze", &mesh, "-"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(route.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains(said), "{arguments:?}: {stdout}");
        assert_eq!(output.status.code(), Some(79), "{arguments:?}: {stdout}");
        Ok(())
    };
    check(&["-o", "lines"], " <stdin>:7:66: VirtualService default/web: ")?;
    check(&[], "--> <stdin>:7:66")?;
    check(&["-o", "github"], "::error file=<stdin>,line=7,col=66,")?;
    check(&["-o", "sarif"], "\"startLine\": 7")?;
    Ok(())
}

#[test]
fn manual_pages_and_versions_are_made() -> Result<()> {
    let directory = workspace::scratch("cli-man")?;
    let output = navarch::run(["man", &directory.display().to_string()])?;
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(directory.join("navarch-proxy-status.1"))?;
    assert!(page.contains("SYNCED"), "{page}");
    assert!(navarch::stdout(["--version"])?.starts_with("navarch "));
    Ok(())
}

#[test]
fn what_is_converted_is_yaml_and_what_does_not_fit_has_a_line() -> Result<()> {
    let mesh = mesh("cli-convert")?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: edge, namespace: default}\nspec: {clusterIP: 10.0.0.1, \
                   selector: {app: edge}, ports: [{name: http, port: 8080}]}\n";
    std::fs::write(Path::new(&mesh).join("service.yaml"), service)?;
    let convert =
        || -> Result<Output> { Ok(Command::new(navarch::binary()?).args(["convert", &mesh]).output()?) };
    let output = convert()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    assert!(
        text.contains("kind: Gateway") && text.contains("value: edge.default.svc.cluster.local"),
        "{text}"
    );

    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: default}\nspec:\n  hosts: \
                 ['*']\n  gateways: [edge]\n  http:\n  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: edge}}]\n";
    std::fs::write(Path::new(&mesh).join("route.yaml"), route)?;
    let output = convert()?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("warning[NAV0319]") && said.contains("route.yaml:8:"), "{said}");
    Ok(())
}
