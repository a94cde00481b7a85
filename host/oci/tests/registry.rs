//! Registries that do not do what they should, on this machine, byte by byte.
#![allow(missing_docs, reason = "a test binary")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use countersign_core::names::Digest;
use countersign_core::time::Timestamp;
use countersign_oci::{
    Artifact, Credentials, Found, OciError, Options, Progress, Reference, Registry, WasmInterfaces,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

type Seen = Arc<Mutex<Vec<String>>>;

/// Answers every request with what `answer` makes of its head.
async fn registry(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let heads = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let mut head = String::from_utf8_lossy(&head).into_owned();
            // A form is looked at with its head; uploads are somebody else's.
            let lower = head.to_lowercase();
            if lower.contains("application/x-www-form-urlencoded") {
                let length = lower.split("content-length: ").nth(1).unwrap_or("0");
                let length = length.lines().next().unwrap_or("0").parse().unwrap_or(0);
                let mut body = vec![0; length];
                let _ = stream.read_exact(&mut body).await;
                head.push_str(&String::from_utf8_lossy(&body));
            }
            heads.lock().unwrap().push(head.clone());
            // The client may have had enough.
            let _ = stream.write_all(&answer(&head)).await;
        }
    });
    (host, seen)
}

fn answered(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut bytes = format!("{head}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

const COMPONENT: &[u8] = b"\0asm a component of some length, to be cut off in the middle";

fn manifest() -> Vec<u8> {
    let config = Digest::of(b"{}");
    let layer = Digest::of(COMPONENT);
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{config}","size":2}},
        "layers":[{{"mediaType":"application/wasm","digest":"{layer}","size":{}}}]}}"#,
        COMPONENT.len()
    )
    .into_bytes()
}

fn open(host: &str, tail: &str, credentials: Credentials) -> Registry {
    let reference = Reference::parse(&format!("{host}/presets/probe{tail}")).unwrap();
    Registry::new(reference, credentials, Options { plain_http: true }).unwrap()
}

fn ada() -> Credentials {
    Credentials::Basic {
        user: "ada".into(),
        password: Zeroizing::new("correct horse".into()),
    }
}

async fn fetched(registry: &Registry, found: &Found) -> (Result<(), OciError>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("part");
    let done = registry.fetch(found, &part, &|_| {}).await;
    (done, std::fs::read(&part).unwrap_or_default())
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let asked = Arc::new(Mutex::new(0_usize));
    let count = Arc::clone(&asked);
    let (host, seen) = registry(move |head| {
        if head.contains("/manifests/") {
            return answered("200 OK", &[], &manifest());
        }
        let mut count = count.lock().unwrap();
        *count += 1;
        let Some((_, range)) = head
            .to_lowercase()
            .split_once("range: bytes=")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
        else {
            // Says how long it is, and ends early.
            let mut whole = answered("200 OK", &[], COMPONENT);
            whole.truncate(whole.len() - 40);
            return whole;
        };
        let from: usize = range.split('-').next().unwrap().parse().unwrap();
        let said = format!("bytes {from}-{}/{}", COMPONENT.len() - 1, COMPONENT.len());
        answered(
            "206 Partial Content",
            &[("Content-Range", &said)],
            &COMPONENT[from..],
        )
    })
    .await;
    let registry = open(&host, ":1", Credentials::Anonymous);
    let found = registry.find().await.unwrap();
    let (done, bytes) = fetched(&registry, &found).await;
    done.unwrap();
    assert_eq!(bytes, COMPONENT);
    assert_eq!(*asked.lock().unwrap(), 2);
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|head| !head.to_lowercase().contains("authorization"))
    );
}

#[tokio::test]
async fn what_is_left_of_an_earlier_try_is_used_or_thrown_away() {
    let (host, seen) = registry(|head| {
        if head.contains("/manifests/") {
            return answered("200 OK", &[], &manifest());
        }
        // Knows no ranges.
        answered("200 OK", &[], COMPONENT)
    })
    .await;
    let registry = open(&host, ":1", Credentials::Anonymous);
    let found = registry.find().await.unwrap();
    for left in [
        &COMPONENT[..10],
        b"something else",
        COMPONENT,
        &COMPONENT.to_ascii_uppercase(),
        &[0; 500],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("part");
        std::fs::write(&part, left).unwrap();
        registry.fetch(&found, &part, &|_| {}).await.unwrap();
        assert_eq!(std::fs::read(&part).unwrap(), COMPONENT);
    }
    let asked = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|h| h.contains("/blobs/"))
        .count();
    assert_eq!(asked, 4, "the whole one needed no download");
}

