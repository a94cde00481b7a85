//! The keys that the host signs assertions with, and their succession.
//!
//! A key is published for a day before it signs, and for a day after its
//! successor signs, so that nobody who keeps a copy of the published set
//! (`/.well-known/jwks.json`) ever meets a key he does not know. What happens
//! when follows from what is stored and from the time alone: every replica
//! comes to the same.

use std::time::Duration;

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::jwt::{HostKey, KeyError, PublicKey};
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, Revision, SecretChange, StoreError, Write, delete, parse,
};
use countersign_core::secret::Sealed;
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::service::Oauth;

const DAY: Duration = Duration::from_secs(86_400);
/// A key signs for about so long.
const TERM: Duration = Duration::from_secs(90 * 86_400);
/// It is published for so long before it signs, and after it did.
const OVERLAP: Duration = DAY;
/// How often a lost race for the first key is looked at again.
const ATTEMPTS: usize = 8;

/// Why there is no key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// None could be made.
    #[error("a signing key could not be made: it {0}")]
    Key(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key that signs now.
pub(crate) struct Signer {
    pub(crate) public: PublicKey,
    pub(crate) sealed: Sealed,
}

/// The public half of a key's record. Its name is its number, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    number: u64,
    public: PublicKey,
    created_at: Timestamp,
    signs_from: Timestamp,
}

struct Stored {
    row: Row,
    revision: Revision,
    sealed: Option<Sealed>,
}

fn key_of(number: u64) -> RecordKey {
    RecordKey::new(Kind::SigningKey, number.to_string())
}

/// Of these, oldest first, the one that signs: the newest whose time has come,
/// else the oldest there is.
fn signing(rows: &[Row], now: Timestamp) -> Option<&Row> {
    let due = rows.iter().rev().find(|row| row.signs_from <= now);
    due.or_else(|| rows.first())
}

/// Whether a successor has signed for long enough.
fn is_over(row: &Row, rows: &[Row], now: Timestamp) -> bool {
    rows.iter()
        .any(|later| later.number > row.number && later.signs_from.plus(OVERLAP) <= now)
}

/// The next key to make, if it is time.
fn next(rows: &[Row], now: Timestamp) -> Option<(u64, Timestamp)> {
    match rows.last() {
        None => Some((1, now)),
        Some(last) if last.signs_from.plus(TERM - OVERLAP) <= now => {
            Some((last.number + 1, now.plus(OVERLAP)))
        }
        Some(_) => None,
    }
}

impl Oauth {
    /// The public halves of all keys that sign, have signed lately or are about
    /// to: what is at `/.well-known/jwks.json`.
    ///
    /// # Errors
    /// The store's.
    pub async fn published_keys(&self) -> Result<Vec<PublicKey>, StoreError> {
        let now = self.world.clock.now();
        let rows: Vec<Row> = self.signers().await?.into_iter().map(|s| s.row).collect();
        Ok(rows
            .iter()
            .filter(|row| !is_over(row, &rows, now))
            .map(|row| row.public.clone())
            .collect())
    }

