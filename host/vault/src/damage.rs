//! What is wrong with a store. Nothing damaged is ever deleted.

use std::fmt;

use countersign_core::ports::Kind;

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

impl Damage {
    /// What it is about, without advice.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Record { kind, hash, .. } => format!("{kind} {hash}"),
            Self::Hole { .. } => "a part of the database".into(),
            Self::Head { .. } => "the head".into(),
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

fn kind_word(kind: u8) -> &'static str {
    Kind::of(kind).map_or("unknown kind", Kind::word)
}
