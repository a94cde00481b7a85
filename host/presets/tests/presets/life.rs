//! What administrators decide about versions, and what the catalog does by
//! itself when one fails.

use std::time::Duration;

use countersign_core::names::{Digest, UserName};
use countersign_core::preset::{Preset, PresetFault, Verdict};
use countersign_core::provider::Provider;
use countersign_presets::{Catalog, CatalogEvent, FaultReport, FileState, Terms};
use serde_json::json;

use crate::fixture::{Body, Fixture, deny, description};
use crate::house::{House, evaluate, provider, small_config};

fn saying(word: &str) -> Fixture {
    Fixture::evaluating(Body::Answer(deny(word)))
}

/// Fails on tools/call, whoever asks and whatever for. (`tools/list` and
/// `tools/call` are as long as each other: the sixth letter tells them apart.)
fn failing_on_calls() -> Fixture {
    Fixture::evaluating(Body::Wat(
        "(if (i32.eq (i32.load8_u (i32.add (i32.load (local.get 0)) (i32.const 6))) (i32.const 99)) (then unreachable)) i32.const $0",
        vec![deny("two")],
    ))
}

fn word(preset: &dyn Preset) -> String {
    match evaluate(preset).unwrap() {
        Verdict::Deny { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

fn serving(house: &House) -> Option<String> {
    let preset = house.catalog.current(&provider().name);
    preset.map(|preset| word(&*preset))
}

fn updating() -> Provider {
    Provider {
        auto_update: true,
        registration: None,
        ..provider()
    }
}

/// Two versions side by side, both approved; the terms with both approvals.
fn two(house: &House, second: &Fixture) -> Terms {
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    house.put("probe-1.1.0.wasm", &second.bytes());
    let approve = |version: &str| {
        let proposal = house.catalog.propose(&updating(), Some(version)).unwrap();
        proposal.approval
    };
    let terms = Terms {
        approvals: vec![approve("1.0.0"), approve("1.1.0")],
        ..Terms::default()
    };
    house.catalog.bind(&updating(), terms.clone()).unwrap();
    terms
}

#[test]
fn a_pin_a_floor_and_a_revocation_decide_which_version_serves() {
    let house = House::empty();
    let terms = two(&house, &saying("two"));
    let digest = |version: &str| {
        let proposal = house.catalog.propose(&updating(), Some(version)).unwrap();
        proposal.approval.digest
    };
    let served = |change: Terms| {
        let _ = house.catalog.bind(&updating(), change);
        serving(&house)
    };
    let with = |change: &dyn Fn(&mut Terms)| {
        let mut terms = terms.clone();
        change(&mut terms);
        terms
    };
    assert_eq!(served(terms.clone()).as_deref(), Some("two"));
    assert_eq!(
        served(with(&|t| t.pinned = Some("1.0.0".into()))).as_deref(),
        Some("one")
    );
    assert_eq!(
        served(with(&|t| t.revoked = [digest("1.1.0")].into())).as_deref(),
        Some("one")
    );
    assert_eq!(
        served(with(&|t| t.set_aside = [digest("1.1.0")].into())).as_deref(),
        Some("one")
    );
    assert_eq!(
        served(with(&|t| t.floor = Some("1.1.0".into()))).as_deref(),
        Some("two")
    );
    // Nothing that is forbidden goes on, even if it is what serves.
    assert_eq!(served(with(&|t| t.floor = Some("1.2.0".into()))), None);
    let status = house.catalog.binding(&provider().name).unwrap();
    let reasons: Vec<String> = status.passed_over.iter().map(ToString::to_string).collect();
    assert_eq!(
        reasons,
        [
            "probe-1.1.0.wasm: it is older than the floor 1.2.0",
            "probe-1.0.0.wasm: it is older than the floor 1.2.0"
        ]
    );
    assert_eq!(served(with(&|t| t.pinned = Some("9.0".into()))), None);
    assert_eq!(served(terms.clone()).as_deref(), Some("two"));
}

fn report(digest: Digest, user: &str) -> FaultReport {
    FaultReport {
        provider: provider().name,
        digest,
        user: UserName::parse(user).unwrap(),
        tool: Some("anything".into()),
        hook: None,
        fault: PresetFault::Trap("unreachable".into()),
    }
}

fn current(catalog: &Catalog) -> Digest {
    catalog.current(&provider().name).unwrap().digest()
}

#[test]
fn a_version_that_fails_for_several_users_whatever_they_ask_is_taken_back() {
    let house = House::empty();
    two(&house, &failing_on_calls());
    let bad = current(&house.catalog);
    let mut events = house.catalog.subscribe();
    assert!(!house.catalog.suspect(&report(bad, "ada")));
    // The same user again says nothing new.
    assert!(!house.catalog.suspect(&report(bad, "ada")));
    assert!(!house.catalog.suspect(&report(bad, "bob")));
    assert_eq!(current(&house.catalog), bad);
    assert!(house.catalog.suspect(&report(bad, "eve")));
    assert_eq!(serving(&house).as_deref(), Some("one"));
    let told = std::iter::from_fn(|| events.try_recv().ok()).find_map(|e| match e {
        CatalogEvent::RolledBack {
            from,
            version,
            reason,
            ..
        } => Some((from, version, reason)),
        _ => None,
    });
    let (from, version, reason) = told.expect("nobody was told");
    assert_eq!((from, version.as_str()), (bad, "1.1.0"));
    assert!(
        reason.contains("crashed") && reason.contains("1.0.0"),
        "{reason}"
    );
    let status = house.catalog.binding(&provider().name).unwrap();
    assert!(
        status.passed_over[0].reason.contains("preset unpin"),
        "{status:?}"
    );
    // Looking at the folder again does not try it again.
    house.put("other-1.0.0.wasm", b"rubbish");
    assert_eq!(serving(&house).as_deref(), Some("one"));
}

#[test]
fn faults_that_the_host_cannot_repeat_take_nothing_back() {
    let house = House::empty();
    // An agent that makes a good version fail by what it sends.
    two(&house, &saying("two"));
    let good = current(&house.catalog);
    for user in ["ada", "bob", "eve", "joe", "sue"] {
        assert!(!house.catalog.suspect(&report(good, user)));
    }
    assert_eq!(serving(&house).as_deref(), Some("two"));
}

#[test]
fn nothing_goes_back_below_a_floor_or_to_a_revoked_digest_or_from_a_pin() {
    let users = ["ada", "bob", "eve", "joe"];
    type Change = fn(&mut Terms, Digest);
    let changes: [(&str, Change); 3] = [
        ("floor", |t, _| t.floor = Some("1.1.0".into())),
        ("revoked", |t, old| t.revoked = [old].into()),
        ("pinned", |t, _| t.pinned = Some("1.1.0".into())),
    ];
    for (name, change) in changes {
        let house = House::empty();
        let mut terms = two(&house, &failing_on_calls());
        let old = terms.approvals[0].digest;
        change(&mut terms, old);
        house.catalog.bind(&updating(), terms).unwrap();
        let bad = current(&house.catalog);
        for user in users {
            assert!(!house.catalog.suspect(&report(bad, user)), "{name}");
        }
        assert_eq!(current(&house.catalog), bad, "{name}");
    }
}

#[test]
fn the_compiled_code_of_an_old_version_goes_with_the_last_call_on_it() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    let in_flight = house.approve(&updating()).unwrap();
    house.put("probe-1.0.0.wasm", &saying("two").bytes());
    assert_eq!(
        word(&*in_flight),
        "one",
        "a call finishes on what it began on"
    );
    let old = in_flight.digest();
    let state = |digest: Digest| {
        let list = house.catalog.list();
        let found = list.into_iter().find(|e| e.digest == Some(digest));
        found.map(|e| e.state)
    };
    assert_eq!(state(old), Some(FileState::Draining));
    drop(in_flight);
    assert_eq!(state(old), None, "nobody holds it any more");
    // What serves on without a file is shown as such.
    let now = current(&house.catalog);
    std::fs::remove_file(house.path("probe-1.0.0.wasm")).unwrap();
    house.catalog.rescan();
    assert_eq!(state(now), Some(FileState::Kept));
}

#[test]
fn what_a_version_reads_out_of_answers_is_asked_for() {
    let house = House::empty();
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    house.approve(&updating()).unwrap();
    let mut curious = description();
    curious["wants"] = json!(["arguments"]);
    curious["metadata"] = json!([{
        "name": "bot", "pointer": "/authed_user/bot_key", "kind": "identifier",
    }]);
    house.put("probe-1.1.0.wasm", &Fixture::described(curious).bytes());
    assert_eq!(serving(&house).as_deref(), Some("one"));
    let pending = house.catalog.pending(&provider().name).unwrap();
    assert_eq!(
        pending.difference.added,
        [
            "sees arguments of every call",
            "sees token answer at /authed_user/bot_key as identifier (fact bot)"
        ]
    );
}

/// Waits until the watcher has seen it; it looks every two seconds at least.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{what}");
}

#[test]
fn the_watcher_takes_files_however_they_are_written() {
    let house = House::with_config(small_config());
    house.put("probe-1.0.0.wasm", &saying("one").bytes());
    house.approve(&updating()).unwrap();
    let file = house.path("probe-1.0.0.wasm");
    let mut events = house.catalog.subscribe();

    // As slow network copies do: piece by piece, in place.
    let two = saying("two").bytes();
    let mut written = Vec::new();
    for piece in two.chunks(two.len() / 4 + 1) {
        written.extend_from_slice(piece);
        std::fs::write(&file, &written).unwrap();
        std::thread::sleep(Duration::from_millis(150));
    }
    eventually("written in pieces", || {
        serving(&house).as_deref() == Some("two")
    });
    let refused = std::iter::from_fn(|| events.try_recv().ok())
        .any(|e| matches!(e, CatalogEvent::Refused { .. }));
    assert!(!refused, "a file that was still being written was refused");

    // As editors do: another file, renamed over it; a backup beside it.
    std::fs::write(house.path("probe-1.0.0.wasm~"), &written).unwrap();
    std::fs::write(house.path("4913"), saying("three").bytes()).unwrap();
    std::fs::rename(house.path("4913"), &file).unwrap();
    eventually("renamed over", || {
        serving(&house).as_deref() == Some("three")
    });

    // As mounted volumes do: a link that points elsewhere from now on.
    let volume = tempfile::tempdir().unwrap();
    for (name, word) in [("a", "four"), ("b", "five")] {
        std::fs::write(volume.path().join(name), saying(word).bytes()).unwrap();
    }
    for (name, word) in [("a", "four"), ("b", "five")] {
        let link = house.path(".link");
        std::os::unix::fs::symlink(volume.path().join(name), &link).unwrap();
        std::fs::rename(&link, &file).unwrap();
        eventually(word, || serving(&house).as_deref() == Some(word));
    }

    // As disks do that are gone for a while: the folder cannot be listed, and
    // what is loaded goes on; then it is back, with something new.
    let away = house.dir.path().with_extension("away");
    std::fs::rename(house.dir.path(), &away).unwrap();
    house.catalog.rescan();
    assert_eq!(serving(&house).as_deref(), Some("five"));
    std::fs::remove_file(away.join("probe-1.0.0.wasm")).unwrap();
    std::fs::write(away.join("probe-1.0.0.wasm"), saying("six").bytes()).unwrap();
    std::fs::rename(&away, house.dir.path()).unwrap();
    eventually("back again", || serving(&house).as_deref() == Some("six"));

    // One that stays broken is refused in the end, and the last good one goes on.
    std::fs::write(&file, &written[..written.len() / 2]).unwrap();
    eventually("refused", || {
        let list = house.catalog.list();
        list.iter()
            .any(|e| matches!(e.state, FileState::Refused { .. }))
    });
    assert_eq!(serving(&house).as_deref(), Some("six"));
}
