//! How the requests of one client stick to one endpoint (GEP-1619).

use navarch_model::gateway_api::{CookieLifetime, SessionPersistence, SessionPersistenceType};
use navarch_model::object::ObjectKey;
use navarch_model::route::{HttpMatch, PathMatch};
use navarch_model::service::{Name, PersistentSession};

/// The session of a rule. `index` is its place in the route, and `matches` are all of its conditions.
///
/// Envoy keeps no times of its own: a cookie lives as long as it says, and an idle timeout has no effect.
pub(super) fn session(
    stated: &SessionPersistence,
    key: &ObjectKey,
    index: usize,
    matches: &[HttpMatch],
) -> PersistentSession {
    let SessionPersistence {
        session_name,
        type_,
        absolute_timeout,
        idle_timeout: _,
        cookie_config,
        cookie,
        header,
    } = stated;
    let of_holder = match type_ {
        SessionPersistenceType::Cookie => cookie.as_ref().and_then(|cookie| cookie.name.as_deref()),
        SessionPersistenceType::Header => header.as_ref().map(|header| header.name.as_str()),
    };
    let name = of_holder.or(session_name.as_deref()).filter(|name| !name.is_empty());
    let name = match name {
        Some(name) => Name::from(name),
        // Sessions of other rules must not be taken for this one's.
        None => Name::from(format!("session-{}.{}.{index}", key.namespace, key.name)),
    };
    if *type_ == SessionPersistenceType::Header {
        return PersistentSession::Header(name);
    }
    let lifetimes = cookie.as_ref().map(|cookie| cookie.lifetime_type);
    let lifetime = lifetimes.or(cookie_config.as_ref().map(|config| config.lifetime_type));
    let permanent = lifetime == Some(CookieLifetime::Permanent);
    let path = match cookie.as_ref().and_then(|cookie| cookie.path.as_deref()) {
        Some(path) => path.to_owned(),
        None => common_path(matches),
    };
    PersistentSession::Cookie {
        name,
        path: Name::from(path),
        ttl: absolute_timeout.filter(|_| permanent).map(|timeout| timeout.0),
    }
}

/// The longest path that is above all paths of a rule, so that browsers send the cookie wherever the rule
/// applies and nowhere else.
fn common_path(matches: &[HttpMatch]) -> String {
    let mut paths = matches.iter().map(|condition| match &condition.path {
        Some(PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::PathPrefix(path)) => path.as_str(),
        Some(PathMatch::Regex(_)) | None => "/",
    });
    let segments = |path: &'_ str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let mut common = paths.next().map(segments).unwrap_or_default();
    for path in paths {
        let same = common.iter().zip(path.split('/')).take_while(|(a, b)| a == b).count();
        common.truncate(same);
    }
    match common.join("/") {
        path if path.is_empty() => "/".to_owned(),
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use navarch_model::Kind;
    use navarch_model::gateway_api::{CookieConfig, RouteDuration, SessionCookie, SessionHeader};

    use super::*;

    fn prefix(path: &str) -> HttpMatch {
        HttpMatch { path: Some(PathMatch::PathPrefix(path.to_owned())), ..HttpMatch::default() }
    }

    #[track_caller]
    fn check(stated: SessionPersistence, matches: &[HttpMatch], expected: PersistentSession) {
        let key = ObjectKey::new(Kind::HttpRoute, "shop", "cart");
        assert_eq!(session(&stated, &key, 2, matches), expected);
    }

    fn cookie(name: &str, path: &str, ttl: Option<u64>) -> PersistentSession {
        let ttl = ttl.map(Duration::from_secs);
        PersistentSession::Cookie { name: name.into(), path: path.into(), ttl }
    }

    #[test]
    fn a_cookie_has_the_path_of_the_rule_and_the_name_of_the_session() {
        let named = |name: &str| SessionPersistence {
            session_name: Some(name.to_owned()),
            ..SessionPersistence::default()
        };
        check(named("s"), &[prefix("/a")], cookie("s", "/a", None));
        check(named("s"), &[prefix("/a/b"), prefix("/a/c")], cookie("s", "/a", None));
        check(named("s"), &[prefix("/a"), prefix("/b")], cookie("s", "/", None));
        check(named("s"), &[prefix("/")], cookie("s", "/", None));
        check(named("s"), &[], cookie("s", "/", None));
        check(SessionPersistence::default(), &[], cookie("session-shop.cart.2", "/", None));
        let stated = SessionPersistence {
            cookie: Some(SessionCookie {
                name: Some("own".to_owned()),
                path: Some("/p".to_owned()),
                ..SessionCookie::default()
            }),
            ..named("s")
        };
        check(stated, &[prefix("/a")], cookie("own", "/p", None));
    }

    #[test]
    fn a_permanent_cookie_lives_as_long_as_the_session() {
        let stated = |lifetime_type| SessionPersistence {
            session_name: Some("s".to_owned()),
            absolute_timeout: Some(RouteDuration(Duration::from_secs(60))),
            cookie_config: Some(CookieConfig { lifetime_type }),
            ..SessionPersistence::default()
        };
        check(stated(CookieLifetime::Permanent), &[], cookie("s", "/", Some(60)));
        check(stated(CookieLifetime::Session), &[], cookie("s", "/", None));
    }

    #[test]
    fn a_header_holds_a_session_too() {
        let header = SessionPersistence {
            session_name: Some("x-session".to_owned()),
            type_: SessionPersistenceType::Header,
            ..SessionPersistence::default()
        };
        check(header.clone(), &[], PersistentSession::Header("x-session".into()));
        let own = SessionHeader { name: "x-own".to_owned() };
        let stated = SessionPersistence { header: Some(own), ..header };
        check(stated, &[], PersistentSession::Header("x-own".into()));
    }
}
