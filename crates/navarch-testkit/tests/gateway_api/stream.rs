//! TCPRoute at a gateway.

use super::rig::{Rig, expect_from, route, services};
use crate::backend::Backend;
use anyhow::Result;
use navarch_testkit::http::Call;

pub async fn tcp(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("bytes").await?;
    let spec = "{parentRefs: [{name: edge, sectionName: tcp}], \
                rules: [{backendRefs: [{name: t-none, port: 80, weight: 0}, {name: t-all, port: 80, weight: 1}]}]}";
    let objects = route("TCPRoute", "tcp", "default", spec) + &services(&[("t-all", &backend)]);
    rig.apply("tcp", &objects).await?;
    let call = Call::get(format!("http://127.0.0.1:{}/", rig.tcp_port)).header("host", "anything");
    expect_from(&call, "bytes").await.map(drop)
}
