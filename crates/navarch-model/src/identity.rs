//! Identities of workloads: SPIFFE ids in the form that Istio gives them, and the trust domains of a mesh.

use std::fmt;
use std::str::FromStr;

use crate::mesh::MeshConfig;
use crate::service::Name;

/// The scheme of a SPIFFE id (SPIFFE-ID, 2).
pub const SCHEME: &str = "spiffe://";

/// Longest SPIFFE id in bytes, with its scheme (SPIFFE-ID, 2.3).
const ID_BYTES_MAX: usize = 2048;

/// Longest trust domain in bytes (SPIFFE-ID, 2.1).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// The identity of a workload: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// A value of this type is a valid id: none of its parts can be taken for something else when it is written
/// out and read again. Ids are compared byte by byte, as Envoy compares them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: Name,
    namespace: Name,
    account: Name,
}

/// Why something is not the identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    #[error("{0:?} does not have the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
    /// Letters, digits, `.`, `-` and `_` make a part of an id, `.` and `..` do not (SPIFFE-ID, 2.1 and 2.2).
    #[error("{0:?} cannot be part of an identity; use letters, digits, dots, dashes and underscores")]
    Part(String),
    #[error("the identity or its trust domain is too long")]
    Length,
}

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    /// If one of the parts cannot stand in an id, or the id is too long.
    pub fn new(trust_domain: &str, namespace: &str, account: &str) -> Result<Self, SpiffeIdError> {
        let parts = [trust_domain, namespace, account];
        if let Some(part) = parts.into_iter().find(|part| !is_part(part)) {
            return Err(SpiffeIdError::Part(part.to_owned()));
        }
        let id = SpiffeId {
            trust_domain: Name::from(trust_domain),
            namespace: Name::from(namespace),
            account: Name::from(account),
        };
        if trust_domain.len() > TRUST_DOMAIN_BYTES_MAX || id.to_string().len() > ID_BYTES_MAX {
            return Err(SpiffeIdError::Length);
        }
        Ok(id)
    }

    pub fn trust_domain(&self) -> &Name {
        &self.trust_domain
    }

    pub fn namespace(&self) -> &Name {
        &self.namespace
    }

    /// The service account.
    pub fn account(&self) -> &Name {
        &self.account
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > ID_BYTES_MAX {
            return Err(SpiffeIdError::Length);
        }
        let form = || SpiffeIdError::Form(text.to_owned());
        let (trust_domain, path) = split(text).ok_or_else(form)?;
        let segments: Vec<&str> = path.split('/').collect();
        let ["ns", namespace, "sa", account] = segments[..] else {
            return Err(form());
        };
        SpiffeId::new(trust_domain, namespace, account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.account)
    }
}

fn is_part(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(is_allowed)
}

/// The trust domain and the path, without the slash between them, of any SPIFFE id, also of one that is not a
/// workload's in the manner of Istio.
pub fn split(id: &str) -> Option<(&str, &str)> {
    let (trust_domain, path) = id.strip_prefix(SCHEME)?.split_once('/')?;
    (!trust_domain.is_empty()).then_some((trust_domain, path))
}

/// What all ids of a trust domain start with.
pub fn prefix_of(trust_domain: &str) -> String {
    format!("{SCHEME}{trust_domain}/")
}

/// The trust domain that stands for the mesh's own in policies, whatever its name.
const LOCAL: &str = "cluster.local";

/// The trust domain of a mesh and its aliases.
///
/// A policy that names one of them means all of them, so that moving a mesh to another trust domain does not
/// need a change of its policies (Istio, "Trust Domain Migration"). An alias may have a wildcard: `*-td`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomains {
    /// The domain, then the aliases. Never empty.
    all: Vec<Name>,
}

impl TrustDomains {
    /// The trust domain that identities of the mesh get, and others that it also had.
    pub fn new(domain: &str, aliases: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let aliases = aliases.into_iter().map(|alias| Name::from(alias.as_ref()));
        TrustDomains { all: std::iter::once(Name::from(domain)).chain(aliases).collect() }
    }

    /// Those of a mesh.
    pub fn of(mesh: &MeshConfig) -> Self {
        TrustDomains::new(&mesh.trust_domain, &mesh.trust_domain_aliases)
    }

    /// The domain, then the aliases.
    pub fn iter(&self) -> impl Iterator<Item = &Name> + Clone {
        self.all.iter()
    }

    /// Whether an id is one of this mesh. A wildcard in an alias is for policies: nobody proves an identity
    /// by one.
    pub fn contains(&self, id: &SpiffeId) -> bool {
        self.iter().any(|domain| *domain == id.trust_domain)
    }

