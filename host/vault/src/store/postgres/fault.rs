//! What PostgreSQL says, in words for an operator.

use std::error::Error as _;

use countersign_core::ports::StoreError;
use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use super::address::{AddressError, Database};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The address, or a file it names.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No connection.
    #[error("cannot connect to the database {database}: {cause}")]
    Connect {
        /// Which.
        database: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// The tables cannot be made or looked at.
    #[error("the tables in the database {database} cannot be set up: {cause}")]
    Schema {
        /// Which.
        database: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// A newer Countersign has been here.
    #[error(
        "the database {database} was set up by a newer Countersign (its schema is version {found}, \
         this one knows up to {known}): run the newer version here, too. A schema never goes back; \
         to go back to this version, restore a backup made with it into an empty database"
    )]
    SchemaTooNew {
        /// Which.
        database: String,
        /// Its version.
        found: usize,
        /// The newest one known here.
        known: usize,
    },
}

/// What was being done.
#[derive(Clone, Copy)]
pub(super) enum Doing {
    Connecting,
    Migrating,
}

impl DatabaseError {
    pub(super) fn of(database: &Database, doing: Doing, error: &tokio_postgres::Error) -> Self {
        let cause = explain(error, database.user());
        let database = database.name();
        match doing {
            Doing::Connecting => Self::Connect { database, cause },
            Doing::Migrating => Self::Schema { database, cause },
        }
    }
}

/// The server's words, and what to do. There is no secret in them: passwords
/// are never part of a message, and values of ours are sealed or hashed.
pub(super) fn explain(error: &tokio_postgres::Error, user: &str) -> String {
    let Some(said) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        let advice = if text.contains("certificate") || text.contains("UnknownIssuer") {
            "; sslmode=verify-full wants a certificate for this very name from an authority that \
             this machine (or sslrootcert=FILE) knows"
        } else if text.contains("read-only") || text.contains("does not allow writes") {
            "; it is a replica, or the primary has moved: name all servers in the address \
             (postgres://u@one:5432,two:5432/db), and the one that takes writes is found"
        } else if text.contains("password missing") {
            "; the server wants one: set [store] password_file, or PGPASSFILE"
        } else if text.contains("refused") || text.contains("timed out") {
            "; check that PostgreSQL runs there and that nothing stands between"
        } else {
            ""
        };
        return format!("{text}{advice}");
    };
    let message = said.message();
    let code = said.code();
    let advice = if *code == SqlState::INVALID_PASSWORD
        || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
    {
        format!(
            "check the password of {user} ([store] password_file, PGPASSFILE) and the server's \
             pg_hba.conf"
        )
    } else if *code == SqlState::INVALID_CATALOG_NAME {
        format!("make it first: createdb --owner {user} NAME")
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        format!(
            "{user} needs a database of its own, or: GRANT CREATE, USAGE ON SCHEMA public TO {user}"
        )
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        "raise max_connections of the server, or run fewer hosts: each takes up to twelve".into()
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        "this server takes no writes any more; waiting for one that does".into()
    } else if *code == SqlState::LOCK_NOT_AVAILABLE {
        "another host holds the write lock for too long; see its log, and pg_stat_activity".into()
    } else if *code == SqlState::DISK_FULL {
        "free space on the database server".into()
    } else {
        return format!("{message} ({})", code.code());
    };
    format!("{message}; {advice}")
}

/// As an error of a store that is open.
pub(super) fn failed(error: &tokio_postgres::Error, user: &str) -> StoreError {
    StoreError::Failed(format!("the database: {}", explain(error, user)))
}

/// As an error of a store that is open.
pub(super) fn no_connection(error: PoolError, user: &str) -> StoreError {
    match error {
        PoolError::Backend(error) => failed(&error, user),
        PoolError::Timeout(_) => StoreError::Failed(
            "the database: no connection became free in time; it does not answer, or it is too slow"
                .into(),
        ),
        other => StoreError::Failed(format!("the database: {other}")),
    }
}

/// As an error of a store that is open.
pub(super) fn timed_out() -> StoreError {
    StoreError::Failed("the database: no answer in time; it or the network hangs".into())
}
