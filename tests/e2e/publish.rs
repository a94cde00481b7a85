//! From an author's folder through a registry into a host that demands
//! signatures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use countersign_tests::{DockerRegistry, Host, HostOptions, REGISTRY_PASSWORD, REGISTRY_USER, Web};
use reqwest::Method;
use serde_json::{Value, json};

/// An author's folder: a component, and a key of acme's.
struct Author {
    folder: tempfile::TempDir,
    host: Host,
}

impl Author {
    /// Also starts a host that trusts nobody yet, with nothing in its catalog.
    async fn new() -> Result<Self> {
        let mut host = Host::start(&HostOptions {
            presets: vec![],
            ..HostOptions::default()
        })
        .await?;
        host.configure(|config| {
            config["presets"]["signatures"] = "require".into();
        })?;
        host.stop().await?;
        host.serve().await?;
        let folder = tempfile::tempdir()?;
        let source = host.install("generic")?;
        let own = folder.path().join(source.file_name().context("a name")?);
        fs::rename(&source, &own).or_else(|_| {
            fs::copy(&source, &own)?;
            fs::remove_file(&source)
        })?;
        let this = Self { folder, host };
        let dir = this.path("").display().to_string();
        this.good(&["preset", "keygen", "acme", "--dir", &dir])
            .await?;
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn component(&self) -> Result<String> {
        let mut found = fs::read_dir(self.folder.path())?
            .filter_map(|entry| Some(entry.ok()?.path().display().to_string()))
            .filter(|path| path.ends_with(".wasm"));
        found.next().context("there is no component")
    }

    /// A verb, in an environment without anybody's docker configuration.
    async fn run(&self, arguments: &[&str], input: &str) -> Result<(i32, String, String)> {
        let docker = self.path("docker").display().to_string();
        let environment = [
            ("DOCKER_CONFIG", docker.as_str()),
            ("COUNTERSIGN_TOKEN", self.host.admin.token.as_str()),
        ];
        self.host.cli_with(&environment, arguments, input).await
    }

    /// One that must succeed, as JSON.
    async fn good(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["--output", "json"], arguments].concat();
        let (code, out, error) = self.run(&arguments, "").await?;
        ensure!(code == 0, "{arguments:?}: {error}");
        Ok(serde_json::from_str(&out)?)
    }

    /// One that must fail, with what it says.
    async fn refused(&self, arguments: &[&str], input: &str) -> Result<String> {
        let (code, out, error) = self.run(arguments, input).await?;
        ensure!(code == 1, "{arguments:?}: {code} {out} {error}");
        Ok(error)
    }

    async fn sign(&self) -> Result<Value> {
        let key = self.path("acme.key").display().to_string();
        self.good(&["preset", "sign", &self.component()?, "--key", &key])
            .await
    }

    async fn publish(&self, registry: &DockerRegistry) -> Result<String> {
        let to = format!("{}/presets/generic", registry.host);
        let done = self
            .good(&["preset", "publish", &self.component()?, &to, "--plain-http"])
            .await?;
        Ok(done["reference"]
            .as_str()
            .context("a reference")?
            .to_owned())
    }

