//! sqlx errors in the store's own terms: away for now, or broken.

use sqlx::error::DatabaseError;

use super::StoreError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => StoreError::Unavailable(
                "the database gave no connection in time; try again when it is back".to_owned(),
            ),
            sqlx::Error::PoolClosed => StoreError::Unavailable("it is shutting down".to_owned()),
            sqlx::Error::Io(error) => StoreError::Unavailable(error.to_string()),
            sqlx::Error::Tls(error) => StoreError::Unavailable(error.to_string()),
            sqlx::Error::WorkerCrashed => StoreError::Unavailable("the database's thread ended".to_owned()),
            sqlx::Error::Database(error) if passes(&*error) => {
                StoreError::Unavailable(error.message().to_owned())
            }
            other => StoreError::Broken(other.to_string()),
        }
    }
}

/// Whether the failure may pass by itself: the same statement may work later.
fn passes(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if let Some(sqlite) = primary_sqlite_code(&code) {
        // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_IOERR, SQLITE_FULL (https://sqlite.org/rescode.html)
        return matches!(sqlite, 5 | 6 | 10 | 13);
    }
    // Connection exceptions, insufficient resources, server shutting down or starting, and its own time limits
    // (https://www.postgresql.org/docs/current/errcodes-appendix.html)
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "08" | "53" | "58")
        || matches!(&*code, "57014" | "57P01" | "57P02" | "57P03" | "55P03" | "25P03")
}

/// Serialization failures: somebody else's commit came first.
pub(super) fn is_serialization_failure(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// SQLite's codes are extended ones in decimal, PostgreSQL's have five characters.
fn primary_sqlite_code(code: &str) -> Option<u32> {
    if code.len() == 5 {
        return None;
    }
    code.parse::<u32>().ok().map(|extended| extended & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_two_databases_are_told_apart() {
        let cases = [("5", Some(5)), ("517", Some(5)), ("2067", Some(19)), ("40001", None), ("57P01", None)];
        for (code, expected) in cases {
            assert_eq!(primary_sqlite_code(code), expected, "{code}");
        }
    }
}
