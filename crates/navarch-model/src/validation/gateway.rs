//! Gateway, and the TLS settings of servers that Sidecar shares.

use std::collections::BTreeSet;

use super::checks::{missing, port, protocol};
use super::hosts::{is_ip, namespace_host, unix_problem};
use super::{Report, Validate};
use crate::finding::Code;
use crate::networking::{Gateway, Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use crate::service::Protocol;

/// What Envoy's TLS library can negotiate. Names that start with a sign, and `ALL`, are passed on.
const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

impl Validate for Gateway {
    fn validate(&self, report: &mut Report<'_>) {
        if self.servers.is_empty() {
            missing(report, "servers", "add a server with port and hosts");
        }
        let mut names = BTreeSet::new();
        report.each("servers", &self.servers, |report, server| {
            self::server(report, server);
            if let Some(port) = &server.port
                && !port.name.is_empty()
                && !names.insert(port.name.as_str())
            {
                report.within("port.name", |report| {
                    let message = format!("the port name {:?} is there twice", port.name);
                    report.error(Code::DuplicateItem, message, "give each server's port its own name");
                });
            }
        });
    }
}

fn server(report: &mut Report<'_>, server: &Server) {
    if server.hosts.is_empty() {
        missing(report, "hosts", "list the hosts, or `*` for all");
    }
    report.each("hosts", &server.hosts, |report, host| namespace_host(report, host, true));
    let unix = server.bind.strip_prefix("unix://");
    match &server.port {
        None => missing(report, "port", "say which port to open"),
        Some(p) => report.within("port", |report| {
            protocol(report, &p.protocol, true);
            if p.number > 0 || unix.is_none() {
                port(report, "number", p.number);
            }
            if p.target_port > 0 {
                report.within("targetPort", |report| {
                    let message = "targetPort has no effect in a Gateway";
                    report.error(Code::NoEffect, message, "set it in the Service of the gateway");
                });
            }
            if p.name.is_empty() {
                missing(report, "name", "name the port");
            }
        }),
    }
    bind(report, &server.bind, server.port.as_ref().is_some_and(|port| port.number != 0));
    report.each_set("tls", server.tls.as_ref(), server_tls);
    if let Some(protocol) = server.port.as_ref().and_then(|port| Protocol::known(&port.protocol)) {
        match &server.tls {
            None if protocol.is_tls() => missing(report, "tls", "HTTPS and TLS ports need TLS settings"),
            Some(tls) if !protocol.is_tls() => report.within("tls", |report| {
                let redirect_only = protocol.is_http()
                    && tls.mode == ServerTlsMode::Passthrough
                    && [&tls.ca_certificates, &tls.private_key, &tls.server_certificate]
                        .iter()
                        .all(|f| f.is_empty());
                if !redirect_only {
                    let message = "the port's protocol has no TLS";
                    report.error(
                        Code::InvalidCombination,
                        message,
                        "use protocol HTTPS or TLS, or remove tls",
                    );
                }
                if !protocol.is_http() && tls.https_redirect {
                    report.within("httpsRedirect", |report| {
                        report.warning(
                            Code::NoEffect,
                            "only HTTP servers can redirect",
                            "remove httpsRedirect",
                        );
                    });
                }
            }),
            Some(tls) if tls.https_redirect => report.within("tls.httpsRedirect", |report| {
                report.warning(Code::NoEffect, "only HTTP servers can redirect", "remove httpsRedirect");
            }),
            _ => {}
        }
    }
}

/// Checks an address to listen on.
pub(crate) fn bind(report: &mut Report<'_>, bind: &str, has_port: bool) {
    if let Some(path) = bind.strip_prefix("unix://") {
        report.within("bind", |report| {
            if let Some(problem) = unix_problem(path) {
                report.error(Code::InvalidAddress, format!("{bind:?} is not a socket: {problem}"), "");
            }
            if has_port {
                let message = "a unix domain socket has no port";
                report.error(Code::ExclusiveFields, message, "set the port's number to 0");
            }
        });
    } else if !bind.is_empty() && !is_ip(bind) {
        report.within("bind", |report| {
            let message = format!("{bind:?} is not an IP address");
            report.error(Code::InvalidAddress, message, "use an IP address or unix://<path>");
        });
    }
}

/// Checks the TLS settings of a server.
pub(crate) fn server_tls(report: &mut Report<'_>, tls: &ServerTlsSettings) {
    cipher_suites(report, tls);
    let named = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let certificates = [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
    ];
    if tls.mode == ServerTlsMode::IstioMutual {
        for (field, _) in certificates.into_iter().filter(|(_, set)| *set) {
            report.within(field, |report| {
                let message = "ISTIO_MUTUAL uses the mesh's own certificates";
                report.error(Code::ExclusiveFields, message, "remove the field, or use MUTUAL");
            });
        }
        return;
    }
    if matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough) {
        for (field, _) in
            certificates.into_iter().chain([("caCrl", !tls.ca_crl.is_empty())]).filter(|(_, set)| *set)
        {
            report.within(field, |report| {
                let message =
                    format!("{} does not terminate TLS and uses no certificates", tls.mode.as_str());
                report.warning(Code::NoEffect, message, "remove the field, or set mode");
            });
        }
    }
    let sources = [
        !tls.server_certificate.is_empty() && !tls.private_key.is_empty(),
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    if sources.iter().filter(|set| **set).count() > 1 {
        let message = "certificates come from more than one place";
        let hint =
            "keep one of credentialName, credentialNames, tlsCertificates, serverCertificate with privateKey";
        report.error(Code::ExclusiveFields, message, hint);
    }
    if !tls.ca_crl.is_empty() && (tls.mode == ServerTlsMode::Simple || !tls.credential_name.is_empty()) {
        report.within("caCrl", |report| {
            let message = "a revocation list needs client certificates that are verified from files";
            report.error(
                Code::InvalidCombination,
                message,
                "put the list into the credential, or use MUTUAL",
            );
        });
    }
    let mutual = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    if (tls.mode == ServerTlsMode::Simple || mutual) && !named {
        files(report, tls, mutual);
    }
}

/// Checks that the files a terminating server needs are named.
fn files(report: &mut Report<'_>, tls: &ServerTlsSettings, mutual: bool) {
    let mode = tls.mode.as_str();
    if mutual && tls.ca_certificates.is_empty() {
        missing(
            report,
            "caCertificates",
            &format!("{mode} needs the CA of client certificates, or credentialName"),
        );
    }
    let hint = format!("{mode} needs a certificate: credentialName, or serverCertificate and privateKey");
    if tls.tls_certificates.is_empty() {
        for (field, value) in
            [("serverCertificate", &tls.server_certificate), ("privateKey", &tls.private_key)]
        {
            if value.is_empty() {
                missing(report, field, &hint);
            }
        }
    }
    report.each("tlsCertificates", &tls.tls_certificates, |report, certificate| {
        for (field, value) in
            [("serverCertificate", &certificate.server_certificate), ("privateKey", &certificate.private_key)]
        {
            if value.is_empty() {
                missing(report, field, &hint);
            }
        }
    });
    if tls.tls_certificates.len() > 2 {
        report.within("tlsCertificates", |report| {
            let message = "more than two certificates: one per key type is used";
            report.warning(Code::NoEffect, message, "keep one RSA and one ECDSA certificate");
        });
    }
}

fn cipher_suites(report: &mut Report<'_>, tls: &ServerTlsSettings) {
    let old = matches!(tls.min_protocol_version, TlsProtocol::Tlsv10 | TlsProtocol::Tlsv11);
    if old && tls.cipher_suites.is_empty() {
        report.within("minProtocolVersion", |report| {
            let message = "the default cipher suites do not work below TLS 1.2";
            report.warning(Code::NoEffect, message, "set cipherSuites, or raise the version");
        });
    }
    let mut seen = BTreeSet::new();
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        let passed_on = suite == "ALL" || !suite.starts_with(|c: char| c.is_alphanumeric());
        let problem = if !passed_on && !CIPHER_SUITES.contains(&suite.as_str()) {
            "is not known and is ignored"
        } else if !seen.insert(suite) {
            "is there twice"
        } else {
            continue;
        };
        report.within(&format!("cipherSuites[{index}]"), |report| {
            report.warning(Code::NoEffect, format!("the cipher suite {suite:?} {problem}"), "");
        });
    }
}
