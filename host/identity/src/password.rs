//! Passwords: argon2id (RFC 9106), peppered, and never more than a few at once.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use countersign_core::names::hex;
use countersign_core::ports::{Random, random_bytes, random_token};
use countersign_core::secret::{SealKey, Secret};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// A password as typed. Zeroized on drop; there is no way to print it.
pub struct Password(Zeroizing<String>);

/// Something shown once and never kept: a generated password or a new token.
pub struct OneTime(Zeroizing<String>);

/// Why a password can't be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// Too short.
    #[error("the password is too short: choose at least 8 characters")]
    Short,
    /// Too long to be hashed.
    #[error("the password is too long: choose at most 256 bytes")]
    Long,
    /// Easy to guess.
    #[error("the password must not be the user's name")]
    UserName,
}

/// The cost of one hash; stored with each hash, so that it can be raised later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for PasswordCost {
    /// 19 MiB and two passes: the first choice of OWASP's password storage cheat sheet.
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            passes: 2,
        }
    }
}

/// What is stored of a password: the argon2id output is run through an HMAC
/// whose key is not in the store, so that stored hashes can't be guessed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PasswordHash {
    cost: PasswordCost,
    salt: String,
    hash: String,
}

/// The hasher is overloaded or misconfigured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many sign-ins at once; try again in a moment")]
pub(crate) struct HasherBusy;

/// Runs argon2 off the async threads, two at a time, with a bounded queue.
pub(crate) struct Hasher {
    pepper: Arc<SealKey>,
    cost: PasswordCost,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Password {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Whether it may be chosen by this user.
    ///
    /// # Errors
    /// [`WeakPassword`] says what to choose instead.
    pub fn check(&self, user: &str) -> Result<(), WeakPassword> {
        if self.0.len() > 256 {
            Err(WeakPassword::Long)
        } else if self.0.chars().count() < 8 {
            Err(WeakPassword::Short)
        } else if self.0.eq_ignore_ascii_case(user) {
            Err(WeakPassword::UserName)
        } else {
            Ok(())
        }
    }

    /// A strong one that people can copy.
    pub(crate) fn generate(random: &dyn Random) -> (Self, OneTime) {
        let text = random_token::<15>(random);
        (Self::new(text.clone()), OneTime::new(text))
    }

    /// A second copy, for a second question.
    pub(crate) fn copy(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether both are the same.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl OneTime {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, to be shown to the one it is for.
    #[must_use]
    pub fn reveal(mut self) -> String {
        std::mem::take(&mut *self.0)
    }
}

impl Hasher {
    pub(crate) fn new(pepper: SealKey, cost: PasswordCost) -> Self {
        Self {
            pepper: Arc::new(pepper),
            cost,
            running: Arc::new(Semaphore::new(2)),
            waiting: Arc::new(Semaphore::new(32)),
        }
    }

    pub(crate) async fn hash(
        &self,
        password: Password,
        random: &dyn Random,
    ) -> Result<PasswordHash, HasherBusy> {
        let salt = random_bytes::<16>(random);
        let salt = hex(&salt);
        let hash = self
            .run(password, self.cost, salt.clone().into_bytes())
            .await?;
        Ok(PasswordHash {
            cost: self.cost,
            salt,
            hash,
        })
    }

    /// Whether the password is the one; takes as long when there is none.
    pub(crate) async fn verify(
        &self,
        password: Password,
        stored: Option<&PasswordHash>,
    ) -> Result<bool, HasherBusy> {
        let (cost, salt) = match stored {
            Some(stored) => (stored.cost, stored.salt.as_bytes().to_vec()),
            None => (self.cost, hex(&[0; 16]).into_bytes()),
        };
        let hash = self.run(password, cost, salt).await?;
        let equal: bool = match stored {
            Some(stored) => hash.as_bytes().ct_eq(stored.hash.as_bytes()).into(),
            None => false,
        };
        Ok(equal)
    }

    /// The salt is hashed as its hexadecimal text, which needs no parsing.
    async fn run(
        &self,
        password: Password,
        cost: PasswordCost,
        salt: Vec<u8>,
    ) -> Result<String, HasherBusy> {
        let place = self
            .waiting
            .clone()
            .try_acquire_owned()
            .map_err(|_| HasherBusy)?;
        let turn = self
            .running
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| HasherBusy)?;
        let pepper = self.pepper.clone();
        let params =
            Params::new(cost.memory_kib, cost.passes, 1, Some(32)).map_err(|_| HasherBusy)?;
        tokio::task::spawn_blocking(move || {
            // Held until the work ends, also when the client has gone away meanwhile.
            let _held = (place, turn);
            let mut out = Zeroizing::new(vec![0; 32]);
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon
                .hash_password_into(password.0.as_bytes(), &salt, &mut out)
                .map_err(|_| HasherBusy)?;
            Ok(hex(&Secret::from(out).fingerprint(&pepper)))
        })
        .await
        .map_err(|_| HasherBusy)?
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::ports::fakes::CountingRandom;

    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[tokio::test]
    async fn only_the_right_password_and_pepper_verify() {
        let cost = PasswordCost {
            memory_kib: 64,
            passes: 1,
        };
        let hasher = Hasher::new(SealKey::new([1; 32]), cost);
        let stored = hasher
            .hash(password("correct horse"), &CountingRandom::default())
            .await
            .unwrap();
        assert_eq!(
            hasher
                .verify(password("correct horse"), Some(&stored))
                .await,
            Ok(true)
        );
        assert_eq!(
            hasher.verify(password("wrong horse"), Some(&stored)).await,
            Ok(false)
        );
        assert_eq!(
            hasher.verify(password("correct horse"), None).await,
            Ok(false)
        );
        let elsewhere = Hasher::new(SealKey::new([2; 32]), cost);
        assert_eq!(
            elsewhere
                .verify(password("correct horse"), Some(&stored))
                .await,
            Ok(false)
        );
    }

    #[tokio::test]
    async fn a_hash_made_at_an_older_cost_still_verifies() {
        let key = || SealKey::new([1; 32]);
        let old = Hasher::new(
            key(),
            PasswordCost {
                memory_kib: 64,
                passes: 1,
            },
        );
        let stored = old
            .hash(password("correct horse"), &CountingRandom::default())
            .await
            .unwrap();
        let new = Hasher::new(
            key(),
            PasswordCost {
                memory_kib: 128,
                passes: 2,
            },
        );
        assert_eq!(
            new.verify(password("correct horse"), Some(&stored)).await,
            Ok(true)
        );
    }

    #[test]
    fn weak_passwords_are_refused() {
        assert_eq!(password("short").check("alice"), Err(WeakPassword::Short));
        assert_eq!(
            password(&"x".repeat(300)).check("alice"),
            Err(WeakPassword::Long)
        );
        assert_eq!(
            password("Alice.Smith").check("alice.smith"),
            Err(WeakPassword::UserName)
        );
        assert_eq!(password("correct horse").check("alice"), Ok(()));
    }
}
