//! The test for addresses of this machine, which are reached without a proxy.

use std::net::IpAddr;

/// Returns whether a host, as written in a URL, is this machine itself.
///
/// ```
/// use litplex_core::is_loopback;
/// assert!(is_loopback("localhost") && is_loopback("127.0.0.9") && is_loopback("[::1]"));
/// assert!(!is_loopback("collector.example") && !is_loopback("10.0.0.1"));
/// ```
pub fn is_loopback(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
