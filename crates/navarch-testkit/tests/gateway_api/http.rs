//! HTTPRoute and GRPCRoute at a gateway.

use super::rig::{Rig, endpoint, expect, expect_from, name_of, port_of, route, service, services};
use crate::backend::{Backend, Behaviour};
use anyhow::{Result, ensure};
use http::{Method, StatusCode};
use navarch_testkit::{
    http::{Answer, Call},
    wait,
};
use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A rule with a backend.
fn to(service: &str) -> String {
    format!("backendRefs: [{{name: {service}, port: 80}}]")
}

/// Writes a route with one rule, in which `TO` stands for its backend, and waits until it answers.
async fn one(rig: &Rig, name: &str, rule: &str, backend: &Backend) -> Result<String> {
    let rule = rule.replace("TO", &to(name));
    rig.route("HTTPRoute", name, &format!("[{{{rule}}}]"), &[(name, backend)]).await
}

pub async fn matches_and_precedence(rig: &Rig) -> Result<()> {
    let backends = [
        Backend::echo("prefix").await?,
        Backend::echo("long").await?,
        Backend::echo("exact").await?,
        Backend::echo("header").await?,
        Backend::echo("regex").await?,
    ];
    let names = ["m-prefix", "m-long", "m-exact", "m-header", "m-regex"];
    let matched: Vec<(&str, &Backend)> = names.into_iter().zip(&backends).collect();
    // As they are not in order, precedence has to be by what they say. The regular expression comes where no
    // path matches.
    let rules = format!(
        "[{{matches: [{{path: {{value: /a}}}}], {}}}, {{matches: [{{path: {{value: /a/long}}}}], {}}}, \
         {{matches: [{{path: {{type: Exact, value: /a/long}}}}], {}}}, \
         {{matches: [{{path: {{value: /a}}, headers: [{{name: x-v, value: '2'}}]}}], {}}}, \
         {{matches: [{{path: {{type: RegularExpression, value: '/items/[0-9]+'}}}}], {}}}]",
        to("m-prefix"),
        to("m-long"),
        to("m-exact"),
        to("m-header"),
        to("m-regex"),
    );
    let host = rig.route("HTTPRoute", "matches", &rules, &matched).await?;
    expect_from(&rig.call(&host, "/a"), "prefix").await?;
    for (path, expected) in
        [("/a/b", "prefix"), ("/a/long", "exact"), ("/a/long/er", "long"), ("/items/7", "regex")]
    {
        let page = rig.call(&host, path).send().await?.ok()?.json()?;
        ensure!(page["name"] == expected, "{path}: {page}");
    }
    let page = rig.call(&host, "/a").header("x-v", "2").send().await?.ok()?.json()?;
    ensure!(page["name"] == "header", "{page}");
    // A prefix ends at a segment.
    expect(&rig.call(&host, "/ab"), 404).await?;
    expect(&rig.call(&host, "/items/x"), 404).await?;

    // Another route for the host: its more specific rule comes first though the route does not.
    let spec = format!(
        "{{parentRefs: [{{name: edge, sectionName: http}}], hostnames: [{host}], \
         rules: [{{matches: [{{path: {{value: /a/b/c}}}}], {}}}]}}",
        to("m-long")
    );
    rig.apply("matches-too", &route("HTTPRoute", "z-matches-too", "default", &spec)).await?;
    expect_from(&rig.call(&host, "/a/b/c"), "long").await?;
    expect_from(&rig.call(&host, "/a/b"), "prefix").await?;
    Ok(())
}

pub async fn weights(rig: &Rig) -> Result<()> {
    let (heavy, light) = (Backend::echo("heavy").await?, Backend::echo("light").await?);
    let rules = "[{backendRefs: [{name: w-heavy, port: 80, weight: 80}, {name: w-light, port: 80, weight: 20}, \
                 {name: w-none, port: 80, weight: 0}]}]";
    let host = rig.route("HTTPRoute", "weights", rules, &[("w-heavy", &heavy), ("w-light", &light)]).await?;
    expect(&rig.call(&host, "/"), 200).await?;
    let mut second = 0;
    for _ in 0..200 {
        second += usize::from(name_of(&rig.call(&host, "/").send().await?.ok()?)? == "light");
    }
    // 40 are expected; the deviation is below 6.
    ensure!((15..=70).contains(&second), "{second} of 200 calls to the weight 20");
    Ok(())
}

