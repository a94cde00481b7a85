//! The guide for authors, word for word: from an empty folder to presets that
//! an administrator enables (docs/provider-author.md).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use countersign_tests::{DockerRegistry, Host, HostOptions, target_folder};
use serde_json::{Value, json};

/// Somebody with the program and a folder, and a host whose administrator he
/// does not know.
struct Evening {
    folder: tempfile::TempDir,
    host: Host,
}

impl Evening {
    async fn begin() -> Result<Self> {
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
        Ok(Self {
            folder: tempfile::tempdir()?,
            host,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A verb that ends well; what it printed.
    async fn run(&self, line: &str) -> Result<String> {
        self.run_with(line, "").await
    }

    async fn run_with(&self, line: &str, input: &str) -> Result<String> {
        // What presets are built of is compiled once for all runs.
        let target = target_folder().join("authors").display().to_string();
        let docker = self.path("docker").display().to_string();
        let environment = [
            ("CARGO_TARGET_DIR", target.as_str()),
            ("DOCKER_CONFIG", docker.as_str()),
            ("COUNTERSIGN_TOKEN", self.host.admin.token.as_str()),
        ];
        let words: Vec<&str> = line.split_whitespace().collect();
        let (code, out, error) = self.host.cli_with(&environment, &words, input).await?;
        ensure!(code == 0, "countersign {line}\n{out}\n{error}");
        Ok(out)
    }

    /// From nothing to a published component.
    async fn author(&self, name: &str, template: &str, registry: &DockerRegistry) -> Result<()> {
        let here = self.folder.path().display();
        let made = self
            .run(&format!(
                "preset new {name} --template {template} --dir {here}"
            ))
            .await?;
        ensure!(made.contains("countersign preset test"), "{made}");
        let project = self.path(name);
        let project = project.display();
        let report = self.run(&format!("preset test {project}")).await?;
        ensure!(!report.contains('✗'), "{report}");
        let bench = self.run(&format!("preset bench {project}")).await?;
        ensure!(bench.contains("fresh sandbox"), "{bench}");

        let component = format!("{project}/dist/{name}-0.1.0.wasm");
        ensure!(Path::new(&component).is_file(), "{component} is not built");
        let shown = self.run(&format!("preset inspect {component}")).await?;
        ensure!(shown.contains("audience host "), "{shown}");
        self.run(&format!("preset sign {component} --key {here}/acme.key"))
            .await?;
        let to = format!("{}/presets/{name}", registry.host);
        self.run(&format!("preset publish {component} {to} --plain-http"))
            .await?;
        Ok(())
    }

    /// From the registry to a provider that is served.
    async fn administrator(&self, name: &str, registry: &DockerRegistry) -> Result<()> {
        let from = format!("{}/presets/{name}:0.1.0", registry.host);
        let pulled = self
            .run(&format!("preset pull {from} --plain-http"))
            .await?;
        ensure!(pulled.contains("configuration trusts it"), "{pulled}");
        let file = json!(format!("file:{name}-0.1.0.wasm"));
        let is_loaded =
            |event: &Value| event["action"] == "preset.loaded" && event["resource"] == file;
        self.host.audited(is_loaded).await?;
        let shown = self.run(&format!("preset inspect {name}")).await?;
        ensure!(shown.contains("acme"), "{shown}");
        self.run(&format!("preset enable {name}")).await?;
        self.run_with("secret set AUTHOR_SECRET", "hush-hush")
            .await?;
        self.run(&format!(
            "provider create --name {name} --preset {name} --client-id id --client-secret-ref AUTHOR_SECRET"
        ))
        .await?;
        let listed = self.run("--output json preset list").await?;
        let list: Value = serde_json::from_str(&listed)?;
        let found = list["items"].as_array().context("no items")?;
        let own = found.iter().find(|item| item["name"] == name);
        let own = own.with_context(|| format!("{name} is not in {listed}"))?;
        ensure!(own["serving"] == json!([name]), "{own}");
        ensure!(own["origin"]["publisher"] == "acme", "{own}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_preset_of_either_template_ends_signed_published_pulled_and_enabled() -> Result<()> {
    let evening = Evening::begin().await?;
    let registry = DockerRegistry::start(false).await?;
    let here = evening.folder.path().display();
    evening
        .run(&format!("preset keygen acme --dir {here}"))
        .await?;
    let templates = [("acme", "data"), ("initech", "code")];
    for (name, template) in templates {
        evening.author(name, template, &registry).await?;
    }
    let said = evening
        .run(&format!(
            "preset trust {here}/acme.pub --presets acme,initech"
        ))
        .await?;
    ensure!(said.contains("within seconds"), "{said}");
    let is_trusted = |event: &Value| event["action"] == "preset.trust";
    evening.host.audited(is_trusted).await?;
    for (name, _) in templates {
        evening.administrator(name, &registry).await?;
    }
    Ok(())
}
