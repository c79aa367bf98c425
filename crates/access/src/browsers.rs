//! The requests that pages of other sites may have a browser send to this server.
//!
//! A page can send some requests to any address that its browser reaches, and all requests to a
//! name of its own that resolves to that address (DNS rebinding). If a server on a machine's own
//! address requires no key, nothing else keeps such pages out.

use std::net::IpAddr;

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, Method, Request};
use litplex_core::ServeError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The names under which a server may be addressed, and the origins whose pages may call it.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    /// Names, `*.` and a name, or `*`; empty if any name may be used.
    pub allowed_hosts: Vec<String>,
    /// The origins whose pages may call, as browsers send them, or `*`.
    pub origins: Vec<String>,
    /// Whether the server listens on loopback alone.
    pub is_loopback: bool,
    /// The host that the server was told to listen on.
    pub host: String,
}

/// The kind of route that a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// A route that requires no key.
    Open,
    /// A route that requires a key, which a page of another site does not have.
    Guarded,
    /// The tools, whose clients act on the responses.
    Tools {
        /// Whether they require no key.
        is_open: bool,
    },
    /// The operations of an operator, which only the pages of this server may use, also with a key.
    Admin,
}

impl Browsers {
    /// Returns why a request is refused, if it is. `forwarded` is the name under which a trusted
    /// proxy received the request.
    pub fn refuse<B>(
        &self,
        request: &Request<B>,
        kind: RouteKind,
        forwarded: Option<&str>,
    ) -> Option<ServeError> {
        let host = host_of(request);
        if let Some(name) = host.map(name_of).filter(|name| !self.accepts_host(name, kind)) {
            return Some(ServeError::forbidden(format!(
                "this server is not asked under the name `{name}`; to allow that, add it to \
                 `allowed_hosts`"
            )));
        }
        let (headers, is_local) = (request.headers(), self.is_loopback && kind.is_open());
        if !is_local && !kind.checks_origins() {
            return None;
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let origin = origin.to_str().unwrap_or("null");
            let own = [host, forwarded].into_iter().flatten();
            return (!self.may_call(origin, own)).then(|| {
                ServeError::forbidden(format!(
                    "pages of the origin `{origin}` may not call this server; {}",
                    kind.how_to_allow()
                ))
            });
        }
        let is_checked = is_local || kind == RouteKind::Admin;
        let is_refused =
            is_checked && is_cross_site(headers) && !is_visit(request.method(), headers);
        is_refused.then(|| {
            let how = kind.how_to_allow();
            ServeError::forbidden(format!("pages of other sites may not use this server; {how}"))
        })
    }

    fn accepts_host(&self, name: &str, kind: RouteKind) -> bool {
        if self.allowed_hosts.is_empty() && !(self.is_loopback && kind.is_open()) {
            return true;
        }
        self.is_allowed(name) || (self.is_loopback && self.is_local(name))
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allowed_hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some("") => true,
            Some(ending) => ends_with(name, ending),
            None => allowed.eq_ignore_ascii_case(name),
        })
    }

    /// Returns whether no page of another site can have this name: a name without a dot cannot be
    /// registered. nginx sends such names of upstreams.
    fn is_local(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address
            || !name.contains('.')
            || ends_with(name, ".localhost")
            || self.host.eq_ignore_ascii_case(name)
    }

    fn may_call<'a>(&self, origin: &str, mut own: impl Iterator<Item = &'a str>) -> bool {
        let is_named = |named: &String| named == "*" || named.eq_ignore_ascii_case(origin);
        if self.origins.iter().any(is_named) {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        own.any(|own| is_same(scheme, authority, own)) || self.is_allowed(name_of(authority))
    }
}

impl RouteKind {
    /// Returns whether names are checked on loopback, where a page may have rebound a name of its own.
    fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Tools { is_open: true } | Self::Admin)
    }

    /// Returns whether origins are checked on every address.
    fn checks_origins(self) -> bool {
        matches!(self, Self::Tools { .. } | Self::Admin)
    }

    fn how_to_allow(self) -> &'static str {
        match self {
            Self::Admin => "to allow that, add their host to `allowed_hosts`",
            _ => "to allow that, add their origin to `cors_origins`",
        }
    }
}