pub async fn hostnames(rig: &Rig) -> Result<()> {
    let (any, one) = (Backend::echo("any").await?, Backend::echo("one").await?);
    let route = |name: &str, host: &str, backend: &str| {
        let spec = format!(
            "{{parentRefs: [{{name: edge, sectionName: http}}], hostnames: ['{host}'], rules: [{{{}}}]}}",
            to(backend)
        );
        super::rig::route("HTTPRoute", name, "default", &spec)
    };
    let objects = route("h-any", "*.hosts.test", "h-any")
        + &route("h-one", "one.hosts.test", "h-one")
        + &route("h-outside", "hosts.example", "h-one")
        + &services(&[("h-any", &any), ("h-one", &one)]);
    rig.apply("hostnames", &objects).await?;
    expect_from(&rig.call("one.hosts.test", "/"), "one").await?;
    expect_from(&rig.call("two.hosts.test", "/"), "any").await?;
    // The listener has no such host.
    expect(&rig.call("hosts.example", "/"), 404).await?;
    Ok(())
}

pub async fn invalid_backends(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("there").await?;
    let rules = format!(
        "[{{{}, matches: [{{path: {{value: /there}}}}]}}, \
         {{matches: [{{path: {{value: /gone}}}}], backendRefs: [{{name: nowhere, port: 80}}]}}, \
         {{matches: [{{path: {{value: /kind}}}}], backendRefs: [{{group: example.com, kind: Thing, name: x}}]}}, \
         {{matches: [{{path: {{value: /none}}}}]}}, \
         {{matches: [{{path: {{value: /zero}}}}], backendRefs: [{{name: i-there, port: 80, weight: 0}}]}}, \
         {{matches: [{{path: {{value: /half}}}}], \
           backendRefs: [{{name: i-there, port: 80}}, {{name: nowhere, port: 80}}]}}]",
        to("i-there")
    );
    let host = rig.route("HTTPRoute", "invalid", &rules, &[("i-there", &backend)]).await?;
    expect(&rig.call(&host, "/there"), 200).await?;
    for path in ["/gone", "/kind", "/none", "/zero"] {
        expect(&rig.call(&host, path), 500).await?;
    }
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(rig.call(&host, "/half").send().await?.status.as_u16() == 500);
    }
    // 50 are expected; the deviation is 5.
    ensure!((25..=75).contains(&failed), "{failed} of 100 calls failed");
    Ok(())
}

pub async fn request_headers(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("headers").await?;
    let rule = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: new}], \
                add: [{name: x-add, value: b}], remove: [x-gone]}}], TO";
    let host = one(rig, "request-headers", rule, &backend).await?;
    let call = rig.call(&host, "/").header("x-set", "old").header("x-add", "a").header("x-gone", "1");
    let page = expect(&call, 200).await?.json()?;
    let seen = &page["headers"];
    ensure!(seen["x-set"] == "new" && seen.get("x-gone").is_none(), "{page}");
    ensure!(seen["x-add"].as_str().is_some_and(|value| value.contains('b')), "{page}");
    Ok(())
}

pub async fn reference_grant(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("granted").await?;
    let rules = "[{backendRefs: [{name: granted, namespace: elsewhere, port: 80}]}]";
    let host = rig.route("HTTPRoute", "grants", rules, &[]).await?;
    rig.apply("granted", &service("granted", "elsewhere", 80, &backend)).await?;
    expect(&rig.call(&host, "/"), 500).await?;
    let grant = "apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: grant, namespace: elsewhere}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: '', kind: Service, name: granted}]
";
    rig.apply("grant", grant).await?;
    expect_from(&rig.call(&host, "/"), "granted").await?;
    Ok(())
}

