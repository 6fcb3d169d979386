//! What `navarch proxy-status` shows.

use anyhow::{Result, ensure};
use navarch_testkit::navarch::{self, Server};
use navarch_testkit::wait;

/// The table of `navarch proxy-status`, whatever its exit status says.
pub fn table(server: &Server) -> Result<String> {
    let admin = server.admin().to_string();
    Ok(String::from_utf8(navarch::run(["proxy-status", "--admin-addr", &admin])?.stdout)?)
}

/// Waits until the table has all of these.
pub async fn shows(server: &Server, texts: &[&str]) -> Result<()> {
    wait::until(texts[0], wait::STEP, || async {
        let table = table(server)?;
        ensure!(texts.iter().all(|text| table.contains(text)), "{table}");
        Ok(())
    })
    .await
}
