//! What an operator trusts, and the decision that follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use countersign_core::names::{Digest, InvalidName, PresetName, PublisherName};

use super::error::SignatureError;
use super::keys::PublicKey;
use super::manifest::{SignatureFile, permissions_of};
use super::origin::Origin;
use crate::load::{LoadError, parse_file_name};
use crate::permissions::PermissionSet;

/// What is demanded of a component's signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// No component without a trusted signature.
    #[default]
    Require,
    /// One that nobody trusted vouches for is used, with a warning wherever it
    /// is shown. A broken signature is refused.
    Warn,
    /// Signatures are not looked at.
    Off,
}

/// Which presets a publisher is trusted for: a name, or a beginning and `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresetPattern {
    text: String,
    open: bool,
}

impl PresetPattern {
    /// Parses `github`, `acme-*` or `*`.
    ///
    /// # Errors
    /// If it could match no preset's name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let (text, open) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if !(open && text.is_empty()) {
            PresetName::parse(text)?;
        }
        Ok(Self {
            text: text.to_owned(),
            open,
        })
    }

    fn matches(&self, preset: &PresetName) -> bool {
        match self.open {
            true => preset.as_str().starts_with(&self.text),
            false => preset.as_str() == self.text,
        }
    }
}

impl fmt::Display for PresetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.open { "*" } else { "" };
        write!(f, "{}{star}", self.text)
    }
}

/// A publisher whom the operator trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// As it signs.
    pub name: PublisherName,
    /// Any of them is good.
    pub keys: Vec<PublicKey>,
    /// For what.
    pub presets: Vec<PresetPattern>,
}

/// What the operator wrote. Nothing is trusted unless it says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// What is demanded.
    pub policy: SignaturePolicy,
    /// Whom to believe.
    pub publishers: Vec<Publisher>,
    /// Keys that are no longer believed, whoever lists them.
    pub revoked: Vec<PublicKey>,
    /// Presets of which only these components may be used, whoever signed.
    pub pins: BTreeMap<PresetName, BTreeSet<Digest>>,
}

impl Trust {
    /// Signatures are not looked at.
    #[must_use]
    pub fn off() -> Self {
        Self {
            policy: SignaturePolicy::Off,
            ..Self::default()
        }
    }

    /// Decides whether a component may be compiled, and says who vouches for
    /// it. `signature` is what lies beside it.
    ///
    /// # Errors
    /// [`SignatureError`]: it may not.
    pub(crate) fn judge(
        &self,
        (file, name, version): (&str, &PresetName, &str),
        digest: Digest,
        signature: Option<Result<Vec<u8>, SignatureError>>,
    ) -> Result<(Origin, Option<SignatureFile>), SignatureError> {
        self.demand_pin(name, digest)?;
        if self.policy == SignaturePolicy::Off {
            return Ok((Origin::unchecked(), None));
        }
        let signature = match signature {
            None => None,
            Some(bytes) => Some(SignatureFile::parse(&bytes?)?),
        };
        if let Some(signature) = &signature {
            signature.fits(name, version, digest)?;
        }
        match (self.vouched(file, name, signature.as_ref()), signature) {
            (Ok(origin), signature) => Ok((origin, signature)),
            (Err(why), signature)
                if self.policy == SignaturePolicy::Warn && why.is_missing_trust() =>
            {
                Ok((Origin::tolerated(signature.as_ref(), &why), signature))
            }
            (Err(why), _) => Err(why),
        }
    }

    /// As [`Self::judge`], and whether the component asks for what was signed.
    ///
    /// # Errors
    /// [`SignatureError`]: it may not be used.
    pub(crate) fn judge_whole(
        &self,
        named: (&str, &PresetName, &str),
        digest: Digest,
        signature: Option<Result<Vec<u8>, SignatureError>>,
        asked: &PermissionSet,
    ) -> Result<Origin, SignatureError> {
        let (origin, signature) = self.judge(named, digest, signature)?;
        if let Some(signature) = signature {
            signature.agrees(&permissions_of(asked))?;
        }
        Ok(origin)
    }

