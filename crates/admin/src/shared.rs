//! The dashboard on a listener that has other pages, too.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::{BoxError, Extension, Router, http};
use bytes::Bytes;
use litplex_dashboard::SHARED_PAGE;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::guard::{AdminGuard, ForwardedHost, guarded};
use crate::operations::Admin;
use crate::routes::{self, Ending};

/// The dashboard and its API on a listener that has other pages, too: the server's own port. It serves
/// `/dashboard` and what is below it.
#[derive(Debug, Clone)]
pub struct SharedDashboard {
    router: Router,
}

impl SharedDashboard {
    /// Returns the dashboard of this server for clients that the guard admits. Once `ends` is true, it sends no
    /// further event and no further line of the log: the server may wait for its responses.
    pub fn new(admin: Arc<dyn Admin>, guard: AdminGuard, ends: watch::Receiver<bool>) -> Self {
        let router = routes::below_dashboard(admin, SHARED_PAGE)
            .layer(Extension(Ending(ends)))
            .layer(from_fn_with_state(Arc::new(guard), guarded));
        Self { router }
    }

    /// Responds to a request, which a trusted proxy may have received under another name.
    pub async fn respond<B>(
        &self,
        request: http::Request<B>,
        forwarded_host: Option<Arc<str>>,
    ) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut request = request.map(Body::new);
        forwarded_host.map(|host| request.extensions_mut().insert(ForwardedHost(host)));
        let Ok(response) = self.router.clone().oneshot(request).await;
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::to_bytes;
    use axum::extract::Request;
    use litplex_access::{Browsers, Keys, digest};
    use tokio::time::timeout;

    use super::*;
    use crate::mock::MockAdmin;
    use crate::{Event, EventKind};

    fn dashboard(admin: MockAdmin, ends: &watch::Sender<bool>) -> SharedDashboard {
        let keys = |holder: &str, key| {
            watch::channel(Keys::from_iter([(holder.to_owned(), digest(key))])).1
        };
        let guard = AdminGuard::new(keys("ann", "all"), keys("bob", "look"), Browsers::default());
        SharedDashboard::new(Arc::new(admin), guard, ends.subscribe())
    }

    async fn status(path: &str, headers: &[(&str, &str)], forwarded_host: Option<&str>) -> u16 {
        let mut request = Request::get(path).header("host", "backend");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let dashboard = dashboard(MockAdmin::new(8000), &watch::Sender::new(false));
        dashboard.respond(request, forwarded_host.map(Into::into)).await.status().as_u16()
    }

    #[tokio::test]
    async fn only_what_is_below_the_dashboard_is_there() {
        let key = [("x-api-key", "look")];
        for (path, wanted) in [
            ("/dashboard", 200),
            ("/dashboard/app.js", 200),
            ("/dashboard/v1/server", 200),
            ("/dashboard/v1/endpoints/%2Fembed", 200),
            ("/dashboard/openapi.json", 200),
            ("/dashboard/v1/no", 404),
            ("/v1/server", 404),
            ("/openapi.json", 404),
            ("/dashboard/dashboard/v1/server", 404),
        ] {
            assert_eq!(status(path, &key, None).await, wanted, "{path}");
        }
        // Without a route of its own, `/` is still no page that needs a key.
        assert_eq!(status("/", &key, None).await, 404);
        for path in ["/dashboard/v1/server", "/v1/server", "/dashboard/no.js"] {
            assert_eq!(status(path, &[], None).await, 401, "{path}");
        }
    }

    #[tokio::test]
    async fn the_page_may_have_the_name_under_which_a_proxy_received_it() {
        let headers = [("x-api-key", "all"), ("origin", "https://models.example")];
        let path = "/dashboard/v1/server";
        assert_eq!(status(path, &headers, None).await, 403);
        assert_eq!(status(path, &headers, Some("other.example")).await, 403);
        assert_eq!(status(path, &headers, Some("models.example")).await, 200);
    }

    #[tokio::test]
    async fn responses_that_follow_something_end_with_the_server() {
        let admin = MockAdmin::new(8000);
        let kind = EventKind::Scaled { endpoint: "/a".into(), before: 0, wanted: 1 };
        admin.events.push(Event { timestamp: "2026".into(), kind }, 100);
        admin.log.push("{}\n".into(), 3);
        let ends = watch::Sender::new(false);
        let dashboard = dashboard(admin, &ends);
        let follow = async |path: &str| {
            let request = Request::get(path).header("x-api-key", "look");
            let response = dashboard.respond(request.body(Body::empty()).unwrap(), None).await;
            to_bytes(response.into_body(), usize::MAX).await.unwrap()
        };
        let (events, logs) = ("/dashboard/v1/events", "/dashboard/v1/logs?follow=true");
        let short = Duration::from_millis(50);
        assert!(timeout(short, follow(events)).await.is_err());
        assert!(timeout(short, follow(logs)).await.is_err());
        ends.send_replace(true);
        let ended = async { (follow(events).await, follow(logs).await) };
        let (events, logs) = timeout(Duration::from_secs(10), ended).await.unwrap();
        assert!(logs.is_empty() || &*logs == b"{}\n", "{logs:?}");
        assert!(events.is_empty() || events.starts_with(b"event: "), "{events:?}");
    }

    #[tokio::test]
    async fn the_shared_page_says_that_it_is_shared() {
        let request = Request::get("/dashboard").body(Body::empty()).unwrap();
        let dashboard = dashboard(MockAdmin::new(8000), &watch::Sender::new(false));
        let page = to_bytes(dashboard.respond(request, None).await.into_body(), 1 << 20).await;
        assert!(String::from_utf8(page.unwrap().to_vec()).unwrap().contains("<html data-shared "));
    }
}
