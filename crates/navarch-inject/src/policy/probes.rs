//! Probes of the application, led through the agent: what [`crate::probes`] does, as expressions.

use super::cel::quote;
use crate::probes::PROBES;

/// The probes that are led through the agent: where each is (`at`), the key of what it asks (`key`), what it
/// asks from then on (`path`), and what it asked, as the agent wants it (`asked`).
pub(super) fn led(rewrites: &str, status_port: u16) -> String {
    if status_port == 0 {
        return "[]".to_owned();
    }
    let of = |field: &str| {
        let each = PROBES.map(|(probe, path)| of_probe(field, probe, path)).join(" + ");
        let all = format!("object.spec.{field}.transformList(i, c, {each}).flatten()");
        match field {
            "containers" => all,
            field => format!("(has(object.spec.{field}) ? {all} : [])"),
        }
    };
    format!("{rewrites} ? {} + {} : []", of("initContainers"), of("containers"))
}

/// A probe of the container `c`, the `i`th of its list: a list of one, or an empty one if it stays.
fn of_probe(list: &str, probe: &str, path: &str) -> String {
    let at = format!("\"/spec/{list}/\" + string(i) + \"/{probe}\"");
    let leads = format!("\"/app-health/\" + c.name + \"/{path}\"");
    let led = |key: &str, condition: &str, fields: &[String]| {
        let timeout = format!(
            "(has(c.{probe}.timeoutSeconds) ? ',\"timeoutSeconds\":' + string(c.{probe}.timeoutSeconds) : '')"
        );
        let asked = format!(
            "strings.quote({leads}) + ':{{\"{key}\":{{' + ({}).join(',') + '}}' + {timeout} + '}}'",
            fields.join(" + ")
        );
        let entry =
            format!("{{\"at\": {at}, \"key\": {}, \"path\": {leads}, \"asked\": {asked}}}", quote(key));
        format!("has(c.{probe}.{key}) && {condition} ? [{entry}]")
    };
    let (get, socket, grpc) =
        (format!("c.{probe}.httpGet"), format!("c.{probe}.tcpSocket"), format!("c.{probe}.grpc"));
    let known = |port: &str| {
        format!(
            "(type({port}) == int || string({port}).matches(\"^[0-9]+$\") || (has(c.ports) && c.ports.exists(q, has(q.name) && q.name == string({port}))))"
        )
    };
    let number = |port: &str| {
        format!(
            "['\"port\":' + (type({port}) == int || string({port}).matches(\"^[0-9]+$\") ? string({port}) : string(c.ports.filter(q, has(q.name) && q.name == string({port}))[0].containerPort))]"
        )
    };
    let inside = |of: &str| format!("(!has({of}.host) || {of}.host == \"\")");
    let text = |of: &str, key: &str| {
        format!("(has({of}.{key}) && {of}.{key} != \"\" ? ['\"{key}\":' + strings.quote({of}.{key})] : [])")
    };
    let headers = format!(
        "(has({get}.httpHeaders) ? ['\"httpHeaders\":[' + {get}.httpHeaders.map(h, '{{\"name\":' + strings.quote(h.name) + ',\"value\":' + strings.quote(h.value) + '}}').join(',') + ']'] : [])"
    );
    let plain = format!("(!has({get}.scheme) || {get}.scheme.lowerAscii() != \"https\")");
    let port = |of: &str| format!("{of}.port");
    let http = led(
        "httpGet",
        &format!("{plain} && {} && {}", inside(&get), known(&port(&get))),
        &[text(&get, "path"), number(&port(&get)), text(&get, "scheme"), headers],
    );
    let tcp = led(
        "tcpSocket",
        &format!("{} && {}", inside(&socket), known(&port(&socket))),
        &[number(&port(&socket))],
    );
    let service = format!("(has({grpc}.service) ? ['\"service\":' + strings.quote({grpc}.service)] : [])");
    let rpc = led("grpc", "true", &[number(&port(&grpc)), service]);
    format!("(has(c.{probe}) ? ({http} : {tcp} : {rpc} : []) : [])")
}

/// The steps that lead them.
pub(super) fn steps(status_port: u16) -> String {
    format!(
        "variables.probes.map(p, (p[\"key\"] == \"httpGet\" ? [] : [JSONPatch{{op: \"remove\", path: p[\"at\"] + \"/\" + p[\"key\"]}}]) + [JSONPatch{{op: \"add\", path: p[\"at\"] + \"/httpGet\", value: {{\"path\": dyn(p[\"path\"]), \"port\": dyn({status_port})}}}}]).flatten()"
    )
}
