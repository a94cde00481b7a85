//! Whose word is taken for components, while the host runs: `[presets]` is read
//! again when the configuration has changed, and on SIGHUP. A change that cannot
//! be used changes nothing and is told wherever presets are shown.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_presets::signature::{SignaturePolicy, Trust};
use tokio::signal::unix::Signal;

use crate::config::{Config, ConfigError};
use crate::wiring::App;

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);

/// What is wrong with the configuration as it is written now, if anything.
#[derive(Default)]
pub struct Standing(Mutex<Option<String>>);

impl Standing {
    /// For administrators, in a sentence; none if all is well.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// Changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Self(
            metadata.len(),
            metadata.ino(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        ))
    }
}

/// Reads the configuration again when it has changed and lain still, or when
/// the process is told to.
pub(crate) async fn follow(app: Arc<App>, mut told: Signal) {
    let file = app.config.file.clone();
    let mut trust = app.config.presets.trust.clone();
    // As it is when this begins; what changed since the start is seen at once.
    let (mut read, mut seen) = (None, Stamp::of(&file));
    let mut config = app.config.clone();
    loop {
        let asked = tokio::select! {
            _ = told.recv() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let now = Stamp::of(&file);
        let settled = now == std::mem::replace(&mut seen, now);
        // One that is being replaced is not there for a moment.
        if !asked && (now.is_none() || !settled || read == Some(now)) {
            continue;
        }
        read = Some(now);
        match Config::load(&file) {
            Ok(written) => {
                app.trust.set(None);
                tell_what_waits(&config, &written);
                config = written;
                let new = config.presets.trust.clone();
                let changes = changes(&trust, &new);
                if changes.is_empty() {
                    if asked {
                        tracing::info!(
                            "the configuration was read again; what is trusted is as before"
                        );
                    }
                    continue;
                }
                trust = new;
                take_over(&app, trust.clone(), &changes).await;
            }
            Err(error) => refuse(&app, &error).await,
        }
    }
}

async fn take_over(app: &Arc<App>, trust: Trust, changes: &[String]) {
    tracing::warn!(
        changes = changes.join("; "),
        "what is trusted for presets has changed"
    );
    let event = AuditEvent::new(app.world.clock.now(), "preset.trust", Outcome::Allowed)
        .on("config:presets")
        .detail(changes.join("; "));
    if let Err(error) = app.world.audit.record(event).await {
        tracing::error!(%error, "the change of trust could not be recorded");
    }
    let catalog = Arc::clone(&app.catalog);
    if let Err(error) = tokio::task::spawn_blocking(move || catalog.retrust(trust)).await {
        tracing::error!(%error, "presets could not be judged again; restart the host");
    }
    // Policies are bound anew to what may judge now.
    if let Err(error) = app.registry.refresh().await {
        tracing::error!(%error, "policies could not be read again");
    }
}

async fn refuse(app: &App, error: &ConfigError) {
    let said = error.to_string().replace("\n  ", ". ");
    let problem = format!(
        "The configuration was changed and cannot be used, so what it said of presets before goes on: {said}"
    );
    if app.trust.problem().as_ref() == Some(&problem) {
        return;
    }
    tracing::error!("{problem}");
    let event = AuditEvent::new(app.world.clock.now(), "preset.trust", Outcome::Failed)
        .on("config:presets")
        .detail(problem.clone());
    app.trust.set(Some(problem));
    if let Err(error) = app.world.audit.record(event).await {
        tracing::error!(%error, "the bad configuration could not be recorded");
    }
}

/// Says which other changes only a restart makes hold.
fn tell_what_waits(old: &Config, new: &Config) {
    let sections = [
        ("[server]", old.server == new.server),
        ("[store]", old.store == new.store),
        ("[keys]", old.keys == new.keys),
        ("[identity]", old.identity == new.identity),
        ("[network]", old.network == new.network),
        (
            "[presets] remember_verdicts",
            old.presets.remember_verdicts == new.presets.remember_verdicts,
        ),
    ];
    let changed: Vec<&str> = sections
        .iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| *name)
        .collect();
    if !changed.is_empty() {
        tracing::warn!(
            changed = changed.join(", "),
            "the configuration has changed; restart the host to make this hold"
        );
    }
}

