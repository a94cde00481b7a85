//! Judges what `describe` answered before anything relies on it.
//!
//! A description is data from somebody else's program. Whatever it could do
//! harm with is looked at here once, so that the rest of the host may take it
//! as it is.

use std::collections::BTreeSet;

use countersign_core::names::PresetName;
use countersign_core::preset::{Description, Hooks, ValueKind};
use countersign_core::scope::Scope;
use serde_json::{Map, Value};

use crate::symbols::{SymbolError, Symbols};

mod hooks;
mod places;
mod pointers;
mod requests;
mod verdict;

pub(crate) use hooks::{check_account, check_authorize_parameters, check_recipe, check_redactions};
pub(crate) use places::{header_uses, is_reserved_at_authorization};
pub(crate) use pointers::token_shapes as check_token_shapes;
pub(crate) use verdict::{Declared, check_verdict};

/// Longest text anywhere in a description, in characters.
const LONGEST_TEXT: usize = 4096;
/// Longest name.
const LONGEST_NAME: usize = 128;
/// Longest list anywhere in a description.
const LONGEST_LIST: usize = 4096;

/// Why a description is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Its name is not a preset name or not the file's.
    #[error(
        "describe calls the preset {said:?}, but the file is named for {file:?}: rename the file or the preset"
    )]
    Name {
        /// What `describe` said.
        said: String,
        /// What the file name says.
        file: String,
    },
    /// Some text is too long or holds control characters.
    #[error(
        "{place} is longer than {LONGEST_TEXT} characters, or holds a line break or another character that controls, hides or turns around what is shown"
    )]
    Text {
        /// Where in the description.
        place: String,
    },
    /// A list is too long.
    #[error("{place} has more than {LONGEST_LIST} entries")]
    List {
        /// Where in the description.
        place: String,
    },
    /// A name is missing or too long.
    #[error("{place}: the name {name:?} is empty or longer than {LONGEST_NAME} characters")]
    BadName {
        /// Where in the description.
        place: String,
        /// The name, cut.
        name: String,
    },
    /// Two of the same name.
    #[error("{place}: {name:?} is there twice")]
    Duplicate {
        /// Where in the description.
        place: String,
        /// The name.
        name: String,
    },
    /// A name refers to nothing.
    #[error("{place} names {name:?}, which the description does not declare")]
    Undeclared {
        /// Where in the description.
        place: String,
        /// The name.
        name: String,
    },
    /// About variables and templates.
    #[error("{place}: {error}")]
    Template {
        /// Where in the description.
        place: String,
        /// What is wrong.
        error: SymbolError,
    },
    /// A secret where none may stand.
    #[error("{place} uses the slot {slot}, which may not stand there")]
    Slot {
        /// Where in the description.
        place: String,
        /// The slot as the WIT calls it.
        slot: String,
    },
    /// A header that no preset may set.
    #[error("{place}: the header {name:?} is not one that a preset may set")]
    Header {
        /// Where in the description.
        place: String,
        /// The header.
        name: String,
    },
    /// A parameter that belongs to the host.
    #[error("{place}: the parameter {name:?} is the host's own")]
    Parameter {
        /// Where in the description.
        place: String,
        /// The parameter.
        name: String,
    },
    /// Not a JSON pointer.
    #[error("{place}: {pointer:?} is not a JSON pointer (RFC 6901): empty, or beginning with /")]
    Pointer {
        /// Where in the description.
        place: String,
        /// What was given.
        pointer: String,
    },
    /// A pointer that would show a token.
    #[error(
        "{place}: the pointer {pointer:?} leads to a token; tokens are never captured, shown or logged"
    )]
    PointsAtToken {
        /// Where in the description.
        place: String,
        /// The pointer.
        pointer: String,
    },
    /// Not a host.
    #[error(
        "{place}: {host:?} is not a host name that tokens may be bound to (write api.example.com or .example.com)"
    )]
    Host {
        /// Where in the description.
        place: String,
        /// What was given.
        host: String,
    },
    /// Not an https address.
    #[error("{place}: {url:?} is not an https address with a host")]
    Url {
        /// Where in the description.
        place: String,
        /// What was given.
        url: String,
    },
    /// A request to a host that is not declared.
    #[error(
        "{place} goes to {host:?}, which is not among the hosts the description declares for it"
    )]
    OffHost {
        /// Where in the description.
        place: String,
        /// The host.
        host: String,
    },
    /// Not an HTTP method a preset may use.
    #[error("{place}: {method:?} is not GET, POST, PUT, PATCH or DELETE")]
    Method {
        /// Where in the description.
        place: String,
        /// What was given.
        method: String,
    },
    /// Not a scope.
    #[error("{place}: {scope:?} is not a scope (RFC 6749 section 3.3)")]
    Scope {
        /// Where in the description.
        place: String,
        /// What was given.
        scope: String,
    },
    /// A hook is named and missing.
    #[error("describe names the hook {0}, but the component does not export it")]
    HookMissing(&'static str),
}

/// Checks a description. With `lenient`, required settings may be missing (the
/// file is looked at before any provider's settings are known).
///
/// # Errors
/// The first [`CheckError`] found.
pub(crate) fn check(
    description: &Description,
    file: &PresetName,
    exported: Hooks,
    settings: &Map<String, Value>,
    lenient: bool,
) -> Result<(), CheckError> {
    bounds(description)?;
    if description.name != file.as_str() {
        return Err(CheckError::Name {
            said: cut(&description.name),
            file: file.as_str().to_owned(),
        });
    }
    names(description)?;
    scopes(description)?;
    exported_hooks(description.hooks, exported)?;
    let symbols =
        Symbols::new(description, settings, lenient).map_err(|error| at("variables", error))?;
    requests::check(description, &symbols)?;
    pointers::check(description)
}

