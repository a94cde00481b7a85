//! Tokens of issuers that the operator named: the bearer of one is a user here
//! if an administrator created him for just that issuer and subject.
//!
//! Never by e-mail or name: whoever runs the other issuer's directory could
//! give those to anybody.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::issuer::{
    CallerToken, Claims, KeySet, TokenError, claimed_issuer, looks_signed, verify,
};
use countersign_core::names::{ClientId, Digest, UserName};
use countersign_core::ports::{BoxFuture, Kind, RecordKey, StoreError, load};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::accounts::{AccountKind, User};
use crate::audience::Audience;
use crate::authenticate::{AuthError, Reach, Verified};
use crate::service::Identity;

/// Longest subject, in bytes.
const LONGEST_SUBJECT: usize = 255;

/// An issuer whose tokens are taken at the MCP endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalIssuer {
    /// As in the tokens' `iss`, to the letter.
    pub issuer: String,
    /// What stands in `aud` of tokens for all of Countersign; without it a
    /// token has to be for the very endpoint it is used at (RFC 8707).
    pub audience: Option<String>,
    /// The claim that tells its people apart; `sub` as a rule.
    pub user_claim: String,
    /// Where its users' tokens may be exchanged for others (RFC 8693).
    pub token_endpoint: Option<Url>,
}

/// Gets an issuer's published keys.
pub trait IssuerKeys: Send + Sync {
    /// The keys; `anew` if a token named one that is not among them. None if
    /// they cannot be had.
    fn keys<'a>(&'a self, issuer: &'a str, anew: bool) -> BoxFuture<'a, Option<Arc<KeySet>>>;
}

/// Who somebody is at an issuer. Never changes for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignIdentity {
    /// As configured.
    pub issuer: String,
    /// As in the claim, to the letter.
    pub subject: String,
}

impl ForeignIdentity {
    /// Whether it may be given to an account; else what is wrong with it.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn check(&self, issuers: &[ExternalIssuer]) -> Result<(), String> {
        if !issuers.iter().any(|known| known.issuer == self.issuer) {
            let known: Vec<_> = issuers.iter().map(|i| i.issuer.as_str()).collect();
            return Err(match known.as_slice() {
                [] => "no external issuer is configured; write an [[identity.issuer]] into countersign.toml first".into(),
                known => format!("there is no such issuer; configured are {}", known.join(", ")),
            });
        }
        let plain = !self.subject.is_empty()
            && self.subject.len() <= LONGEST_SUBJECT
            && !self.subject.chars().any(char::is_control);
        match plain {
            true => Ok(()),
            false => Err(format!(
                "the subject must have 1 to {LONGEST_SUBJECT} bytes and no control characters"
            )),
        }
    }

    /// Where it is looked up.
    pub(crate) fn key(&self) -> RecordKey {
        let mut all = (self.issuer.len() as u64).to_le_bytes().to_vec();
        all.extend_from_slice(self.issuer.as_bytes());
        all.extend_from_slice(self.subject.as_bytes());
        RecordKey::new(Kind::ForeignIdentity, Digest::of(&all).to_string())
    }
}

impl Identity {
    /// Whether a bearer may be a token of a configured issuer.
    pub(crate) fn may_be_external(&self, bearer: &str) -> bool {
        !self.0.settings.issuers.is_empty() && looks_signed(bearer)
    }