/// What is different, in words; empty if nothing is.
fn changes(old: &Trust, new: &Trust) -> Vec<String> {
    let mut said = Vec::new();
    if old.policy != new.policy {
        said.push(format!(
            "signatures: {} instead of {}",
            word(new.policy),
            word(old.policy)
        ));
    }
    for publisher in &new.publishers {
        let name = &publisher.name;
        let Some(before) = old.publishers.iter().find(|p| p.name == *name) else {
            said.push(format!(
                "{name} is trusted with {} for {}",
                joined(&publisher.keys),
                joined(&publisher.presets)
            ));
            continue;
        };
        let keys = difference(&before.keys, &publisher.keys);
        said.extend(keys.map(|(word, key)| format!("{name}: key {key} {word}")));
        let presets = difference(&before.presets, &publisher.presets);
        said.extend(presets.map(|(word, preset)| format!("{name}: presets {preset} {word}")));
    }
    let names: BTreeSet<_> = new.publishers.iter().map(|p| &p.name).collect();
    let gone = old.publishers.iter().filter(|p| !names.contains(&p.name));
    said.extend(gone.map(|publisher| format!("{} is trusted no more", publisher.name)));
    let revoked = difference(&old.revoked, &new.revoked);
    said.extend(revoked.map(|(word, key)| match word {
        "added" => format!("the key {key} is revoked"),
        _ => format!("the key {key} is revoked no more"),
    }));
    for (preset, digests) in &new.pins {
        if old.pins.get(preset) != Some(digests) {
            said.push(format!("{preset} is pinned to {}", joined(digests)));
        }
    }
    let unpinned = old.pins.keys().filter(|p| !new.pins.contains_key(*p));
    said.extend(unpinned.map(|preset| format!("{preset} is pinned no more")));
    said
}

fn word(policy: SignaturePolicy) -> &'static str {
    match policy {
        SignaturePolicy::Require => "require",
        SignaturePolicy::Warn => "warn",
        SignaturePolicy::Off => "off",
    }
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// Entries of one list and not of the other, with `added` or `removed`.
fn difference<T: Display>(old: &[T], new: &[T]) -> impl Iterator<Item = (&'static str, String)> {
    let set = |items: &[T]| -> BTreeSet<String> { items.iter().map(ToString::to_string).collect() };
    let (old, new) = (set(old), set(new));
    let added = new.difference(&old).map(|item| ("added", item.clone()));
    let removed = old.difference(&new).map(|item| ("removed", item.clone()));
    added.chain(removed).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    const OTHER: &str = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn trust(presets: &str) -> Trust {
        let text = format!("[keys]\nsource = {{ env = \"K\" }}\n[presets]\n{presets}");
        let config = Config::parse(Path::new("countersign.toml"), &text).unwrap();
        config.presets.trust
    }

    #[test]
    fn a_change_of_trust_is_told_in_words() {
        let zeros = format!("sha256:{}", "00".repeat(32));
        let nobody = String::new;
        let acme = format!(
            "[[presets.publisher]]\nname = \"acme\"\nkeys = [\"{KEY}\"]\npresets = [\"*\"]"
        );
        let revoked = format!("revoked_keys = [\"{KEY}\"]");
        let pinned = format!("pin = {{ github = \"{zeros}\" }}");
        let cases = [
            (acme.clone(), acme.clone(), vec![]),
            (
                nobody(),
                "signatures = \"warn\"".into(),
                vec!["signatures: warn instead of require".to_owned()],
            ),
            (
                nobody(),
                acme.clone(),
                vec![format!("acme is trusted with {KEY} for *")],
            ),
            (
                acme.clone(),
                nobody(),
                vec!["acme is trusted no more".into()],
            ),
            (
                acme.clone(),
                acme.replace(KEY, OTHER),
                vec![
                    format!("acme: key {OTHER} added"),
                    format!("acme: key {KEY} removed"),
                ],
            ),
            (
                acme.clone(),
                acme.replace("\"*\"", "\"github\""),
                vec![
                    "acme: presets github added".into(),
                    "acme: presets * removed".into(),
                ],
            ),
            (
                nobody(),
                revoked.clone(),
                vec![format!("the key {KEY} is revoked")],
            ),
            (
                revoked,
                nobody(),
                vec![format!("the key {KEY} is revoked no more")],
            ),
            (
                nobody(),
                pinned.clone(),
                vec![format!("github is pinned to {zeros}")],
            ),
            (pinned, nobody(), vec!["github is pinned no more".into()]),
        ];
        for (old, new, expected) in cases {
            let told = changes(&trust(&old), &trust(&new));
            assert_eq!(told, expected, "from {old:?} to {new:?}");
        }
    }
}
