//! A service and a port of it, as a client listens for them.

use navarch_model::networking::CaptureMode;
use navarch_model::service::{Protocol, Resolution, Service};
use navarch_model::{Hashed, Name};
use navarch_snapshot::Scope;
use navarch_snapshot::scope::EgressListener;
use navarch_translate::listeners::address::{UNIX_PREFIX, loopbacks, names};
use navarch_translate::listeners::tcp::DnsCache;
use navarch_translate::names::dns_cache;

use super::addresses::{Binding, ServiceAddress};
use super::view::{BucketView, CommonView};
use crate::engine::Cx;

/// A service as one egress listener of a client imports it.
pub struct PortOf<'a, 'e> {
    pub cx: &'a Cx<'e>,
    pub scope: &'a Scope,
    pub common: &'a CommonView,
    pub proxy: &'a BucketView,
    pub listener: &'a EgressListener,
    pub service: &'a Hashed<Service>,
}

/// A port to listen on: of the service, or of the egress listener.
#[derive(Clone, Debug)]
pub struct ListenPort {
    /// Zero for Unix domain sockets.
    pub number: u16,
    pub name: Name,
    pub protocol: Protocol,
}

/// One listener to be, for one port of the service.
pub struct ListenerRequest<'a> {
    pub port: &'a ListenPort,
    pub service_address: &'a ServiceAddress,
    pub binding: Binding,
}

impl<'a> PortOf<'a, '_> {
    /// What is known of the proxy, for all services.
    pub fn view(&self) -> &'a CommonView {
        self.common
    }

    /// Where the egress listener listens; addresses are left open if it does not say.
    pub fn binding(&self) -> Binding {
        let stated = self.listener.bind.as_str();
        let to_port = !self.view().intercepted
            || self.listener.capture_mode == CaptureMode::None
            || stated.starts_with(UNIX_PREFIX);
        let addresses = match stated {
            "" if to_port => names(loopbacks(self.view().ip_mode)),
            "" => Vec::new(),
            stated => vec![Name::from(stated)],
        };
        Binding { addresses, blocks: Vec::new(), to_port }
    }

    /// The DNS cache of a wildcard host that is resolved when it is requested.
    pub fn dynamic_dns(&self) -> Option<DnsCache> {
        let host = &self.service.hostname;
        (host.starts_with('*') && self.service.resolution == Resolution::DynamicDns)
            .then(|| DnsCache { name: Name::from(dns_cache(host)), ip_mode: self.view().ip_mode })
    }
}