    /// Who presents this token. What is wrong with one is said in the log, and
    /// not to whoever presents it.
    pub(crate) async fn load_external(
        &self,
        bearer: &str,
        now: Timestamp,
    ) -> Result<Verified, AuthError> {
        let named = claimed_issuer(bearer);
        let issuers = &self.0.settings.issuers;
        let issuer = issuers
            .iter()
            .find(|i| Some(&i.issuer) == named.as_ref())
            .ok_or(AuthError::Invalid)?;
        let refused = |why: &dyn std::fmt::Display| {
            tracing::info!(issuer = issuer.issuer, %why, "a token of an external issuer was refused");
            AuthError::Invalid
        };
        let claims = match self.claims(issuer, bearer, now).await? {
            Ok(claims) => claims,
            Err(error) => return Err(refused(&error)),
        };
        let reach = self
            .reach_of(issuer, &claims)
            .ok_or_else(|| refused(&"it is for another audience"))?;
        let subject = claims
            .text(&issuer.user_claim)
            .ok_or_else(|| refused(&format!("it has no claim {}", issuer.user_claim)))?;
        let identity = ForeignIdentity {
            issuer: issuer.issuer.clone(),
            subject: subject.to_owned(),
        };
        let Some(user) = self.user_of(&identity).await? else {
            let cut: String = subject.chars().take(LONGEST_SUBJECT).collect();
            tracing::info!(
                issuer = issuer.issuer,
                subject = ?cut,
                "nobody here is this person: countersign user create NAME --issuer ISSUER --subject SUBJECT"
            );
            return Err(AuthError::Invalid);
        };
        let (client, client_name) = client_of(issuer, &claims)?;
        let caller = self.caller(&user, None, client, client_name).await?;
        let mut caller = caller.ok_or(AuthError::Invalid)?;
        caller.servers = match &reach {
            Reach::Named(audiences) if !audiences.contains(&Audience::McpAll) => {
                let named = audiences.iter().filter_map(|a| match a {
                    Audience::Mcp(server) => Some(server.to_string()),
                    Audience::McpAll | Audience::Api => None,
                });
                Some(named.collect())
            }
            _ => None,
        };
        let endpoint = issuer.token_endpoint.clone();
        Ok(Verified {
            caller: Arc::new(caller),
            reach,
            fresh_until: None,
            presented: endpoint.map(|endpoint| Arc::new(CallerToken::new(bearer, endpoint))),
            expires_at: claims.expires_at,
        })
    }

    /// Verified; with newer keys if it names one that is not known.
    async fn claims(
        &self,
        issuer: &ExternalIssuer,
        bearer: &str,
        now: Timestamp,
    ) -> Result<Result<Claims, TokenError>, AuthError> {
        let mut found = Err(TokenError::UnknownKey);
        for anew in [false, true] {
            let Some(source) = &self.0.issuer_keys else {
                return Err(AuthError::Invalid);
            };
            let keys = source.keys(&issuer.issuer, anew).await;
            let keys = keys.ok_or(AuthError::Unavailable)?;
            found = verify(bearer, &issuer.issuer, &keys, now);
            if found != Err(TokenError::UnknownKey) {
                break;
            }
        }
        Ok(found)
    }

    /// Where a token may be used. Never at the REST API.
    fn reach_of(&self, issuer: &ExternalIssuer, claims: &Claims) -> Option<Reach> {
        if let Some(audience) = &issuer.audience {
            return claims
                .audiences
                .contains(audience)
                .then_some(Reach::Mcp(None));
        }
        let url = &self.0.settings.public_url;
        let named: BTreeSet<Audience> = claims
            .audiences
            .iter()
            .filter_map(|text| Audience::parse(text, url))
            .filter(|audience| *audience != Audience::Api)
            .collect();
        (!named.is_empty()).then_some(Reach::Named(named))
    }

    /// The user who was created for this identity.
    async fn user_of(&self, identity: &ForeignIdentity) -> Result<Option<User>, StoreError> {
        let found = load::<UserName>(&*self.0.world.records, &identity.key()).await?;
        let Some((name, _)) = found else {
            return Ok(None);
        };
        let user = self.load_user(&name).await?.map(|(user, _)| user);
        Ok(user.filter(|user| {
            user.enabled
                && user.kind == AccountKind::Human
                && user.foreign.as_ref() == Some(identity)
        }))
    }
}

/// The agent, as its issuer names it: never the same as an agent of another
/// issuer or of the embedded server.
fn client_of(issuer: &ExternalIssuer, claims: &Claims) -> Result<(ClientId, String), AuthError> {
    let name = claims.client.clone().unwrap_or_default();
    let readable = ClientId::parse(&format!("{}#{name}", issuer.issuer));
    let hashed = || {
        let of = Digest::of(format!("{}#{name}", issuer.issuer).as_bytes());
        ClientId::parse(&format!("issuer:{of}"))
    };
    let client = readable.or_else(|_| hashed());
    let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
    Ok((client.map_err(|_| AuthError::Invalid)?, shown))
}