    fn files(&self, dir: &Path) -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(dir)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_preset_goes_through_a_registry_into_a_host_that_demands_signatures() -> Result<()>
{
    let author = Author::new().await?;
    let registry = DockerRegistry::start(false).await?;
    let component = author.component()?;
    let to = format!("{}/presets/generic", registry.host);
    let unsigned = author
        .refused(&["preset", "publish", &component, &to, "--plain-http"], "")
        .await?;
    assert!(unsigned.contains("countersign preset sign"), "{unsigned}");
    let signed = author.sign().await?;
    let key = signed["items"][0]["key"]
        .as_str()
        .context("a key")?
        .to_owned();
    let reference = author.publish(&registry).await?;
    assert_eq!(reference, format!("{to}:0.1.0"));
    // Again is no change.
    let again = author
        .good(&["preset", "publish", &component, &to, "--plain-http"])
        .await?;
    assert_eq!(again["was_there"], true);

    // Into the host's own catalog, which refuses it until acme is trusted.
    let pulled = author
        .good(&["preset", "pull", &reference, "--plain-http"])
        .await?;
    let pulled = &pulled["items"][0];
    assert_eq!(pulled["publisher"], "acme");
    assert_eq!(pulled["may_be_used"], false);
    assert!(
        pulled["note"]
            .as_str()
            .is_some_and(|n| n.contains("countersign preset trust acme --key")),
        "{pulled}"
    );
    assert_eq!(
        author.files(&author.host.catalog())?,
        [
            "generic-0.1.0.wasm",
            "generic-0.1.0.wasm.origin",
            "generic-0.1.0.wasm.sig"
        ]
    );
    author
        .host
        .audited(|event| {
            event["action"] == "preset.refused"
                && event["detail"]
                    .as_str()
                    .is_some_and(|d| d.contains("trusts no publisher"))
        })
        .await?;
    let enabling = author.refused(&["preset", "enable", "generic"], "").await?;
    assert!(
        enabling.contains("countersign preset trust acme"),
        "{enabling}"
    );

    let public = author.path("acme.pub").display().to_string();
    author
        .good(&["preset", "trust", &public, "--presets", "generic"])
        .await?;
    // Without a restart.
    author
        .host
        .audited(|event| event["action"] == "preset.trust")
        .await?;
    let loaded = |event: &Value| {
        event["action"] == "preset.loaded"
            && event["detail"].as_str().is_some_and(|d| d.contains("acme"))
    };
    author.host.audited(loaded).await?;
    let preset = author
        .host
        .must(Method::GET, "/presets/generic", None)
        .await?;
    assert_eq!(preset["state"], "loaded", "{preset}");
    assert_eq!(preset["origin"]["signature"], "trusted");
    assert_eq!(preset["origin"]["publisher"], "acme");
    assert_eq!(preset["origin"]["key"], key);
    assert_eq!(preset["origin"]["pulled_from"], reference);
    let (_, list, _) = author.run(&["preset", "list"], "").await?;
    assert!(
        list.contains("SIGNED BY") && list.contains("acme"),
        "{list}"
    );
    author
        .host
        .must(
            Method::PATCH,
            "/presets/generic",
            Some(json!({"enabled": true})),
        )
        .await?;
    let told = format!("signed by acme with {key}");
    author
        .host
        .audited(|event| {
            event["action"] == "preset.enable"
                && event["detail"].as_str().is_some_and(|d| d.contains(&told))
        })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_registry_has_the_layout_that_wkg_reads() -> Result<()> {
    let author = Author::new().await?;
    let registry = DockerRegistry::start(false).await?;
    author.sign().await?;
    author.publish(&registry).await?;
    let get = |tail: String| {
        let url = format!("http://{}/v2/presets/generic/{tail}", registry.host);
        async move {
            let answer = Web::new()?
                .request(Method::GET, &url)
                .header("accept", "application/vnd.oci.image.manifest.v1+json")
                .send()
                .await?;
            ensure!(answer.status() == 200, "{url}: {}", answer.status());
            Ok(answer.bytes().await?.to_vec())
        }
    };
    let manifest: Value = serde_json::from_slice(&get("manifests/0.1.0".into()).await?)?;
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    let layers = manifest["layers"].as_array().context("layers")?;
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0]["mediaType"], "application/wasm");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let blob = |descriptor: &Value| get(format!("blobs/{}", text(&descriptor["digest"])));
    assert_eq!(blob(&layers[0]).await?, fs::read(author.component()?)?);
    let config: Value = serde_json::from_slice(&blob(&manifest["config"]).await?)?;
    assert_eq!(config["architecture"], "wasm");
    assert_eq!(config["os"], "wasip2");
    assert_eq!(config["layerDigests"], json!([layers[0]["digest"]]));
    let exports = config["component"]["exports"]
        .as_array()
        .context("exports")?;
    assert!(
        exports
            .iter()
            .any(|e| text(e) == "countersign:preset/provider@0.1.0"),
        "{config}"
    );
    assert!(config["component"]["imports"].is_array());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_in_the_registry_does_not_arrive() -> Result<()> {
    let author = Author::new().await?;
    let registry = DockerRegistry::start(false).await?;
    let signed = author.sign().await?;
    let digest = signed["items"][0]["manifest"]["digest"]
        .as_str()
        .context("a digest")?
        .to_owned();
    let reference = author.publish(&registry).await?;
    let into = author.path("into").display().to_string();
    let pull = |from: String| {
        let (author, into) = (&author, into.clone());
        async move {
            author
                .refused(
                    &["preset", "pull", &from, "--plain-http", "--dir", &into],
                    "",
                )
                .await
        }
    };
    let blob = registry.blob(&digest);
    let good = fs::read(&blob)?;
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&blob, &bad)?;
    let error = pull(reference.clone()).await?;
    assert!(error.contains("changed it. Nothing was kept"), "{error}");
    assert_eq!(author.files(&author.path("into"))?, Vec::<String>::new());
    fs::write(&blob, &good)?;