    /// An id under the aliases of the mesh's trust domain; nothing for names that are not SPIFFE ids.
    pub fn under_aliases(&self, id: &str) -> impl Iterator<Item = Name> {
        let path = split(id).map(|(_, path)| path);
        let aliases = self.iter().skip(1);
        path.into_iter().flat_map(move |path| {
            aliases.clone().map(move |alias| Name::from(format!("{}{path}", prefix_of(alias))))
        })
    }

    /// What a certificate of a service account is expected to say, for lists of acceptable names.
    ///
    /// The parts come from configuration and are taken as they are: a name that no certificate can have must
    /// stay in the list, since an empty list accepts every certificate.
    pub fn expected(&self, namespace: &str, account: &str) -> Name {
        let domain = self.all.first().map_or(LOCAL, |domain| domain);
        Name::from(format!("{SCHEME}{domain}/ns/{namespace}/sa/{account}"))
    }

    /// Principals of a policy for every trust domain, where they name one of the mesh's. A principal is
    /// `<trust domain>/ns/<namespace>/sa/<service account>`; anything else is kept as it is.
    pub fn principals(&self, stated: &[String]) -> Vec<String> {
        let mut all = Vec::new();
        for principal in stated {
            let has_form = principal.split('/').count() == 5;
            match principal.split_once('/').filter(|_| has_form) {
                Some((domain, rest)) if domain != "*" && (domain == LOCAL || self.matches(domain)) => {
                    all.extend(self.expanded(principal, domain, rest));
                }
                _ => all.push(principal.clone()),
            }
        }
        all
    }

    /// Trust domains of a policy with their aliases, each once.
    pub fn domains(&self, stated: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut add = |domain: &str| {
            if all.iter().all(|known| known != domain) {
                all.push(domain.to_owned());
            }
        };
        for domain in stated {
            if self.iter().any(|own| **own == **domain) {
                self.iter().for_each(|own| add(own));
            } else {
                add(domain);
            }
        }
        all
    }

    /// Whether a trust domain, perhaps with a wildcard, is one of ours, perhaps with a wildcard.
    fn matches(&self, domain: &str) -> bool {
        self.iter().any(|own| {
            domain == &**own
                || &**own == "*"
                || prefix_match(domain, own)
                || prefix_match(own, domain)
                || suffix_match(domain, own)
                || suffix_match(own, domain)
        })
    }

    fn expanded(&self, principal: &str, domain: &str, rest: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for own in self.iter() {
            // A wildcard that covers the trust domain stays one.
            let meant =
                if suffix_match(own, domain) { principal.to_owned() } else { format!("{own}/{rest}") };
            if !all.contains(&meant) {
                all.push(meant);
            }
        }
        all
    }
}

fn prefix_match(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').is_some_and(|prefix| text.starts_with(prefix))
}

