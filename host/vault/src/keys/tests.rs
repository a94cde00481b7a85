//! Where keys come from, and what is refused.

use std::os::unix::fs::PermissionsExt as _;

use countersign_core::ports::fakes::CountingRandom;

use super::*;

fn key(seed: u8) -> [u8; 32] {
    std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(seed) | 0x80)
}

async fn load(source: KeySource) -> Result<KekId, String> {
    KeyRing::load(&source)
        .await
        .map(|r| r.current_id())
        .map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_generated_file_gives_the_same_key_again_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let random = CountingRandom::default();
    KeyRing::generate_file(&path, &random).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let id = load(KeySource::File(path.clone())).await.unwrap();
    assert!(KeyRing::generate_file(&path, &random).is_err());
    assert_eq!(load(KeySource::File(path.clone())).await, Ok(id));
    for mode in [0o640, 0o604, 0o666] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = load(KeySource::File(path.clone())).await.unwrap_err();
        assert!(said.contains("chmod 600"), "{said}");
    }
    let said = load(KeySource::File(dir.path().to_owned()))
        .await
        .unwrap_err();
    assert!(said.contains("not a regular file"), "{said}");
    let said = load(KeySource::File(dir.path().join("none")))
        .await
        .unwrap_err();
    assert!(said.contains("countersign init"), "{said}");
}

#[tokio::test]
async fn a_command_is_run_without_a_shell_and_its_failure_is_no_key() {
    let text = STANDARD.encode(key(1));
    let argv = |words: &[&str]| KeySource::Command(words.iter().map(|w| (*w).into()).collect());
    assert_eq!(
        load(argv(&["echo", &text])).await,
        Ok(KeyRing::single(key(1)).current_id())
    );
    for (words, expected) in [
        (vec![], "list is empty"),
        (vec!["false"], "exit status: 1"),
        (vec!["echo", "$HOME"], "not base64"),
        (vec!["true"], "it is empty"),
        (vec!["/nonexistent/kms"], "failed"),
    ] {
        let said = load(argv(&words)).await.unwrap_err();
        assert!(said.contains(expected), "{words:?}: {said}");
    }
}

#[tokio::test]
async fn a_missing_variable_or_credential_is_refused() {
    let said = load(KeySource::Env("COUNTERSIGN_NO_SUCH_KEY".into()))
        .await
        .unwrap_err();
    assert!(said.contains("COUNTERSIGN_NO_SUCH_KEY"), "{said}");
    for name in ["", "../x", "a/b", ".hidden"] {
        assert!(load(KeySource::Systemd(name.into())).await.is_err());
    }
}

#[test]
fn every_written_form_gives_the_same_key() {
    let text = STANDARD.encode(key(1));
    let raw = [RAW, &key(1)[..]].concat();
    for form in [
        text.clone().into_bytes(),
        format!("countersign-key-1\n{text}\n").into_bytes(),
        format!("countersign-key-1 {text}").into_bytes(),
        raw,
    ] {
        assert_eq!(
            KeyRing::parse(&form, &Arc::from("test"))
                .ok()
                .map(|r| r.current_id()),
            Some(KeyRing::single(key(1)).current_id())
        );
    }
    let two = format!("countersign-key-1\n{text}\n{}\n", STANDARD.encode(key(2)));
    let ring = KeyRing::parse(two.as_bytes(), &Arc::from("test"))
        .ok()
        .unwrap();
    assert_eq!(ring.current_id(), KeyRing::single(key(1)).current_id());
    assert!(ring.find(KeyRing::single(key(2)).current_id()).is_some());
}

#[test]
fn what_is_no_random_key_is_refused() {
    for bytes in [
        &b""[..],
        b"countersign-key-1\n",
        b"countersign-key-1 raw\nshort",
        b"correct horse battery staple",
        STANDARD.encode([0; 32]).as_bytes(),
        STANDARD
            .encode(b"correct horse battery staple 123")
            .as_bytes(),
        STANDARD.encode([1; 16]).as_bytes(),
    ] {
        assert!(matches!(
            KeyRing::parse(bytes, &Arc::from("test")),
            Err(KeyError::Malformed(_))
        ));
    }
}

#[test]
fn a_source_is_one_of_four_in_the_configuration() {
    let read = |text: &str| serde_json::from_str::<KeySource>(text).ok();
    assert_eq!(read(r#"{"file":"k"}"#), Some(KeySource::File("k".into())));
    assert_eq!(
        read(r#"{"command":["a","b"]}"#),
        Some(KeySource::Command(vec!["a".into(), "b".into()]))
    );
    assert_eq!(read(r#"{"password":"x"}"#), None);
}
