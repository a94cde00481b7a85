//! The vendor's side: its authorization server and its MCP server.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::process::{self, Log, repository};
use crate::web::Web;

/// A counterpart that serves: what it said when it was ready, and its control
/// endpoint.
pub struct Side {
    facts: Value,
    web: Web,
    _child: Child,
    log: Log,
}

impl Side {
    /// Runs a program of `tests/counterparts`.
    ///
    /// # Errors
    /// If it does not become ready.
    pub(crate) async fn counterpart(
        program: &str,
        arguments: &[String],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = repository().join("tests/counterparts");
        let node = folder.join("node_modules/.bin/node");
        anyhow::ensure!(
            node.exists(),
            "the counterparts are not installed: run `cargo xtask setup`"
        );
        let mut command = Command::new(node);
        command.arg(program).args(arguments).current_dir(folder);
        Self::start(command, environment).await
    }

    /// Runs a program that says when it is ready as the counterparts do.
    pub(crate) async fn start(mut command: Command, environment: &[(&str, &str)]) -> Result<Self> {
        command
            .env("COUNTERPART_STDIN", "pipe")
            .envs(environment.iter().copied());
        let (mut child, log) = process::spawn(&mut command)?;
        let line = log.wait_for("\"ready\":true", &mut child).await?;
        Ok(Self {
            facts: serde_json::from_str(&line)?,
            web: Web::new()?,
            _child: child,
            log,
        })
    }

    /// A text of the ready line; empty if there is none.
    pub fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap_or_default()
    }

    /// What it wrote.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Turns switches (`tests/counterparts/README.md` has them).
    ///
    /// # Errors
    /// If it refuses.
    pub async fn control(&self, order: Value) -> Result<Value> {
        let answer = self.web.post_json(self.fact("control"), &order).await?;
        anyhow::ensure!(answer.status == 200, "{order}: {}", answer.text);
        Ok(answer.json())
    }

    /// Looks at `/_control{what}`.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn look(&self, what: &str) -> Result<Value> {
        let answer = self
            .web
            .get(&format!("{}{what}", self.fact("control")))
            .await?;
        Ok(answer.json())
    }
}

/// The vendor's authorization server.
pub struct Provider(pub Side);

impl Provider {
    /// Starts one that knows these redirect URIs.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start(redirect_uris: &[String], flags: &[&str]) -> Result<Self> {
        let mut arguments: Vec<String> = flags.iter().map(ToString::to_string).collect();
        for uri in redirect_uris {
            arguments.extend(["--redirect-uri".into(), uri.clone()]);
        }
        Side::counterpart("authorization-server/server.mjs", &arguments, &[])
            .await
            .context("the authorization server")
            .map(Self)
    }

    /// Everything it ever handed out that must stay secret, by kind.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn secrets(&self) -> Result<Vec<(String, String)>> {
        let tokens = self.0.look("/tokens").await?;
        Ok(tokens["tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|token| {
                Some((
                    token["kind"].as_str()?.to_owned(),
                    token["value"].as_str()?.to_owned(),
                ))
            })
            .collect())
    }

    /// Token requests so far with this grant type.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn token_requests(&self, grant_type: &str) -> Result<u64> {
        let state = self.0.look("").await?;
        Ok(state["token_requests"][grant_type].as_u64().unwrap_or(0))
    }

    /// Lets the token endpoint fail so often (-1: until told otherwise).
    ///
    /// # Errors
    /// If it refuses.
    pub async fn fail_tokens(&self, mode: &str, times: i64, grant_type: &str) -> Result<()> {
        let fault = json!({ "mode": mode, "times": times, "grant_type": grant_type });
        self.0.control(json!({ "token_fault": fault })).await?;
        Ok(())
    }
}

/// The vendor's MCP server.
pub struct Upstream(pub Side);

impl Upstream {
    /// Starts the TypeScript one, protected by the provider unless `flags`
    /// say `open`.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start(provider: &Provider, flags: &[&str]) -> Result<Self> {
        Self::signed(provider, flags, None).await
    }

    /// The same, and it wants each request signed (`tests/counterparts/README.md`
    /// says how `signatures` looks).
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn signed(
        provider: &Provider,
        flags: &[&str],
        signatures: Option<&Value>,
    ) -> Result<Self> {
        let mut arguments: Vec<String> = Vec::new();
        if !flags.contains(&"open") {
            arguments.extend([
                "--introspection".into(),
                provider.0.fact("introspection_endpoint").into(),
            ]);
        }
        arguments.extend(
            flags
                .iter()
                .filter(|flag| **flag != "open")
                .map(ToString::to_string),
        );
        let secret = provider.0.fact("introspection_client_secret");
        let signatures = signatures.map(ToString::to_string);
        let mut environment = vec![("INTROSPECTION_CLIENT_SECRET", secret)];
        environment.extend(signatures.as_deref().map(|s| ("SIGNATURES", s)));
        Side::counterpart("upstream/server.mjs", &arguments, &environment)
            .await
            .context("the MCP server")
            .map(Self)
    }

    /// Starts `examples/notes`, which is built on rmcp.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn example(provider: &Provider) -> Result<Self> {
        let mut command = Command::new(process::built("example-notes")?);
        command
            .args(["--issuer", provider.0.fact("issuer")])
            .args(["--introspection", provider.0.fact("introspection_endpoint")]);
        let secret = provider.0.fact("introspection_client_secret");
        Side::start(command, &[("INTROSPECTION_CLIENT_SECRET", secret)])
            .await
            .context("the example server")
            .map(Self)
    }

    /// Its endpoint.
    pub fn url(&self) -> &str {
        self.0.fact("url")
    }

    /// Lets it fail so often (-1: until told otherwise). `fault` has `mode`
    /// and what goes with it.
    ///
    /// # Errors
    /// If it refuses.
    pub async fn fail(&self, fault: Value) -> Result<()> {
        self.0.control(json!({ "fault": fault })).await?;
        Ok(())
    }

    /// What it was sent, oldest first.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn requests(&self) -> Result<Vec<Value>> {
        let seen = self.0.look("/requests").await?;
        let list = seen.as_array().or_else(|| seen["requests"].as_array());
        Ok(list.cloned().unwrap_or_default())
    }

    /// How often the tool was called.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn calls_of(&self, tool: &str) -> Result<usize> {
        let requests = self.requests().await?;
        Ok(requests
            .iter()
            .filter(|seen| seen["method"] == "tools/call" && seen["name"] == tool)
            .count())
    }
}