/// Returns the name and port that a request is sent to; in HTTP/2 they are part of the address.
fn host_of<B>(request: &Request<B>) -> Option<&str> {
    let in_address = request.uri().authority().map(http::uri::Authority::as_str);
    in_address.or_else(|| request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?")))
}

/// Returns the name without the port, and without user information before it.
fn name_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Returns whether an origin is that of the server. Behind a proxy that uses TLS, the server does
/// not know its own scheme.
fn is_same(scheme: &str, authority: &str, own: &str) -> bool {
    let default = if scheme == "https" { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    bare(authority) == bare(own)
}

fn ends_with(name: &str, ending: &str) -> bool {
    let start = name.len().checked_sub(ending.len());
    start.and_then(|start| name.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site")
}

/// Returns whether a request follows a link to a page, which only the person at the browser sees.
fn is_visit(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|had| had == value);
    [Method::GET, Method::HEAD].contains(method)
        && has(&SEC_FETCH_MODE, "navigate")
        && has(&SEC_FETCH_DEST, "document")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Browsers {
        Browsers { is_loopback: true, host: "box.lan".into(), ..Browsers::default() }
    }

    fn request(headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::post("/").body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    fn passes(browsers: &Browsers, kind: RouteKind, headers: &[(&'static str, &str)]) -> bool {
        browsers.refuse(&request(headers), kind, None).is_none()
    }

    #[test]
    fn a_local_server_is_asked_under_names_that_no_site_can_have() {
        for host in [
            "127.0.0.1:8000",
            "127.0.0.1",
            "[::1]:8000",
            "[::1]",
            "localhost",
            "LOCALHOST:1",
            "app.localhost:8000",
            "localhost.",
            "box.lan",
            "Box.lan:8000",
            "backend",
            "10.0.0.7",
        ] {
            assert!(passes(&local(), RouteKind::Open, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost.example",
            "user@evil.example",
            "box.lan.evil.example",
            "1.2.3.4.5",
        ] {
            assert!(!passes(&local(), RouteKind::Open, &[("host", host)]), "{host}");
            assert!(passes(&local(), RouteKind::Guarded, &[("host", host)]), "{host}");
            assert!(passes(&Browsers::default(), RouteKind::Open, &[("host", host)]), "{host}");
        }
        assert!(passes(&local(), RouteKind::Open, &[]), "no browser leaves it out");
    }

    #[test]
    fn allowed_hosts_are_all_that_a_server_is_asked_as() {
        let allowed_hosts = ["api.example.com", "*.example.org"].map(String::from).to_vec();
        let public = Browsers { allowed_hosts: allowed_hosts.clone(), ..Browsers::default() };
        let local = Browsers { allowed_hosts, ..local() };
        for (host, is_in, is_in_locally) in [
            ("api.example.com:443", true, true),
            ("API.example.com", true, true),
            ("a.example.org", true, true),
            ("example.org", false, false),
            ("evilexample.org", false, false),
            ("10.0.0.1", false, true),
            ("localhost", false, true),
        ] {
            for kind in [RouteKind::Open, RouteKind::Guarded] {
                assert_eq!(passes(&public, kind, &[("host", host)]), is_in, "{host}");
                assert_eq!(passes(&local, kind, &[("host", host)]), is_in_locally, "{host}");
            }
        }
        let any = Browsers { allowed_hosts: vec!["*".into()], ..self::local() };
        assert!(passes(&any, RouteKind::Open, &[("host", "evil.example")]));
    }

    #[test]
    fn pages_of_other_origins_are_kept_out() {
        let mut named = local();
        named.origins = vec!["https://app.example.org".into()];
        named.allowed_hosts = vec!["models.example.com".into()];
        for (host, origin, is_in) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000", true),
            ("localhost:8000", "http://localhost:8000", true),
            ("localhost", "http://localhost:80", true),
            ("localhost", "https://localhost", true),
            ("localhost:8000", "http://localhost:3000", false),
            ("localhost:8000", "http://127.0.0.1:8000", false),
            ("127.0.0.1:8000", "http://evil.example", false),
            ("127.0.0.1:8000", "null", false),
            ("127.0.0.1:8000", "https://app.example.org", true),
            ("127.0.0.1:8000", "https://models.example.com", true),
        ] {
            let headers = [("host", host), ("origin", origin)];
            assert_eq!(passes(&named, RouteKind::Open, &headers), is_in, "{host} {origin}");
            assert!(passes(&named, RouteKind::Guarded, &headers), "{host} {origin}");
            for tools in [RouteKind::Tools { is_open: true }, RouteKind::Tools { is_open: false }] {
                assert_eq!(passes(&named, tools, &headers), is_in, "{host} {origin}");
            }
        }
        let forwarded = request(&[("host", "127.0.0.1:1"), ("origin", "https://a.example")]);
        let refused = |name| local().refuse(&forwarded, RouteKind::Open, name).is_some();
        assert!(refused(None) && refused(Some("b.example")) && !refused(Some("a.example")));
    }

    #[test]
    fn only_pages_of_the_server_itself_operate_it() {
        let public = Browsers::default();
        let host = ("host", "gpu7.example.com:9000");
        let own = ("origin", "https://gpu7.example.com:9000");
        let other = ("origin", "https://evil.example");
        let cross = ("sec-fetch-site", "cross-site");
        assert!(passes(&public, RouteKind::Admin, &[host]));
        assert!(passes(&public, RouteKind::Admin, &[host, own]));
        assert!(!passes(&public, RouteKind::Admin, &[host, other]));
        assert!(!passes(&public, RouteKind::Admin, &[host, cross]));
        assert!(!passes(&local(), RouteKind::Admin, &[("host", "evil.example:9000")]));
        assert!(passes(&local(), RouteKind::Admin, &[("host", "127.0.0.1:9000")]));
    }

    #[test]
    fn a_link_may_be_followed_and_nothing_be_embedded() {
        let host = ("host", "localhost");
        let cross = ("sec-fetch-site", "cross-site");
        let (visit, page) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
        let is_in = |method: Method, headers: &[(&'static str, &str)]| {
            let mut request = request(headers);
            *request.method_mut() = method;
            local().refuse(&request, RouteKind::Open, None).is_none()
        };
        assert!(is_in(Method::GET, &[host, cross, visit, page]));
        assert!(!is_in(Method::POST, &[host, cross, visit, page]));
        assert!(!is_in(Method::GET, &[host, cross, visit, ("sec-fetch-dest", "iframe")]));
        assert!(!is_in(Method::GET, &[host, cross, ("sec-fetch-mode", "no-cors")]));
        assert!(is_in(Method::POST, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(is_in(Method::POST, &[host, ("sec-fetch-site", "none")]));
        assert!(is_in(Method::POST, &[host]));
    }
}