pub async fn query_params(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("query").await?;
    let rule = "matches: [{queryParams: [{name: a, value: '1'}, {name: b, value: '[x-z]+', type: RegularExpression}]}], TO";
    let host = one(rig, "query", rule, &backend).await?;
    expect(&rig.call(&host, "/?a=1&b=xyz"), 200).await?;
    expect(&rig.call(&host, "/?a=1"), 404).await?;
    expect(&rig.call(&host, "/?a=2&b=x"), 404).await?;
    Ok(())
}

pub async fn methods(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("method").await?;
    let host = one(rig, "method", "matches: [{method: PUT}], TO", &backend).await?;
    expect(&rig.call(&host, "/").method(Method::PUT), 200).await?;
    expect(&rig.call(&host, "/"), 404).await?;
    Ok(())
}

pub async fn response_headers(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("response").await?;
    let rule = "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: '42'}], \
                remove: [x-internal]}}], TO";
    let host = one(rig, "response", rule, &backend).await?;
    let answer = expect(&rig.call(&host, "/"), 200).await?;
    ensure!(answer.header("x-answer") == "42" && answer.header("x-internal").is_empty(), "{answer:?}");
    Ok(())
}

pub async fn backend_headers(rig: &Rig) -> Result<()> {
    let (one, two) = (Backend::echo("one").await?, Backend::echo("two").await?);
    let to = |name: &str| {
        format!(
            "{{name: {name}, port: 80, filters: [{{type: RequestHeaderModifier, \
             requestHeaderModifier: {{set: [{{name: x-backend, value: {name}}}]}}}}]}}"
        )
    };
    let rules = format!("[{{backendRefs: [{}, {}]}}]", to("b-one"), to("b-two"));
    let host = rig.route("HTTPRoute", "backend-headers", &rules, &[("b-one", &one), ("b-two", &two)]).await?;
    for name in ["one", "two"] {
        let page = expect_from(&rig.call(&host, "/"), name).await?;
        ensure!(page["headers"]["x-backend"] == format!("b-{name}"), "{page}");
    }
    Ok(())
}

/// Writes a route that redirects and returns where to.
async fn redirected(rig: &Rig, name: &str, redirect: &str, path: &str, status: u16) -> Result<String> {
    let rules = format!(
        "[{{matches: [{{path: {{value: /old}}}}], \
         filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}]"
    );
    let host = rig.route("HTTPRoute", name, &rules, &[]).await?;
    Ok(expect(&rig.call(&host, path), status).await?.header("location").to_owned())
}

async fn redirects(rig: &Rig, name: &str, redirect: &str, expected: &str, status: u16) -> Result<()> {
    let location = redirected(rig, name, redirect, "/old/x?y=1", status).await?;
    ensure!(location == expected, "{location} instead of {expected}");
    Ok(())
}

pub async fn port_redirect(rig: &Rig) -> Result<()> {
    redirects(rig, "r-port", "{port: 8083}", "http://r-port.test:8083/old/x?y=1", 302).await?;
    let same = format!("http://r-host.example:{}/old/x?y=1", rig.port);
    redirects(rig, "r-host", "{hostname: r-host.example}", &same, 302).await
}

pub async fn scheme_redirect(rig: &Rig) -> Result<()> {
    // The listener's port is not the default of plain HTTP, so requests may state it; it must not stay.
    let redirect = "{scheme: https, statusCode: 301}";
    redirects(rig, "r-scheme", redirect, "https://r-scheme.test:443/old/x?y=1", 301).await?;
    let redirect = "{scheme: https, hostname: r-else.example, statusCode: 301}";
    redirects(rig, "r-else", redirect, "https://r-else.example/old/x?y=1", 301).await
}

pub async fn path_redirect(rig: &Rig) -> Result<()> {
    let base = |name: &str| format!("http://{name}.test:{}", rig.port);
    let path = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}";
    redirects(rig, "r-prefix", path, &(base("r-prefix") + "/new/x?y=1"), 302).await?;
    let path = "{path: {type: ReplaceFullPath, replaceFullPath: /all}}";
    let to_root = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}";
    redirects(rig, "r-root", to_root, &(base("r-root") + "/x?y=1"), 302).await?;
    redirects(rig, "r-full", path, &(base("r-full") + "/all?y=1"), 302).await
}

