//! The client of a request that arrives through trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::HeaderName;
use ipnet::IpNet;

use crate::peer::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The proxies whose headers are trusted; none by default.
#[derive(Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl FromIterator<IpNet> for TrustedProxies {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl TrustedProxies {
    /// Returns the client: the peer, or, if that is trusted, the last address in its
    /// `X-Forwarded-For` that is not. Any client may write the addresses before that. Its port is
    /// unknown.
    pub(crate) fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        if !self.trusts(peer.address.ip()) {
            return peer;
        }
        let named = self.last_untrusted(headers).map(|address| SocketAddr::new(address, 0));
        let is_tls = match last(headers, &FORWARDED_PROTO) {
            Some(b"https") => true,
            Some(b"http") => false,
            _ => peer.is_tls,
        };
        Peer { address: named.unwrap_or(peer.address), is_tls }
    }

    /// Returns the name under which a trusted proxy received the request.
    pub(crate) fn host<'a>(&self, peer: Peer, headers: &'a HeaderMap) -> Option<&'a str> {
        let trusted = self.trusts(peer.address.ip()).then(|| last(headers, &FORWARDED_HOST))?;
        str::from_utf8(trusted?).ok()
    }

    /// Returns the first address, from the nearest to the farthest, that is not trusted. An invalid
    /// entry ends the search.
    fn last_untrusted(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut farthest = None;
        for entry in from_last(headers, &FORWARDED_FOR) {
            let Some(address) = address(entry) else { break };
            farthest = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        farthest
    }

    fn trusts(&self, address: IpAddr) -> bool {
        // A socket for both families shows IPv4 addresses as IPv6 ones.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Returns the entries of a list, which may be spread over several headers, from the last one.
fn from_last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).into_iter().rev();
    values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    from_last(headers, name).next()
}

/// Parses an address; some proxies write a port, and brackets around IPv6.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| with_port());
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the client, as a server that trusts `10/8` and `fd00::/8` sees it.
    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let proxies: TrustedProxies = networks.into_iter().collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let address = SocketAddr::new(peer.parse().unwrap(), 4711);
        let client = proxies.client(Peer { address, is_tls: false }, &headers);
        client.address.ip().to_string()
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn addresses_that_a_client_wrote_come_before_those_of_proxies() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 10.9.9.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["198.51.100.7,10.0.0.2 , fd00::1"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all are trusted");
    }

    #[test]
    fn addresses_may_be_written_in_these_ways() {
        for (written, is) in [
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("198.51.100.7:5123", "198.51.100.7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ] {
            assert_eq!(client("fd00::1", &[written]), is);
        }
    }

    #[test]
    fn an_invalid_address_ends_the_list() {
        for garbage in ["", ",", "unknown", "_hidden", "1.2.3", "10.0.0.256", "[::1", "\u{e4}"] {
            assert_eq!(client("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage:?}");
        }
        assert_eq!(client("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn a_trusted_proxy_says_whether_it_was_asked_over_tls() {
        let proxies: TrustedProxies = ["10.0.0.1/32".parse().unwrap()].into_iter().collect();
        let is_tls = |peer: [u8; 4], said: &'static str| {
            let headers = HeaderMap::from_iter([(FORWARDED_PROTO, said.parse().unwrap())]);
            let peer = Peer { address: (peer, 1).into(), is_tls: false };
            proxies.client(peer, &headers).is_tls
        };
        assert!(is_tls([10, 0, 0, 1], "https"));
        assert!(!is_tls([10, 0, 0, 1], "http"));
        assert!(!is_tls([10, 0, 0, 1], "gopher"));
        assert!(!is_tls([10, 0, 0, 2], "https"));
    }
}
