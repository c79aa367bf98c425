//! Request ids: those of clients, or new ones.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderMap;
use http::header::HeaderValue;
use litplex_http_core::headers::X_REQUEST_ID;
use litplex_http_core::request_name::is_sound_id;

/// The source of request ids.
#[derive(Debug)]
pub struct RequestIds {
    /// The first part of the ids, which no other server has.
    server: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Returns a source of ids that begin with `server`, which should be random.
    pub fn new(server: u64) -> Self {
        Self { server, next: AtomicU64::new(1) }
    }

    /// Returns the id of a request: its own if it is printable and short, otherwise a new one,
    /// which the request then has.
    pub(crate) fn take(&self, headers: &mut HeaderMap) -> HeaderValue {
        if let Some(id) = headers.get(X_REQUEST_ID).filter(|id| is_sound_id(id)) {
            return id.clone();
        }
        let number = self.next.fetch_add(1, Relaxed);
        let id = format!("{:016x}{number:08x}", self.server);
        let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"));
        headers.insert(X_REQUEST_ID, id.clone());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_id_unless_it_could_forge_a_log() {
        let ids = RequestIds::new(0xab);
        let taken = |given: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_static(given));
            let id = ids.take(&mut headers);
            assert_eq!(headers[X_REQUEST_ID], id);
            id
        };
        assert_eq!(taken("from-the-client"), "from-the-client");
        assert_eq!(taken("two words"), "00000000000000ab00000001");
        assert_eq!(taken(""), "00000000000000ab00000002");
    }
}
