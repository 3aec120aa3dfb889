//! The last sets of endpoints. Compiled once for each database: `super` is the store's own module and names its
//! `Connection`.

use sqlx::Row as _;

use super::Connection;
use crate::store::{KeptEndpoints, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Puts some and takes others away.
pub(super) async fn keep(connection: &mut Connection, puts: &[KeptEndpoints], gone: &[String]) -> Result<()> {
    const PUT: &str = "INSERT INTO endpoints (upstream, query, body) VALUES ($1, $2, $3) \
        ON CONFLICT (upstream) DO UPDATE SET query = excluded.query, body = excluded.body";
    for upstream in gone {
        sqlx::query("DELETE FROM endpoints WHERE upstream = $1")
            .bind(&**upstream)
            .execute(&mut *connection)
            .await?;
    }
    for put in puts {
        sqlx::query(PUT)
            .bind(&*put.upstream)
            .bind(&*put.query)
            .bind(&*put.body)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// All of them.
pub(super) async fn all(connection: &mut Connection) -> Result<Vec<KeptEndpoints>> {
    let rows = sqlx::query("SELECT upstream, query, body FROM endpoints ORDER BY upstream")
        .fetch_all(connection)
        .await?;
    let kept = |row: &super::Row| {
        Ok(KeptEndpoints {
            upstream: row.try_get("upstream")?,
            query: row.try_get("query")?,
            body: row.try_get("body")?,
        })
    };
    rows.iter().map(kept).collect()
}
