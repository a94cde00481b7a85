//! JSON pointers: well-formed, and never at a token where the value would be
//! kept, shown or logged.

use countersign_core::preset::{Check, Description, Expiry, Pick, Source, TokenShape};

use super::{CheckError, cut};

/// Last segments under which providers keep secrets, whatever the description
/// says about its tokens.
const SECRET_NAMES: [&str; 10] = [
    "access_token",
    "refresh_token",
    "id_token",
    "client_secret",
    "code",
    "api_key",
    "private_key",
    "password",
    "secret",
    "token",
];

/// The segments of a pointer.
fn segments(place: &str, pointer: &str) -> Result<Vec<String>, CheckError> {
    let bad = || CheckError::Pointer {
        place: place.to_owned(),
        pointer: cut(pointer),
    };
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let rest = pointer.strip_prefix('/').ok_or_else(bad)?;
    rest.split('/')
        .map(|segment| {
            let stray = segment
                .split('~')
                .skip(1)
                .any(|after| !after.starts_with(['0', '1']));
            if stray {
                Err(bad())
            } else {
                Ok(segment.replace("~1", "/").replace("~0", "~"))
            }
        })
        .collect()
}

/// Pointers to this description's tokens.
struct Tokens(Vec<Vec<String>>);

impl Tokens {
    fn of(shapes: &[TokenShape]) -> Result<Self, CheckError> {
        let mut paths = Vec::new();
        for pointer in shapes.iter().flat_map(|s| {
            s.access_token
                .iter()
                .chain(&s.refresh_token)
                .chain(&s.id_token)
        }) {
            let path = segments("token-shapes", pointer)?;
            if path.is_empty() {
                return Err(CheckError::Pointer {
                    place: "token-shapes".into(),
                    pointer: pointer.clone(),
                });
            }
            paths.push(path);
        }
        Ok(Self(paths))
    }

    /// A public pointer: neither a token, nor around one, nor inside one.
    fn public(&self, place: &str, pointer: &str) -> Result<(), CheckError> {
        let path = segments(place, pointer)?;
        let named = path
            .last()
            .is_some_and(|last| SECRET_NAMES.contains(&last.to_ascii_lowercase().as_str()));
        let overlaps = self
            .0
            .iter()
            .any(|token| token.starts_with(&path) || path.starts_with(token));
        if named || overlaps {
            return Err(CheckError::PointsAtToken {
                place: place.to_owned(),
                pointer: cut(pointer),
            });
        }
        Ok(())
    }
}

/// Checks every pointer of a description.
pub(super) fn check(d: &Description) -> Result<(), CheckError> {
    token_shapes(d, &d.token_shapes)
}

/// Checks every pointer of a description, with these shapes in place of its
/// own (the hook `token-answer` may have said others).
pub(crate) fn token_shapes(d: &Description, shapes: &[TokenShape]) -> Result<(), CheckError> {
    let tokens = Tokens::of(shapes)?;
    for shape in shapes {
        if !d.credentials.iter().any(|c| c.name == shape.credential) {
            return Err(CheckError::Undeclared {
                place: "token-shapes".into(),
                name: cut(&shape.credential),
            });
        }
        for check in &shape.when {
            condition("token-shapes.when", check)?;
        }
        for pointer in &shape.scopes {
            tokens.public("token-shapes.scopes", pointer)?;
        }
        for expiry in shape.expires.iter().chain(&shape.refresh_expires) {
            if let Expiry::Lifetime(pointer) | Expiry::Absolute(pointer, _) = expiry {
                tokens.public("token-shapes.expires", pointer)?;
            }
        }
    }
    for metadata in &d.metadata {
        tokens.public("metadata", &metadata.pointer)?;
    }
    for variable in &d.variables {
        match &variable.source {
            Source::TokenAnswer(pointer) => tokens.public("variables", pointer)?,
            Source::FollowUp(value) => {
                plain("variables", &value.pointer)?;
                if let Some(selection) = &value.selection {
                    segments("variables", &selection.items)?;
                    if let Pick::WhereEqual(pointer, _) | Pick::AskUser(pointer) = &selection.pick {
                        plain("variables", pointer)?;
                    }
                }
                if !d.follow_ups.iter().any(|f| f.name == value.follow_up) {
                    return Err(CheckError::Undeclared {
                        place: "variables".into(),
                        name: cut(&value.follow_up),
                    });
                }
            }
            Source::Setting(_) | Source::CallbackParameter(_) => {}
        }
    }
    for pointer in d
        .token_answer
        .error_code
        .iter()
        .chain(&d.token_answer.error_description)
    {
        // Errors are shown. `/code` is an error's usual place, so only this
        // description's own tokens are kept from it.
        let path = segments("token-answer.error", pointer)?;
        if tokens
            .0
            .iter()
            .any(|token| token.starts_with(&path) || path.starts_with(token))
        {
            return Err(CheckError::PointsAtToken {
                place: "token-answer.error".into(),
                pointer: cut(pointer),
            });
        }
    }
    for check in &d.token_answer.success_checks {
        condition("token-answer.success-checks", check)?;
    }
    if let Some(identity) = &d.identity {
        for pointer in std::iter::once(&identity.id)
            .chain(&identity.label)
            .chain(&identity.tenant)
        {
            plain("identity", pointer)?;
        }
    }
    Ok(())
}

/// Conditions may look at tokens (is there one?): nothing of it gets out.
fn condition(place: &str, check: &Check) -> Result<(), CheckError> {
    let (Check::Equals(pointer, _) | Check::Present(pointer) | Check::Absent(pointer)) = check;
    segments(place, pointer).map(|_| ())
}

/// A pointer into an answer that is not a token answer.
fn plain(place: &str, pointer: &str) -> Result<(), CheckError> {
    Tokens(Vec::new()).public(place, pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_empty_or_begins_with_a_slash() {
        for good in ["", "/", "/a/b", "/a~1b/~0"] {
            assert!(segments("x", good).is_ok(), "{good}");
        }
        for bad in ["a", "a/b", "/a~", "/a~2", "#/a"] {
            assert!(segments("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_public_pointer_is_neither_at_nor_around_nor_inside_a_token() {
        let tokens = Tokens(vec![vec!["authed_user".into(), "access".into()]]);
        for bad in [
            "/authed_user/access",
            "/authed_user",
            "/authed_user/access/0",
            "/x/access_token",
            "/authed~0user/../Token",
            "",
        ] {
            assert!(tokens.public("metadata", bad).is_err(), "{bad}");
        }
        assert!(tokens.public("metadata", "/authed_user/id").is_ok());
    }
}
