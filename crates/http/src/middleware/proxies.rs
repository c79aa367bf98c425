use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::HeaderName;
use ipnet::IpNet;

use crate::peer::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The proxies that are believed when they say for whom they ask; none by default.
#[derive(Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl FromIterator<IpNet> for TrustedProxies {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl TrustedProxies {
    /// Returns who asks: the peer, or where that is trusted the last in its `X-Forwarded-For` that
    /// is not. What stands before that anybody may have written. The port is not known then.
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

    /// Returns the name by which a trusted proxy says that it was asked.
    pub(crate) fn host<'a>(&self, peer: Peer, headers: &'a HeaderMap) -> Option<&'a str> {
        let trusted = self.trusts(peer.address.ip()).then(|| last(headers, &FORWARDED_HOST))?;
        str::from_utf8(trusted?).ok()
    }

    /// Goes from the nearest to the farthest for as long as they are trusted; to whom nobody can
    /// tell, where one is no address.
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
        // A socket of both families shows addresses of IPv4 as ones of IPv6.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Yields the entries of a list, which may be spread over several headers, from its end.
fn from_last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).into_iter().rev();
    values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    from_last(headers, name).next()
}

/// Reads an address; some proxies write a port, and brackets around IPv6.
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

    /// Returns who asks, as a server that trusts `10/8` and `fd00::/8` sees it.
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
    fn nobody_but_a_trusted_proxy_is_believed() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn what_a_client_writes_itself_stands_before_what_a_proxy_adds() {
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
    fn nobody_beyond_garbage_is_believed() {
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
