//! `[identity]`: who may sign in.

use countersign_core::hosts::is_loopback;
use countersign_identity::ExternalIssuer;
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::Fault;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityRaw {
    embedded: Option<Spanned<bool>>,
    #[serde(default)]
    issuer: Vec<IssuerRaw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerRaw {
    issuer: Spanned<String>,
    audience: Option<Spanned<String>>,
    jwks_uri: Spanned<String>,
    token_endpoint: Option<Spanned<String>>,
    #[serde(default)]
    claims: ClaimsRaw,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimsRaw {
    user: Option<Spanned<String>>,
    groups: Option<Spanned<String>>,
}

/// `[identity]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The built-in authorization server.
    pub embedded: bool,
    /// Issuers whose tokens are taken beside its own.
    pub issuers: Vec<Issuer>,
}

/// `[[identity.issuer]]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// As in `iss`.
    pub issuer: String,
    /// As in `aud`, if its tokens are for all of Countersign.
    pub audience: Option<String>,
    /// Where its keys are.
    pub jwks_uri: Url,
    /// Where its tokens may be exchanged.
    pub token_endpoint: Option<Url>,
    /// Which claim tells people apart.
    pub user_claim: String,
}

impl From<&Issuer> for ExternalIssuer {
    fn from(issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            user_claim: issuer.user_claim.clone(),
            token_endpoint: issuer.token_endpoint.clone(),
        }
    }
}

/// An `https` address, `http` on loopback only.
fn address(text: &Spanned<String>, what: &str) -> Result<Url, Fault> {
    let refuse = |problem: String| {
        let instead = "Write an https address, as the issuer's metadata has it.";
        Fault::at(text, problem, instead)
    };
    let url = Url::parse(text.get_ref())
        .map_err(|e| refuse(format!("{what} {:?} is no address: {e}", text.get_ref())))?;
    let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    if !safe || url.host_str().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(format!("{what} must be https, without a user name")));
    }
    Ok(url)
}

fn filled(text: &Spanned<String>, what: &str) -> Result<String, Fault> {
    match text.get_ref().trim() {
        "" => Err(Fault::at(
            text,
            format!("{what} is empty"),
            "Write a value, or leave the line out.",
        )),
        _ => Ok(text.get_ref().clone()),
    }
}

impl TryFrom<IssuerRaw> for Issuer {
    type Error = Fault;

    fn try_from(raw: IssuerRaw) -> Result<Self, Fault> {
        address(&raw.issuer, "issuer")?;
        if let Some(groups) = &raw.claims.groups {
            return Err(Fault::at(
                groups,
                "groups of an external issuer are not taken over",
                "Remove groups: put people into teams with `countersign team add-member`.",
            ));
        }
        let user = raw.claims.user.as_ref();
        let user_claim = user.map_or_else(|| Ok("sub".to_owned()), |c| filled(c, "claims.user"))?;
        if let (Some(user), true) = (
            user,
            ["email", "preferred_username", "upn", "name"].contains(&user_claim.as_str()),
        ) {
            return Err(Fault::at(
                user,
                format!("the claim {user_claim} may pass from one person to another"),
                "Write a claim that stays with a person: sub, or oid with Entra.",
            ));
        }
        Ok(Self {
            audience: raw
                .audience
                .map(|text| filled(&text, "audience"))
                .transpose()?,
            jwks_uri: address(&raw.jwks_uri, "jwks_uri")?,
            token_endpoint: raw
                .token_endpoint
                .map(|text| address(&text, "token_endpoint"))
                .transpose()?,
            issuer: raw.issuer.into_inner(),
            user_claim,
        })
    }
}

impl TryFrom<IdentityRaw> for Identity {
    type Error = Fault;

    fn try_from(raw: IdentityRaw) -> Result<Self, Fault> {
        let mut issuers: Vec<Issuer> = Vec::new();
        for raw in raw.issuer {
            let place = raw.issuer.clone();
            let issuer = Issuer::try_from(raw)?;
            if issuers.iter().any(|known| known.issuer == issuer.issuer) {
                return Err(Fault::at(
                    &place,
                    "this issuer is there twice",
                    "Remove one of the two.",
                ));
            }
            issuers.push(issuer);
        }
        match raw.embedded {
            Some(off) if !*off.get_ref() => Err(Fault::at(
                &off,
                "without the built-in authorization server nobody could sign in here",
                "Write embedded = true, or leave the line out.",
            )),
            _ => Ok(Self {
                embedded: true,
                issuers,
            }),
        }
    }
}
