//! Names of artifacts in registries.

use std::fmt;

use countersign_core::names::Digest;
use url::Url;

/// Why a reference was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no reference to a registry: {problem}; write one like registry.example.com/presets/github:1.2.0"
)]
pub struct ReferenceError {
    /// What was given, cut to 120 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// `registry/repository[:tag][@digest]`. The registry is always said: there is
/// no default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a reference.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let refused = |problem| ReferenceError {
            text: text.chars().take(120).collect(),
            problem,
        };
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        let (registry, rest) = rest
            .split_once('/')
            .ok_or_else(|| refused("it has no repository after the registry's host"))?;
        if !is_host(registry) {
            return Err(refused(
                "it does not begin with a registry's host, like registry.example.com or localhost:5000",
            ));
        }
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => {
                let digest = Digest::try_from(digest.to_owned()).map_err(|_| {
                    refused("after @ stands no digest (sha256: and 64 hexadecimal digits)")
                })?;
                (rest, Some(digest))
            }
        };
        let (repository, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => {
                return Err(refused(
                    "after the colon stands no tag (letters, digits, . _ - and at most 128)",
                ));
            }
        };
        if !is_repository(repository) {
            return Err(refused(
                "its repository is not lower-case words with . _ - between, separated by slashes",
            ));
        }
        Ok(Self {
            registry: registry.to_ascii_lowercase(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }

    /// Host, and port if it is said.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path of the repository.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one is said.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is said.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository with this tag.
    ///
    /// # Errors
    /// If it is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError {
                text: tag.chars().take(120).collect(),
                problem: "a version with characters that no tag may have needs a tag of its own",
            });
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// What a manifest is asked for by: the digest, else the tag.
    pub(crate) fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// A host that cannot be the first word of a path: it has a dot, a port, or is
/// localhost.
fn is_host(text: &str) -> bool {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    let named = text.contains(['.', ':']) || text == "localhost";
    plain
        && named
        && Url::parse(&format!("https://{text}/")).is_ok_and(|url| {
            url.host_str().is_some_and(|host| !host.is_empty()) && url.path() == "/"
        })
}

/// distribution-spec, "Pulling manifests".
fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_repository(text: &str) -> bool {
    let is_word = |word: &str| {
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        word.starts_with(alphanumeric)
            && word.ends_with(alphanumeric)
            && word.chars().all(|c| alphanumeric(c) || "._-".contains(c))
            && !word.contains("..")
    };
    text.len() <= 255 && text.split('/').all(is_word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reference_says_registry_repository_tag_and_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for text in [
            "registry.example.com/presets/github:1.2.0".to_owned(),
            "localhost:5000/a".into(),
            "127.0.0.1:5000/a/b/c:latest".into(),
            "[::1]:5000/a".into(),
            format!("ghcr.io/acme/presets@{digest}"),
            format!("ghcr.io/acme/presets:1.0@{digest}"),
        ] {
            assert_eq!(Reference::parse(&text).unwrap().to_string(), text);
        }
        let parsed = Reference::parse("oci://r.example.com/a:1").unwrap();
        assert_eq!(
            (parsed.registry(), parsed.repository(), parsed.tag()),
            ("r.example.com", "a", Some("1"))
        );
    }

    #[test]
    fn what_is_none_says_why() {
        let mut out = String::new();
        for text in [
            "github",
            "github/presets:1",
            "https://registry.example.com/a",
            "user@registry.example.com/a",
            "registry.example.com/",
            "registry.example.com/A",
            "registry.example.com/a//b",
            "registry.example.com/../a",
            "registry.example.com/a:",
            "registry.example.com/a:b c",
            "registry.example.com/a@sha256:00",
            "registry.example.com:port/a",
            "registry.example.com/a?x=y",
        ] {
            out.push_str(&format!("{}\n", Reference::parse(text).expect_err(text)));
        }
        insta::assert_snapshot!(out);
    }

    proptest! {
        #[test]
        fn what_parses_reads_back_and_stays_on_its_host(text in "[a-zA-Z0-9./:@\\[\\]_%?#-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.to_string());
                prop_assert_eq!(again.as_ref(), Ok(&reference));
                let url = Url::parse(&format!(
                    "https://{}/v2/{}/manifests/{}",
                    reference.registry(), reference.repository(), reference.manifest()
                )).unwrap();
                prop_assert!(url.query().is_none() && url.fragment().is_none() && url.username().is_empty());
                prop_assert!(url.path().starts_with("/v2/") && url.path().contains("/manifests/"));
            }
        }
    }
}
