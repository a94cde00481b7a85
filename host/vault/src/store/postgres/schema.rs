//! The tables, version by version.

use tokio_postgres::Client;

use super::Database;
use super::fault::{DatabaseError, Doing};

/// Each is applied once, in order; what was released is never edited.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001.sql")];

/// Taken while the schema is looked at: "countersign" as a number.
const LOCK: i64 = 0x636f_756e_7465_7273;

/// Brings the schema to this version, if it is older.
pub(super) async fn migrate(client: &mut Client, to: &Database) -> Result<(), DatabaseError> {
    let failed = |e| DatabaseError::of(to, Doing::Migrating, &e);
    // The version comes first, and without a lock: where all is in place no
    // right to change anything is needed.
    let mut found = version(client).await.map_err(failed)?;
    if found < MIGRATIONS.len() {
        let work = client.transaction().await.map_err(failed)?;
        // Large tables take their time, and so does another host's turn.
        work.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            .await
            .map_err(failed)?;
        work.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
            .await
            .map_err(failed)?;
        work.batch_execute(
            "CREATE TABLE IF NOT EXISTS countersign_schema (
                 version integer PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT now()
             )",
        )
        .await
        .map_err(failed)?;
        // Another host may have done it meanwhile.
        found = applied(work.client()).await.map_err(failed)?;
        for (n, migration) in MIGRATIONS.iter().enumerate().skip(found) {
            work.batch_execute(migration).await.map_err(failed)?;
            let number = i32::try_from(n + 1).unwrap_or(i32::MAX);
            work.execute(
                "INSERT INTO countersign_schema (version) VALUES ($1)",
                &[&number],
            )
            .await
            .map_err(failed)?;
        }
        work.commit().await.map_err(failed)?;
        found = found.max(MIGRATIONS.len());
    }
    if found > MIGRATIONS.len() {
        return Err(DatabaseError::SchemaTooNew {
            database: to.name(),
            found,
            known: MIGRATIONS.len(),
        });
    }
    Ok(())
}

/// Zero for a database without tables of ours.
async fn version(client: &Client) -> Result<usize, tokio_postgres::Error> {
    let there = client
        .query_one("SELECT to_regclass('countersign_schema') IS NOT NULL", &[])
        .await?;
    if !there.get::<_, bool>(0) {
        return Ok(0);
    }
    applied(client).await
}

/// The newest version that was applied, where there is a table of them.
async fn applied(client: &Client) -> Result<usize, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT coalesce(max(version), 0) FROM countersign_schema",
            &[],
        )
        .await?;
    Ok(usize::try_from(row.get::<_, i32>(0)).unwrap_or(0))
}
