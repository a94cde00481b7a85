//! Users' own keys for servers of mode `static` that take one from each user.
//! Sealed like connections; sent to that one server, where it was when the key
//! was given.

use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::{ConnectionId, ServerName, TeamName, UserName};
use countersign_core::ports::{
    Change, Expect, Kind, RecordKey, Revision, SecretChange, StoreError, World, Write, delete,
    parse, random_token,
};
use countersign_core::secret::{Sealed, Secret};
use countersign_core::server::{AuthMode, Server};
use countersign_core::user_key::UserKey;

/// A record takes 8 KiB; the rest is for its facts and sealing.
pub const LONGEST: usize = 6 * 1024;

/// Why a key was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// The server does not take users' own keys.
    #[error(
        "the server {0} takes no key of yours: an administrator decides that with --static-per-user"
    )]
    NotTaken(ServerName),
    /// Nothing was given.
    #[error("the key is empty")]
    Empty,
    /// It is larger than is kept.
    #[error("the key is longer than {LONGEST} bytes")]
    TooLong,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps them.
#[derive(Clone)]
pub struct UserKeys {
    world: World,
}

/// A key as read.
pub struct Found {
    /// Its facts.
    pub key: UserKey,
    /// The key.
    pub sealed: Option<Sealed>,
    revision: Revision,
}

/// Whether each user has a key of his own for this server.
#[must_use]
pub fn takes_keys(server: &Server) -> bool {
    server.auth.mode == AuthMode::Static && server.auth.per_user
}

fn place(user: &UserName, team: &TeamName, server: &ServerName) -> RecordKey {
    RecordKey::within(Kind::UserKey, user.as_str(), format!("{team}/{server}"))
}

impl UserKeys {
    /// Over this store.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world }
    }

    /// A user's key for a server.
    ///
    /// # Errors
    /// The store's.
    pub async fn find(
        &self,
        user: &UserName,
        team: &TeamName,
        server: &ServerName,
    ) -> Result<Option<Found>, StoreError> {
        let record = self.world.records.get(&place(user, team, server)).await?;
        let Some(record) = record else {
            return Ok(None);
        };
        Ok(Some(Found {
            key: parse(&record)?,
            revision: record.revision,
            sealed: record.secret,
        }))
    }

    /// Keeps a key, in the place of the one there was.
    ///
    /// # Errors
    /// [`KeyRefused`].
    pub async fn set(
        &self,
        user: &UserName,
        team: &TeamName,
        server: &Server,
        value: Secret,
    ) -> Result<UserKey, KeyRefused> {
        let origin = UserKey::origin_of(server).filter(|_| takes_keys(server));
        let origin = origin.ok_or_else(|| KeyRefused::NotTaken(server.name.clone()))?;
        if value.is_empty() {
            return Err(KeyRefused::Empty);
        }
        if value.len() > LONGEST {
            return Err(KeyRefused::TooLong);
        }
        let old = self.find(user, team, &server.name).await?;
        let now = self.world.clock.now();
        let id = match &old {
            Some(old) => old.key.id.clone(),
            None => {
                let random = random_token::<16>(&*self.world.random);
                ConnectionId::parse(&format!("key_{random}"))
                    .map_err(|e| StoreError::Damaged(e.to_string()))?
            }
        };
        let key = UserKey {
            id,
            user: user.clone(),
            team: team.clone(),
            server: server.name.clone(),
            origin,
            generation: old.as_ref().map_or(1, |old| old.key.generation + 1),
            created_at: old.as_ref().map_or(now, |old| old.key.created_at),
            updated_at: now,
        };
        let document = serde_json::to_vec(&key).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let write = Write {
            key: place(user, team, &server.name),
            expect: old
                .as_ref()
                .map_or(Expect::Absent, |old| Expect::At(old.revision)),
            change: Some(Change {
                document,
                secret: SecretChange::Set(value),
                expires_at: None,
            }),
        };
        self.world.records.write(vec![write]).await?;
        self.note("user_key.set", &key).await?;
        Ok(key)
    }

    /// Destroys a user's key. Whether there was one.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete(
        &self,
        user: &UserName,
        team: &TeamName,
        server: &ServerName,
    ) -> Result<bool, StoreError> {
        let Some(found) = self.find(user, team, server).await? else {
            return Ok(false);
        };
        let write = delete(place(user, team, server), Expect::Anything);
        self.world.records.write(vec![write]).await?;
        self.note("user_key.delete", &found.key).await?;
        Ok(true)
    }

    /// A user's keys, by team and server.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, user: &UserName) -> Result<Vec<UserKey>, StoreError> {
        let partition = Some(user.as_str());
        let records = self.world.records.list(Kind::UserKey, partition).await?;
        let mut keys = records
            .iter()
            .map(parse)
            .collect::<Result<Vec<UserKey>, _>>()?;
        keys.sort_by(|a, b| (&a.team, &a.server).cmp(&(&b.team, &b.server)));
        Ok(keys)
    }

    /// Destroys all keys of a user, or those of one team.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget(&self, user: &UserName, team: Option<&TeamName>) -> Result<(), StoreError> {
        for key in self.list(user).await? {
            if team.is_none_or(|team| *team == key.team) {
                self.delete(user, &key.team, &key.server).await?;
            }
        }
        Ok(())
    }

    async fn note(&self, action: &str, key: &UserKey) -> Result<(), StoreError> {
        let mut event = AuditEvent::new(self.world.clock.now(), action, Outcome::Allowed)
            .by(&key.user)
            .on(format!("server:{}", key.server))
            .detail(format!("{}, for {}", key.id, key.origin));
        event.team = Some(key.team.to_string());
        self.world.audit.record(event).await
    }
}
