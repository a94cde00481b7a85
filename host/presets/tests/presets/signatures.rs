//! Signatures in a catalog: what is let in, what is shown, what takes effect
//! while it runs.

use std::path::Path;

use countersign_core::names::{PresetName, PublisherName};
use countersign_core::ports::fakes::CountingRandom;
use countersign_core::time::Timestamp;
use countersign_presets::signature::{
    PresetPattern, PrivateKey, Publisher, Pulled, SignaturePolicy, SignatureState, Trust,
    signature_of,
};
use countersign_presets::{BindError, Catalog, CatalogEvent, FileState};
use serde_json::json;

use crate::fixture::{Body, Fixture, deny, description};
use crate::house::{House, provider, small_config};

const FILE: &str = "probe-1.0.0.wasm";
const SIGNATURE: &str = "probe-1.0.0.wasm.sig";

pub fn key() -> PrivateKey {
    PrivateKey::generate(&CountingRandom::default())
}

pub fn trusting(policy: SignaturePolicy) -> Trust {
    Trust {
        policy,
        publishers: vec![Publisher {
            name: PublisherName::parse("acme").unwrap(),
            keys: vec![key().public()],
            presets: vec![PresetPattern::parse("pro*").unwrap()],
        }],
        ..Trust::default()
    }
}

pub fn house(trust: &Trust) -> House {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open_with(dir.path(), small_config(), trust.clone(), None).unwrap();
    House { catalog, dir }
}

/// The signature of these bytes under that name, as `preset sign` makes it.
pub fn sign(file: &str, bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file);
    std::fs::write(&path, bytes).unwrap();
    signed(&path).into_bytes()
}

fn signed(path: &Path) -> String {
    let publisher = PublisherName::parse("acme").unwrap();
    let at = Timestamp::from_secs(1_800_000_000);
    signature_of(path, publisher, at, &key(), small_config())
        .unwrap()
        .to_text()
}

pub fn saying(word: &str) -> Vec<u8> {
    Fixture::evaluating(Body::Answer(deny(word))).bytes()
}

pub fn state(house: &House) -> FileState {
    house.catalog.list().into_iter().next().unwrap().state
}

#[test]
fn an_unsigned_component_is_refused_with_what_to_run_until_its_signature_arrives() {
    let house = house(&trusting(SignaturePolicy::Require));
    let mut events = house.catalog.subscribe();
    let component = saying("one");
    house.put(FILE, &component);
    let reason = house.reason(FILE);
    assert!(
        reason.contains("countersign preset sign probe-1.0.0.wasm"),
        "{reason}"
    );
    assert!(matches!(
        house.catalog.bind(&provider(), &[]),
        Err(BindError::Refused { .. })
    ));

    // No restart, and the watcher needs no hint but the file itself.
    house.put(SIGNATURE, &sign(FILE, &component));
    assert_eq!(state(&house), FileState::Loaded);
    let proposal = house.catalog.pending(&provider().name).unwrap();
    assert_eq!(proposal.origin.signature, SignatureState::Trusted);
    assert_eq!(proposal.origin.key, Some(key().public()));
    let entry = house.catalog.list().remove(0);
    assert_eq!(
        entry.origin.unwrap().to_string(),
        format!(
            "signed by acme with {} at 2027-01-15T08:00:00.000Z",
            key().public()
        )
    );
    house
        .catalog
        .bind(&provider(), &[proposal.approval])
        .unwrap();

    let names: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert!(matches!(&names[0], CatalogEvent::Refused { .. }));
    assert!(
        names
            .iter()
            .any(|event| matches!(event, CatalogEvent::Loaded { origin, .. }
        if origin.signature == SignatureState::Trusted))
    );
}

#[test]
fn a_signature_that_is_taken_away_or_spoilt_refuses_while_the_last_good_goes_on() {
    let house = house(&trusting(SignaturePolicy::Require));
    let component = saying("one");
    let signature = sign(FILE, &component);
    house.put(SIGNATURE, &signature);
    house.put(FILE, &component);
    house.approve(&provider()).unwrap();

    let text = String::from_utf8(signature.clone()).unwrap();
    let other = sign("probe-1.0.1.wasm", &component);
    for (what, spoilt, expected) in [
        (
            "truncated",
            text.as_bytes()[..40].to_vec(),
            "not one that `preset sign` writes",
        ),
        (
            "another host",
            text.replace("api.example.com", "api.evil.example")
                .into_bytes(),
            "signature is wrong",
        ),
        ("another version", other, "for version 1.0.1"),
        (
            "another component",
            sign(FILE, &saying("two")),
            "for a component with the digest",
        ),
    ] {
        house.put(SIGNATURE, &spoilt);
        let reason = house.reason(FILE);
        assert!(reason.contains(expected), "{what}: {reason}");
        assert!(house.catalog.current(&provider().name).is_some(), "{what}");
    }
    std::fs::remove_file(house.path(SIGNATURE)).unwrap();
    house.catalog.rescan();
    assert!(house.reason(FILE).contains("it is not signed"));
    assert!(house.catalog.current(&provider().name).is_some());

    house.put(SIGNATURE, &signature);
    assert_eq!(state(&house), FileState::Loaded);
}

