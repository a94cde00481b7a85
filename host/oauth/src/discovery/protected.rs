//! What a server says of itself: OAuth 2.0 Protected Resource Metadata
//! (RFC 9728).

use countersign_core::challenge::Challenge;
use countersign_core::scope::{Scope, ScopeSet};
use serde::Deserialize;
use url::Url;

use super::{Discovery, DiscoveryError, NoDocument, printable};

const NAME: &str = "oauth-protected-resource";
/// Longest lists that are taken.
const MOST: usize = 256;

/// The document of RFC 9728 §2, as far as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedResource {
    /// What tokens are asked for (RFC 8707): this server, or what it is a part
    /// of.
    pub resource: Url,
    /// Whose tokens it takes, as written there.
    pub authorization_servers: Vec<String>,
    /// Scopes it knows: to be offered, not to be asked for unseen.
    pub scopes_supported: ScopeSet,
    /// For people.
    pub name: Option<String>,
    /// Where this was read.
    pub source: Url,
}

#[derive(Deserialize)]
struct Raw {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    resource_name: Option<String>,
}

/// How a resource identifier relates to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Same,
    /// A whole part of the path, or the origin.
    Above,
    Foreign,
}

impl ProtectedResource {
    /// What an administrator should know of it.
    pub(super) fn note(&self, typed: &Url) -> Option<String> {
        (relation(&self.resource, typed) == Relation::Above).then(|| {
            format!(
                "its tokens are for all of {}, of which {typed} is a part",
                self.resource
            )
        })
    }
}

/// Finds it: where the challenge says, else at the well-known places. None if
/// nothing is there.
pub(super) async fn find(
    discovery: &mut Discovery<'_>,
    challenge: Option<&Challenge>,
) -> Result<Option<ProtectedResource>, DiscoveryError> {
    let typed = discovery.typed.clone();
    let named = challenge.and_then(|c| c.resource_metadata.as_deref());
    let named = named
        .map(|text| discovery.address(&typed, "resource_metadata", text))
        .transpose()?;
    let mut places: Vec<Url> = named.into_iter().collect();
    for place in well_known(&typed) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    for place in places {
        match discovery.document(&place).await {
            Ok(bytes) => return read(&place, &bytes, &typed).map(Some),
            Err(NoDocument::Absent) => {}
            Err(NoDocument::Unsent(error)) => {
                return Err(DiscoveryError::Unreachable { url: place, error });
            }
        }
    }
    Ok(None)
}

/// The well-known name between host and path, then without the path
/// (RFC 9728 §3.1).
fn well_known(resource: &Url) -> Vec<Url> {
    let path = resource.path().trim_end_matches('/').to_owned();
    let mut places = Vec::new();
    if !path.is_empty() {
        let mut place = resource.clone();
        place.set_path(&format!("/.well-known/{NAME}{path}"));
        places.push(place);
    }
    let mut place = resource.clone();
    place.set_path(&format!("/.well-known/{NAME}"));
    place.set_query(None);
    places.push(place);
    places
}

fn read(source: &Url, bytes: &[u8], typed: &Url) -> Result<ProtectedResource, DiscoveryError> {
    let bad = |why: String| DiscoveryError::BadDocument {
        document: source.clone(),
        why,
    };
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|_| bad("it is no protected resource metadata (RFC 9728 §2)".into()))?;
    let other = || DiscoveryError::OtherResource {
        document: Box::new(source.clone()),
        said: printable(&raw.resource),
        url: Box::new(typed.clone()),
    };
    let resource = Url::parse(&raw.resource).map_err(|_| other())?;
    if relation(&resource, typed) == Relation::Foreign {
        return Err(other());
    }
    if raw.authorization_servers.len() > MOST || raw.scopes_supported.len() > MOST {
        return Err(bad(format!(
            "one of its lists has more than {MOST} entries"
        )));
    }
    let scopes = raw.scopes_supported.iter();
    Ok(ProtectedResource {
        resource,
        scopes_supported: scopes.filter_map(|s| Scope::parse(s).ok()).collect(),
        name: raw.resource_name.as_deref().map(printable),
        authorization_servers: raw.authorization_servers,
        source: source.clone(),
    })
}

/// RFC 9728 §3.3 wants them identical; MCP servers also name what they are a
/// part of.
fn relation(resource: &Url, typed: &Url) -> Relation {
    let plain = resource.username().is_empty()
        && resource.password().is_none()
        && resource.fragment().is_none();
    if !plain || resource.origin() != typed.origin() {
        return Relation::Foreign;
    }
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    let (whole, part) = (path(resource), path(typed));
    if whole == part && resource.query() == typed.query() {
        return Relation::Same;
    }
    let is_above = part == whole || part.starts_with(&format!("{whole}/"));
    if is_above && resource.query().is_none() {
        Relation::Above
    } else {
        Relation::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_well_known_name_stands_between_host_and_path() {
        let cases = [
            (
                "https://a.example/mcp",
                &[
                    "https://a.example/.well-known/oauth-protected-resource/mcp",
                    "https://a.example/.well-known/oauth-protected-resource",
                ][..],
            ),
            (
                "https://a.example:8443/x/mcp/?tenant=1",
                &[
                    "https://a.example:8443/.well-known/oauth-protected-resource/x/mcp?tenant=1",
                    "https://a.example:8443/.well-known/oauth-protected-resource",
                ],
            ),
            (
                "https://a.example",
                &["https://a.example/.well-known/oauth-protected-resource"],
            ),
        ];
        for (resource, expected) in cases {
            let places: Vec<String> = well_known(&url(resource))
                .iter()
                .map(Url::to_string)
                .collect();
            assert_eq!(places, expected, "{resource}");
        }
    }

    #[test]
    fn a_server_speaks_for_itself_and_what_it_is_a_part_of_only() {
        let typed = url("https://a.example/x/mcp");
        let cases = [
            ("https://a.example/x/mcp", Relation::Same),
            ("https://a.example/x/mcp/", Relation::Same),
            ("https://A.example:443/x/mcp", Relation::Same),
            ("https://a.example/x", Relation::Above),
            ("https://a.example", Relation::Above),
            ("https://a.example/x/mc", Relation::Foreign),
            ("https://a.example/y", Relation::Foreign),
            ("https://a.example/x/mcp/more", Relation::Foreign),
            ("https://a.example/x/mcp?tenant=2", Relation::Foreign),
            ("http://a.example/x/mcp", Relation::Foreign),
            ("https://b.example/x/mcp", Relation::Foreign),
            ("https://a.example.evil.example/x/mcp", Relation::Foreign),
            ("https://a.example:8443/x/mcp", Relation::Foreign),
            ("https://u@a.example/x/mcp", Relation::Foreign),
        ];
        for (resource, expected) in cases {
            assert_eq!(relation(&url(resource), &typed), expected, "{resource}");
        }
    }
}