pub async fn redirect_303(rig: &Rig) -> Result<()> {
    redirected(rig, "r-303", "{statusCode: 303}", "/old", 303).await.map(drop)
}

pub async fn redirect_307(rig: &Rig) -> Result<()> {
    redirected(rig, "r-307", "{statusCode: 307}", "/old", 307).await.map(drop)
}

pub async fn redirect_308(rig: &Rig) -> Result<()> {
    redirected(rig, "r-308", "{statusCode: 308}", "/old", 308).await.map(drop)
}

pub async fn host_rewrite(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("host").await?;
    let rule = "filters: [{type: URLRewrite, urlRewrite: {hostname: inner.example}}], TO";
    let host = one(rig, "host-rewrite", rule, &backend).await?;
    let page = expect(&rig.call(&host, "/"), 200).await?.json()?;
    ensure!(page["host"] == "inner.example", "{page}");
    Ok(())
}

pub async fn path_rewrite(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("path").await?;
    let rule = |matched: &str, path: &str| {
        format!(
            "{{matches: [{{path: {{value: {matched}}}}}], {}, \
             filters: [{{type: URLRewrite, urlRewrite: {{path: {path}}}}}]}}",
            to("path-rewrite")
        )
    };
    let rules = format!(
        "[{}, {}, {}]",
        rule("/old", "{type: ReplacePrefixMatch, replacePrefixMatch: /new}"),
        rule("/strip", "{type: ReplacePrefixMatch, replacePrefixMatch: /}"),
        rule("/full", "{type: ReplaceFullPath, replaceFullPath: /all}"),
    );
    let host = rig.route("HTTPRoute", "path-rewrite", &rules, &[("path-rewrite", &backend)]).await?;
    expect(&rig.call(&host, "/old"), 200).await?;
    for (path, expected) in [
        ("/old/x?y=1", "/new/x?y=1"),
        ("/old", "/new"),
        ("/strip/x/z", "/x/z"),
        ("/strip", "/"),
        ("/full/x?y=1", "/all?y=1"),
    ] {
        let page = rig.call(&host, path).send().await?.ok()?.json()?;
        ensure!(page["path"] == expected, "{path} became {}", page["path"]);
    }
    // All paths, beneath another one.
    let beneath = "{type: ReplacePrefixMatch, replacePrefixMatch: /beneath}";
    let root = format!("[{}]", rule("/", beneath));
    let root = rig.route("HTTPRoute", "root-rewrite", &root, &[]).await?;
    expect(&rig.call(&root, "/x"), 200).await?;
    let page = rig.call(&root, "/x/y").send().await?.ok()?.json()?;
    ensure!(page["path"] == "/beneath/x/y", "{page}");
    Ok(())
}

fn mirror_to(service: &str, share: &str) -> String {
    format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: {service}, port: 80}}{share}}}}}")
}

pub async fn mirror(rig: &Rig) -> Result<()> {
    let (main, copy) = (Backend::echo("main").await?, Backend::echo("copy").await?);
    let rules = format!("[{{filters: [{}], {}}}]", mirror_to("mi-copy", ""), to("mi-main"));
    let host = rig.route("HTTPRoute", "mirror", &rules, &[("mi-main", &main), ("mi-copy", &copy)]).await?;
    expect_from(&rig.call(&host, "/"), "main").await?;
    arrived(&copy).await
}

async fn arrived(backend: &Backend) -> Result<()> {
    wait::until("a copy of a request", wait::STEP, || async {
        ensure!(backend.requests() > 0, "no request");
        Ok(())
    })
    .await
}

