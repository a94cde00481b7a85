//! What this crate tells whoever counts.

use std::time::Duration;

use countersign_core::names::ProviderName;

/// Why a token was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A call needed it.
    Call,
    /// An upstream refused it.
    Refused,
    /// Nobody yet: ahead of time.
    Background,
}

impl Occasion {
    /// For labels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Refused => "refused",
            Self::Background => "background",
        }
    }
}

/// Counts. Nothing it is told names a user.
pub trait Observer: Send + Sync {
    /// A renewal ended: `ok`, a reason of CONTRACT, `provider_unavailable`,
    /// `lost` (the answer was lost, and may have held the only new tokens) or
    /// `store`.
    fn renewal(
        &self,
        provider: &ProviderName,
        occasion: Occasion,
        outcome: &'static str,
        took: Duration,
    );

    /// A revocation at a provider ended: `done`, `not_possible`, `later`,
    /// `given_up`.
    fn revocation(&self, provider: &ProviderName, outcome: &'static str);

    /// A user was warned that a connection will end.
    fn warned(&self, provider: &ProviderName);

    /// After a round of background work: what it found due, and how many
    /// providers it leaves alone.
    fn round(&self, due: usize, resting: usize);
}

/// Counts nothing.
pub struct Nobody;

impl Observer for Nobody {
    fn renewal(&self, _: &ProviderName, _: Occasion, _: &'static str, _: Duration) {}
    fn revocation(&self, _: &ProviderName, _: &'static str) {}
    fn warned(&self, _: &ProviderName) {}
    fn round(&self, _: usize, _: usize) {}
}
