//! Redirect URIs: which may be registered, and which match.

use countersign_core::hosts::is_loopback;
use url::Url;

/// Schemes of well-known agents that do not follow RFC 8252 §7.1 (which wants a
/// domain name in reverse).
const KNOWN_SCHEMES: [&str; 8] = [
    "cursor",
    "vscode",
    "vscode-insiders",
    "vscodium",
    "windsurf",
    "zed",
    "claude",
    "goose",
];
const LONGEST: usize = 512;

/// A redirect URI that may be registered, exactly as it was given.
///
/// # Errors
/// A sentence on what is wrong with it.
pub(crate) fn check(text: &str) -> Result<Url, &'static str> {
    if text.len() > LONGEST || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a redirect URI is at most 512 visible ASCII characters");
    }
    let url = Url::parse(text).map_err(|_| "a redirect URI must be absolute")?;
    if text.contains('#') {
        return Err("a redirect URI must not have a fragment");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect URI must not carry a user or password");
    }
    match url.scheme() {
        "https" if url.host_str().is_some() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err("http is for 127.0.0.1, [::1] and localhost only; use https"),
        scheme if KNOWN_SCHEMES.contains(&scheme) || is_reverse_domain(scheme) => Ok(url),
        _ => Err(
            "a redirect URI is https, http on loopback, or a private-use scheme with a reversed domain name (com.example.agent:/callback)",
        ),
    }
}

fn is_reverse_domain(scheme: &str) -> bool {
    scheme.contains('.') && scheme.split('.').all(|label| !label.is_empty())
}

/// Whether `asked` is the registered URI: byte for byte, but for the port of a
/// loopback address (RFC 8252 §7.3).
pub(crate) fn matches(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    let (Ok(mut registered), Ok(asked_url)) = (check(registered), check(asked)) else {
        return false;
    };
    if registered.scheme() != "http" || asked_url.scheme() != "http" {
        return false;
    }
    // The text must differ from its parsed form in nothing, so that no odd
    // spelling slips through the comparison of parsed ones.
    let plain = asked_url.as_str() == asked || asked_url.as_str() == format!("{asked}/");
    plain && registered.set_port(asked_url.port()).is_ok() && registered == asked_url
}

/// Whether only the agent itself can receive what is sent there.
pub(crate) fn is_exclusive(redirect_uri: &str) -> bool {
    redirect_uri.starts_with("https://")
}

/// What the user is shown of it.
pub(crate) fn shown(redirect_uri: &str) -> String {
    match Url::parse(redirect_uri) {
        Ok(url) if is_loopback(&url) => {
            format!(
                "a program on this computer ({})",
                url.host_str().unwrap_or_default()
            )
        }
        Ok(url) => match url.host_str() {
            Some(host) if url.scheme() == "https" => host.to_owned(),
            _ => format!("the app that opens {}: links", url.scheme()),
        },
        Err(_) => "an unknown place".into(),
    }
}

/// The content security policy's source for it.
pub(crate) fn policy_source(redirect_uri: &str) -> Option<String> {
    let url = Url::parse(redirect_uri).ok()?;
    // An IPv6 literal can't be written as a host source; its scheme can.
    let named = matches!(url.host(), Some(url::Host::Domain(_) | url::Host::Ipv4(_)));
    match url.scheme() {
        "https" | "http" if named => Some(url.origin().ascii_serialization()),
        scheme => Some(format!("{scheme}:")),
    }
}

/// The redirect URI with more query parameters.
pub(crate) fn with(redirect_uri: &str, pairs: &[(&str, &str)]) -> Option<String> {
    let mut url = Url::parse(redirect_uri).ok()?;
    url.query_pairs_mut().extend_pairs(pairs);
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_https_loopback_and_private_schemes_may_be_registered() {
        for good in [
            "https://agent.example/cb",
            "http://127.0.0.1/cb",
            "http://127.0.0.1:4000/cb",
            "http://[::1]:1/cb",
            "http://localhost:3000/callback",
            "com.example.agent:/cb",
            "cursor://anysphere.cursor-mcp/oauth/callback",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/cb",
            "http://agent.example/cb",
            "https://agent.example/cb#f",
            "https://u@agent.example/cb",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "ftp://a.example/x",
            "mailto:a@b.example",
            "blob:https://a.example/x",
            "evil:/cb",
            "https://agent.example/c b",
            "http://127.0.0.1.evil.example/cb",
            "ws://127.0.0.1/cb",
            "about:blank",
            ".:/cb",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_redirect_matches_exactly_but_for_a_loopback_port() {
        let cases = [
            ("https://a.example/cb", "https://a.example/cb", true),
            ("https://a.example/cb", "https://a.example/cb/", false),
            ("https://a.example/cb", "https://a.example/cb?x=1", false),
            ("https://a.example/cb", "https://a.example:8443/cb", false),
            ("https://a.example/cb", "https://A.example/cb", false),
            ("https://a.example/cb", "https://a.example/x/../cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5123/cb", true),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:5123/cb", true),
            ("http://localhost:1/cb", "http://localhost:2/cb", true),
            ("http://127.0.0.1/cb", "http://localhost:5123/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5123/other", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5123/cb?x", false),
            (
                "http://127.0.0.1/cb",
                "http://127.0.0.1:5123/x/../cb",
                false,
            ),
            ("http://127.0.0.1/cb", "http://2130706433:5123/cb", false),
            ("http://127.0.0.1/cb", "https://127.0.0.1:5123/cb", false),
            ("com.example.agent:/cb", "com.example.agent:/cb2", false),
        ];
        for (registered, asked, expected) in cases {
            assert_eq!(matches(registered, asked), expected, "{registered} {asked}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_panic(text in ".{0,120}") {
            let _ = check(&text);
            let _ = matches("http://127.0.0.1/cb", &text);
            let _ = policy_source(&text);
        }
    }
}
