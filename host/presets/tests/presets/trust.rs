//! Trust that changes while a catalog runs.

use countersign_core::names::{Digest, PresetName};
use countersign_presets::signature::{SignaturePolicy, SignatureState, Trust};
use countersign_presets::{BindError, CatalogEvent, FileState};

use crate::fixture::{Body, Fixture, deny};
use crate::house::{House, provider};
use crate::signatures::{house, key, saying, sign, state, trusting};

const FILE: &str = "probe-1.0.0.wasm";
const SIGNATURE: &str = "probe-1.0.0.wasm.sig";

fn serves(house: &House) -> bool {
    house.catalog.current(&provider().name).is_some()
}

/// A house that serves one signed component.
fn signed() -> (House, Trust) {
    let trust = trusting(SignaturePolicy::Require);
    let house = house(&trust);
    let component = saying("one");
    house.put(SIGNATURE, &sign(FILE, &component));
    house.put(FILE, &component);
    house.approve(&provider()).unwrap();
    (house, trust)
}

#[test]
fn a_word_that_is_no_longer_taken_ends_the_service_and_brings_it_back_when_it_is() {
    let (house, trust) = signed();
    let (mut revoked, mut nobody, mut pinned) = (trust.clone(), trust.clone(), trust.clone());
    revoked.revoked = vec![key().public()];
    nobody.publishers.clear();
    let another = [Digest::of(b"another")].into();
    pinned.pins = [(PresetName::parse("probe").unwrap(), another)].into();
    for (what, changed, expected) in [
        ("the key is revoked", revoked, "under revoked_keys"),
        ("the publisher is struck off", nobody, "trusts no publisher"),
        ("another content is pinned", pinned, "pins probe to"),
    ] {
        // A call that began before finishes on what it has.
        let pinned = house.catalog.current(&provider().name).unwrap();
        house.catalog.retrust(changed);
        let reason = house.reason(FILE);
        assert!(reason.contains(expected), "{what}: {reason}");
        assert!(!serves(&house), "{what}");
        assert!(matches!(
            house.catalog.bind(&provider(), &[]),
            Err(BindError::Refused { .. })
        ));
        assert!(crate::house::evaluate(&*pinned).is_ok(), "{what}");
        drop(pinned);

        house.catalog.retrust(trust.clone());
        assert_eq!(state(&house), FileState::Loaded, "{what}");
        house.approve(&provider()).unwrap();
        assert!(serves(&house), "{what}");
    }
}

#[test]
fn a_last_good_version_whose_file_is_gone_is_not_good_without_its_publisher() {
    let (house, trust) = signed();
    std::fs::remove_file(house.path(FILE)).unwrap();
    house.catalog.rescan();
    assert!(serves(&house), "the last good one goes on");
    house.catalog.retrust(trust);
    assert!(serves(&house), "and nothing has changed");
    house
        .catalog
        .retrust(trusting_nobody(SignaturePolicy::Require));
    assert!(!serves(&house));
}

fn trusting_nobody(policy: SignaturePolicy) -> Trust {
    Trust {
        policy,
        ..Trust::default()
    }
}

#[test]
fn signatures_that_are_demanded_from_now_on_are_looked_at() {
    let house = house(&Trust::off());
    let (plain, vouched) = (saying("plain"), saying("vouched"));
    house.put(FILE, &plain);
    house.put("probe-2.0.0.wasm.sig", &sign("probe-2.0.0.wasm", &vouched));
    house.put("probe-2.0.0.wasm", &vouched);
    let mut events = house.catalog.subscribe();
    house.catalog.retrust(trusting(SignaturePolicy::Require));
    assert!(house.reason(FILE).contains("it is not signed"));
    let list = house.catalog.list();
    let vouched = list.iter().find(|e| e.file == "probe-2.0.0.wasm").unwrap();
    assert_eq!(vouched.state, FileState::Loaded);
    let origin = vouched.origin.clone().unwrap();
    assert_eq!(origin.signature, SignatureState::Trusted);
    // Both are told once.
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let of = |file: &str| {
        let is_of = |event: &&CatalogEvent| match event {
            CatalogEvent::Loaded { file: f, .. } | CatalogEvent::Refused { file: f, .. } => {
                f == file
            }
            _ => false,
        };
        told.iter().filter(is_of).count()
    };
    assert_eq!((of(FILE), of("probe-2.0.0.wasm")), (1, 1), "{told:?}");

    // What was waved through with a warning is no longer.
    house.catalog.retrust(trusting(SignaturePolicy::Warn));
    let shown = house.catalog.list().remove(0).origin.unwrap();
    assert_eq!(shown.signature, SignatureState::Unsigned);
    house.catalog.retrust(trusting(SignaturePolicy::Require));
    assert!(house.reason(FILE).contains("it is not signed"));
}

#[test]
fn a_signature_over_less_than_the_component_asks_for_is_found_out_when_it_is_demanded() {
    let house = house(&Trust::off());
    let component = saying("one");
    let text = String::from_utf8(sign(FILE, &component)).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut manifest: countersign_presets::signature::Manifest =
        serde_json::from_value(file["manifest"].take()).unwrap();
    manifest.permissions.remove("scopes");
    house.put(SIGNATURE, manifest.sign(&key()).to_text().as_bytes());
    house.put(FILE, &component);
    house.approve(&provider()).unwrap();
    house.catalog.retrust(trusting(SignaturePolicy::Require));
    let reason = house.reason(FILE);
    assert!(reason.contains("Not signed: scopes"), "{reason}");
    assert!(!serves(&house));
}

#[test]
fn many_files_are_read_side_by_side_and_told_in_order_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<String> = (10..35).map(|n| format!("probe-1.{n}.0.wasm")).collect();
    for (number, file) in files.iter().enumerate() {
        let bytes = Fixture::evaluating(Body::Answer(deny(&format!("n{number}")))).bytes();
        std::fs::write(dir.path().join(file), bytes).unwrap();
    }
    std::fs::write(dir.path().join("probe-2.0.0.wasm"), b"no component").unwrap();
    let config = crate::house::small_config();
    let catalog = countersign_presets::Catalog::open(dir.path(), config).unwrap();
    assert_eq!(catalog.list().len(), 26);
    let mut events = catalog.subscribe_from_start();
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        match event {
            CatalogEvent::Loaded { file, .. } | CatalogEvent::Refused { file, .. } => {
                told.push(file);
            }
            other => panic!("{other:?}"),
        }
    }
    let mut expected = files;
    expected.push("probe-2.0.0.wasm".into());
    assert_eq!(told, expected);
    // Later ones are told from then on only.
    assert!(catalog.subscribe_from_start().try_recv().is_err());
}