pub async fn mirrors(rig: &Rig) -> Result<()> {
    let (main, one, two) =
        (Backend::echo("main").await?, Backend::echo("one").await?, Backend::echo("two").await?);
    let filters = format!("{}, {}", mirror_to("mm-one", ""), mirror_to("mm-two", ""));
    let rules = format!("[{{filters: [{filters}], {}}}]", to("mm-main"));
    let backends = [("mm-main", &main), ("mm-one", &one), ("mm-two", &two)];
    let host = rig.route("HTTPRoute", "mirrors", &rules, &backends).await?;
    expect_from(&rig.call(&host, "/"), "main").await?;
    arrived(&one).await?;
    arrived(&two).await
}

pub async fn percentage_mirror(rig: &Rig) -> Result<()> {
    let (main, few, none) =
        (Backend::echo("main").await?, Backend::echo("few").await?, Backend::echo("none").await?);
    let filters = format!(
        "{}, {}",
        mirror_to("mp-few", ", fraction: {numerator: 1, denominator: 4}"),
        mirror_to("mp-none", ", percent: 0")
    );
    let rules = format!("[{{filters: [{filters}], {}}}]", to("mp-main"));
    let backends = [("mp-main", &main), ("mp-few", &few), ("mp-none", &none)];
    let host = rig.route("HTTPRoute", "percentage", &rules, &backends).await?;
    expect_from(&rig.call(&host, "/"), "main").await?;
    for _ in 0..200 {
        rig.call(&host, "/").send().await?.ok()?;
    }
    arrived(&few).await?;
    // 50 are expected; the deviation is 6.
    ensure!(few.requests() < 100 && none.requests() == 0, "{} and {}", few.requests(), none.requests());
    Ok(())
}

/// A backend that never answers in time.
async fn slow() -> Result<Backend> {
    Backend::start("slow", Behaviour::Slow(Duration::from_secs(60))).await
}

pub async fn request_timeout(rig: &Rig) -> Result<()> {
    let backend = slow().await?;
    let host = one(rig, "request-timeout", "timeouts: {request: 200ms}, TO", &backend).await?;
    expect(&rig.call(&host, "/"), 504).await.map(drop)
}

pub async fn backend_timeout(rig: &Rig) -> Result<()> {
    let backend = slow().await?;
    let host = one(rig, "backend-timeout", "timeouts: {backendRequest: 200ms}, TO", &backend).await?;
    expect(&rig.call(&host, "/"), 504).await.map(drop)
}

pub async fn retry(rig: &Rig) -> Result<()> {
    let backend = Backend::start("broken", Behaviour::Broken(StatusCode::INTERNAL_SERVER_ERROR)).await?;
    let host = one(rig, "retry", "retry: {attempts: 2, codes: [500], backoff: 10ms}, TO", &backend).await?;
    expect(&rig.call(&host, "/"), 500).await?;
    let before = backend.requests();
    rig.call(&host, "/").send().await?;
    let tries = backend.requests() - before;
    ensure!(tries == 3, "{tries} tries");
    Ok(())
}

pub async fn retry_connection_error(rig: &Rig) -> Result<()> {
    let backend = Backend::start("flaky", Behaviour::FailsOnce).await?;
    let host = one(rig, "retry-flaky", "retry: {attempts: 1, codes: [503]}, TO", &backend).await?;
    // Whatever fails once is not seen; before the route is there, nothing arrives.
    expect(&rig.call(&host, "/"), 200).await?;
    ensure!(backend.requests() == 2, "{} requests", backend.requests());
    Ok(())
}

pub async fn parent_port(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("port").await?;
    let spec = format!(
        "{{parentRefs: [{{name: edge, port: {}}}], hostnames: [port.test], rules: [{{{}}}]}}",
        rig.other_port,
        to("port")
    );
    let objects = route("HTTPRoute", "port", "default", &spec) + &services(&[("port", &backend)]);
    rig.apply("port", &objects).await?;
    let call = Call::get(format!("http://127.0.0.1:{}/", rig.other_port)).header("host", "port.test");
    expect_from(&call, "port").await?;
    expect(&rig.call("port.test", "/"), 404).await.map(drop)
}

pub async fn named_rule(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("named").await?;
    let host = one(rig, "named", "name: the-rule, TO", &backend).await?;
    expect(&rig.call(&host, "/"), 200).await.map(drop)
}