#[tokio::test]
async fn other_bytes_than_the_digest_says_are_not_kept() {
    for body in [
        COMPONENT.to_ascii_uppercase(),
        [COMPONENT, b"and more"].concat(),
    ] {
        let (host, _) = registry(move |head| {
            if head.contains("/manifests/") {
                return answered("200 OK", &[], &manifest());
            }
            answered("200 OK", &[], &body)
        })
        .await;
        let registry = open(&host, ":1", Credentials::Anonymous);
        let found = registry.find().await.unwrap();
        let (done, bytes) = fetched(&registry, &found).await;
        assert!(
            matches!(
                done,
                Err(OciError::Digest { .. } | OciError::TooLarge { .. })
            ),
            "{done:?}"
        );
        assert!(bytes.is_empty());
    }
}

#[tokio::test]
async fn a_manifest_is_the_one_that_was_asked_for_and_of_bearable_size() {
    let (host, _) = registry(|_| answered("200 OK", &[], &manifest())).await;
    let other = format!("@{}", Digest::of(b"another"));
    let error = open(&host, &other, Credentials::Anonymous)
        .find()
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::Digest { .. }), "{error}");
    let same = format!("@{}", Digest::of(&manifest()));
    open(&host, &same, Credentials::Anonymous)
        .find()
        .await
        .unwrap();

    let (host, _) = registry(|_| answered("200 OK", &[], &vec![b' '; (4 << 20) + 1])).await;
    let error = open(&host, ":1", Credentials::Anonymous)
        .find()
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::TooLarge { .. }), "{error}");

    let large = String::from_utf8(manifest()).unwrap().replace(
        &format!("\"size\":{}", COMPONENT.len()),
        &format!("\"size\":{}", u64::MAX),
    );
    let (host, _) = registry(move |_| answered("200 OK", &[], large.as_bytes())).await;
    let error = open(&host, ":1", Credentials::Anonymous)
        .find()
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_sends_nobody_to_private_places_nor_to_plain_http() {
    for to in [
        "http://127.0.0.1:9/blob",
        "http://example.com/blob",
        "https://127.0.0.1/blob",
        "https://localhost/blob",
        "https://10.0.0.1/blob",
        "https://[::ffff:169.254.169.254]/latest",
        "https://ada:secret@example.com/blob",
        "file:///etc/passwd",
    ] {
        let (host, seen) = registry(move |head| {
            if head.contains("/manifests/") {
                return answered("200 OK", &[], &manifest());
            }
            answered("307 Temporary Redirect", &[("Location", to)], b"")
        })
        .await;
        let registry = open(&host, ":1", ada());
        let found = registry.find().await.unwrap();
        let (done, _) = fetched(&registry, &found).await;
        assert!(
            matches!(done, Err(OciError::Redirect { .. })),
            "{to}: {done:?}"
        );
        assert_eq!(seen.lock().unwrap().len(), 2, "{to}");
    }
    // Round and round on its own host.
    let (host, seen) = registry(|head| {
        if head.contains("/manifests/") {
            return answered("200 OK", &[], &manifest());
        }
        answered("307 Temporary Redirect", &[("Location", "/again")], b"")
    })
    .await;
    let registry = open(&host, ":1", Credentials::Anonymous);
    let found = registry.find().await.unwrap();
    let (done, _) = fetched(&registry, &found).await;
    assert!(matches!(done, Err(OciError::Redirect { .. })), "{done:?}");
    assert_eq!(seen.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn credentials_go_only_where_they_are_demanded_and_only_by_https() {
    // A token server elsewhere, by plain http or at a private address.
    for realm in ["http://auth.example.com/token", "https://192.168.0.1/token"] {
        let (host, seen) = registry(move |_| {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
            answered("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
        })
        .await;
        let error = open(&host, ":1", ada()).find().await.unwrap_err();
        assert!(
            matches!(error, OciError::Redirect { .. }),
            "{realm}: {error}"
        );
        let seen = seen.lock().unwrap();
        assert!(
            seen.iter()
                .all(|head| !head.to_lowercase().contains("authorization")),
            "{realm}"
        );
    }

    // One beside the registry is given them, and its token is used.
    let (host, seen) = registry(|head| {
        let is = |text: &str| head.to_lowercase().contains(&text.to_lowercase());
        let host = head
            .lines()
            .find_map(|l| l.to_lowercase().strip_prefix("host: ").map(str::to_owned))
            .unwrap();
        if is("GET /token?") {
            return match is("authorization: basic YWRhOmNvcnJlY3QgaG9yc2U=") {
                true => answered("200 OK", &[], br#"{"token":"t0ken"}"#),
                false => answered("401 Unauthorized", &[], b""),
            };
        }
        match is("authorization: bearer t0ken") {
            true => answered("200 OK", &[], &manifest()),
            false => {
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                answered("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
            }
        }
    })
    .await;
    open(&host, ":1", ada()).find().await.unwrap();
    let asked = seen.lock().unwrap().join("\n");
    assert!(
        asked.contains("scope=repository%3Apresets%2Fprobe%3Apull&service=s"),
        "{asked}"
    );
    let error = open(&host, ":1", Credentials::Anonymous)
        .find()
        .await
        .unwrap_err();
    assert!(
        matches!(error, OciError::Unauthorized { with: false, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_identity_token_goes_to_the_token_server_alone() {
    let (host, seen) = registry(|head| {
        let host = head
            .lines()
            .find_map(|l| l.to_lowercase().strip_prefix("host: ").map(str::to_owned))
            .unwrap();
        if head.starts_with("POST /token ") {
            let good = head.contains("grant_type=refresh_token")
                && head.contains("refresh_token=id%2Btoken")
                && head.contains("scope=repository%3Apresets%2Fprobe%3Apull")
                && head.contains("service=s");
            return match good {
                true => answered("200 OK", &[], br#"{"access_token":"t0ken"}"#),
                false => answered("401 Unauthorized", &[], b""),
            };
        }
        match head.to_lowercase().contains("authorization: bearer t0ken") {
            true => answered("200 OK", &[], &manifest()),
            false => {
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                answered("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
            }
        }
    })
    .await;
    let identity = Credentials::Identity(Zeroizing::new("id+token".into()));
    open(&host, ":1", identity).find().await.unwrap();
    for head in &*seen.lock().unwrap() {
        let is_token_server = head.starts_with("POST /token ");
        assert_eq!(head.contains("id%2Btoken"), is_token_server, "{head}");
    }
    // A registry that wants a password gets no identity token.
    let (host, seen) = registry(|_| {
        answered(
            "401 Unauthorized",
            &[("WWW-Authenticate", "Basic realm=\"x\"")],
            b"",
        )
    })
    .await;
    let identity = Credentials::Identity(Zeroizing::new("id+token".into()));
    let error = open(&host, ":1", identity).find().await.unwrap_err();
    assert!(
        matches!(error, OciError::Unauthorized { with: true, .. }),
        "{error}"
    );
    assert!(
        !seen.lock().unwrap().concat().contains("token"),
        "it was told"
    );
}

#[tokio::test]
async fn every_answer_has_its_own_sentence() {
    let mut out = String::new();
    for (status, body) in [
        ("401 Unauthorized", ""),
        ("403 Forbidden", ""),
        ("404 Not Found", ""),
        ("429 Too Many Requests", ""),
        (
            "400 Bad Request",
            r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest\u001b[2J invalid"}]}"#,
        ),
        ("503 Service Unavailable", "<html>"),
        ("200 OK", "{}"),
        ("200 OK", "<html>"),
    ] {
        let (host, _) = registry(move |_| answered(status, &[], body.as_bytes())).await;
        for credentials in [Credentials::Anonymous, ada()] {
            let error = open(&host, ":1", credentials).find().await.unwrap_err();
            out.push_str(&format!("{}\n", error.to_string().replace(&host, "HOST")));
        }
    }
    insta::assert_snapshot!(out);
    let reference = Reference::parse("registry.example.com/a:1").unwrap();
    let error = Registry::new(reference, ada(), Options { plain_http: true });
    assert!(matches!(error.err(), Some(OciError::PlainHttp(_))));
}

#[tokio::test]
async fn an_upload_goes_to_no_other_place() {
    let (host, seen) = registry(|head| match head.split(' ').next() {
        Some("POST") => answered(
            "202 Accepted",
            &[("Location", "http://evil.example/upload")],
            b"",
        ),
        _ => answered("404 Not Found", &[], b""),
    })
    .await;
    let artifact = Artifact::new(
        COMPONENT.to_vec(),
        "probe-1.0.0.wasm",
        Timestamp::from_secs(1_800_000_000),
        None,
        WasmInterfaces::default(),
        BTreeMap::new(),
    );
    let error = open(&host, ":1", ada())
        .push(&artifact, false, &(Arc::new(|_| {}) as Progress))
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::Redirect { .. }), "{error}");
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .all(|head| !head.starts_with("PUT"))
    );
}
