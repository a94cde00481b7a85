//! Host names, and the lists of them that tokens may go to.

use serde::{Deserialize, Serialize};

/// `host` or `host:port`, lower case; an IP literal is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    host: Box<str>,
    port: Port,
    subdomains: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Port {
    /// The scheme's own; on loopback, any.
    Unsaid,
    Any,
    This(u16),
}

/// The text is neither a host, nor `host:port`, nor `*.host`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host: write a name like api.example.com, .example.com for its subdomains, host:port or host:*"
)]
pub struct InvalidHost(pub String);

impl HostPattern {
    /// Parses `api.example.com`, `api.example.com:8443`, `api.example.com:*`,
    /// `.example.com` (any subdomain) or an IP literal with or without a port.
    ///
    /// # Errors
    /// [`InvalidHost`] for schemes, paths, userinfo or other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost(text.chars().take(80).collect());
        let (subdomains, rest) = match text.strip_prefix("*.").or_else(|| text.strip_prefix('.')) {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (rest, any_port) = match rest.strip_suffix(":*") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        if let Some((host, port)) = as_kept(rest)
            && (!subdomains || host.contains('.'))
        {
            let port = match port {
                _ if any_port => Port::Any,
                Some(port) => Port::This(port),
                None => Port::Unsaid,
            };
            return Ok(Self {
                host: host.into(),
                port,
                subdomains,
            });
        }
        let url = url::Url::parse(&format!("https://{rest}/")).map_err(|_| invalid())?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && !rest.contains(['/', '?', '#', '@', '\\']);
        let host = url
            .host_str()
            .filter(|h| !h.is_empty())
            .ok_or_else(invalid)?;
        if !plain || (subdomains && !host.contains('.')) {
            return Err(invalid());
        }
        let port = match url.port() {
            _ if any_port => Port::Any,
            Some(port) => Port::This(port),
            None if rest.ends_with(":443") => Port::This(443),
            None => Port::Unsaid,
        };
        Ok(Self {
            host: host.into(),
            port,
            subdomains,
        })
    }

    /// Whether a request to this URL goes to the host. A pattern without a
    /// port means the scheme's own port; on loopback, where there is no scheme's
    /// own to speak of, any.
    #[must_use]
    pub fn matches(&self, url: &url::Url) -> bool {
        let Some(host) = url.host_str() else {
            return false;
        };
        let host_matches = if self.subdomains {
            host.strip_suffix(&*self.host)
                .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
        } else {
            host == &*self.host
        };
        host_matches
            && match self.port {
                Port::Any => true,
                Port::This(port) => url.port_or_known_default() == Some(port),
                Port::Unsaid => url.port().is_none() || is_loopback(url),
            }
    }
}

/// `host` or `host:port` written just as a URL would keep it, so that there is
/// nothing to normalise. Patterns are read with every connection: this way
/// costs a fraction of parsing a URL.
fn as_kept(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => {
            let number = port.parse::<u16>().ok().filter(|n| n.to_string() == port)?;
            (host, Some(number))
        }
        None => (text, None),
    };
    if host
        .parse::<std::net::Ipv4Addr>()
        .is_ok_and(|ip| ip.to_string() == host)
    {
        return Some((host, port));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with("xn--")
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    // A last label that begins with a digit may be an address in disguise.
    let named = host
        .rsplit('.')
        .next()
        .is_some_and(|l| l.starts_with(|c: char| c.is_ascii_lowercase()));
    (named && host.len() <= 253 && host.split('.').all(label)).then_some((host, port))
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.subdomains {
            f.write_str(".")?;
        }
        f.write_str(&self.host)?;
        match self.port {
            Port::This(port) => write!(f, ":{port}"),
            Port::Any => f.write_str(":*"),
            Port::Unsaid => Ok(()),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHost;
    fn try_from(text: String) -> Result<Self, InvalidHost> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.to_string()
    }
}

/// Whether this host is the machine itself.
#[must_use]
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_pattern_matches_only_its_own_hosts() {
        let cases = [
            ("api.example.com", "https://api.example.com/x", true),
            ("api.example.com", "https://evil.api.example.com/", false),
            ("api.example.com", "https://api.example.com:8443/", false),
            (
                "api.example.com:8443",
                "https://api.example.com:8443/",
                true,
            ),
            (".example.com", "https://a.b.example.com/", true),
            (".example.com", "https://example.com/", false),
            (".example.com", "https://evilexample.com/", false),
            ("127.0.0.1:9000", "http://127.0.0.1:9000/mcp", true),
            ("127.0.0.1:*", "http://127.0.0.1:9000/mcp", true),
            ("127.0.0.1:9001", "http://127.0.0.1:9000/mcp", false),
            ("127.0.0.1", "http://127.0.0.1:9000/mcp", true),
            ("api.example.com:*", "https://api.example.com:8443/", true),
        ];
        for (pattern, url, expected) in cases {
            let url = url::Url::parse(url).unwrap();
            assert_eq!(
                HostPattern::parse(pattern).unwrap().matches(&url),
                expected,
                "{pattern} {url}"
            );
        }
    }

    #[test]
    fn the_short_way_reads_what_a_url_would() {
        let texts = [
            "a.example.com",
            "a.example.com:443",
            "a.example.com:80",
            "localhost:9000",
            "127.0.0.1:1",
            "1.2.3",
            "0x7f.1",
            "127.1",
            "a.b.1",
            "xn--bcher-kva.example",
            "a..b",
            "-a.example",
            "A.example",
            "a.example:0",
            "a.example:080",
            "a.example:+8",
            "[::1]:80",
            "1.2.3.4",
            "01.2.3.4",
            "a_b.example",
        ];
        for text in texts {
            let Some((host, port)) = as_kept(text) else {
                continue;
            };
            let url = url::Url::parse(&format!("https://{text}/")).unwrap();
            assert_eq!(url.host_str(), Some(host), "{text}");
            assert_eq!(url.port_or_known_default(), port.or(Some(443)), "{text}");
        }
        assert!(as_kept("a.example.com:8443").is_some() && as_kept("127.0.0.1").is_some());
        assert!(
            as_kept("127.1").is_none() && as_kept("0x7f.1").is_none() && as_kept("a..b").is_none()
        );
    }

    #[test]
    fn what_is_no_plain_host_is_refused() {
        for bad in [
            "",
            "https://a.com",
            "a.com/x",
            "u@a.com",
            "a.com?x",
            ".com",
            "a b",
            "a.com:99999",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
