//! `navarch explain`: why a resource is what it is.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use navarch_agent_cli::output::{self, Format};
use navarch_server::reach;
use navarch_server::status::{ExplainedResource, ObjectReach, Place};

use crate::admin::{AdminArgs, encode};
use crate::named;

/// Resources of a group of proxies that are shown; with -o json all are.
const SHOWN_MAX: usize = 30;

/// Show which lines of which files a resource of a proxy stems from, and what lost and why; or whom an object
/// reaches
///
/// With -f, the other way round: for each object in a file, the proxies that get something from it, the
/// resources and the parts of these that it makes or loses.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch explain web.default RDS 8080\n  navarch explain web.default CDS 'outbound|80|v1|reviews.default.svc.cluster.local'\n  \
                  navarch explain -f routes.yaml\n  navarch explain --object VirtualService/default/reviews"
)]
pub struct ExplainArgs {
    /// Name of the proxy, as in `navarch proxy-status`, or a part of it that no other one has
    #[arg(required_unless_present_any = ["files", "objects"])]
    proxy: Option<String>,
    /// CDS, EDS, LDS, RDS, VHDS, ECDS or SDS. RDS has the virtual hosts in it, also where they are resources
    /// of their own
    #[arg(value_name = "TYPE", requires = "proxy", required_unless_present_any = ["files", "objects"])]
    ty: Option<String>,
    /// Name of the resource
    #[arg(requires = "ty", required_unless_present_any = ["files", "objects"])]
    name: Option<String>,
    /// A file with objects; `-` is standard input
    #[arg(short, long = "filename", id = "files", value_name = "FILE", conflicts_with = "proxy")]
    files: Vec<PathBuf>,
    /// An object: KIND/NAMESPACE/NAME, or KIND/NAME of the namespace default
    #[arg(long = "object", id = "objects", value_name = "OBJECT", conflicts_with = "proxy")]
    objects: Vec<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print: table or json
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Prints the explanation.
pub async fn run(args: ExplainArgs) -> Result<ExitCode> {
    if let (Some(proxy), Some(ty), Some(name)) = (&args.proxy, &args.ty, &args.name) {
        let path =
            format!("/debug/explain?proxyID={}&type={}&name={}", encode(proxy), encode(ty), encode(name));
        let explained: ExplainedResource = args.admin.get(&path).await?;
        match args.output {
            Format::Json => output::json(&explained)?,
            Format::Table => output::print(&render(&explained))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut names = args.objects.clone();
    names.extend(named::objects_in(&args.files)?.into_iter().map(|object| reach::name_of(&object.key)));
    let mut reached = Vec::new();
    for name in &names {
        let path = format!("/debug/reach?object={}", encode(name));
        reached.push(args.admin.get::<ObjectReach>(&path).await?);
    }
    match args.output {
        Format::Json => output::json(&reached)?,
        Format::Table => output::print(&reached.iter().map(render_reach).collect::<Vec<_>>().join("\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whom an object reaches, as text.
fn render_reach(reach: &ObjectReach) -> String {
    let at = if reach.place.is_empty() { "it is not in force" } else { &reach.place };
    let mut text = format!("{}  {at}\n", reach.object);
    if reach.proxies.is_empty() {
        text.push_str(&format!("  reaches none of {} connected proxies\n", reach.connected));
    }
    for group in &reach.proxies {
        text.push_str(&format!("  {}\n", shortened(&group.names)));
        for resource in group.resources.iter().take(SHOWN_MAX) {
            text.push_str(&format!("    {} {}\n", resource.ty, resource.resource));
            for part in &resource.parts {
                let said = |place: &Place| {
                    let field =
                        if place.field.is_empty() { String::new() } else { format!("{} ", place.field) };
                    format!("{field}{}", place.text)
                };
                let made = part.sources.iter().map(|place| format!("      {}: {}\n", part.what, said(place)));
                text.extend(made);
                let lost =
                    part.lost.iter().map(|place| format!("      {}: not: {}\n", part.what, said(place)));
                text.extend(lost);
            }
        }
        if let Some(more) = group.resources.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            text.push_str(&format!("    and {more} more resources (-o json)\n"));
        }
    }
    if !reach.is_whole && !reach.place.is_empty() {
        text.push_str("  only a part of what proxies get was looked at: there is very much of it\n");
    }
    text
}

/// `a, b and 3 more`
fn shortened(names: &[String]) -> String {
    const NAMES_MAX: usize = 5;
    let shown = names.get(..NAMES_MAX).unwrap_or(names).join(", ");
    match names.len().checked_sub(NAMES_MAX).filter(|more| *more > 0) {
        Some(more) => format!("{shown} and {more} more"),
        None => shown,
    }
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
    use navarch_server::status::{ExplainedPart, ReachedProxies};

    #[test]
    fn whom_an_object_reaches_and_with_what() {
        let place =
            |field: &str, text: &str| Place { field: field.into(), text: text.into(), ..Place::default() };
        let part = ExplainedPart {
            what: "virtual host web:80".to_owned(),
            sources: vec![place("spec.http[0]", "says where requests go")],
            lost: vec![place("", "another one comes first")],
        };
        let names = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
        let resource = ExplainedResource { resource: "80".into(), ty: "RDS".into(), parts: vec![part] };
        let reach = ObjectReach {
            object: "VirtualService default/web".into(),
            place: "web.yaml:1:1".into(),
            proxies: vec![ReachedProxies { names, resources: vec![resource] }],
            connected: 7,
            is_whole: true,
            ..ObjectReach::default()
        };
        let expected = "\
VirtualService default/web  web.yaml:1:1
  a, b, c, d, e and 1 more
    RDS 80
      virtual host web:80: spec.http[0] says where requests go
      virtual host web:80: not: another one comes first
";
        assert_eq!(render_reach(&reach), expected);
        let nobody = ObjectReach { connected: 2, object: "Namespace a".into(), ..ObjectReach::default() };
        assert_eq!(
            render_reach(&nobody),
            "Namespace a  it is not in force\n  reaches none of 2 connected proxies\n"
        );
    }

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
