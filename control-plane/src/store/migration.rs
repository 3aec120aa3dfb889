//! Brings the schema up to date, and says what it means when that fails: a store that a newer release wrote, one that
//! was changed by hand, or a database error.

use sqlx::migrate::{Migrate, MigrateError, Migrator};

use super::StoreError;

/// Applies the migrations that are missing, under the database's lock for that.
pub(super) async fn run<C: Migrate>(migrations: &Migrator, connection: &mut C) -> Result<(), StoreError> {
    // `Migrator::run` takes any `Acquire`, and a future that holds one is not provably `Send`.
    migrations.run_direct(None, connection, false).await.map_err(|error| explain(migrations, error))
}

/// Refuses a store whose schema is not the one of this release.
pub(super) async fn is_current<C: Migrate>(
    migrations: &Migrator,
    connection: &mut C,
) -> Result<(), StoreError> {
    const TABLE: &str = "_sqlx_migrations";
    let damaged = |error: MigrateError| StoreError::Open(format!("it is no store of a gateway: {error}"));
    let applied = connection.list_applied_migrations(TABLE).await.map_err(damaged)?;
    let mut known = migrations.iter().filter(|it| !it.migration_type.is_down_migration());
    for applied in &applied {
        match known.next() {
            Some(known) if known.version == applied.version && known.checksum == applied.checksum => {}
            _ => return Err(explain(migrations, MigrateError::VersionMissing(applied.version))),
        }
    }
    match known.next() {
        None => Ok(()),
        Some(missing) => Err(StoreError::Open(format!(
            "its schema is older than this release (migration {} is missing): start a control plane of this release on it once",
            missing.version
        ))),
    }
}

fn explain(migrations: &Migrator, error: MigrateError) -> StoreError {
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    match error {
        MigrateError::VersionMissing(found) if found > known => StoreError::NewerSchema { found, known },
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
            StoreError::Open(format!(
                "migration {version} of the store is not the one of this release: it was changed after it was applied; restore a backup, or start the release that made it"
            ))
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Open(format!("the schema cannot be brought up to date: {other}")),
    }
}
