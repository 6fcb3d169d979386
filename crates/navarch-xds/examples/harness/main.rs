//! The target of the public conformance harness for xDS servers, [ii/xds-test-harness].
//!
//! ```text
//! cargo run -p navarch-xds --example harness -- 127.0.0.1:18000 127.0.0.1:17000
//! ```
//!
//! serves xDS on the first address and on the second the control interface by which the harness says what
//! there is to serve. Then run the harness in any of its variants: state-of-the-world or incremental,
//! aggregated or not.
//!
//! [ii/xds-test-harness]: https://github.com/ii/xds-test-harness

mod adapter;

use std::error::Error;

use adapter::Adapter;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = |port| arguments.next().unwrap_or_else(|| format!("127.0.0.1:{port}"));
    let (xds, control) = (address(18000), address(17000));
    let adapter = Adapter::new();
    let (xds, control) = (TcpListener::bind(xds).await?, TcpListener::bind(control).await?);
    println!("xDS on {}, control on {}", xds.local_addr()?, control.local_addr()?);
    tokio::try_join!(adapter.clone().serve(xds), adapter.serve(control))?;
    Ok(())
}