/// Walks the whole description as a tree, so that no field is forgotten.
fn bounds(description: &Description) -> Result<(), CheckError> {
    let tree = serde_json::to_value(description).map_err(|e| CheckError::Text {
        place: format!("description ({e})"),
    })?;
    walk("description", &tree)
}

fn walk(place: &str, value: &Value) -> Result<(), CheckError> {
    match value {
        Value::String(text) => {
            let is_plain = text.chars().all(crate::faults::is_harmless);
            if text.chars().count() > LONGEST_TEXT || !is_plain {
                return Err(CheckError::Text {
                    place: place.to_owned(),
                });
            }
        }
        Value::Array(items) => {
            if items.len() > LONGEST_LIST {
                return Err(CheckError::List {
                    place: place.to_owned(),
                });
            }
            for item in items {
                walk(place, item)?;
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                walk(&format!("{place}.{name}"), member)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn names(d: &Description) -> Result<(), CheckError> {
    unique("variables", d.variables.iter().map(|v| v.name.as_str()))?;
    // Both are the connection's facts, which `evaluate` knows by name.
    let variables = d.variables.iter().map(|v| v.name.as_str());
    let facts = variables.chain(d.metadata.iter().map(|m| m.name.as_str()));
    unique("variables and metadata", facts)?;
    for variable in &d.variables {
        if let ValueKind::Enumeration(choices) = &variable.kind {
            for choice in choices {
                let set = choice.sets.iter().map(|(name, _)| name.as_str());
                unique(
                    "variables.kind.enumeration.sets",
                    std::iter::once(variable.name.as_str()).chain(set),
                )?;
            }
        }
    }
    unique("credentials", d.credentials.iter().map(|c| c.name.as_str()))?;
    unique("follow-ups", d.follow_ups.iter().map(|f| f.name.as_str()))?;
    unique("variants", d.variants.iter().map(|v| v.name.as_str()))?;
    unique("scopes", d.scopes.iter().map(|s| s.name.as_str()))?;
    let parameters = d.authorization.iter().flat_map(|a| &a.scope_parameters);
    unique(
        "scope-parameters",
        parameters.clone().map(|p| p.name.as_str()),
    )?;
    for server in &d.mcp_servers {
        unique(
            "mcp-servers.tools",
            server.tools.iter().map(|t| t.name.as_str()),
        )?;
    }
    let is_credential = |name: &str| d.credentials.iter().any(|c| c.name == name);
    for shape in &d.token_shapes {
        declared("token-shapes", &shape.credential, is_credential)?;
    }
    for parameter in parameters.clone() {
        if let Some(name) = &parameter.credential {
            declared("scope-parameters", name, is_credential)?;
        }
    }
    for scope in &d.scopes {
        if let Some(name) = &scope.parameter {
            declared("scopes", name, |n| parameters.clone().any(|p| p.name == n))?;
        }
    }
    Ok(())
}

fn unique<'a>(place: &str, names: impl Iterator<Item = &'a str>) -> Result<(), CheckError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() || name.chars().count() > LONGEST_NAME {
            return Err(CheckError::BadName {
                place: place.to_owned(),
                name: cut(name),
            });
        }
        if !seen.insert(name) {
            return Err(CheckError::Duplicate {
                place: place.to_owned(),
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

fn declared(place: &str, name: &str, is: impl Fn(&str) -> bool) -> Result<(), CheckError> {
    if is(name) {
        Ok(())
    } else {
        Err(CheckError::Undeclared {
            place: place.to_owned(),
            name: cut(name),
        })
    }
}

fn scopes(d: &Description) -> Result<(), CheckError> {
    let bad = |place: &str, scope: &str| CheckError::Scope {
        place: place.to_owned(),
        scope: cut(scope),
    };
    for scope in &d.default_scopes {
        Scope::parse(scope).map_err(|_| bad("default-scopes", scope))?;
    }
    for scope in &d.scopes {
        for name in std::iter::once(&scope.name).chain(&scope.implies) {
            Scope::parse(name).map_err(|_| bad("scopes", name))?;
        }
    }
    for tool in d.mcp_servers.iter().flat_map(|s| &s.tools) {
        for scope in tool.needs.iter().flatten() {
            Scope::parse(scope).map_err(|_| bad("mcp-servers.tools.needs", scope))?;
        }
    }
    Ok(())
}

fn exported_hooks(named: Hooks, exported: Hooks) -> Result<(), CheckError> {
    for (name, wanted, there) in [
        (
            "authorize-parameters",
            named.authorize_parameters,
            exported.authorize_parameters,
        ),
        ("token-answer", named.token_answer, exported.token_answer),
        ("refresh-error", named.refresh_error, exported.refresh_error),
        ("sign", named.sign, exported.sign),
        ("identity", named.identity, exported.identity),
        ("filter-tools", named.filter_tools, exported.filter_tools),
        ("redact", named.redact, exported.redact),
    ] {
        if wanted && !there {
            return Err(CheckError::HookMissing(name));
        }
    }
    Ok(())
}

/// A template at this place cannot be rendered.
pub(crate) fn at(place: &str, error: SymbolError) -> CheckError {
    CheckError::Template {
        place: place.to_owned(),
        error,
    }
}

/// One short line of it, for a message.
pub(crate) fn cut(text: &str) -> String {
    crate::faults::plain(&text.chars().take(80).collect::<String>())
}
