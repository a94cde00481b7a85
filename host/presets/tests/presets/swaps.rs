//! Replacing a component: what swaps by itself, what waits, what a running
//! call notices (nothing).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use countersign_core::preset::{Preset, Verdict};
use countersign_presets::{BindError, CatalogEvent};
use serde_json::json;

use crate::fixture::{Body, Fixture, deny, description};
use crate::house::{House, evaluate, provider};

fn saying(word: &str) -> Fixture {
    Fixture::evaluating(Body::Answer(deny(word)))
}

fn word(preset: &dyn Preset) -> String {
    match evaluate(preset).unwrap() {
        Verdict::Deny { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

fn serving(house: &House) -> Option<String> {
    house
        .catalog
        .current(&provider().name)
        .map(|preset| word(&*preset))
}

fn with_more_scopes(word: &str) -> Fixture {
    let mut said = description();
    said["default-scopes"] = json!(["read", "write"]);
    Fixture {
        evaluate: Body::Answer(deny(word)),
        ..Fixture::described(said)
    }
}

#[test]
fn nothing_serves_before_it_is_approved() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    let Err(BindError::NeedsApproval(proposal)) = house.catalog.bind(&provider(), &[]) else {
        panic!("served unapproved");
    };
    assert_eq!(serving(&house), None);
    assert!(
        proposal
            .difference
            .added
            .contains(&"audience host api.example.com".to_owned())
    );
    assert!(proposal.difference.removed.is_empty());
    // Approving something else is not enough.
    let mut other = proposal.approval.clone();
    other.permissions.scopes.clear();
    assert!(house.catalog.bind(&provider(), &[other]).is_err());
    house
        .catalog
        .bind(&provider(), &[proposal.approval])
        .unwrap();
    assert_eq!(serving(&house).as_deref(), Some("one"));
}

#[test]
fn other_settings_or_hosts_ask_again() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    let _ = house.catalog.bind(&provider(), &[]);
    let approvals = [house.proposed()];
    house.catalog.bind(&provider(), &approvals).unwrap();

    let mut changed = provider();
    changed.auto_update = true;
    changed.settings.insert("tenant".into(), "acme".into());
    assert!(matches!(
        house.catalog.bind(&changed, &approvals),
        Err(BindError::NeedsApproval(_))
    ));
    assert_eq!(
        serving(&house),
        None,
        "an unapproved change of settings must not go on under the old ones"
    );

    let mut wider = provider();
    wider.audience_hosts =
        vec![countersign_core::hosts::HostPattern::parse("other.example.com").unwrap()];
    assert!(matches!(
        house.catalog.bind(&wider, &approvals),
        Err(BindError::NeedsApproval(_))
    ));
    house.catalog.bind(&provider(), &approvals).unwrap();
    assert_eq!(serving(&house).as_deref(), Some("one"));
}

#[test]
fn a_new_version_waits_unless_the_provider_updates_by_itself() {
    let (house, _) = House::with(&saying("one"));
    house.put("probe-1.1.0.wasm", &saying("two").bytes());
    assert_eq!(serving(&house).as_deref(), Some("one"));
    let pending = house.catalog.pending(&provider().name).unwrap();
    assert_eq!(
        (pending.version.as_str(), pending.difference.is_empty()),
        ("1.1.0", true)
    );
    let approvals = [pending.approval];
    house.catalog.bind(&provider(), &approvals).unwrap();
    assert_eq!(serving(&house).as_deref(), Some("two"));
    assert_eq!(house.catalog.pending(&provider().name), None);
}

#[test]
fn an_update_by_itself_may_do_the_same_or_less_but_never_more() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    let mut provider = provider();
    provider.auto_update = true;
    house.approve(&provider).unwrap();
    let mut events = house.catalog.subscribe();

    house.put("probe-1.0.0.wasm", &saying("two").bytes());
    assert_eq!(serving(&house).as_deref(), Some("two"));
    let swapped = std::iter::from_fn(|| events.try_recv().ok()).find_map(|e| {
        if let CatalogEvent::Swapped { automatic, .. } = e {
            automatic
        } else {
            None
        }
    });
    assert!(
        swapped.is_some(),
        "the server must hear of it, to store and audit it"
    );

    house.put("probe-1.0.0.wasm", &with_more_scopes("three").bytes());
    assert_eq!(serving(&house).as_deref(), Some("two"));
    let pending = house.catalog.pending(&provider.name).unwrap();
    assert_eq!(pending.difference.added, ["scope write"]);
    let waiting = std::iter::from_fn(|| events.try_recv().ok())
        .any(|e| matches!(e, CatalogEvent::Pending { .. }));
    assert!(waiting);

    // Nothing is left of an approval that was taken back.
    assert!(house.catalog.bind(&provider, &[]).is_err());
    assert_eq!(serving(&house), None);
}