    fn vouched(
        &self,
        file: &str,
        preset: &PresetName,
        signature: Option<&SignatureFile>,
    ) -> Result<Origin, SignatureError> {
        let signature = signature.ok_or_else(|| SignatureError::Unsigned {
            file: file.to_owned(),
        })?;
        let (name, key) = (&signature.manifest.publisher, &signature.key);
        if self.revoked.contains(key) {
            return Err(SignatureError::RevokedKey { key: *key });
        }
        let publisher = self
            .publishers
            .iter()
            .find(|publisher| publisher.name == *name)
            .ok_or_else(|| SignatureError::UnknownPublisher {
                publisher: name.clone(),
                key: *key,
                preset: preset.clone(),
            })?;
        if !publisher.keys.contains(key) {
            return Err(SignatureError::UnknownKey {
                publisher: name.clone(),
                key: *key,
            });
        }
        if !publisher.presets.iter().any(|p| p.matches(preset)) {
            return Err(SignatureError::NotForThisPreset {
                publisher: name.clone(),
                preset: preset.clone(),
            });
        }
        Ok(Origin::trusted(signature))
    }

    fn demand_pin(&self, preset: &PresetName, digest: Digest) -> Result<(), SignatureError> {
        match self.pins.get(preset) {
            Some(pinned) if !pinned.contains(&digest) => {
                let pinned: Vec<String> = pinned.iter().map(ToString::to_string).collect();
                Err(SignatureError::NotPinned {
                    preset: preset.clone(),
                    digest,
                    pinned: pinned.join(" or "),
                })
            }
            _ => Ok(()),
        }
    }
}

/// What a host with this trust makes of a component, by its file name and
/// digest, and of what lies beside it; all but its permissions.
///
/// # Errors
/// [`LoadError`]: the host would refuse it.
pub fn judge(
    trust: &Trust,
    file: &str,
    digest: Digest,
    signature: Option<&[u8]>,
) -> Result<Origin, LoadError> {
    let (name, version) = parse_file_name(file)?;
    let beside = signature.map(|bytes| Ok(bytes.to_vec()));
    let (origin, _) = trust.judge((file, &name, &version), digest, beside)?;
    Ok(origin)
}

#[cfg(test)]
mod tests {
    use countersign_core::ports::fakes::CountingRandom;
    use countersign_core::time::Timestamp;

    use super::super::{Manifest, PrivateKey, SignatureState};
    use super::*;

    fn key() -> PrivateKey {
        PrivateKey::generate(&CountingRandom::default())
    }

    fn other_key() -> PrivateKey {
        let random = CountingRandom::default();
        let _ = PrivateKey::generate(&random);
        PrivateKey::generate(&random)
    }

    fn signed(publisher: &str, key: &PrivateKey) -> SignatureFile {
        Manifest::new(
            (PresetName::parse("github").unwrap(), "1.0.0".into()),
            Digest::of(b"component"),
            BTreeMap::new(),
            PublisherName::parse(publisher).unwrap(),
            Timestamp::from_secs(1_800_000_000),
        )
        .sign(key)
    }

    fn trust(policy: SignaturePolicy) -> Trust {
        Trust {
            policy,
            publishers: vec![
                Publisher {
                    name: PublisherName::parse("acme").unwrap(),
                    keys: vec![key().public()],
                    presets: vec![PresetPattern::parse("git*").unwrap()],
                },
                Publisher {
                    name: PublisherName::parse("other").unwrap(),
                    keys: vec![other_key().public()],
                    presets: vec![PresetPattern::parse("github-enterprise").unwrap()],
                },
            ],
            revoked: vec![],
            pins: BTreeMap::new(),
        }
    }

    fn judge(
        trust: &Trust,
        component: &[u8],
        signature: Option<Vec<u8>>,
    ) -> Result<Origin, SignatureError> {
        let name = PresetName::parse("github").unwrap();
        let file = ("github-1.0.0.wasm", &name, "1.0.0");
        let judged = trust.judge(file, Digest::of(component), signature.map(Ok));
        judged.map(|(origin, _)| origin)
    }

