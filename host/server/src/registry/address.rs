//! Addresses that administrators give: https unless loopback and allowed,
//! nothing hidden in them, never Countersign itself.

use countersign_core::address::is_public;
use countersign_core::hosts::is_loopback;
use url::{Host, Url};

use super::Refusal;
use crate::config::Network;

/// What is allowed in this installation.
#[derive(Debug, Clone)]
pub struct AddressRules {
    /// `[network]`
    pub network: Network,
    /// Countersign's own origin.
    pub public_url: Url,
    /// The port it listens on, whatever the public URL says.
    pub listen: std::net::SocketAddr,
}

impl AddressRules {
    /// Parses and judges the address in this field.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub fn check(&self, field: &str, text: &str) -> Result<Url, Refusal> {
        let refuse = |problem: String| Err(Refusal::invalid(field, problem));
        let Ok(url) = Url::parse(text) else {
            return refuse("is not a URL; write one like https://mcp.example.com/mcp".into());
        };
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return refuse(format!(
                "{:?} is not a web address; write https://…",
                url.scheme()
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("holds a user name or password; keep those in a secret".into());
        }
        if url.fragment().is_some() {
            return refuse("has a fragment (#…), which is never sent; leave it out".into());
        }
        if self.is_own(&url) {
            return refuse(
                "is Countersign itself; write the address of the server behind it".into(),
            );
        }
        let listed = self.network.allows_private(&url);
        if matches!(url.host(), Some(Host::Ipv4(ip)) if ip.is_link_local()) && !listed {
            return refuse(
                "is a link-local address, where clouds keep machine credentials; use another"
                    .into(),
            );
        }
        if is_private(&url) && !listed {
            return refuse(format!(
                "{} is a private address; an operator can allow it in countersign.toml: \
                 [network] allow_private_upstreams = [\"{}:{}\"]",
                url.host_str().unwrap_or_default(),
                url.host_str().unwrap_or_default(),
                url.port_or_known_default().unwrap_or(443),
            ));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return refuse("must be https; plain http is for loopback addresses only".into());
        }
        Ok(url)
    }

    fn is_own(&self, url: &Url) -> bool {
        let same_origin = url.origin() == self.public_url.origin();
        let same_socket = url.port_or_known_default() == Some(self.listen.port())
            && is_loopback(url)
            && (self.listen.ip().is_loopback() || self.listen.ip().is_unspecified());
        same_origin || same_socket
    }
}

/// Whether the URL names a private place by itself. Names are resolved, and
/// judged again, by the client that connects.
fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local")
        }
        Some(Host::Ipv4(ip)) => !is_public(ip.into()),
        Some(Host::Ipv6(ip)) => !is_public(ip.into()),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_unless_loopback_and_allowed() {
        let rules = AddressRules {
            network: Network::of(&["127.0.0.1:*", "10.0.0.5:8443"]).unwrap(),
            public_url: Url::parse("https://gw.example.com").unwrap(),
            listen: "127.0.0.1:8700".parse().unwrap(),
        };
        let cases = [
            ("https://api.example.com/mcp", ""),
            ("http://127.0.0.1:9000/mcp", ""),
            ("https://10.0.0.5:8443/", ""),
            ("http://10.0.0.5:8443/", "must be https"),
            (
                "https://10.0.0.5/",
                "allow_private_upstreams = [\"10.0.0.5:443\"]",
            ),
            ("http://localhost:9000/", ""),
            ("http://[::1]:9000/", "is a private address"),
            ("https://169.254.169.254/latest", "link-local"),
            ("https://[::ffff:10.0.0.1]/", "is a private address"),
            ("https://[fd00::1]/", "is a private address"),
            ("http://api.example.com/", "must be https"),
            ("http://127.0.0.1:8700/mcp/x", "is Countersign itself"),
            ("https://gw.example.com/mcp", "is Countersign itself"),
            ("https://u:p@api.example.com/", "user name or password"),
            ("https://api.example.com/#x", "fragment"),
            ("ftp://api.example.com/", "not a web address"),
            ("file:///etc/passwd", "not a web address"),
            ("javascript:alert(1)", "not a web address"),
            ("api.example.com", "is not a URL"),
            ("", "is not a URL"),
        ];
        for (text, problem) in cases {
            match rules.check("url", text) {
                Ok(_) => assert_eq!(problem, "", "{text} was accepted"),
                Err(e) => assert!(
                    !problem.is_empty() && e.to_string().contains(problem),
                    "{text}: {e}"
                ),
            }
        }
    }
}
