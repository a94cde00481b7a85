//! `preset trust`: takes a publisher's word, in `countersign.toml`.

use std::path::Path;

use clap::Args;
use countersign_core::names::PublisherName;
use countersign_presets::signature::{PresetPattern, PublicKey};
use serde_json::json;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::files;
use crate::cli::CliError;
use crate::cli::output::Printer;
use crate::config::{Config, Signatures};

#[derive(Debug, Args)]
pub(in crate::cli) struct TrustArgs {
    /// A file that `preset keygen` wrote (NAME.pub), or a publisher's name with --key
    #[arg(value_name = "FILE|NAME")]
    publisher: String,
    /// The publisher's public key (ed25519:…), which the publisher gave you
    #[arg(long, value_name = "KEY", value_parser = key)]
    key: Option<PublicKey>,
    /// For which presets: names, or beginnings and * [default: every preset]
    #[arg(long, value_name = "PRESETS", value_delimiter = ',', value_parser = pattern)]
    presets: Vec<PresetPattern>,
}

fn key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|e| e.to_string())
}

fn pattern(text: &str) -> Result<PresetPattern, String> {
    PresetPattern::parse(text).map_err(|e| e.to_string())
}

pub(super) fn run(args: TrustArgs, config: &Path, printer: &Printer) -> Result<(), CliError> {
    // What is there must be good before it is changed.
    let before = Config::load(config).map_err(CliError::new)?;
    let (publisher, key) = whom(&args)?;
    let presets: Vec<String> = match args.presets.as_slice() {
        [] => vec!["*".to_owned()],
        some => some.iter().map(ToString::to_string).collect(),
    };
    let text = std::fs::read_to_string(config).map_err(CliError::new)?;
    let changed = edited(&text, &publisher, key, &presets)?;
    // And what comes out, before it is written.
    Config::parse(config, &changed).map_err(CliError::new)?;
    if changed != text {
        files::replace(config, changed.as_bytes())?;
    }
    let done =
        json!({"publisher": publisher, "key": key, "presets": presets, "changed": changed != text});
    printer.value(&done, || {
        let what = match presets.as_slice() {
            [all] if all == "*" => "every preset".to_owned(),
            some => some.join(", "),
        };
        let next = match (changed != text, before.presets.signatures) {
            (false, _) => "It was so already; nothing was changed.",
            (true, Signatures::Off) => {
                "A running host takes it over within seconds. Signatures are not looked at now: [presets] signatures is \"off\"."
            }
            (true, _) => "A running host takes it over within seconds; `countersign preset list` shows what comes of it.",
        };
        format!("{} trusts {publisher} with {key} for {what}.\n{next}", config.display())
    })
}

fn whom(args: &TrustArgs) -> Result<(PublisherName, PublicKey), CliError> {
    if let Some(key) = args.key {
        let name = PublisherName::parse(&args.publisher).map_err(CliError::new)?;
        return Ok((name, key));
    }
    let path = Path::new(&args.publisher);
    let text = std::fs::read_to_string(path).map_err(|e| {
        CliError(format!(
            "{}: {e}; give the .pub file that `preset keygen` wrote, or a name and --key ed25519:…",
            path.display()
        ))
    })?;
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [name, key] => Ok((
            PublisherName::parse(name).map_err(CliError::new)?,
            PublicKey::parse(key).map_err(CliError::new)?,
        )),
        _ => Err(CliError(format!(
            "{} is no public key file: it holds one line, PUBLISHER ed25519:…",
            path.display()
        ))),
    }
}

/// The configuration's text with this trust, and every comment where it was.
fn edited(
    text: &str,
    publisher: &PublisherName,
    key: PublicKey,
    presets: &[String],
) -> Result<String, CliError> {
    let by_hand = || {
        CliError(format!(
            "[presets] is written in a way that cannot be edited here; add by hand:\n\n[[presets.publisher]]\n\
             name = \"{publisher}\"\nkeys = [\"{key}\"]\npresets = {presets:?}"
        ))
    };
    let mut document: DocumentMut = text.parse().map_err(CliError::new)?;
    let section = document
        .entry("presets")
        .or_insert(Item::Table(Table::new()))
        .as_table_mut()
        .ok_or_else(by_hand)?;
    let publishers = section
        .entry("publisher")
        .or_insert(Item::ArrayOfTables(ArrayOfTables::new()))
        .as_array_of_tables_mut()
        .ok_or_else(by_hand)?;
    let known = publishers
        .iter_mut()
        .find(|table| table.get("name").and_then(Item::as_str) == Some(publisher.as_str()));
    match known {
        Some(table) => {
            let mut add = |member: &str, text: &str| {
                let list = table.get_mut(member).and_then(Item::as_array_mut);
                let list = list.ok_or_else(by_hand)?;
                if !list.iter().any(|item| item.as_str() == Some(text)) {
                    list.push(text);
                }
                Ok::<_, CliError>(())
            };
            add("keys", &key.to_string())?;
            for preset in presets {
                add("presets", preset)?;
            }
        }
        None => {
            let mut table = Table::new();
            table.insert("name", value(publisher.as_str()));
            table.insert("keys", value(Array::from_iter([key.to_string()])));
            table.insert("presets", value(Array::from_iter(presets)));
            publishers.push(table);
        }
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    const OTHER: &str = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn trust_is_added_and_everything_else_stays() {
        let before = "# mine\n[presets]\nsignatures = \"require\" # always\n\n[network]\nallow_private_upstreams = []\n";
        let acme = PublisherName::parse("acme").unwrap();
        let key = |text| PublicKey::parse(text).unwrap();
        let once = edited(before, &acme, key(KEY), &["github".into()]).unwrap();
        let twice = edited(&once, &acme, key(KEY), &["github".into()]).unwrap();
        assert_eq!(once, twice);
        let more = edited(&once, &acme, key(OTHER), &["acme-*".into()]).unwrap();
        let other = PublisherName::parse("other").unwrap();
        let both = edited(&once, &other, key(OTHER), &["*".into()]).unwrap();
        insta::assert_snapshot!(format!(
            "{once}\n=== another key\n{more}\n=== another publisher\n{both}"
        ));
    }

    #[test]
    fn an_inline_section_is_left_to_a_person() {
        let acme = PublisherName::parse("acme").unwrap();
        let key = PublicKey::parse(KEY).unwrap();
        let error = edited(
            "presets = { signatures = \"warn\" }",
            &acme,
            key,
            &["*".into()],
        );
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("[[presets.publisher]]")
        );
    }
}