    fn bytes(file: &SignatureFile) -> Option<Vec<u8>> {
        Some(file.to_text().into_bytes())
    }

    #[test]
    fn only_a_trusted_signature_of_this_very_component_lets_it_in() {
        let require = trust(SignaturePolicy::Require);
        let origin = judge(&require, b"component", bytes(&signed("acme", &key()))).unwrap();
        assert_eq!(origin.signature, SignatureState::Trusted);
        assert_eq!(origin.key, Some(key().public()));

        let mut out = String::new();
        let mut revoked = require.clone();
        revoked.revoked = vec![key().public()];
        for (what, trust, component, signature) in [
            ("no signature", &require, &b"component"[..], None),
            ("no JSON", &require, b"component", Some(b"x".to_vec())),
            (
                "an unknown publisher",
                &require,
                b"component",
                bytes(&signed("evil", &key())),
            ),
            (
                "an unknown key",
                &require,
                b"component",
                bytes(&signed("acme", &other_key())),
            ),
            (
                "another's preset",
                &require,
                b"component",
                bytes(&signed("other", &other_key())),
            ),
            (
                "another component",
                &require,
                b"x",
                bytes(&signed("acme", &key())),
            ),
            (
                "a revoked key",
                &revoked,
                b"component",
                bytes(&signed("acme", &key())),
            ),
        ] {
            let error = judge(trust, component, signature).expect_err(what);
            out.push_str(&format!("# {what}\n{error}\n\n"));
        }
        insta::assert_snapshot!(out);
    }

    #[test]
    fn a_warning_stands_for_missing_trust_and_never_for_a_broken_word() {
        let mut warn = trust(SignaturePolicy::Warn);
        for (signature, state) in [
            (None, SignatureState::Unsigned),
            (bytes(&signed("evil", &key())), SignatureState::Untrusted),
            (
                bytes(&signed("acme", &other_key())),
                SignatureState::Untrusted,
            ),
            (bytes(&signed("acme", &key())), SignatureState::Trusted),
        ] {
            let origin = judge(&warn, b"component", signature).unwrap();
            assert_eq!(origin.signature, state);
            assert_eq!(origin.warning.is_some(), state != SignatureState::Trusted);
        }
        assert!(judge(&warn, b"x", bytes(&signed("evil", &key()))).is_err());
        assert!(judge(&warn, b"component", Some(b"{}".to_vec())).is_err());
        warn.revoked = vec![key().public()];
        assert!(judge(&warn, b"component", bytes(&signed("evil", &key()))).is_err());
    }

    #[test]
    fn a_pin_holds_whatever_else_is_said() {
        for policy in [
            SignaturePolicy::Require,
            SignaturePolicy::Warn,
            SignaturePolicy::Off,
        ] {
            let mut trust = trust(policy);
            let github = PresetName::parse("github").unwrap();
            trust.pins = [(github.clone(), [Digest::of(b"another")].into())].into();
            let signature = bytes(&signed("acme", &key()));
            assert!(matches!(
                judge(&trust, b"component", signature.clone()),
                Err(SignatureError::NotPinned { .. })
            ));
            trust.pins = [(github, [Digest::of(b"component")].into())].into();
            assert!(judge(&trust, b"component", signature).is_ok());
        }
        // A pin is no signature.
        let mut require = trust(SignaturePolicy::Require);
        let github = PresetName::parse("github").unwrap();
        require.pins = [(github, [Digest::of(b"component")].into())].into();
        assert!(judge(&require, b"component", None).is_err());
    }

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        let name = |n: &str| PresetName::parse(n).unwrap();
        let pattern = |p: &str| PresetPattern::parse(p).unwrap();
        assert!(pattern("acme-*").matches(&name("acme-files")));
        assert!(!pattern("acme-*").matches(&name("acme")));
        assert!(!pattern("github").matches(&name("github-2")));
        assert!(pattern("*").matches(&name("x")));
        for bad in ["", "*-x", "a*b*", "Acme", "a b", "**"] {
            assert!(PresetPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
