//! Why something did not get into a registry, or out of it.

use countersign_core::names::Digest;

use crate::reference::ReferenceError;

/// A part of an artifact, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The manifest.
    Manifest,
    /// The component.
    Component,
    /// The config.
    Config,
    /// An upload.
    Upload,
    /// A token of the registry's token server.
    Token,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Manifest => "the manifest",
            Self::Component => "the component",
            Self::Config => "the config",
            Self::Upload => "the upload",
            Self::Token => "the registry's token",
        })
    }
}

/// Each says whose fault it is and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No HTTP client.
    #[error("the HTTP client does not start: {0}")]
    Client(String),
    /// Plain http elsewhere than on this machine.
    #[error(
        "{0} would be asked by plain http: that is for registries on this machine only (localhost, 127.0.0.1, [::1])"
    )]
    PlainHttp(String),
    /// No answer.
    #[error("{registry} cannot be reached: {why}")]
    Unreachable {
        /// Who was asked.
        registry: String,
        /// Why there was no answer.
        why: String,
    },
    /// 401.
    #[error(
        "{registry} demands a sign-in{}. Sign in with `docker login {registry}` (or anything that writes docker's \
         config.json), or give a user and --password-stdin, or --token-stdin",
        if *with { " and does not accept the one it was given" } else { "" }
    )]
    Unauthorized {
        /// Who was asked.
        registry: String,
        /// Whether credentials were given.
        with: bool,
    },
    /// 403.
    #[error(
        "{registry} does not let this account do that in {repository}: ask its administrator for the right to {right}"
    )]
    Forbidden {
        /// Who was asked.
        registry: String,
        /// Where.
        repository: String,
        /// `pull` or `push`.
        right: &'static str,
    },
    /// 404.
    #[error("{0} does not exist in the registry: check repository and tag")]
    NotFound(String),
    /// 429.
    #[error("{0} says that too much was asked of it; try again later")]
    RateLimited(String),
    /// Another status.
    #[error("{registry} answered {status} to {what}{said}")]
    Status {
        /// Who was asked.
        registry: String,
        /// What for.
        what: What,
        /// The HTTP status.
        status: u16,
        /// In its words, after a colon; or nothing.
        said: String,
    },
    /// Something else than the layout.
    #[error("{reference} is no WebAssembly component in the OCI layout: {why}")]
    Layout {
        /// What was asked for.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// Too large.
    #[error("{what} has {size} bytes, and at most {most} are taken")]
    TooLarge {
        /// Which part.
        what: What,
        /// As declared, or as far as it was read.
        size: u64,
        /// The cap.
        most: u64,
    },
    /// Other bytes than the digest says.
    #[error(
        "{what} that arrived has the digest {found}, and {expected} was asked for: the registry, or something on the way, changed it. Nothing was kept"
    )]
    Digest {
        /// Which part.
        what: What,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A redirect or an upload address that is not followed.
    #[error("{registry} sends elsewhere ({to}), which is not followed: {why}")]
    Redirect {
        /// Who was asked.
        registry: String,
        /// Host of the address.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// The tag stands for something else already.
    #[error(
        "{reference} exists already with other content ({there}): publish under another version, or replace it with --replace"
    )]
    Exists {
        /// Where.
        reference: String,
        /// The digest of its manifest.
        there: String,
    },
    /// A file here.
    #[error("{path} cannot be written: {error}")]
    File {
        /// Which.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
}
