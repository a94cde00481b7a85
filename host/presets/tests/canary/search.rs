//! Secrets that are recognised however they are written.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Encodings in which a guest or a log could hold a text.
pub fn shapes(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let percent: String = bytes.iter().map(|b| format!("%{b:02X}")).collect();
    let mut all = vec![
        bytes.to_vec(),
        bytes.iter().rev().copied().collect(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        percent.to_lowercase().into_bytes(),
        percent.into_bytes(),
        bytes.iter().flat_map(|b| [*b, 0]).collect(),
        // A piece of it says too much already.
        bytes[..bytes.len() / 2].to_vec(),
        bytes[bytes.len() / 2..].to_vec(),
    ];
    // Base64 of a longer text has it at one of three offsets.
    for offset in 0..3 {
        let text = [&vec![b'.'; offset][..], bytes].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&text).into_bytes();
            // What the neighbours decide is left out.
            let whole = &encoded[(offset * 8).div_ceil(6)..encoded.len() - 2];
            all.push(whole.to_vec());
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Which of the secrets the bytes hold.
pub fn found<'s>(bytes: &[u8], secrets: &[(&'s str, &str)]) -> Vec<&'s str> {
    // By the first two bytes of a shape: hardly any place is looked at twice.
    let mut begins: HashMap<[u8; 2], Vec<(&'s str, Vec<u8>)>> = HashMap::new();
    let mut is_first = [false; 256];
    for (kind, secret) in secrets {
        for shape in shapes(secret) {
            is_first[usize::from(shape[0])] = true;
            begins
                .entry([shape[0], shape[1]])
                .or_default()
                .push((kind, shape));
        }
    }
    let mut found = Vec::new();
    for (at, pair) in bytes.windows(2).enumerate() {
        if !is_first[usize::from(pair[0])] {
            continue;
        }
        for (kind, shape) in begins.get(&[pair[0], pair[1]]).into_iter().flatten() {
            if !found.contains(kind) && bytes[at..].starts_with(shape) {
                found.push(*kind);
            }
        }
    }
    found
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    let secret = "canary-0123456789-token";
    let wrapped = |text: &str| format!("before {text} after").into_bytes();
    for offset in 0..3 {
        let text = format!("{}{secret}!", "x".repeat(offset));
        assert_eq!(
            found(&wrapped(&STANDARD_NO_PAD.encode(text)), &[("it", secret)]),
            ["it"]
        );
    }
    for shape in shapes(secret) {
        assert_eq!(found(&shape, &[("it", secret)]), ["it"]);
    }
    assert!(found(b"canary-0123", &[("it", "another-secret-entirely")]).is_empty());
}