pub async fn cors(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("cors").await?;
    let rule = "filters: [{type: CORS, cors: {allowOrigins: ['https://*.a.example'], allowMethods: [GET, PUT], \
                allowHeaders: [x-a], allowCredentials: true, maxAge: 60}}], TO";
    let host = one(rig, "cors", rule, &backend).await?;
    let preflight = |origin: &str| {
        let call = rig.call(&host, "/").method(Method::OPTIONS).header("origin", origin);
        call.header("access-control-request-method", "PUT")
    };
    let answer = expect(&preflight("https://b.a.example"), 200).await?;
    ensure!(answer.header("access-control-allow-origin") == "https://b.a.example", "{answer:?}");
    ensure!(answer.header("access-control-allow-methods").contains("PUT"), "{answer:?}");
    ensure!(answer.header("access-control-allow-credentials") == "true", "{answer:?}");
    let answer = preflight("https://evil.example").send().await?;
    ensure!(answer.header("access-control-allow-origin").is_empty(), "{answer:?}");
    Ok(())
}

pub async fn listener_isolation(rig: &Rig) -> Result<()> {
    let (wide, exact) = (Backend::echo("wide").await?, Backend::echo("narrow").await?);
    let spec = |section: &str, rules: &str| {
        format!("{{parentRefs: [{{name: edge, sectionName: {section}}}], rules: [{{{rules}}}]}}")
    };
    let narrow = format!("matches: [{{path: {{value: /narrow}}}}], {}", to("li-exact"));
    let wide_rule = format!("matches: [{{path: {{value: /wide}}}}], {}", to("li-wide"));
    let objects = route("HTTPRoute", "li-exact", "default", &spec("exact", &narrow))
        + &route("HTTPRoute", "li-wide", "default", &spec("http", &wide_rule))
        + &services(&[("li-wide", &wide), ("li-exact", &exact)]);
    rig.apply("isolation", &objects).await?;
    expect_from(&rig.call("exact.test", "/narrow"), "narrow").await?;
    expect_from(&rig.call("any-other.test", "/wide"), "wide").await?;
    // The listener with the more specific host keeps its requests to itself.
    expect(&rig.call("exact.test", "/wide"), 404).await.map(drop)
}

/// Writes what a backend does to requests that it gets, beside another one that gets as many.
async fn of_backend(rig: &Rig, name: &str, filter: &str, backend: &Backend) -> Result<String> {
    let rules = format!(
        "[{{matches: [{{path: {{value: /old}}}}], \
         backendRefs: [{{name: {name}, port: 80, filters: [{filter}]}}, {{name: {name}, port: 80}}]}}]"
    );
    rig.route("HTTPRoute", name, &rules, &[(name, backend)]).await
}

/// Sends requests until both answers have come, one of them as often as the other, about.
async fn half(call: &Call, first: impl Fn(&Answer) -> Result<bool>) -> Result<()> {
    let mut of_first = 0;
    for _ in 0..100 {
        of_first += usize::from(first(&call.clone().send().await?)?);
    }
    // 50 are expected; the deviation is 5.
    ensure!((25..=75).contains(&of_first), "{of_first} of 100 calls");
    Ok(())
}

pub async fn backend_rewrite(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("rewritten").await?;
    let filter = "{type: URLRewrite, urlRewrite: {hostname: inner.example, \
                  path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}";
    let host = of_backend(rig, "b-rewrite", filter, &backend).await?;
    let call = rig.call(&host, "/old/x?y=1");
    expect_from(&call, "rewritten").await?;
    half(&call, |answer| {
        let page = answer.clone().ok()?.json()?;
        let seen = (page["host"].as_str(), page["path"].as_str());
        match seen {
            (Some("inner.example"), Some("/new/x?y=1")) => Ok(true),
            (Some("b-rewrite.test"), Some("/old/x?y=1")) => Ok(false),
            _ => anyhow::bail!("{page}"),
        }
    })
    .await
}

