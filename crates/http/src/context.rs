//! Facts about a request that are not part of it: the client, and the caller that it was admitted as.

use std::sync::{Arc, OnceLock, Weak};

use litplex_access::{Admission, InFlightPermit};
use litplex_metrics::{Edge, LaterEdge};

use crate::peer::Peer;

/// The context of a request. The caller's in-flight permit is held until all clones are dropped: the
/// observer of the request has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    pub(crate) client: Option<Peer>,
    /// The name under which a trusted proxy received the request.
    pub(crate) forwarded_host: Option<Arc<str>>,
    /// `None` on the inner listener: the caller was admitted on the public one.
    caller: Option<Arc<Caller>>,
}

/// The caller, once the request was admitted or refused. A layer may send a request on more than once:
/// the first holder and the first permit count.
#[derive(Debug, Default)]
struct Caller {
    /// The metrics of a request whose endpoint the body decides.
    metrics: Option<LaterEdge>,
    holder: OnceLock<Arc<str>>,
    permit: OnceLock<InFlightPermit>,
}

impl Context {
    pub(crate) fn new(
        client: Option<Peer>,
        forwarded_host: Option<Arc<str>>,
        metrics: Option<LaterEdge>,
    ) -> Self {
        let caller = Caller { metrics, ..Caller::default() };
        Self { client, forwarded_host, caller: Some(Arc::new(caller)) }
    }

    /// Counts the request for the endpoint with these metrics, if the body decided the endpoint.
    pub(crate) fn count_for(&self, endpoint: &Edge) {
        if let Some(metrics) = self.caller.as_ref().and_then(|caller| caller.metrics.as_ref()) {
            metrics.set(endpoint);
        }
    }

    /// Returns the holder of the request's key, or the subject of its token, as far as it is known.
    pub(crate) fn holder(&self) -> Option<&Arc<str>> {
        self.caller.as_ref()?.holder.get()
    }

    /// Notes the holder of the request's key, or the subject of its token.
    pub(crate) fn set_holder(&self, holder: Option<Arc<str>>) {
        if let (Some(caller), Some(holder)) = (&self.caller, holder) {
            let _ = caller.holder.set(holder);
        }
    }

    /// Notes the admission, and holds its permit.
    pub(crate) fn admit(&self, admission: Admission) {
        self.set_holder(admission.holder);
        if let (Some(caller), Some(permit)) = (&self.caller, admission.permit) {
            let _ = caller.permit.set(permit);
        }
    }

    /// Returns it for the extensions of a request, which layers may keep longer than the request runs.
    pub(crate) fn downgrade(&self) -> WeakContext {
        let Self { client, forwarded_host, caller } = self;
        let (client, forwarded_host) = (*client, forwarded_host.clone());
        let caller = caller.as_ref().map(Arc::downgrade).unwrap_or_default();
        WeakContext { client, forwarded_host, caller }
    }
}

/// A context that holds no permit.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeakContext {
    client: Option<Peer>,
    forwarded_host: Option<Arc<str>>,
    caller: Weak<Caller>,
}

impl WeakContext {
    /// Returns the context; one of an unknown caller if the request has ended.
    pub(crate) fn upgrade(self) -> Context {
        let Self { client, forwarded_host, caller } = self;
        Context { client, forwarded_host, caller: Some(caller.upgrade().unwrap_or_default()) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use litplex_access::Guard;

    use super::*;

    fn admit(guard: &Guard) -> Option<Admission> {
        guard.admit(&HeaderMap::new(), Some(([192, 0, 2, 1], 7).into())).ok()
    }

    #[test]
    fn contexts_hold_the_permit_and_extensions_do_not() {
        let guard = Guard::default().limit(None, Some(1));
        let context = Context::new(None, None, None);
        context.admit(admit(&guard).unwrap());
        let (observer, extension) = (context.clone(), context.downgrade());
        drop(context);
        assert!(admit(&guard).is_none(), "the response has not ended");
        drop(observer);
        assert!(admit(&guard).is_some());
        // A layer that keeps the extension may still send a request.
        extension.upgrade().admit(admit(&guard).unwrap());
        assert!(admit(&guard).is_some());
    }

    #[test]
    fn a_request_that_a_layer_sends_twice_holds_one_permit() {
        let guard = Guard::default().limit(None, Some(2));
        let context = Context::new(None, None, None);
        context.admit(admit(&guard).unwrap());
        context.admit(admit(&guard).unwrap());
        let another = admit(&guard);
        assert!(another.is_some() && admit(&guard).is_none());
    }

    #[test]
    fn the_first_holder_counts() {
        let context = Context::new(None, None, None);
        context.set_holder(None);
        assert_eq!(context.holder(), None);
        let upgraded = context.downgrade().upgrade();
        for holder in ["ann", "bob"] {
            upgraded.set_holder(Some(holder.into()));
        }
        assert_eq!(context.holder().map(|holder| &**holder), Some("ann"));
    }
}
