//! Who is at the other end of a stream: what the node states, and what the connection proves.

use navarch_model::proxy::{MetadataProblem, ProxyFacts};
use navarch_model::{SpiffeId, TrustDomains};
use navarch_plan::{Class, Secrets};
use navarch_snapshot::{Snapshot, View};
use navarch_xds::{Node, Peer, Rejection};

/// How routes go to proxies that can take them either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteForm {
    /// Virtual hosts are resources of their own.
    #[default]
    Split,
    /// A route configuration is one resource.
    Whole,
}

/// Who is at the other end of a stream.
#[derive(Clone, Debug)]
pub struct Client {
    /// The whole id of the node.
    pub node: String,
    pub facts: ProxyFacts,
    /// Which secrets may be sent: see [`Client::of`].
    secrets: Secrets,
    /// What the node states and nobody can use.
    pub problems: Vec<MetadataProblem>,
}

impl Client {
    /// What a node states and what its connection proves.
    ///
    /// Secrets go to clients whose identity the transport has proven, and over plaintext to clients on the
    /// same machine only: they could read the configuration directory as well.
    ///
    /// # Errors
    /// If the node is not one that can be served, or claims another namespace or service account than its
    /// connection proves.
    pub fn of(node: &Node, peer: &Peer) -> Result<Self, Rejection> {
        let (mut facts, problems) = facts_of(node)?;
        let secrets = match peer.identities.is_empty() {
            false => Secrets::Given,
            true if peer.address.ip().to_canonical().is_loopback() => Secrets::Given,
            true => Secrets::Withheld,
        };
        if !peer.identities.is_empty() {
            let claims = |id: &SpiffeId| {
                *id.namespace() == facts.namespace
                    && (facts.service_account.is_empty() || *id.account() == facts.service_account)
            };
            let Some(id) = peer.identities.iter().filter_map(|id| id.parse().ok()).find(claims) else {
                return Err(Rejection::PermissionDenied(format!(
                    "the node claims namespace {} and service account {}, and its certificate is of {}",
                    facts.namespace,
                    if facts.service_account.is_empty() { "(any)" } else { &facts.service_account },
                    peer.identities.join(", ")
                )));
            };
            facts.service_account = id.account().clone();
        }
        Ok(Client { node: node.id.clone(), facts, secrets, problems })
    }

    /// Whether all identities that the connection proves are of this mesh. A root that several meshes share
    /// signs others too.
    pub fn is_of_mesh(peer: &Peer, snapshot: &Snapshot) -> bool {
        let view = snapshot.view();
        let trust_domains = TrustDomains::of(&view.mesh().config);
        peer.identities.iter().all(|id| id.parse().is_ok_and(|id| trust_domains.contains(&id)))
    }

    /// The namespace that the connection proves, if it is of this mesh.
    pub fn namespace_of(peer: &Peer, snapshot: &Snapshot) -> Option<String> {
        let id = peer.identities.iter().find_map(|id| id.parse::<SpiffeId>().ok());
        id.filter(|_| Self::is_of_mesh(peer, snapshot)).map(|id| id.namespace().to_string())
    }

    /// The class that it belongs to, as the world stands.
    pub fn class(&self, view: &View<'_>) -> Class {
        Class::of(&self.facts, view).with_secrets(self.secrets)
    }

    /// The same, where an API server says who may read secrets. It knows accounts, so this is for identities
    /// that are proven.
    #[must_use]
    pub fn reviewed(self, peer: &Peer) -> Self {
        let secrets = if peer.identities.is_empty() { self.secrets } else { Secrets::Reviewed };
        Client { secrets, ..self }
    }
}

/// The facts a node states.
fn facts_of(node: &Node) -> Result<(ProxyFacts, Vec<MetadataProblem>), Rejection> {
    let locality = &node.locality;
    ProxyFacts::read(
        &node.id,
        &node.cluster,
        &node.metadata,
        navarch_model::endpoint::Locality {
            region: locality.region.as_str().into(),
            zone: locality.zone.as_str().into(),
            sub_zone: locality.sub_zone.as_str().into(),
        },
    )
    .map_err(|error| Rejection::InvalidNode(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_what_its_certificate_says() {
        let check = |account: Option<&str>, identities: &[&str], expected: Option<&str>| {
            let mut node =
                Node { id: "sidecar~10.0.0.9~web.shop~shop.svc.cluster.local".to_owned(), ..Node::default() };
            if let Some(account) = account {
                node.metadata.insert("SERVICE_ACCOUNT".to_owned(), account.into());
            }
            let identities = identities.iter().map(|id| (*id).to_owned()).collect();
            let address = "127.0.0.1:1".parse().expect("an address");
            let peer = Peer { identities, ..Peer::plaintext(address) };
            let client = Client::of(&node, &peer);
            let account = client.as_ref().ok().map(|client| &*client.facts.service_account);
            assert_eq!(account, expected, "{:?} {:?}", node.metadata, peer.identities);
        };
        let web = "spiffe://cluster.local/ns/shop/sa/web";
        check(Some("web"), &[web], Some("web"));
        check(None, &[web], Some("web"));
        check(None, &[], Some(""));
        check(Some("admin"), &[web], None);
        check(Some("web"), &["spiffe://cluster.local/ns/other/sa/web"], None);
        check(Some("web"), &["spiffe://cluster.local/ns/shop/sa/web/more"], None);
        check(Some("web"), &["spiffe://cluster.local/web"], None);
        check(Some("web"), &["spiffe://cluster.local/ns/other/sa/x", web], Some("web"));
    }

    #[test]
    fn identities_are_of_the_trust_domain() {
        let snapshot = navarch_snapshot::World::new(Default::default()).snapshot().clone();
        for (id, expected) in [
            ("spiffe://cluster.local/ns/shop/sa/web", true),
            ("spiffe://other/ns/shop/sa/web", false),
            ("spiffe://cluster.local.evil/ns/shop/sa/web", false),
            ("nonsense", false),
        ] {
            let address = "10.0.0.9:1".parse().expect("an address");
            let peer = Peer { identities: vec![id.to_owned()], ..Peer::plaintext(address) };
            assert_eq!(Client::is_of_mesh(&peer, &snapshot), expected, "{id}");
        }
    }

    #[test]
    fn secrets_go_to_proven_identities_and_to_the_same_machine() {
        let node =
            Node { id: "router~10.0.0.9~gw.edge~edge.svc.cluster.local".to_owned(), ..Node::default() };
        let identity = || vec!["spiffe://cluster.local/ns/edge/sa/gw".to_owned()];
        let check = |address: &str, identities: Vec<String>, expected: Secrets, reviewed: Secrets| {
            let peer = Peer { identities, ..Peer::plaintext(address.parse().expect("an address")) };
            let client = Client::of(&node, &peer).expect("a node");
            let snapshot = navarch_snapshot::World::new(Default::default()).snapshot().clone();
            let class = |client: &Client| client.class(&snapshot.view()).secrets;
            assert_eq!(class(&client), expected, "{address}");
            assert_eq!(class(&client.reviewed(&peer)), reviewed, "{address}");
        };
        use Secrets::{Given, Reviewed, Withheld};
        check("127.0.0.1:1", Vec::new(), Given, Given);
        check("[::1]:1", Vec::new(), Given, Given);
        check("[::ffff:127.0.0.1]:1", Vec::new(), Given, Given);
        check("10.0.0.9:1", Vec::new(), Withheld, Withheld);
        check("10.0.0.9:1", identity(), Given, Reviewed);
        check("127.0.0.1:1", identity(), Given, Reviewed);
    }
}