#[test]
fn a_newer_version_without_a_signature_does_not_replace_a_signed_one() {
    let house = house(&trusting(SignaturePolicy::Require));
    let component = saying("one");
    house.put(SIGNATURE, &sign(FILE, &component));
    house.put(FILE, &component);
    let mut provider = provider();
    provider.auto_update = true;
    let before = house.approve(&provider).unwrap().digest();
    let newer = saying("two");
    house.put("probe-1.1.0.wasm", &newer);
    assert_eq!(
        house.catalog.current(&provider.name).unwrap().digest(),
        before
    );
    house.put("probe-1.1.0.wasm.sig", &sign("probe-1.1.0.wasm", &newer));
    assert_ne!(
        house.catalog.current(&provider.name).unwrap().digest(),
        before
    );
}

#[test]
fn what_is_signed_is_what_the_component_asks_for() {
    let component = saying("one");
    let mut more = description();
    more["default-scopes"] = json!(["read", "write"]);
    let wider = Fixture::described(more).bytes();
    // Its author signs the manifest of the narrow one over the wide one's digest.
    let narrow: serde_json::Value = serde_json::from_slice(&sign(FILE, &component)).unwrap();
    let mut manifest: countersign_presets::signature::Manifest =
        serde_json::from_value(narrow["manifest"].clone()).unwrap();
    assert!(manifest.permissions["scopes"].contains("read"));
    assert!(!manifest.permissions.contains_key("queries"));
    manifest.digest = countersign_core::names::Digest::of(&wider);
    let forged = manifest.sign(&key()).to_text();

    let house = house(&trusting(SignaturePolicy::Require));
    house.put(SIGNATURE, forged.as_bytes());
    house.put(FILE, &wider);
    let reason = house.reason(FILE);
    assert!(reason.contains("Not signed: scopes write"), "{reason}");
}

#[test]
fn a_preset_that_needs_settings_is_signed_by_what_it_imports() {
    let fixture = Fixture {
        describe: Body::Answer(json!({"err": "the setting tenant is missing"})),
        ..Fixture::default()
    };
    let component = fixture.bytes();
    let house = house(&trusting(SignaturePolicy::Require));
    house.put(SIGNATURE, &sign(FILE, &component));
    house.put(FILE, &component);
    assert!(matches!(state(&house), FileState::NeedsSettings { .. }));
}

#[test]
fn a_warning_is_shown_wherever_an_unsigned_component_is() {
    let house = house(&trusting(SignaturePolicy::Warn));
    house.put(FILE, &saying("one"));
    assert_eq!(state(&house), FileState::Loaded);
    let origin = house.catalog.list().remove(0).origin.unwrap();
    assert_eq!(origin.signature, SignatureState::Unsigned);
    assert!(origin.warning.unwrap().contains("it is not signed"));
    let _ = house.catalog.bind(&provider(), &[]);
    let proposal = house.catalog.pending(&provider().name).unwrap();
    assert!(proposal.origin.warning.is_some());
    assert_eq!(proposal.origin.to_string(), "not signed");
}

#[test]
fn a_pin_refuses_every_other_component_of_that_name() {
    let mut trust = Trust::off();
    let component = saying("one");
    let pinned = countersign_core::names::Digest::of(&component);
    trust.pins = [(PresetName::parse("probe").unwrap(), [pinned].into())].into();
    let house = house(&trust);
    house.put(FILE, &component);
    house.approve(&provider()).unwrap();
    house.put("probe-2.0.0.wasm", &saying("two"));
    assert!(
        house
            .reason("probe-2.0.0.wasm")
            .contains("pins probe to sha256:")
    );
    assert_eq!(
        house.catalog.current(&provider().name).unwrap().digest(),
        pinned
    );
}

#[test]
fn where_a_component_was_pulled_from_is_told_only_of_that_component() {
    let house = house(&Trust::off());
    let component = saying("one");
    let digest = countersign_core::names::Digest::of(&component);
    let pulled = Pulled {
        reference: "registry.example.com/presets/probe:1.0.0".into(),
        manifest: digest,
        component: digest,
        at: Timestamp::from_secs(1_800_000_000),
    };
    let shown = |house: &House| house.catalog.list().remove(0).origin.unwrap().pulled;
    house.put("probe-1.0.0.wasm.origin", pulled.to_text().as_bytes());
    house.put(FILE, &component);
    assert_eq!(shown(&house), Some(pulled));
    house.put(FILE, &saying("two"));
    assert_eq!(shown(&house), None);
    house.put("probe-1.0.0.wasm.origin", b"{");
    assert_eq!(shown(&house), None);
}