pub async fn backend_redirect(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("redirecting").await?;
    let filter = "{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, \
                  replacePrefixMatch: /new}}}";
    let host = of_backend(rig, "b-redirect", filter, &backend).await?;
    let call = rig.call(&host, "/old/x");
    expect(&call, 200).await?;
    let expected = format!("http://b-redirect.test:{}/new/x", rig.port);
    half(&call, |answer| match answer.status {
        StatusCode::OK => Ok(false),
        StatusCode::FOUND if answer.header("location") == expected => Ok(true),
        _ => anyhow::bail!("{answer:?}"),
    })
    .await
}

pub async fn h2c(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("h2c").await?;
    let (http1, http2) = ("{name: http, port: 80}", "{name: http, port: 80, appProtocol: kubernetes.io/h2c}");
    let host = rig.route("HTTPRoute", "h2c", &format!("[{{{}}}]", to("h2c")), &[]).await?;
    for (port, protocol) in [(http1, "HTTP/1.1"), (http2, "HTTP/2.0")] {
        let objects =
            port_of("h2c", "default", port) + &endpoint("h2c", "default", 0, "TCP", backend.address);
        rig.apply("h2c-backend", &objects).await?;
        wait::until(protocol, wait::STEP, || async {
            let page = rig.call(&host, "/").send().await?.ok()?.json()?;
            ensure!(page["protocol"] == protocol, "{page}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub async fn web_socket(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("ws").await?;
    let port = "{name: http, port: 80, appProtocol: kubernetes.io/ws}";
    let host = rig.route("HTTPRoute", "ws", &format!("[{{{}}}]", to("ws")), &[]).await?;
    let objects = port_of("ws", "default", port) + &endpoint("ws", "default", 0, "TCP", backend.address);
    rig.apply("ws-backend", &objects).await?;
    expect_from(&rig.call(&host, "/"), "ws").await?;
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, rig.port)).await?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"there and back").await?;
        let mut back = [0; 14];
        stream.read_exact(&mut back).await?;
        ensure!(&back == b"there and back", "{back:?}");
        Ok(())
    };
    tokio::time::timeout(wait::STEP, exchange).await?
}

/// Two endpoints, a route with a session, and the name of the session.
async fn sessions(rig: &Rig, kind: &str, name: &str, session: &str) -> Result<(String, [Backend; 2])> {
    let second = Backend::start_at(Ipv4Addr::new(127, 0, 0, 2), "two", Behaviour::Echo).await?;
    let backends = [Backend::echo("one").await?, second];
    let rules = format!("[{{sessionPersistence: {session}, {}}}]", to(name));
    let host = rig.route(kind, name, &rules, &[]).await?;
    let [one, two] = &backends;
    let objects = port_of(name, "default", "{name: http, port: 80}")
        + &endpoint(name, "default", 1, "TCP", one.address)
        + &endpoint(name, "default", 2, "TCP", two.address);
    rig.apply(&format!("{name}-backends"), &objects).await?;
    for name in ["one", "two"] {
        expect_from(&rig.call(&host, "/"), name).await?;
    }
    Ok((host, backends))
}

/// Calls go where the first one went.
async fn stays(call: &Call, first: &str) -> Result<()> {
    for _ in 0..20 {
        let name = name_of(&call.clone().send().await?.ok()?)?;
        ensure!(name == first, "{name} instead of {first}");
    }
    Ok(())
}

pub async fn session_cookie(rig: &Rig) -> Result<()> {
    let session = "{sessionName: who, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}";
    let (host, _backends) = sessions(rig, "HTTPRoute", "cookies", session).await?;
    let answer = expect(&rig.call(&host, "/"), 200).await?;
    let cookie = answer.header("set-cookie").to_owned();
    ensure!(cookie.starts_with("who=") && cookie.contains("Max-Age=3600"), "{cookie}");
    let value = cookie.split(';').next().unwrap_or_default();
    stays(&rig.call(&host, "/").header("cookie", value), &name_of(&answer)?).await
}

