//! Resources that are made for one stream and no other.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use navarch_envoy::{Layer, ProxyResources, XdsType};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::request::{Request, Wish};

/// Resources of a stream that are in no class: the key of a workload and its certificate, for example.
///
/// Nothing is made before the client asks for it, and what was made is forgotten with the stream.
pub struct OwnResources {
    /// Their type.
    pub ty: XdsType,
    /// All names that they may have. No resource of the class has one of them.
    pub names: Vec<Arc<str>>,
    /// Makes them. Called once, when one of the names is asked for. Requests of the type wait until there is
    /// something in the channel: empty if nothing can be made. The sender may go at any time; what it said
    /// last stays.
    pub make: Box<dyn FnOnce() -> watch::Receiver<Option<Arc<Layer>>> + Send>,
}

impl fmt::Debug for OwnResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnResources")
            .field("ty", &self.ty)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// The resources of a stream: those of its class, and its own.
#[derive(Debug, Default)]
pub(super) struct Combined {
    unasked: Option<OwnResources>,
    made: Option<Made>,
    of_class: Option<Arc<ProxyResources>>,
}

/// What has been asked for.
#[derive(Debug)]
struct Made {
    ty: XdsType,
    news: WatchStream<Option<Arc<Layer>>>,
    newest: Option<Arc<Layer>>,
    /// Requests that wait for the first of it.
    waiting: Vec<Request>,
}

impl Combined {
    pub fn new(own: Option<OwnResources>) -> Self {
        Self { unasked: own, ..Self::default() }
    }

    /// Takes a request that has to wait; gives back one that has not.
    pub fn admit(&mut self, request: Request) -> Option<Request> {
        let ty = XdsType::from_type_url(&request.type_url);
        if let Some(own) = self.unasked.take_if(|own| ty == Some(own.ty) && asks_for(&request, &own.names)) {
            let news = WatchStream::new((own.make)());
            self.made = Some(Made { ty: own.ty, news, newest: None, waiting: Vec::new() });
        }
        match &mut self.made {
            Some(made) if made.newest.is_none() && ty == Some(made.ty) => {
                made.waiting.push(request);
                None
            }
            _ => Some(request),
        }
    }

    /// Other resources of the class.
    pub fn of_class(&mut self, resources: Arc<ProxyResources>) -> Arc<ProxyResources> {
        self.of_class = Some(resources.clone());
        self.combined().unwrap_or(resources)
    }

    /// Other resources of its own.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arc<Layer>> {
        let Some(made) = &mut self.made else { return Poll::Pending };
        loop {
            match made.news.poll_next_unpin(cx) {
                Poll::Ready(Some(None)) => {}
                Poll::Ready(Some(Some(layer))) => return Poll::Ready(layer),
                // Whoever would have made it has gone.
                Poll::Ready(None) if made.newest.is_none() => return Poll::Ready(Arc::default()),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes what [`Self::poll`] gave. Returns the resources, if those of the class are known, and the
    /// requests that waited.
    pub fn own(&mut self, layer: Arc<Layer>) -> (Option<Arc<ProxyResources>>, Vec<Request>) {
        let Some(made) = &mut self.made else { return (None, Vec::new()) };
        made.newest = Some(layer);
        let waiting = mem::take(&mut made.waiting);
        (self.combined(), waiting)
    }

    fn combined(&self) -> Option<Arc<ProxyResources>> {
        let (of_class, made) = (self.of_class.as_ref()?, self.made.as_ref()?);
        let set = of_class.set(made.ty).with_own(made.newest.clone()?);
        Some(Arc::new(ProxyResources::clone(of_class).with(made.ty, set)))
    }
}

fn asks_for(request: &Request, own: &[Arc<str>]) -> bool {
    let names = match &request.wish {
        Wish::Exactly { names, .. } => names,
        Wish::Change { subscribe, .. } => subscribe,
    };
    names.iter().any(|name| own.iter().any(|own| **own == **name))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use navarch_envoy::Resource;

    use super::*;

    fn request(ty: XdsType, name: &str) -> Request {
        let wish =
            Wish::Change { subscribe: vec![name.into()], unsubscribe: Vec::new(), held: Default::default() };
        Request { type_url: ty.type_url().into(), wish, ..Request::default() }
    }

    #[tokio::test]
    async fn nothing_is_made_before_it_is_asked_for_and_who_asks_waits() {
        let made = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = watch::channel(None);
        let counted = made.clone();
        let make = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            receiver
        };
        let own = OwnResources { ty: XdsType::Sds, names: vec!["default".into()], make: Box::new(make) };
        let mut combined = Combined::new(Some(own));
        for (ty, name) in [(XdsType::Cds, "default"), (XdsType::Sds, "ROOTCA")] {
            assert!(combined.admit(request(ty, name)).is_some(), "{ty:?} {name}");
        }
        assert_eq!(made.load(Ordering::Relaxed), 0);
        assert!(combined.admit(request(XdsType::Sds, "default")).is_none());
        assert!(combined.admit(request(XdsType::Sds, "ROOTCA")).is_none(), "in their order");
        assert!(combined.admit(request(XdsType::Lds, "default")).is_some(), "others need not wait");
        assert_eq!(made.load(Ordering::Relaxed), 1);

        let resource = |name: &str| Arc::new(Resource::of(XdsType::Sds, name, name.as_bytes()));
        let shared = navarch_envoy::ResourceSet::of([resource("ROOTCA")]);
        let of_class = Arc::new(ProxyResources::new(7).with(XdsType::Sds, shared));
        assert!(!combined.of_class(of_class.clone()).set(XdsType::Sds).is_own());
        sender.send_replace(Some(Arc::new(Layer::new([resource("default")]))));
        let layer = poll_fn(|cx| combined.poll(cx)).await;
        let (resources, waited) = combined.own(layer);
        let resources = resources.expect("both are known");
        let names: Vec<_> =
            resources.set(XdsType::Sds).iter().map(|resource| resource.name().clone()).collect();
        assert_eq!((names, waited.len()), (vec!["ROOTCA".into(), "default".into()], 2));
        assert!(resources.set(XdsType::Sds).is_own() && resources.revision() == 7);
        assert_eq!(of_class.set(XdsType::Sds).len(), 1, "the class has none of it");
        assert!(combined.admit(request(XdsType::Sds, "default")).is_some(), "nobody waits any more");
        // Who makes them has gone: what there is stays.
        drop(sender);
        assert!(combined.of_class(of_class).set(XdsType::Sds).get("default").is_some());
    }

    #[tokio::test]
    async fn who_would_have_made_them_has_gone() {
        let make = Box::new(|| watch::channel(None).1);
        let mut combined =
            Combined::new(Some(OwnResources { ty: XdsType::Sds, names: vec!["default".into()], make }));
        assert!(combined.admit(request(XdsType::Sds, "default")).is_none());
        let layer = poll_fn(|cx| combined.poll(cx)).await;
        assert!(layer.is_empty());
        assert_eq!(combined.own(layer).1.len(), 1);
    }
}
