//! Reading many rows, also as of one moment.

use std::sync::Arc;

use countersign_core::ports::{BoxFuture, StoreError};

use super::{Lent, READ, Shared, within};
use crate::store::{Page, Row, View};

/// Up to `limit` rows in order of their keys.
pub(super) async fn page(
    client: &Lent,
    prefix: &[u8],
    from: &[u8],
    limit: usize,
) -> Result<Page, tokio_postgres::Error> {
    const OPEN: &str = "SELECT key, revision, expires_at, body FROM countersign_row \
         WHERE key >= $1 ORDER BY key LIMIT $2";
    const BOUND: &str = "SELECT key, revision, expires_at, body FROM countersign_row \
         WHERE key >= $1 AND key < $3 ORDER BY key LIMIT $2";
    // One more, to know where to go on.
    let limit = limit.max(1);
    let fetch = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let start = prefix.max(from);
    let found = match end_of(prefix) {
        Some(end) => {
            let query = client.prepare_cached(BOUND).await?;
            client.query(&query, &[&start, &fetch, &end]).await?
        }
        None => {
            let query = client.prepare_cached(OPEN).await?;
            client.query(&query, &[&start, &fetch]).await?
        }
    };
    let mut page = Page::default();
    for row in found {
        let key: &[u8] = row.get(0);
        if !key.starts_with(prefix) {
            break;
        }
        if page.rows.len() == limit {
            page.next = Some(key.to_vec());
            break;
        }
        let key = key.to_vec();
        let row = Row {
            revision: row.get::<_, i64>(1).cast_unsigned(),
            expires_at: row.get(2),
            body: row.get(3),
        };
        page.rows.push((key, row));
    }
    Ok(page)
}

/// The lowest key above all that begin so; none if there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// One transaction that sees nothing of what is written meanwhile.
pub(super) struct Frozen {
    shared: Arc<Shared>,
    client: Lent,
}

impl Frozen {
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let client = shared.lend().await?;
        let begin = client.batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET LOCAL idle_in_transaction_session_timeout = 0",
        );
        within(READ, begin).await?.map_err(|e| shared.failed(&e))?;
        Ok(Self {
            shared: shared.clone(),
            client,
        })
    }
}

impl View for Frozen {
    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        from: &'a [u8],
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let page = within(READ, page(&self.client, prefix, from, limit)).await?;
            page.map_err(|e| self.shared.failed(&e))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::end_of;

    #[test]
    fn what_lies_above_a_prefix_begins_behind_it() {
        for (prefix, end) in [
            (&[][..], None),
            (&[5], Some(vec![6])),
            (&[5, 2], Some(vec![5, 3])),
            (&[5, 0xFF], Some(vec![6])),
            (&[0xFF, 0xFF], None),
        ] {
            assert_eq!(end_of(prefix), end);
        }
    }
}
