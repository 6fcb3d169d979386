//! `navarch serve` whose configuration vanishes, and a stock Envoy that goes on serving.

mod common;

use anyhow::{Result, ensure};
use common::{Fixture, settled};
use navarch_testkit::{navarch::Server, wait};

/// Services that nobody calls, so that there is something to lose.
fn services(count: usize, port: u16) -> String {
    let one = |n: usize| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: unused-{n}, namespace: default}}
spec:
  hosts: [unused-{n}.test]
  resolution: STATIC
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1}}]
"
        )
    };
    (0..count).map(one).collect::<Vec<_>>().join("---\n")
}

async fn wait_held(server: &Server, held: f64) -> Result<()> {
    wait::until("the state of the brake", wait::STEP, || async {
        let found = server.metric("navarch_removals_held").await?;
        ensure!(found == held, "{found} held\n{}", server.command(&["proxy-status"])?);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_vanishes_takes_nothing_until_it_is_confirmed() -> Result<()> {
    let fixture = Fixture::new("vanish").await?;
    fixture.write("unused.yaml", &services(15, fixture.port))?;
    let mut server = fixture.serve("vanish-server").await?;
    let envoy = fixture.sidecar("vanish-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    settled(&envoy).await?;

    for file in std::fs::read_dir(&fixture.config)? {
        std::fs::remove_file(file?.path())?;
    }
    wait_held(&server, 1.0).await?;
    ensure!(server.command(&["proxy-status"])?.contains("would lose most of what it has"));
    for _ in 0..10 {
        ensure!(fixture.version().await? == "v1", "not the old answer");
    }

    // A new process that knows of nothing.
    server.restart().await?;
    wait_held(&server, 1.0).await?;
    settled(&envoy).await?;
    for _ in 0..10 {
        ensure!(fixture.version().await? == "v1", "not the old answer");
    }

    let said = server.command(&["confirm-removals"])?;
    ensure!(said.contains("on 1 stream(s)"), "{said}");
    wait::until("the removals", wait::STEP, || async {
        ensure!(fixture.version().await.is_err(), "it still answers");
        Ok(())
    })
    .await?;
    wait_held(&server, 0.0).await?;
    assert_eq!(envoy.rejections().await?, Default::default());
    Ok(())
}
