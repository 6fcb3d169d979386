//! Kubeconfigs that come from the cluster: who may write a Secret may say where another cluster is, and may
//! neither run programs nor read files here.

use std::net::IpAddr;

use http::Uri;
use kube::Config;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig};

use crate::request::chain;

/// Bytes of a kubeconfig. A Secret has at most a megabyte.
const BYTES_MAX: usize = 1 << 20;

/// Reads a kubeconfig that everything has to be in, as bytes.
///
/// # Errors
/// If it is not one, or refers to something outside of it.
pub(super) async fn untrusted(bytes: &[u8]) -> Result<Config, String> {
    if bytes.len() > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    // Whatever is in it, and not only what its current context leads to: that is easier to be sure of.
    let file = Kubeconfig::from_yaml(text).map_err(|_| "it is not a kubeconfig".to_owned())?;
    for named in &file.clusters {
        if let Some(cluster) = &named.cluster {
            check_cluster(cluster).map_err(|field| refused(&named.name, field))?;
        }
    }
    for named in &file.auth_infos {
        if let Some(user) = &named.auth_info {
            check_user(user).map_err(|field| refused(&named.name, field))?;
        }
    }
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(file, &options).await.map_err(|error| chain(&error))
}

fn refused(name: &str, field: &str) -> String {
    format!(
        "{name:?} has {field}, which a Secret may not: it would run a program or read a file here, or trust anybody"
    )
}

fn check_cluster(cluster: &Cluster) -> Result<(), &'static str> {
    // In full, so that nothing new is passed over.
    let Cluster {
        server,
        insecure_skip_tls_verify,
        certificate_authority,
        certificate_authority_data: _,
        proxy_url: _,
        disable_compression: _,
        tls_server_name: _,
        extensions: _,
        other: _,
    } = cluster;
    let fields = [
        (certificate_authority.is_some(), "certificate-authority"),
        (*insecure_skip_tls_verify == Some(true), "insecure-skip-tls-verify"),
        (server.as_deref().is_some_and(is_plaintext), "a server that is not reached over TLS"),
    ];
    none_of(&fields)
}

/// Whether what goes to a server, a token among it, may be read and answered by anybody on the way. Nobody is
/// on the way to this machine itself.
fn is_plaintext(server: &str) -> bool {
    let Ok(server) = server.parse::<Uri>() else { return false };
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_here = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    server.scheme_str() != Some("https") && !is_here
}

fn check_user(user: &AuthInfo) -> Result<(), &'static str> {
    let AuthInfo {
        username: _,
        password: _,
        token: _,
        token_file,
        client_certificate,
        client_certificate_data: _,
        client_key,
        client_key_data: _,
        impersonate: _,
        impersonate_uid: _,
        impersonate_groups: _,
        impersonate_user_extra: _,
        extensions: _,
        auth_provider,
        exec,
        other: _,
    } = user;
    let fields = [
        (exec.is_some(), "exec"),
        (auth_provider.is_some(), "auth-provider"),
        (token_file.is_some(), "tokenFile"),
        (client_certificate.is_some(), "client-certificate"),
        (client_key.is_some(), "client-key"),
    ];
    none_of(&fields)
}

fn none_of(fields: &[(bool, &'static str)]) -> Result<(), &'static str> {
    fields.iter().find(|(is_stated, _)| *is_stated).map_or(Ok(()), |(_, field)| Err(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'https://west.example:6443'{cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        )
    }

    #[tokio::test]
    async fn a_secret_runs_no_program_and_reads_no_file() {
        let check = async |text: &str, expected: Result<&str, &str>| {
            let read = untrusted(text.as_bytes()).await;
            match (read.map(|config| config.cluster_url.to_string()), expected) {
                (Err(said), Err(part)) => assert!(said.contains(part), "{said}"),
                (read, expected) => {
                    assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
                }
            }
        };
        let good = Ok("https://west.example:6443/");
        check(&kubeconfig("", "token: abc"), good).await;
        check(&kubeconfig(", tls-server-name: west", "username: a, password: b"), good).await;
        let exec =
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, interactiveMode: Never}";
        for (cluster, user, field) in [
            ("", exec, "exec"),
            ("", "auth-provider: {name: gcp, config: {cmd-path: /bin/sh}}", "auth-provider"),
            ("", "tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token", "tokenFile"),
            ("", "client-certificate: /etc/a.pem", "client-certificate"),
            ("", "client-key: /etc/a.key", "client-key"),
            (", certificate-authority: /etc/passwd", "token: abc", "certificate-authority"),
            (", insecure-skip-tls-verify: true", "token: abc", "insecure-skip-tls-verify"),
        ] {
            check(&kubeconfig(cluster, user), Err(field)).await;
        }
        // A user that no context leads to.
        let other = kubeconfig("", "token: abc")
            .replace("users: [", &format!("users: [{{name: other, user: {{{exec}}}}}, "));
        check(&other, Err("exec")).await;
        check("", Err("")).await;
        check("[", Err("not a kubeconfig")).await;
        check(&" ".repeat(BYTES_MAX + 1), Err("more than")).await;
    }
}
