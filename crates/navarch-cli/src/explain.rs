//! `navarch explain`: why a resource is what it is.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use navarch_server::status::{ExplainedResource, Place};

use crate::admin::{AdminArgs, encode};
use crate::output::{self, Format};

/// Show which lines of which files a resource of a proxy stems from, and what lost and why
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch explain web.default RDS 8080\n  navarch explain web.default CDS 'outbound|80|v1|reviews.default.svc.cluster.local'"
)]
pub struct ExplainArgs {
    /// Name of the proxy, as in `navarch proxy-status`
    proxy: String,
    /// CDS, EDS, LDS, RDS, VHDS, ECDS or SDS. RDS has the virtual hosts in it, also where they are resources
    /// of their own
    #[arg(value_name = "TYPE")]
    ty: String,
    /// Name of the resource
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print: table or json
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Prints the explanation.
pub async fn run(args: ExplainArgs) -> Result<ExitCode> {
    let path = format!(
        "/debug/explain?proxyID={}&type={}&name={}",
        encode(&args.proxy),
        encode(&args.ty),
        encode(&args.name)
    );
    let explained: ExplainedResource = args.admin.get(&path).await?;
    match args.output {
        Format::Json => output::json(&explained)?,
        Format::Table => output::print(&render(&explained))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The explanation as text.
fn render(explained: &ExplainedResource) -> String {
    let mut text = format!("{} {}\n", explained.ty, explained.resource);
    for part in &explained.parts {
        text.push_str(&format!("\n{}\n", part.what));
        part.sources.iter().for_each(|place| text.push_str(&format!("  from  {}\n", line(place))));
        part.lost.iter().for_each(|place| text.push_str(&format!("  not   {}\n", line(place))));
    }
    text
}

fn line(place: &Place) -> String {
    let field = if place.field.is_empty() { String::new() } else { format!(" {}", place.field) };
    let at = if place.place.is_empty() { String::new() } else { format!("{}  ", place.place) };
    format!("{at}{}{field}: {}", place.object, place.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_server::status::ExplainedPart;

    #[test]
    fn a_line_for_each_source_and_each_loser() {
        let place = |place: &str, object: &str, field: &str, text: &str| Place {
            place: place.to_owned(),
            object: object.to_owned(),
            field: field.to_owned(),
            text: text.to_owned(),
        };
        let explained = ExplainedResource {
            resource: "9080".to_owned(),
            ty: "RDS".to_owned(),
            parts: vec![ExplainedPart {
                what: "virtual host reviews:9080".to_owned(),
                sources: vec![place(
                    "a.yaml:3:1",
                    "VirtualService default/reviews",
                    "spec.http[0]",
                    "says where requests go",
                )],
                lost: vec![place(
                    "b.yaml:1:1",
                    "VirtualService other/reviews",
                    "",
                    "exportTo does not include it",
                )],
            }],
        };
        let expected = "\
RDS 9080

virtual host reviews:9080
  from  a.yaml:3:1  VirtualService default/reviews spec.http[0]: says where requests go
  not   b.yaml:1:1  VirtualService other/reviews: exportTo does not include it
";
        assert_eq!(render(&explained), expected);
    }
}
