//! The trait every preset implements, and what a decision is made with.

use miniserde::json::{self, Value};

use crate::data::{Allowance, Call, Description, Grant, Refusal, Rule, Verdict};
use crate::settings::Settings;

/// A provider's preset.
pub trait Provider {
    /// Says what the provider is like under these settings. Settings that are
    /// not read are refused by the SDK; an error is a sentence for the
    /// administrator.
    fn describe(settings: &mut Settings) -> Result<Description, String>;

    /// Decides one call, after the operator's policy and the described tools
    /// have allowed it. Must depend on nothing but its arguments: verdicts are
    /// cached. The default allows, with the credential's described rules.
    fn evaluate(call: &Call, grant: &Grant) -> Result<Verdict, String> {
        let _ = (call, grant);
        Ok(Verdict::allow())
    }
}

impl Verdict {
    /// Go on, with the first credential and its described rules.
    pub fn allow() -> Self {
        Self::Allow(Allowance {
            credential: None,
            rules: Vec::new(),
        })
    }

    /// Go on with this credential and its described rules.
    pub fn allow_as(credential: &str) -> Self {
        Self::Allow(Allowance {
            credential: Some(credential.into()),
            rules: Vec::new(),
        })
    }

    /// Go on with rules made for this call, in place of the described ones.
    pub fn allow_with(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self::Allow(Allowance {
            credential: None,
            rules: rules.into_iter().collect(),
        })
    }

    /// No. The code is a short, stable word; the message is for the user.
    pub fn deny(code: &str, message: &str) -> Self {
        Self::Deny(Refusal {
            code: code.into(),
            message: message.into(),
        })
    }

    /// The connection lacks all of these.
    pub fn need<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Self {
        Self::NeedScopes(scopes.into_iter().map(Into::into).collect())
    }
}

impl Call {
    /// The tool, if this calls one.
    pub fn tool(&self) -> Option<&str> {
        if self.method == "tools/call" {
            self.name.as_deref()
        } else {
            None
        }
    }
}

/// Whether the connection has one of these scopes. What implies them has to be
/// named too.
pub fn is_granted(grant: &Grant, any_of: &[&str]) -> bool {
    grant
        .scopes
        .iter()
        .any(|granted| any_of.contains(&granted.as_str()))
}

/// A call's arguments, parsed. Only for calls whose arguments the description
/// wants (`Description::wants_arguments_of`).
pub struct Arguments(Value);

impl Arguments {
    /// Parses them. None at all are an empty object.
    pub fn of(call: &Call) -> Result<Self, String> {
        Self::parse(call.arguments.as_deref())
    }

    /// [`Arguments::of`] the text itself.
    pub fn parse(arguments: Option<&str>) -> Result<Self, String> {
        match arguments {
            None => Ok(Self(Value::Null)),
            Some(text) => json::from_str(text)
                .map(Self)
                .map_err(|_| "the call's arguments are no JSON".to_string()),
        }
    }

    /// An argument that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.member(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// An argument that is true or false.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.member(name)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Any argument.
    pub fn member(&self, name: &str) -> Option<&Value> {
        match &self.0 {
            Value::Object(members) => members.get(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;
    impl Provider for Silent {
        fn describe(_: &mut Settings) -> Result<Description, String> {
            Ok(Description::oauth2("silent", "Silent"))
        }
    }

    fn call(arguments: Option<&str>) -> Call {
        Call {
            method: "tools/call".into(),
            name: Some("t".into()),
            arguments: arguments.map(Into::into),
            host: "api.acme.com".into(),
            settings: None,
        }
    }

    #[test]
    fn a_preset_without_evaluate_allows() {
        let grant = Grant {
            scopes: vec![],
            account: None,
            facts: vec![],
        };
        assert_eq!(Silent::evaluate(&call(None), &grant), Ok(Verdict::allow()));
    }

    #[test]
    fn arguments_answer_only_for_the_type_that_is_there() {
        let arguments = Arguments::of(&call(Some(r#"{"a":"x","b":false,"c":null}"#))).unwrap();
        assert_eq!(arguments.text("a"), Some("x"));
        assert_eq!(arguments.flag("a"), None);
        assert_eq!(arguments.flag("b"), Some(false));
        assert_eq!(arguments.flag("c"), None);
        assert_eq!(arguments.flag("d"), None);
        assert_eq!(Arguments::of(&call(None)).unwrap().flag("b"), None);
        assert!(Arguments::of(&call(Some("{"))).is_err());
    }
}
