//! Resource names: plain ones, `xdstp://` ones and globs.

use std::borrow::Cow;
use std::ops::Deref;

use xxhash_rust::xxh3::xxh3_128;

const XDSTP: &str = "xdstp://";

/// The name under which a resource is kept. Two `xdstp` names that differ only in the order of their context
/// parameters are equal (xRFC TP1), so the parameters are sorted; other names stay as they are.
#[must_use]
pub fn canonical(name: &str) -> Cow<'_, str> {
    let Some((path, query)) = name.strip_prefix(XDSTP).and(name.split_once('?')) else {
        return Cow::Borrowed(name);
    };
    let (query, fragment) = query.split_once('#').map_or((query, None), |(q, f)| (q, Some(f)));
    let mut parameters: Vec<_> = query.split('&').collect();
    if parameters.is_sorted() {
        return Cow::Borrowed(name);
    }
    parameters.sort_unstable();
    let mut sorted = format!("{path}?{}", parameters.join("&"));
    if let Some(fragment) = fragment {
        sorted.push('#');
        sorted.push_str(fragment);
    }
    Cow::Owned(sorted)
}

/// The same for the same names, in whatever order.
#[must_use]
pub fn fingerprint(names: &[impl Deref<Target = str>]) -> u128 {
    names.iter().fold(0, |sum, name| sum.wrapping_add(xxh3_128(name.as_bytes())))
}

/// Whether the name has an authority.
#[must_use]
pub fn is_xdstp(name: &str) -> bool {
    name.starts_with(XDSTP)
}

/// Whether the name is a glob collection, `xdstp://authority/type/path/*`.
#[must_use]
pub fn is_glob(name: &str) -> bool {
    is_xdstp(name) && path_and_query(name).0.ends_with("/*")
}

/// Whether the glob collection has this member: one more path segment, and the same context parameters.
#[must_use]
pub fn glob_matches(glob: &str, name: &str) -> bool {
    let ((glob_path, glob_query), (path, query)) = (path_and_query(glob), path_and_query(name));
    let Some(prefix) = glob_path.strip_suffix('*') else { return false };
    glob_query == query
        && path.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
}

fn path_and_query(name: &str) -> (&str, &str) {
    let name = name.split_once('#').map_or(name, |(name, _)| name);
    name.split_once('?').unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtp_02_names_are_equal_modulo_parameter_order() {
        for (name, expected) in [
            ("outbound|80||a?b=2&a=1", "outbound|80||a?b=2&a=1"),
            ("xdstp://x/t/a?b=2&a=1", "xdstp://x/t/a?a=1&b=2"),
            ("xdstp://x/t/a?a=1&b=2", "xdstp://x/t/a?a=1&b=2"),
            ("xdstp://x/t/a?b=2&a=1#d", "xdstp://x/t/a?a=1&b=2#d"),
            ("xdstp://x/t/a", "xdstp://x/t/a"),
        ] {
            assert_eq!(canonical(name), expected);
        }
    }

    #[test]
    fn xtp_03_glob_matches_members_with_the_same_parameters() {
        let check = |glob, name, expected| assert_eq!(glob_matches(glob, name), expected, "{glob} {name}");
        check("xdstp://x/t/a/*", "xdstp://x/t/a/b", true);
        check("xdstp://x/t/a/*", "xdstp://x/t/a/b/c", false);
        check("xdstp://x/t/a/*", "xdstp://x/t/a/", false);
        check("xdstp://x/t/a/*?p=1", "xdstp://x/t/a/b?p=1", true);
        check("xdstp://x/t/a/*?p=1", "xdstp://x/t/a/b?p=2", false);
        check("xdstp://x/t/a/*?p=1", "xdstp://x/t/a/b", false);
        assert!(is_glob("xdstp://x/t/a/*?p=1"));
        assert!(!is_glob("outbound|80||*.example.com/*"));
    }
}
