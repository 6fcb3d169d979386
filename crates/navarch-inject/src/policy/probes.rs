//! Probes of the application, led through the agent: what [`crate::probes`] does, as expressions.

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
    let timeout = format!(
        "(has(c.{probe}.timeoutSeconds) ? ',\"timeoutSeconds\":' + string(c.{probe}.timeoutSeconds) : '')"
    );
    let led = |key: &str, condition: &str, fields: &[String]| {
        let fields = fields.join("\n    + ");
        let asked = format!(
            "strings.quote({leads}) + ':{{\"{key}\":{{' + ({fields}).join(',') + '}}' + {timeout} + '}}'"
        );
        format!(
            "has(c.{probe}.{key}) && {condition}
    ? [{{\"at\": {at}, \"key\": \"{key}\", \"path\": {leads}, \"asked\": {asked}}}]"
        )
    };
    let (get, socket, grpc) =
        (format!("c.{probe}.httpGet"), format!("c.{probe}.tcpSocket"), format!("c.{probe}.grpc"));
    let inside = |of: &str| format!("(!has({of}.host) || {of}.host == \"\")");
    let text = |of: &str, key: &str| {
        format!("(has({of}.{key}) && {of}.{key} != \"\" ? ['\"{key}\":' + strings.quote({of}.{key})] : [])")
    };
    let headers = format!(
        "(has({get}.httpHeaders) ? ['\"httpHeaders\":[' + {get}.httpHeaders.map(h,
      '{{\"name\":' + strings.quote(h.name) + ',\"value\":' + strings.quote(h.value) + '}}').join(',') + ']'] : [])"
    );
    let plain = format!("(!has({get}.scheme) || {get}.scheme.lowerAscii() != \"https\")");
    let http = led(
        "httpGet",
        &format!("{plain} && {} && {}", inside(&get), is_known(&get)),
        &[text(&get, "path"), port(&get), text(&get, "scheme"), headers],
    );
    let tcp = led("tcpSocket", &format!("{} && {}", inside(&socket), is_known(&socket)), &[port(&socket)]);
    let service = format!("(has({grpc}.service) ? ['\"service\":' + strings.quote({grpc}.service)] : [])");
    let rpc = led("grpc", "true", &[port(&grpc), service]);
    format!("(has(c.{probe}) ? ({http}\n  : {tcp}\n  : {rpc}\n  : []) : [])")
}

/// Whether the port that is asked is a number, also one in a text.
fn is_number(of: &str) -> String {
    format!("(type({of}.port) == int || string({of}.port).matches(\"^[0-9]+$\"))")
}

/// Whether it is known which port is asked.
fn is_known(of: &str) -> String {
    let number = is_number(of);
    format!(
        "({number}
      || (has(c.ports) && c.ports.exists(q, has(q.name) && q.name == string({of}.port))))"
    )
}

/// The number of the port that is asked, as a member of an object.
fn port(of: &str) -> String {
    let number = is_number(of);
    format!(
        "['\"port\":' + ({number} ? string({of}.port)
      : string(c.ports.filter(q, has(q.name) && q.name == string({of}.port))[0].containerPort))]"
    )
}

/// The steps that lead them.
pub(super) fn steps(status_port: u16) -> String {
    format!(
        "variables.probes.map(p,
  (p[\"key\"] == \"httpGet\" ? [] : [JSONPatch{{op: \"remove\", path: p[\"at\"] + \"/\" + p[\"key\"]}}])
  + [JSONPatch{{op: \"add\", path: p[\"at\"] + \"/httpGet\",
      value: {{\"path\": dyn(p[\"path\"]), \"port\": dyn({status_port})}}}}]).flatten()"
    )
}