pub async fn session_header(rig: &Rig) -> Result<()> {
    let (host, _backends) =
        sessions(rig, "GRPCRoute", "headers", "{sessionName: x-who, type: Header}").await?;
    let answer = expect(&rig.call(&host, "/"), 200).await?;
    let value = answer.header("x-who").to_owned();
    ensure!(!value.is_empty(), "{answer:?}");
    stays(&rig.call(&host, "/").header("x-who", &value), &name_of(&answer)?).await
}

pub async fn retry_backend_timeout(rig: &Rig) -> Result<()> {
    let backend = slow().await?;
    let rule = "timeouts: {request: 10s, backendRequest: 200ms}, retry: {attempts: 2, codes: [504], \
                backoff: 10ms}, TO";
    let host = one(rig, "retry-timeout", rule, &backend).await?;
    expect(&rig.call(&host, "/"), 504).await?;
    let before = backend.requests();
    rig.call(&host, "/").send().await?;
    let tries = backend.requests() - before;
    ensure!(tries == 3, "{tries} tries");
    Ok(())
}

/// A call of a gRPC method is a POST to its path.
fn grpc(rig: &Rig, host: &str, path: &str) -> Call {
    rig.call(host, path).method(Method::POST).header("content-type", "application/grpc").http2()
}

pub async fn grpc_weights(rig: &Rig) -> Result<()> {
    let (heavy, light) = (Backend::echo("heavy").await?, Backend::echo("light").await?);
    let rules =
        "[{backendRefs: [{name: gw-heavy, port: 80, weight: 70}, {name: gw-light, port: 80, weight: 30}]}]";
    let backends = [("gw-heavy", &heavy), ("gw-light", &light)];
    let host = rig.route("GRPCRoute", "grpc-weights", rules, &backends).await?;
    expect(&grpc(rig, &host, "/a.B/C"), 200).await?;
    let mut second = 0;
    for _ in 0..100 {
        second += usize::from(name_of(&grpc(rig, &host, "/a.B/C").send().await?.ok()?)? == "light");
    }
    // 30 are expected; the deviation is below 5.
    ensure!((10..=55).contains(&second), "{second} of 100 calls to the weight 30");
    Ok(())
}

pub async fn grpc_methods(rig: &Rig) -> Result<()> {
    let (add, cart, any) =
        (Backend::echo("add").await?, Backend::echo("cart").await?, Backend::echo("any").await?);
    let rules = format!(
        "[{{{}}}, {{matches: [{{method: {{service: shop.Cart}}}}], {}}}, \
         {{matches: [{{method: {{service: shop.Cart, method: Add}}}}], {}}}]",
        to("g-any"),
        to("g-cart"),
        to("g-add"),
    );
    let backends = [("g-any", &any), ("g-cart", &cart), ("g-add", &add)];
    let host = rig.route("GRPCRoute", "calls", &rules, &backends).await?;
    expect_from(&grpc(rig, &host, "/shop.Cart/Add"), "add").await?;
    expect_from(&grpc(rig, &host, "/shop.Cart/Remove"), "cart").await?;
    expect_from(&grpc(rig, &host, "/shop.Orders/Get"), "any").await.map(drop)
}

pub async fn grpc_headers(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("changed").await?;
    let rules = format!(
        "[{{matches: [{{headers: [{{name: x-v, value: '1'}}]}}], filters: [{{type: RequestHeaderModifier, \
         requestHeaderModifier: {{set: [{{name: x-set, value: a}}]}}}}], {}}}]",
        to("gh")
    );
    let host = rig.route("GRPCRoute", "grpc-headers", &rules, &[("gh", &backend)]).await?;
    let page = expect_from(&grpc(rig, &host, "/a.B/C").header("x-v", "1"), "changed").await?;
    ensure!(page["headers"]["x-set"] == "a", "{page}");
    expect(&rig.call(&host, "/a.B/C"), 404).await.map(drop)
}

pub async fn grpc_named_rule(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("grpc-named").await?;
    let rules = format!("[{{name: the-rule, {}}}]", to("gn"));
    let host = rig.route("GRPCRoute", "grpc-named", &rules, &[("gn", &backend)]).await?;
    expect_from(&grpc(rig, &host, "/a.B/C"), "grpc-named").await.map(drop)
}
