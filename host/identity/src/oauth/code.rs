//! Authorization codes: single use, a minute long, bound by PKCE.

use std::time::Duration;

use base64::Engine as _;
use countersign_core::names::{ClientId, TeamName, UserName};
use countersign_core::ports::{Expect, Kind, Write, put_until, random_token};
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::error::OAuthError;
use crate::audience::Audience;
use crate::service::Identity;
use crate::tokens::{CODE, record_key};

const LIFETIME: Duration = Duration::from_secs(60);
/// How long a used or expired code is remembered, so that its replay is noticed.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// The stored record, by the code's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Code {
    pub(super) client: ClientId,
    pub(super) client_name: String,
    /// Exactly as in the authorization request.
    pub(super) redirect_uri: String,
    /// RFC 7636 §4.2, S256.
    pub(super) challenge: String,
    pub(super) audience: Audience,
    /// Whether a refresh token goes with it.
    pub(super) refresh: bool,
    pub(super) user: UserName,
    pub(super) epoch: String,
    pub(super) team: TeamName,
    /// The grant that its tokens will descend from.
    pub(super) grant: String,
    pub(super) fresh_until: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) state: CodeState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CodeState {
    /// Not yet exchanged.
    Fresh,
    /// Exchanged; seeing it again is the sign of a theft.
    Used,
}

impl Code {
    pub(super) fn write(
        &self,
        fingerprint: &[u8; 32],
        expect: Expect,
    ) -> Result<Write, OAuthError> {
        let until = Some(self.expires_at.plus(REMEMBERED));
        Ok(put_until(
            record_key(Kind::Code, fingerprint),
            expect,
            self,
            until,
        )?)
    }
}

impl Identity {
    /// A new code: its text, and the write that stores its fingerprint.
    pub(super) fn new_code(
        &self,
        make: impl FnOnce(String, Timestamp) -> Code,
    ) -> Result<(String, Write), OAuthError> {
        let text = self.new_token(CODE);
        let code = make(
            random_token::<12>(&*self.0.world.random),
            self.now().plus(LIFETIME),
        );
        let write = code.write(&self.fingerprint(&text), Expect::Absent)?;
        Ok((text, write))
    }
}

/// PKCE (RFC 7636 §4.6), in constant time.
pub(super) fn proves(verifier: &str, challenge: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(unreserved) {
        return false;
    }
    let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(Sha256::digest(verifier.as_bytes()));
    digest.as_bytes().ct_eq(challenge.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_proves_only_its_own_challenge() {
        // RFC 7636, appendix B.
        let (verifier, challenge) = (
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        );
        assert!(proves(verifier, challenge));
        assert!(!proves(&verifier.to_lowercase(), challenge));
        assert!(!proves(challenge, challenge));
        assert!(!proves("short", challenge));
    }
}
