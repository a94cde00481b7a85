//! Key pairs for clients that prove themselves by a signature.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::process::repository;

/// The private half in PEM and the public half as a JWK, for this algorithm
/// (RFC 7518 §3.1). Node makes them, as a provider's console would.
///
/// # Errors
/// If Node does not run.
pub async fn key_pair(algorithm: &str) -> Result<(String, Value)> {
    const PROGRAM: &str = "
        const { generateKeyPairSync } = require('node:crypto');
        const alg = process.argv[1];
        const kinds = {
            RS256: ['rsa', { modulusLength: 2048 }], PS256: ['rsa', { modulusLength: 2048 }],
            ES256: ['ec', { namedCurve: 'P-256' }], ES384: ['ec', { namedCurve: 'P-384' }], EdDSA: ['ed25519', {}],
        };
        const { privateKey, publicKey } = generateKeyPairSync(...kinds[alg]);
        const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
        console.log(JSON.stringify({ pem, jwk: { ...publicKey.export({ format: 'jwk' }), use: 'sig', alg } }));
    ";
    let folder = repository().join("tests/counterparts");
    let output = Command::new(folder.join("node_modules/.bin/node"))
        .args(["-e", PROGRAM, algorithm])
        .output()
        .await
        .context("node does not run: `cargo xtask setup` installs it")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let made: Value = serde_json::from_slice(&output.stdout)?;
    let pem = made["pem"].as_str().context("no key came out")?;
    Ok((pem.to_owned(), made["jwk"].clone()))
}
