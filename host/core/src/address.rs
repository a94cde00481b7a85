//! Addresses that a request made on somebody's behalf may not reach.
//!
//! Pure rules; `countersign-oauth`'s guarded client applies them to literals
//! and after name resolution.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Whether the address is on the public internet: not loopback, private,
/// link-local (cloud metadata), shared, documentation, multicast, reserved, or
/// an IPv6 form that embeds such an IPv4 address.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || (a == 100 && (64..128).contains(&b)) // RFC 6598
        || (a == 192 && b == 0 && c == 0) // RFC 6890
        || (a == 192 && b == 88 && c == 99) // 6to4 relays
        || (a == 198 && (18..20).contains(&b)) // RFC 2544
        || a >= 224)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64
        [0x2002, high, low, ..] => embedded(high, low),               // 6to4
        [0x2001, 0, ..] => false,                                     // Teredo
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,       // documentation
        // Only 2000::/3 is global unicast.
        _ => s[0] & 0xe000 == 0x2000,
    }
}

/// `host:port` patterns of `network.allow_private_upstreams`: the port may be
/// `*`, an IPv6 literal stands in brackets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivateAllowlist(Vec<(String, Option<u16>)>);

/// The text is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host and port: write \"127.0.0.1:*\", \"10.0.0.7:8080\" or \"idp.internal:443\""
)]
pub struct InvalidAllowance(pub String);

impl PrivateAllowlist {
    /// Parses the patterns.
    ///
    /// # Errors
    /// [`InvalidAllowance`] with the first bad one.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, InvalidAllowance> {
        let parse = |text: &str| {
            let (host, port) = text.rsplit_once(':')?;
            let port = if port == "*" {
                None
            } else {
                Some(port.parse().ok()?)
            };
            let url = Url::parse(&format!("http://{host}/")).ok()?;
            let plain = url.port().is_none() && url.path() == "/" && url.username().is_empty();
            let host = url
                .host_str()
                .filter(|h| plain && !h.is_empty() && !h.contains('*'))?;
            Some((host.to_owned(), port))
        };
        patterns
            .iter()
            .map(|p| parse(p.as_ref()).ok_or_else(|| InvalidAllowance(p.as_ref().to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the operator allows this URL's host and port, although private.
    /// `localhost` is what a loopback pattern allows.
    #[must_use]
    pub fn allows(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return false;
        };
        let is_localhost = matches!(url.host(), Some(Host::Domain("localhost")));
        self.0.iter().any(|(allowed, p)| {
            p.is_none_or(|p| p == port)
                && (allowed == host
                    || (is_localhost && matches!(allowed.as_str(), "127.0.0.1" | "[::1]")))
        })
    }
}

/// The IP address that a URL names literally.
#[must_use]
pub fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_known() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
            "64:ff9b:1::1",
        ];
        for text in private {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "140.82.112.3",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_allowlist_names_hosts_and_ports() {
        let list = PrivateAllowlist::parse(&["127.0.0.1:*", "10.0.0.7:8080", "[::1]:9"]).unwrap();
        let cases = [
            ("http://127.0.0.1:5/", true),
            ("http://localhost:5/", true),
            ("http://127.0.0.2:5/", false),
            ("http://0x7f.1:5/", true),
            ("http://10.0.0.7:8080/", true),
            ("http://10.0.0.7:8081/", false),
            ("https://[::1]:9/", true),
            ("https://[::1]:10/", false),
        ];
        for (url, expected) in cases {
            assert_eq!(list.allows(&Url::parse(url).unwrap()), expected, "{url}");
        }
        for bad in ["127.0.0.1", "*:80", "a/b:1", "x:99999", ":1"] {
            assert!(PrivateAllowlist::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
