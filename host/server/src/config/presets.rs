//! `[presets]`: what is demanded of components in the catalog, and whose word
//! is taken for them.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::names::{Digest, PresetName, PublisherName};
use countersign_presets::signature::{PresetPattern, PublicKey, Publisher, SignaturePolicy, Trust};
use serde::Deserialize;
use toml::Spanned;

use super::Fault;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PresetsRaw {
    #[serde(default)]
    signatures: Signatures,
    #[serde(default)]
    remember_verdicts: bool,
    #[serde(default)]
    publisher: Vec<PublisherRaw>,
    #[serde(default)]
    revoked_keys: Vec<Spanned<String>>,
    #[serde(default)]
    pin: BTreeMap<Spanned<String>, Spanned<PinRaw>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublisherRaw {
    name: Spanned<String>,
    keys: Spanned<Vec<Spanned<String>>>,
    presets: Spanned<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PinRaw {
    One(String),
    Some(Vec<String>),
}

/// What is demanded of a component's signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signatures {
    /// No component without the signature of a trusted publisher.
    #[default]
    Require,
    /// Components that nobody trusted signed load with a warning.
    Warn,
    /// Signatures are not looked at.
    Off,
}

/// `[presets]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presets {
    /// What is demanded of signatures.
    pub signatures: Signatures,
    /// The same, with whose word is taken and what is pinned.
    pub trust: Trust,
    /// Whether a verdict is asked for once for each call of a kind, instead of
    /// for each call; presets that want arguments are asked always.
    pub remember_verdicts: bool,
}

impl TryFrom<PresetsRaw> for Presets {
    type Error = Fault;

    fn try_from(raw: PresetsRaw) -> Result<Self, Fault> {
        let mut trust = Trust {
            policy: match raw.signatures {
                Signatures::Require => SignaturePolicy::Require,
                Signatures::Warn => SignaturePolicy::Warn,
                Signatures::Off => SignaturePolicy::Off,
            },
            ..Trust::default()
        };
        for text in &raw.revoked_keys {
            trust.revoked.push(key(text)?);
        }
        for publisher in &raw.publisher {
            let publisher = checked(publisher, &trust)?;
            trust.publishers.push(publisher);
        }
        for (name, pin) in &raw.pin {
            let preset = PresetName::parse(name.get_ref())
                .map_err(|e| Fault::at(name, e.to_string(), "Write the preset's name."))?;
            trust.pins.insert(preset, digests(name, pin)?);
        }
        Ok(Self {
            signatures: raw.signatures,
            trust,
            remember_verdicts: raw.remember_verdicts,
        })
    }
}

fn key(text: &Spanned<String>) -> Result<PublicKey, Fault> {
    PublicKey::parse(text.get_ref()).map_err(|e| {
        Fault::at(
            text,
            e.to_string(),
            "`countersign preset keygen` writes it into NAME.pub.",
        )
    })
}

fn checked(raw: &PublisherRaw, so_far: &Trust) -> Result<Publisher, Fault> {
    let name = PublisherName::parse(raw.name.get_ref())
        .map_err(|e| Fault::at(&raw.name, e.to_string(), "Write the name it signs with."))?;
    if so_far.publishers.iter().any(|p| p.name == name) {
        return Err(Fault::at(
            &raw.name,
            format!("the publisher {name} is there twice"),
            "Put all of its keys and presets into one [[presets.publisher]].",
        ));
    }
    let mut keys = Vec::new();
    for text in raw.keys.get_ref() {
        let key = key(text)?;
        if so_far.revoked.contains(&key) {
            return Err(Fault::at(
                text,
                format!("{key} is both trusted and revoked"),
                "Remove it here, or from revoked_keys.",
            ));
        }
        if let Some(other) = so_far.publishers.iter().find(|p| p.keys.contains(&key)) {
            return Err(Fault::at(
                text,
                format!("{key} belongs to the publisher {} already", other.name),
                "A key speaks for one publisher.",
            ));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(Fault::at(
            &raw.keys,
            format!("the publisher {name} has no key, so nothing could be signed by it"),
            "Write: keys = [\"ed25519:…\"]",
        ));
    }
    let mut presets = Vec::new();
    for text in raw.presets.get_ref() {
        let pattern = PresetPattern::parse(text.get_ref()).map_err(|e| {
            Fault::at(
                text,
                e.to_string(),
                "Write a preset's name, a beginning and * (\"acme-*\"), or \"*\" for all.",
            )
        })?;
        presets.push(pattern);
    }
    if presets.is_empty() {
        return Err(Fault::at(
            &raw.presets,
            format!("the publisher {name} is trusted for no preset"),
            "Write: presets = [\"github\", \"acme-*\"], or [\"*\"] for all.",
        ));
    }
    Ok(Publisher {
        name,
        keys,
        presets,
    })
}

fn digests(name: &Spanned<String>, pin: &Spanned<PinRaw>) -> Result<BTreeSet<Digest>, Fault> {
    let instead = "`countersign preset inspect FILE` prints a component's digest: sha256: and 64 hexadecimal digits.";
    let texts = match pin.get_ref() {
        PinRaw::One(one) => std::slice::from_ref(one),
        PinRaw::Some(some) => some.as_slice(),
    };
    if texts.is_empty() {
        return Err(Fault::at(
            pin,
            format!("{} is pinned to nothing", name.get_ref()),
            "Remove the line, or write the digests that may be used.",
        ));
    }
    let parsed = texts.iter().map(|text| {
        Digest::try_from(text.clone()).map_err(|e| Fault::at(pin, e.to_string(), instead))
    });
    parsed.collect()
}
