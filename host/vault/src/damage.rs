//! What is wrong with a store. Nothing damaged is ever deleted.

use std::fmt;

/// One thing found wrong. A damaged record stays where it is; reading it is an
/// error, and writing over it first puts its bytes aside within the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A record that does not open.
    Record {
        /// Its kind, in a word.
        kind: &'static str,
        /// Its keyed hash in hexadecimal; its name is sealed in it.
        hash: String,
        /// Why it does not open.
        cause: String,
    },
    /// A part of the database that could not be read.
    Hole {
        /// The database's words.
        cause: String,
    },
    /// Records do not add up to the head; see the crate's documentation.
    Head {
        /// Counts.
        detail: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { kind, hash, cause } => write!(
                f,
                "a stored record ({kind} {hash}) cannot be opened: {cause}. It was left where it \
                 is; restore it from a backup, or set it up again"
            ),
            Self::Hole { cause } => write!(
                f,
                "a part of the database cannot be read: {cause}. What is in it is missing; check \
                 the disk and restore the latest backup"
            ),
            Self::Head { detail } => write!(
                f,
                "the store's records do not add up ({detail}): besides what is damaged, some may \
                 have been put back or removed. Compare with the latest backup"
            ),
        }
    }
}

pub(crate) fn record(place: &[u8], cause: impl fmt::Display) -> Damage {
    let (kind, hash) = place.split_first().unwrap_or((&0, &[]));
    let hash = hash.iter().map(|b| format!("{b:02x}")).collect();
    Damage::Record {
        kind: kind_word(*kind),
        hash,
        cause: cause.to_string(),
    }
}

/// The bytes of [`countersign_core::ports::Kind`].
fn kind_word(kind: u8) -> &'static str {
    match kind {
        1 => "meta",
        2 => "provider",
        3 => "server",
        4 => "secret",
        5 => "connection",
        6 => "flow",
        7 => "user",
        8 => "team",
        9 => "role",
        10 => "client",
        11 => "code",
        12 => "token",
        13 => "session",
        14 => "preset",
        15 => "audit",
        16 => "upstream session",
        17 => "lease",
        18 => "agent consent",
        19 => "connect link",
        20 => "policy",
        40 => "consent's result",
        41 => "elicitation's answer",
        _ => "unknown kind",
    }
}