    /// Makes the first key, or a successor that is due, and destroys those that
    /// are over. To be called at start and once in a while.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn keep_signers(&self) -> Result<(), SignerError> {
        let now = self.world.clock.now();
        let stored = self.signers().await?;
        let rows: Vec<Row> = stored.iter().map(|s| s.row.clone()).collect();
        if let Some((number, signs_from)) = next(&rows, now) {
            self.make_signer(number, signs_from, now).await?;
        }
        for old in stored.iter().filter(|s| is_over(&s.row, &rows, now)) {
            let write = delete(key_of(old.row.number), Expect::At(old.revision));
            match self.world.records.write(vec![write]).await {
                Ok(_) => {
                    self.note_key("signing_key.delete", &old.row).await;
                }
                // Another replica did it.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The key to sign with now.
    pub(crate) async fn signer(&self) -> Result<Signer, SignerError> {
        for _ in 0..ATTEMPTS {
            let stored = self.signers().await?;
            let rows: Vec<Row> = stored.iter().map(|s| s.row.clone()).collect();
            if let Some(chosen) = signing(&rows, self.world.clock.now()) {
                let found = stored.into_iter().find(|s| s.row.number == chosen.number);
                if let Some((row, sealed)) = found.and_then(|s| Some((s.row, s.sealed?))) {
                    return Ok(Signer {
                        public: row.public,
                        sealed,
                    });
                }
                return Err(
                    StoreError::Damaged("a signing key lacks its private half".into()).into(),
                );
            }
            self.keep_signers().await?;
        }
        Err(StoreError::Conflict.into())
    }

    /// All keys, oldest first.
    async fn signers(&self) -> Result<Vec<Stored>, StoreError> {
        let records = self.world.records.list(Kind::SigningKey, None).await?;
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            all.push(Stored {
                row: parse(&record)?,
                revision: record.revision,
                sealed: record.secret,
            });
        }
        all.sort_by_key(|stored| stored.row.number);
        Ok(all)
    }

    async fn make_signer(
        &self,
        number: u64,
        signs_from: Timestamp,
        now: Timestamp,
    ) -> Result<(), SignerError> {
        let made = HostKey::generate()?;
        let row = Row {
            number,
            public: made.public,
            created_at: now,
            signs_from,
        };
        let document = serde_json::to_vec(&row).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let write = Write {
            key: key_of(number),
            expect: Expect::Absent,
            change: Some(Change {
                document,
                secret: SecretChange::Set(made.private),
                expires_at: None,
            }),
        };
        match self.world.records.write(vec![write]).await {
            Ok(_) => {
                self.note_key("signing_key.create", &row).await;
                Ok(())
            }
            // Another replica made it.
            Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn note_key(&self, action: &str, row: &Row) {
        let event = AuditEvent::new(self.world.clock.now(), action, Outcome::Allowed)
            .on(format!("signing_key:{}", row.public.kid))
            .detail(format!("number {}", row.number));
        if let Err(error) = self.world.audit.record(event).await {
            tracing::error!(%error, action, "an audit event was not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, signs_from: i64) -> Row {
        Row {
            number,
            public: PublicKey {
                kty: String::new(),
                crv: String::new(),
                x: String::new(),
                y: String::new(),
                kid: number.to_string(),
                used_for: String::new(),
                alg: String::new(),
            },
            created_at: Timestamp::from_secs(signs_from),
            signs_from: Timestamp::from_secs(signs_from),
        }
    }

    #[test]
    fn a_key_is_published_a_day_before_it_signs_and_a_day_after_its_successor_does() {
        const DAYS: i64 = 86_400;
        let at = |days: i64| Timestamp::from_secs(days * DAYS);
        assert_eq!(next(&[], at(0)), Some((1, at(0))));
        let mut rows = vec![row(1, 0)];
        assert_eq!(next(&rows, at(88)), None);
        assert_eq!(next(&rows, at(89)), Some((2, at(90))));
        rows.push(row(2, 90 * DAYS));
        let signs = |rows: &[Row], days| signing(rows, at(days)).map(|r| r.number);
        assert_eq!((signs(&rows, 89), signs(&rows, 90)), (Some(1), Some(2)));
        assert_eq!(next(&rows, at(90)), None, "one successor at a time");
        assert!(!is_over(&rows[0], &rows, at(90)));
        assert!(is_over(&rows[0], &rows, at(91)));
        assert!(!is_over(&rows[1], &rows, at(1000)), "the last one stays");
    }

    #[test]
    fn a_host_whose_clock_went_back_still_signs() {
        let rows = [row(1, 1000), row(2, 2000)];
        let chosen = signing(&rows, Timestamp::from_secs(0));
        assert_eq!(chosen.map(|r| r.number), Some(1));
    }
}