    let nowhere = pull(format!("{}/presets/generic:9.9.9", registry.host)).await?;
    assert!(
        nowhere.contains("does not exist in the registry"),
        "{nowhere}"
    );
    let other = format!("{reference}@sha256:{}", "0".repeat(64));
    let error = pull(other).await?;
    assert!(error.contains("does not exist in the registry"), "{error}");

    // The same tag with other content is the author's word to replace.
    let component = author.component()?;
    let key = author.path("acme.key").display().to_string();
    author
        .good(&[
            "preset",
            "sign",
            &component,
            "--key",
            &key,
            "--created",
            "2027-01-01T00:00:00Z",
        ])
        .await?;
    let to = format!("{}/presets/generic", registry.host);
    let publish = ["preset", "publish", &component, &to, "--plain-http"];
    let error = author.refused(&publish, "").await?;
    assert!(
        error.contains("exists already with other content"),
        "{error}"
    );
    author
        .good(&[&publish[..], &["--replace"]].concat())
        .await?;
    author
        .good(&["preset", "pull", &reference, "--plain-http", "--dir", &into])
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_demands_a_sign_in_gets_one() -> Result<()> {
    let author = Author::new().await?;
    let registry = DockerRegistry::start(true).await?;
    author.sign().await?;
    let component = author.component()?;
    let to = format!("{}/presets/generic", registry.host);
    let publish = ["preset", "publish", &component, &to, "--plain-http"];
    let nobody = author.refused(&publish, "").await?;
    assert!(
        nobody.contains("demands a sign-in. Sign in with `docker login"),
        "{nobody}"
    );
    let with = [&publish[..], &["--user", REGISTRY_USER, "--password-stdin"]].concat();
    let wrong = author.refused(&with, "battery staple").await?;
    assert!(
        wrong.contains("does not accept the one it was given"),
        "{wrong}"
    );
    assert!(!wrong.contains("battery"), "{wrong}");
    let (code, _, error) = author.run(&with, REGISTRY_PASSWORD).await?;
    assert_eq!(code, 0, "{error}");

    // What `docker login` leaves.
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD
        .encode(format!("{REGISTRY_USER}:{REGISTRY_PASSWORD}"));
    fs::create_dir_all(author.path("docker"))?;
    let config = json!({"auths": {registry.host.as_str(): {"auth": pair}}});
    fs::write(author.path("docker/config.json"), config.to_string())?;
    let into = author.path("into").display().to_string();
    let reference = format!("{to}:0.1.0");
    author
        .good(&["preset", "pull", &reference, "--plain-http", "--dir", &into])
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_folder_is_published_to_and_pulled_from() -> Result<()> {
    let author = Author::new().await?;
    author.sign().await?;
    let component = author.component()?;
    let shelf = author.path("shelf").display().to_string();
    author
        .good(&["preset", "publish", &component, &format!("{shelf}/")])
        .await?;
    let into = author.path("into").display().to_string();
    let pulled = author
        .good(&["preset", "pull", &shelf, "--dir", &into])
        .await?;
    assert_eq!(pulled["total_size"], 1);
    assert_eq!(
        author.files(&author.path("into"))?,
        [
            "generic-0.1.0.wasm",
            "generic-0.1.0.wasm.origin",
            "generic-0.1.0.wasm.sig"
        ]
    );
    // A component that was changed on the shelf stays there.
    let there = author.path("shelf/generic-0.1.0.wasm");
    let mut bytes = fs::read(&there)?;
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    fs::write(&there, bytes)?;
    let error = author
        .refused(&["preset", "pull", &shelf, "--dir", &into], "")
        .await?;
    assert!(error.contains("was changed after it was signed"), "{error}");
    Ok(())
}
