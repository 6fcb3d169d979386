//! Host names that may start with a wildcard, and which of two is more specific (Istio: `pkg/config/host`).

use std::cmp::Ordering;

use navarch_model::route::MESH_GATEWAY;

/// Whether the host is a pattern: it starts with `*`.
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether the two overlap: one of them covers the other.
///
/// `*.example.com` covers `a.example.com` and `*.b.example.com`, but not `example.com`.
pub fn overlap(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}

/// Whether everything that `host` stands for is also matched by `pattern`.
pub fn covers(pattern: &str, host: &str) -> bool {
    match (pattern.strip_prefix('*'), host.strip_prefix('*')) {
        (Some(pattern), Some(host)) => host.ends_with(pattern),
        (Some(pattern), None) => host.ends_with(pattern),
        (None, Some(_)) => false,
        (None, None) => pattern == host,
    }
}

/// Orders hosts from specific to general: plain hosts before wildcards, then longer before shorter, then by
/// alphabet.
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    is_wildcard(a).cmp(&is_wildcard(b)).then(b.len().cmp(&a.len())).then(a.cmp(b))
}

/// The most specific of the wildcard `patterns` that covers `host`.
pub fn most_specific<'a>(host: &str, patterns: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    patterns.into_iter().filter(|pattern| covers(pattern, host)).min_by(|a, b| by_specificity(a, b))
}

/// A host as configuration names it, fully qualified: a short name belongs to the namespace of the object
/// that states it.
///
/// A name without a dot is short, except `*`; IP addresses have dots or colons and stay as they are.
pub fn qualify(host: &str, namespace: &str, domain: &str) -> String {
    let stays = host.is_empty() || host == "*" || host.contains('.') || host.contains(':');
    if stays { host.to_owned() } else { format!("{host}.{namespace}.svc.{domain}") }
}

/// A gateway as a VirtualService names it, as `<namespace>/<name>`; `mesh` stays.
///
/// Accepted forms: `name`, `namespace/name`, `./name` and the old `name.namespace[.svc.domain]`.
pub fn qualify_gateway(gateway: &str, namespace: &str) -> String {
    if gateway == MESH_GATEWAY {
        return gateway.to_owned();
    }
    if let Some((before, after)) = gateway.split_once('/') {
        return if before == "." { format!("{namespace}/{after}") } else { gateway.to_owned() };
    }
    match gateway.split_once('.') {
        None => format!("{namespace}/{gateway}"),
        Some((name, rest)) => format!("{}/{name}", rest.split('.').next().unwrap_or(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_ends_alike() {
        let check = |pattern: &str, host: &str, expected: bool| {
            assert_eq!(covers(pattern, host), expected, "{pattern} covers {host}");
        };
        check("a.com", "a.com", true);
        check("a.com", "b.com", false);
        check("*.com", "a.com", true);
        check("*", "a.com", true);
        check("*", "*.com", true);
        check("*.a.com", "a.com", false);
        check("*.a.com", "*.b.a.com", true);
        check("*.b.a.com", "*.a.com", false);
        check("a.com", "*.com", false);
        assert!(overlap("a.com", "*.com") && overlap("*.com", "a.com") && !overlap("a.org", "*.com"));
    }

    #[test]
    fn the_longest_wildcard_is_most_specific() {
        let patterns = ["*", "*.com", "*.example.com", "*.org"];
        assert_eq!(most_specific("a.example.com", patterns), Some("*.example.com"));
        assert_eq!(most_specific("b.com", patterns), Some("*.com"));
        assert_eq!(most_specific("*.example.com", patterns), Some("*.example.com"));
        assert_eq!(most_specific("x", patterns), Some("*"));
        assert_eq!(most_specific("x", ["*.com"]), None);
        assert!(by_specificity("a.b", "*.very.long").is_lt());
    }

    #[test]
    fn short_names_are_qualified() {
        let check = |host: &str, expected: &str| {
            assert_eq!(qualify(host, "shop", "cluster.local"), expected, "{host}")
        };
        check("cart", "cart.shop.svc.cluster.local");
        check("cart.other", "cart.other");
        check("*", "*");
        check("*.com", "*.com");
        check("10.0.0.1", "10.0.0.1");
        check("fd00::1", "fd00::1");
        check("", "");

        let check = |gateway: &str, expected: &str| assert_eq!(qualify_gateway(gateway, "shop"), expected);
        check("mesh", "mesh");
        check("edge", "shop/edge");
        check("./edge", "shop/edge");
        check("infra/edge", "infra/edge");
        check("edge.infra", "infra/edge");
        check("edge.infra.svc.cluster.local", "infra/edge");
    }
}
