//! Where a request comes from, behind proxies that the operator trusts.
//!
//! Only a peer listed in `[server] trusted_proxies` is believed, and only what
//! it says itself: of `Forwarded` (RFC 7239) or `X-Forwarded-For` the rightmost
//! address that is not a trusted proxy's. Whatever stands left of it was
//! written by somebody unknown.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Hops looked at; a longer way is not believed beyond it.
const MOST_HOPS: usize = 16;

/// The address of whoever asks.
///
/// A proxy that writes one of the two headers may pass the other on as a
/// stranger wrote it. If both are there and disagree, none is believed.
#[must_use]
pub fn of(trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(trusted, peer) {
        return peer;
    }
    let forwarded = entries(headers, &header::FORWARDED);
    let x_forwarded_for = entries(headers, &X_FORWARDED_FOR);
    let walk = |hops: &[&str], read: fn(&str) -> Option<IpAddr>| {
        let mut nearest = peer;
        for hop in hops.iter().rev().take(MOST_HOPS) {
            if !is_trusted(trusted, nearest) {
                break;
            }
            // A hop that hides itself ("unknown") is known by who named it.
            let Some(address) = read(hop) else { break };
            nearest = address;
        }
        nearest
    };
    match (&*forwarded, &*x_forwarded_for) {
        ([], []) => peer,
        (hops, []) => walk(hops, node_of_element),
        ([], hops) => walk(hops, node),
        (one, other) => {
            let (one, other) = (walk(one, node_of_element), walk(other, node));
            if one == other { one } else { peer }
        }
    }
}

fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The elements of all lines of a header, in order. A line that is not text
/// ends what can be believed on its left.
fn entries<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h str> {
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        match line.to_str() {
            Ok(line) => all.extend(line.split(',').map(str::trim)),
            Err(_) => all.push(""),
        }
    }
    all
}

/// The `for` of one element of `Forwarded`.
fn node_of_element(element: &str) -> Option<IpAddr> {
    let mut nodes = element.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    let value = nodes.next()?.trim();
    if nodes.next().is_some() {
        return None;
    }
    match value.strip_prefix('"') {
        Some(quoted) => node(quoted.strip_suffix('"')?),
        None => node(value),
    }
}

/// An address, with or without a port: `192.0.2.1:80`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|s| s.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|n| n.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        of(&trusted, peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_listed_proxy_is_believed_and_only_its_own_word() {
        let xff = "x-forwarded-for";
        type Lines<'a> = &'a [(&'static str, &'a str)];
        let cases: &[(&str, Lines<'_>, &str)] = &[
            // Nobody in between, whatever is claimed.
            ("203.0.113.9", &[], "203.0.113.9"),
            ("203.0.113.9", &[(xff, "192.0.2.1")], "203.0.113.9"),
            (
                "203.0.113.9",
                &[("forwarded", "for=192.0.2.1")],
                "203.0.113.9",
            ),
            // One proxy, and what a client wrote before it.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &[(xff, "192.0.2.1")], "192.0.2.1"),
            ("10.0.0.1", &[(xff, "198.51.100.7, 192.0.2.1")], "192.0.2.1"),
            (
                "10.0.0.1",
                &[(xff, "198.51.100.7"), (xff, "192.0.2.1")],
                "192.0.2.1",
            ),
            ("10.0.0.1", &[(xff, "10.9.9.9, 192.0.2.1")], "192.0.2.1"),
            // Two proxies.
            ("10.0.0.1", &[(xff, "192.0.2.1, 10.0.0.2")], "192.0.2.1"),
            (
                "10.0.0.1",
                &[(xff, "6.6.6.6, 192.0.2.1, 10.0.0.2")],
                "192.0.2.1",
            ),
            // With ports, brackets, quotes.
            ("10.0.0.1", &[(xff, "192.0.2.1:4711")], "192.0.2.1"),
            ("10.0.0.1", &[(xff, "[2001:db8::7]:4711")], "2001:db8::7"),
            (
                "10.0.0.1",
                &[("forwarded", "for=192.0.2.1;proto=https")],
                "192.0.2.1",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "proto=https; For=\"[2001:db8::7]:1\"")],
                "2001:db8::7",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=6.6.6.6, for=192.0.2.1")],
                "192.0.2.1",
            ),
            // What cannot be read is known by who said it.
            ("10.0.0.1", &[(xff, "192.0.2.1, unknown")], "10.0.0.1"),
            ("10.0.0.1", &[(xff, "192.0.2.1,")], "10.0.0.1"),
            ("10.0.0.1", &[(xff, "192.0.2.1, x, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("forwarded", "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "proto=https")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=192.0.2.1;for=192.0.2.2")],
                "10.0.0.1",
            ),
            // Both headers: one of them may be a stranger's.
            (
                "10.0.0.1",
                &[("forwarded", "for=192.0.2.1"), (xff, "192.0.2.1")],
                "192.0.2.1",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=6.6.6.6"), (xff, "192.0.2.1")],
                "10.0.0.1",
            ),
        ];
        for (peer, lines, expected) in cases {
            assert_eq!(asked(peer, lines), *expected, "{peer} {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_the_proxys_word_counts(client in "[ -~]{0,60}") {
            let line = format!("{client}, 192.0.2.1");
            prop_assert_eq!(asked("10.0.0.1", &[("x-forwarded-for", &line)]), "192.0.2.1");
        }
    }
}