#[test]
fn a_version_that_is_taken_away_gives_way_to_the_one_before() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    let mut provider = provider();
    provider.auto_update = true;
    house.approve(&provider).unwrap();
    house.put("probe-1.10.0.wasm", &saying("ten").bytes());
    house.put("probe-1.9.0.wasm", &saying("nine").bytes());
    assert_eq!(serving(&house).as_deref(), Some("ten"));
    std::fs::remove_file(house.path("probe-1.10.0.wasm")).unwrap();
    house.catalog.rescan();
    assert_eq!(serving(&house).as_deref(), Some("nine"));
    // The last one goes on although its file is gone.
    std::fs::remove_file(house.path("probe-1.9.0.wasm")).unwrap();
    std::fs::remove_file(house.path("probe-1.0.0.wasm")).unwrap();
    house.catalog.rescan();
    assert_eq!(serving(&house).as_deref(), Some("nine"));
    house.catalog.unbind(&provider.name);
    assert_eq!(serving(&house), None);
}

#[test]
fn a_bad_newer_version_never_sends_anybody_back_to_an_older_one() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("old").bytes());
    house.put("probe-2.0.0.wasm", &saying("new").bytes());
    let mut provider = provider();
    provider.auto_update = true;
    house.approve(&provider).unwrap();
    assert_eq!(serving(&house).as_deref(), Some("new"));
    house.put("probe-2.0.0.wasm", b"rubbish");
    assert_eq!(serving(&house).as_deref(), Some("new"));
    house.put("probe-2.0.0.wasm", &with_more_scopes("newer").bytes());
    assert_eq!(serving(&house).as_deref(), Some("new"));
}

#[test]
fn an_unknown_preset_is_said_to_be_unknown_and_served_when_it_comes() {
    let house = House::empty();
    let error = house.catalog.bind(&provider(), &[]).err().unwrap();
    assert!(matches!(&error, BindError::Unknown(_)), "{error}");
    house.put("probe-1.0.0.wasm", b"rubbish");
    let error = house
        .catalog
        .bind(&provider(), &[])
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("probe-1.0.0.wasm") && error.contains("not WebAssembly"),
        "{error}"
    );
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    assert!(house.catalog.pending(&provider().name).is_some());
}

#[test]
fn the_watcher_notices_by_itself() {
    let house = House::empty();
    let mut events = house.catalog.subscribe();
    // In two pieces and in place, as a careless copy does it.
    let bytes = saying("one").bytes();
    let path = house.path("probe-1.0.0.wasm");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    loop {
        match events.blocking_recv().unwrap() {
            CatalogEvent::Loaded { file, .. } => {
                assert_eq!(file, "probe-1.0.0.wasm");
                break;
            }
            CatalogEvent::Refused { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    house.approve(&provider()).unwrap();
    assert_eq!(serving(&house).as_deref(), Some("one"));
}

#[test]
fn a_call_finishes_on_the_version_it_began_with() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    let mut provider = provider();
    provider.auto_update = true;
    let pinned = house.approve(&provider).unwrap();
    house.put("probe-1.0.0.wasm", &saying("two").bytes());
    assert_eq!(word(&*pinned), "one");
    assert_eq!(serving(&house).as_deref(), Some("two"));
}

#[test]
fn thousands_of_calls_across_twenty_swaps_and_none_fails() {
    const SWAPS: usize = 24;
    let house = House::empty();
    let versions: Vec<Vec<u8>> = (0..4).map(|i| saying(&format!("v{i}")).bytes()).collect();
    house.put("probe-1.0.0.wasm", &versions[0]);
    let mut provider = provider();
    provider.auto_update = true;
    house.approve(&provider).unwrap();

    let done = AtomicBool::new(false);
    let calls = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let preset: Arc<dyn Preset> = house.catalog.current(&provider.name).unwrap();
                    let word = word(&*preset);
                    assert!(word.starts_with('v'), "{word}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut swapped = 0;
        for swap in 1..=SWAPS {
            let before = house.catalog.current(&provider.name).unwrap().digest();
            if swap % 5 == 0 {
                // A bad one in between changes nothing.
                house.put("probe-1.0.0.wasm", &versions[0][..99]);
                assert_eq!(
                    house.catalog.current(&provider.name).unwrap().digest(),
                    before
                );
            }
            house.put("probe-1.0.0.wasm", &versions[swap % versions.len()]);
            swapped +=
                usize::from(house.catalog.current(&provider.name).unwrap().digest() != before);
            let reached = calls.load(Ordering::Relaxed) + 250;
            while calls.load(Ordering::Relaxed) < reached {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(swapped, SWAPS);
    });
    assert!(calls.load(Ordering::Relaxed) >= 250 * SWAPS);
}