fn suffix_match(text: &str, pattern: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn domains(all: &[&str]) -> TrustDomains {
        TrustDomains::new(all[0], &all[1..])
    }

    #[test]
    fn an_id_is_read_if_it_has_the_form_of_a_workload() {
        let check = |text: &str, expected: Result<[&str; 3], SpiffeIdError>| {
            let id = text.parse::<SpiffeId>();
            let parts = id.as_ref().map(|id| [&**id.trust_domain(), &**id.namespace(), &**id.account()]);
            assert_eq!(parts, expected.as_ref().copied(), "{text}");
            if let Ok(id) = id {
                assert_eq!(id.to_string(), text, "it is written as it was read");
            }
        };
        let form = |text: &str| Err(SpiffeIdError::Form(text.to_owned()));
        let part = |text: &str| Err(SpiffeIdError::Part(text.to_owned()));
        check("spiffe://cluster.local/ns/shop/sa/web", Ok(["cluster.local", "shop", "web"]));
        check("spiffe://a_b-c.D/ns/ns/sa/sa", Ok(["a_b-c.D", "ns", "sa"]));
        check("spiffe://ns/ns/a.b/sa/c", Ok(["ns", "a.b", "c"]));
        for other in [
            "",
            "spiffe://",
            "spiffe:///",
            "spiffe:///ns/a/sa/b",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td/web",
            "spiffe://td/ns/a",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/more",
            "spiffe://td/x/ns/a/sa/b",
            "spiffe://td//ns/a/sa/b",
            "spiffe://td/sa/b/ns/a",
            "spiffe://td/NS/a/SA/b",
            "SPIFFE://td/ns/a/sa/b",
            " spiffe://td/ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "td/ns/a/sa/b",
        ] {
            check(other, form(other));
        }
        check("spiffe://td/ns//sa/b", part(""));
        check("spiffe://td/ns/a/sa/", part(""));
        check("spiffe://td/ns/../sa/b", part(".."));
        check("spiffe://td/ns/a/sa/.", part("."));
        check("spiffe://td:443/ns/a/sa/b", part("td:443"));
        check("spiffe://me@td/ns/a/sa/b", part("me@td"));
        check("spiffe://*/ns/a/sa/b", part("*"));
        check("spiffe://td/ns/a/sa/b?x=y", part("b?x=y"));
        check("spiffe://td/ns/a/sa/b#c", part("b#c"));
        check("spiffe://td/ns/a/sa/%2e", part("%2e"));
        check("spiffe://td/ns/a/sa/b\0", part("b\0"));
        check("spiffe://td/ns/a/sa/ü", part("ü"));
        check(&format!("spiffe://{}/ns/a/sa/b", "d".repeat(256)), Err(SpiffeIdError::Length));
        check(&format!("spiffe://td/ns/a/sa/{}", "b".repeat(2048)), Err(SpiffeIdError::Length));
    }

    #[test]
    fn an_id_cannot_be_made_of_parts_that_would_read_as_others() {
        let check = |parts: [&str; 3], wrong: &str| {
            let id = SpiffeId::new(parts[0], parts[1], parts[2]);
            assert_eq!(id, Err(SpiffeIdError::Part(wrong.to_owned())));
        };
        check(["td", "a/sa/admin", "b"], "a/sa/admin");
        check(["td/ns/a/sa/admin", "a", "b"], "td/ns/a/sa/admin");
        check(["td", "a", ""], "");
        let long = "n".repeat(1024);
        assert_eq!(SpiffeId::new("td", &long, &long), Err(SpiffeIdError::Length));
    }

    #[test]
    fn ids_are_of_the_mesh_if_their_trust_domain_is_exactly_one_of_its_own() {
        let check = |own: &[&str], domain: &str, expected: bool| {
            let id = SpiffeId::new(domain, "a", "b").expect("an id");
            assert_eq!(domains(own).contains(&id), expected, "{own:?} {domain}");
        };
        check(&["cluster.local"], "cluster.local", true);
        check(&["cluster.local"], "cluster.local.evil", false);
        check(&["cluster.local"], "Cluster.local", false);
        check(&["td1", "td2"], "td2", true);
        check(&["td1", "td2"], "cluster.local", false);
        check(&["td1", "*-td"], "old-td", false);
        check(&["td1", "*"], "other", false);
    }

    #[test]
    fn names_are_expected_as_configuration_states_them() {
        let own = domains(&["td1", "td2", "td3"]);
        assert_eq!(&*own.expected("a", "b"), "spiffe://td1/ns/a/sa/b");
        assert_eq!(&*own.expected("a", "b/../c"), "spiffe://td1/ns/a/sa/b/../c");
        let check = |id: &str, expected: &[&str]| {
            let found: Vec<Name> = own.under_aliases(id).collect();
            assert_eq!(found.iter().map(|name| &**name).collect::<Vec<_>>(), expected, "{id}");
        };
        check("spiffe://td1/ns/a/sa/b", &["spiffe://td2/ns/a/sa/b", "spiffe://td3/ns/a/sa/b"]);
        check("spiffe://other/any/path", &["spiffe://td2/any/path", "spiffe://td3/any/path"]);
        check("db.example.com", &[]);
        check("spiffe://td1", &[]);
        check("", &[]);
    }

    #[test]
    fn principals_of_the_mesh_are_meant_in_every_trust_domain() {
        let check = |own: &[&str], principal: &str, expected: &[&str]| {
            assert_eq!(domains(own).principals(&texts(&[principal])), texts(expected), "{principal}");
        };
        let mesh = ["td1", "td2"];
        check(&mesh, "td1/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&mesh, "td2/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&mesh, "cluster.local/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&mesh, "elsewhere/ns/a/sa/b", &["elsewhere/ns/a/sa/b"]);
        check(&mesh, "*/ns/a/sa/b", &["*/ns/a/sa/b"]);
        check(&mesh, "*/sa/b", &["*/sa/b"]);
        check(&mesh, "*", &["*"]);
        check(&mesh, "", &[""]);
        check(&["old-td", "new-td", "other"], "*-td/ns/a/sa/b", &["*-td/ns/a/sa/b", "other/ns/a/sa/b"]);
        check(&["new", "*-td"], "old-td/ns/a/sa/b", &["new/ns/a/sa/b", "*-td/ns/a/sa/b"]);
    }

    #[test]
    fn trust_domains_are_expanded_once() {
        let own = domains(&["td1", "td2"]);
        assert_eq!(own.domains(&texts(&["td2", "x", "td1"])), texts(&["td1", "td2", "x"]));
    }
}
