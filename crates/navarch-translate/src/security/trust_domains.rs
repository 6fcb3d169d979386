//! Trust domains of the mesh and their aliases.
//!
//! A policy that names one of them means all of them, so that moving a mesh to another trust domain does not need a change of
//! its policies (Istio, "Trust Domain Migration").

use navarch_model::mesh::MeshConfig;

/// The trust domain that stands for the mesh's own, whatever its name.
const LOCAL: &str = "cluster.local";

/// The trust domain of the mesh, then its aliases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomains(pub Vec<String>);

impl TrustDomains {
    /// Those of a mesh.
    pub fn of(mesh: &MeshConfig) -> Self {
        let own = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
        TrustDomains(own.cloned().collect())
    }

    /// Principals for every trust domain, where they name one of them. A principal is
    /// `<trust domain>/ns/<namespace>/sa/<service account>`; anything else is kept as it is.
    pub fn principals(&self, stated: &[String]) -> Vec<String> {
        let mut all = Vec::new();
        for principal in stated {
            match trust_domain(principal) {
                Some((domain, rest)) if domain != "*" && (domain == LOCAL || self.matches(domain)) => {
                    all.extend(self.expanded(principal, domain, rest));
                }
                _ => all.push(principal.clone()),
            }
        }
        all
    }

    /// Trust domains with their aliases, each once.
    pub fn domains(&self, stated: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for domain in stated {
            let meant =
                if self.0.contains(domain) { self.0.as_slice() } else { std::slice::from_ref(domain) };
            for domain in meant {
                if !all.contains(domain) {
                    all.push(domain.clone());
                }
            }
        }
        all
    }

    /// Whether a trust domain, perhaps with a wildcard, is one of ours, perhaps with a wildcard.
    fn matches(&self, domain: &str) -> bool {
        self.0.iter().any(|own| {
            domain == own
                || own == "*"
                || prefix_match(domain, own)
                || prefix_match(own, domain)
                || suffix_match(domain, own)
                || suffix_match(own, domain)
        })
    }

    fn expanded(&self, principal: &str, domain: &str, rest: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for own in &self.0 {
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

fn trust_domain(principal: &str) -> Option<(&str, &str)> {
    let parts = principal.split('/').count();
    principal.split_once('/').filter(|_| parts == 5)
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

    fn check(domains: &[&str], principal: &str, expected: &[&str]) {
        let domains = TrustDomains(texts(domains));
        assert_eq!(domains.principals(&texts(&[principal])), texts(expected), "{principal}");
    }

    #[test]
    fn principals_of_the_mesh_are_meant_in_every_trust_domain() {
        let mesh = ["td1", "td2"];
        check(&mesh, "td1/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&mesh, "td2/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&mesh, "cluster.local/ns/a/sa/b", &["td1/ns/a/sa/b", "td2/ns/a/sa/b"]);
        check(&mesh, "elsewhere/ns/a/sa/b", &["elsewhere/ns/a/sa/b"]);
        check(&mesh, "*/ns/a/sa/b", &["*/ns/a/sa/b"]);
        check(&mesh, "*/sa/b", &["*/sa/b"]);
        check(&mesh, "*", &["*"]);
        check(&["old-td", "new-td", "other"], "*-td/ns/a/sa/b", &["*-td/ns/a/sa/b", "other/ns/a/sa/b"]);
    }

    #[test]
    fn trust_domains_are_expanded_once() {
        let domains = TrustDomains(texts(&["td1", "td2"]));
        assert_eq!(domains.domains(&texts(&["td2", "x", "td1"])), texts(&["td1", "td2", "x"]));
    }
}
