//! The proxy of requests that the server itself sends, as the environment names it.

use std::env;
use std::net::IpAddr;

use crate::is_loopback;

/// A proxy, and the variable of the environment that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentProxy {
    /// The name of the variable.
    pub variable: String,
    /// The address, which may contain a password.
    pub address: String,
}

/// Returns the proxy for requests to a host, by the rules of curl: `https_proxy` for `https`,
/// `http_proxy` for `http`, otherwise `all_proxy`, each also in capitals, unless `no_proxy` has the
/// host. This machine is always reached without a proxy.
pub fn proxy_for(scheme: &str, host: &str, port: u16) -> Option<EnvironmentProxy> {
    proxy_in(|name| env::var(name).ok(), scheme, host, port)
}

fn proxy_in(
    variable: impl Fn(&str) -> Option<String>,
    scheme: &str,
    host: &str,
    port: u16,
) -> Option<EnvironmentProxy> {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    if is_loopback(&host) {
        return None;
    }
    let set = |name: &str| {
        let value = variable(name).map(|value| value.trim().to_owned());
        value.filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value))
    };
    let either = |name: &str| set(name).or_else(|| set(&name.to_ascii_uppercase()));
    let (_, exceptions) = either("no_proxy").unwrap_or_default();
    if exceptions.split([',', ' ']).any(|entry| is_exception(entry, &host, port)) {
        return None;
    }
    let (variable, address) = either(&format!("{scheme}_proxy")).or_else(|| either("all_proxy"))?;
    Some(EnvironmentProxy { variable, address })
}

/// Returns whether an entry of `no_proxy` has this host: it is the host's name or a domain of it, its
/// address or a network of it, each with or without a port, or `*`.
fn is_exception(entry: &str, host: &str, port: u16) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let (entry, is_port) = without_port(&entry, port);
        return is_port && (entry.parse() == Ok(address) || is_in_network(address, entry));
    }
    let (entry, is_port) = without_port(&entry, port);
    let domain = entry.trim_start_matches('*').trim_matches('.');
    let inner = host.strip_suffix(domain);
    is_port
        && !domain.is_empty()
        && inner.is_some_and(|inner| inner.is_empty() || inner.ends_with('.'))
}

/// Returns an entry without its port and brackets, and whether the port, if any, is this one.
fn without_port(entry: &str, port: u16) -> (&str, bool) {
    let is_address = entry.split('/').next().is_some_and(|host| host.parse::<IpAddr>().is_ok());
    match entry.rsplit_once(':') {
        Some((host, written)) if !is_address && !written.ends_with(']') => {
            (host.trim_matches(['[', ']']), written.parse() == Ok(port))
        }
        _ => (entry.trim_matches(['[', ']']), true),
    }
}

/// Returns whether an address is in a network such as `10.0.0.0/8`.
fn is_in_network(address: IpAddr, network: &str) -> bool {
    let Some((start, length)) = network.split_once('/') else { return false };
    let (Ok(start), Ok(length)) = (start.parse(), length.parse::<u32>()) else { return false };
    let (a, b, width) = match (address, start) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let differing: u128 = a ^ b;
    length <= width && differing.checked_shr(width - length).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the variable that names the proxy of a host, with these variables.
    fn variable_for(set: &[(&str, &str)], url: (&str, &str, u16)) -> Option<String> {
        let get = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        proxy_in(get, url.0, url.1, url.2).map(|proxy| proxy.variable)
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let all = [("HTTPS_PROXY", "a"), ("http_proxy", "b"), ("ALL_PROXY", "c")];
        let variable = |set, scheme| variable_for(set, (scheme, "a.example", 80));
        assert_eq!(variable(&all, "https").as_deref(), Some("HTTPS_PROXY"));
        assert_eq!(variable(&all, "http").as_deref(), Some("http_proxy"));
        assert_eq!(variable(&all[1..], "https").as_deref(), Some("ALL_PROXY"));
        assert_eq!(variable(&all[..1], "http"), None);
        let both = [("HTTP_PROXY", "a"), ("http_proxy", " ")];
        assert_eq!(variable(&both, "http").as_deref(), Some("HTTP_PROXY"), "an empty one is unset");
        for local in ["localhost", "127.0.0.1", "[::1]", "a.localhost."] {
            assert_eq!(variable_for(&all, ("http", local, 80)), None, "{local}");
        }
    }

    #[test]
    fn exceptions_are_names_domains_addresses_and_networks() {
        let is_direct = |exceptions: &str, host: &str| {
            let set = [("https_proxy", "a"), ("NO_PROXY", exceptions)];
            variable_for(&set, ("https", host, 443)).is_none()
        };
        for (exceptions, host) in [
            ("*", "a.example"),
            ("b, a.example", "A.example."),
            ("example", "a.example"),
            (".example", "a.example"),
            ("*.example", "a.b.example"),
            (".example", "example"),
            ("a.example:443", "a.example"),
            ("10.0.0.0/8,::1", "10.2.3.4"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3:443", "10.1.2.3"),
            ("0.0.0.0/0", "10.1.2.3"),
            ("fd00::/8", "[fd00::7]"),
            ("[fd00::7]", "fd00::7"),
            ("[fd00::7]:443", "fd00::7"),
        ] {
            assert!(is_direct(exceptions, host), "{exceptions} {host}");
        }
        for (exceptions, host) in [
            ("", "a.example"),
            (".", "a.example"),
            ("ample", "a.example"),
            ("a.example", "example"),
            ("a.example:80", "a.example"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/33", "10.0.0.1"),
            ("10.0.0.0/x", "10.0.0.1"),
            ("::/0", "10.0.0.1"),
            ("0.0.0.1", "10.0.0.1"),
            ("10.1.2.3:80", "10.1.2.3"),
        ] {
            assert!(!is_direct(exceptions, host), "{exceptions} {host}");
        }
    }
}
