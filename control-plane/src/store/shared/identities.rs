//! The CA, join tokens and revoked nodes. Compiled once for each database: `super` is the store's own module and names
//! its `Connection`, `Row` and dialect.

use async_trait::async_trait;
use gateway_proto::identity::RootId;
use jiff::{SignedDuration, Timestamp};
use sqlx::Row as _;

use super::handle::{Handle, LONG, SHORT, confirm, within};
use super::objects::{broken, number, time};
use super::{Connection, Row, dialect, records};
use crate::store::identity::{
    AuthorityRecord, AuthorityState, HeldName, Identities, IdentityStore, JoinTokenRecord, Joined, Joining,
    MAX_JOIN_TOKENS, Revoked, SealedKey,
};
use crate::store::{AuditRecord, MasterId, StoreError, TokenError};

type Result<T> = std::result::Result<T, StoreError>;

/// Join tokens that ended so long ago are forgotten.
const FORGET: SignedDuration = SignedDuration::from_hours(7 * 24);

#[async_trait]
impl IdentityStore for Handle {
    async fn identities(&self) -> Result<Identities> {
        within(SHORT, async { identities(&mut *self.snapshot().await?).await }).await
    }

    async fn create_authority(&self, record: AuthorityRecord, audit: Option<AuditRecord>) -> Result<bool> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let version = records::move_tokens_version(&mut transaction).await?;
            if !insert_authority(&mut transaction, &record).await? {
                transaction.rollback().await?;
                return Ok(false);
            }
            if let Some(audit) = &audit {
                records::append_audit(&mut transaction, audit, None).await?;
            }
            self.finish_tokens(transaction, version).await?;
            Ok(true)
        })
        .await
    }

    async fn activate_authority(&self, next: RootId, at: Timestamp) -> Result<bool> {
        const OLD: &str = "UPDATE authorities SET state = 'old', since_us = $1 WHERE state = 'active' \
            AND NOT EXISTS (SELECT 1 FROM authorities WHERE state = 'old')";
        const ACTIVE: &str =
            "UPDATE authorities SET state = 'active', since_us = $1 WHERE state = 'next' AND id = $2";
        within(LONG, async {
            let mut transaction = self.write().await?;
            // Also the lock under which replicas that do this at once come one after the other.
            let version = records::move_tokens_version(&mut transaction).await?;
            let at = at.as_microsecond();
            let old = sqlx::query(OLD).bind(at).execute(&mut *transaction).await?.rows_affected();
            let active = match old {
                1 => {
                    let query = sqlx::query(ACTIVE).bind(at).bind(next.as_slice());
                    query.execute(&mut *transaction).await?.rows_affected()
                }
                _ => 0,
            };
            if active != 1 {
                transaction.rollback().await?;
                return Ok(false);
            }
            self.finish_tokens(transaction, version).await?;
            Ok(true)
        })
        .await
    }

    async fn retire_authority(&self, old: RootId) -> Result<bool> {
        const SQL: &str = "DELETE FROM authorities WHERE state = 'old' AND id = $1";
        within(LONG, async {
            let mut transaction = self.write().await?;
            let version = records::move_tokens_version(&mut transaction).await?;
            let gone = sqlx::query(SQL).bind(old.as_slice()).execute(&mut *transaction).await?;
            if gone.rows_affected() != 1 {
                transaction.rollback().await?;
                return Ok(false);
            }
            self.finish_tokens(transaction, version).await?;
            Ok(true)
        })
        .await
    }

    async fn lengthen_authority(&self, id: RootId, lifetime_us: i64) -> Result<()> {
        const SQL: &str = "UPDATE authorities SET lifetime_us = $1 WHERE id = $2 AND lifetime_us < $1";
        within(LONG, async {
            let mut connection = self.writer.acquire().await?;
            sqlx::query(SQL).bind(lifetime_us).bind(id.as_slice()).execute(&mut *connection).await?;
            Ok(())
        })
        .await
    }

    async fn put_authority_key(&self, id: RootId, from: MasterId, key: SealedKey) -> Result<bool> {
        const SQL: &str = "UPDATE authorities SET master = $1, data_key = $2 WHERE id = $3 AND master = $4";
        within(LONG, async {
            let mut transaction = self.write().await?;
            if !is_current(&mut transaction, key.master).await? {
                return Ok(false);
            }
            sqlx::query(SQL)
                .bind(key.master.as_slice())
                .bind(key.data_key.as_slice())
                .bind(id.as_slice())
                .bind(from.as_slice())
                .execute(&mut *transaction)
                .await?;
            confirm(transaction).await?;
            Ok(true)
        })
        .await
    }

    async fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>> {
        const SQL: &str = "SELECT name, digest, authority, node_group, uses, used, created_us, expires_us \
            FROM join_tokens ORDER BY name";
        within(SHORT, async {
            let rows = sqlx::query(SQL).fetch_all(&mut *self.readers.acquire().await?).await?;
            rows.iter().map(join_token).collect()
        })
        .await
    }

    async fn create_join_token(
        &self,
        token: JoinTokenRecord,
        audit: AuditRecord,
    ) -> std::result::Result<(), TokenError> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            insert_join_token(&mut transaction, &token).await?;
            records::append_audit(&mut transaction, &audit, None).await?;
            Ok(confirm(transaction).await?)
        })
        .await
    }

    async fn delete_join_token(&self, name: &str, audit: AuditRecord) -> Result<bool> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let query = sqlx::query("DELETE FROM join_tokens WHERE name = $1").bind(name);
            if query.execute(&mut *transaction).await?.rows_affected() == 0 {
                transaction.rollback().await?;
                return Ok(false);
            }
            records::append_audit(&mut transaction, &audit, None).await?;
            confirm(transaction).await?;
            Ok(true)
        })
        .await
    }

    async fn join_token(&self, digest: [u8; 32]) -> Result<Option<JoinTokenRecord>> {
        within(SHORT, async { token_of(&mut *self.readers.acquire().await?, digest).await }).await
    }

    async fn join(&self, mut joining: Joining<'_>) -> Result<Joined> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let joined = join(&mut transaction, &mut joining).await?;
            if matches!(joined, Joined::Yes { .. }) {
                records::append_audit(&mut transaction, &joining.audit, None).await?;
                confirm(transaction).await?;
            } else {
                transaction.rollback().await?;
            }
            Ok(joined)
        })
        .await
    }

    async fn hold_name(&self, node: &str, group: &str, time: (Timestamp, Timestamp)) -> Result<Joined> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            if let Some(other) = hold(&mut transaction, node, group, time).await? {
                transaction.rollback().await?;
                return Ok(Joined::NameHeld(other));
            }
            let revoked = revoked(&mut transaction, node).await?;
            confirm(transaction).await?;
            Ok(Joined::Yes { revoked })
        })
        .await
    }

    async fn revoke_node(
        &self,
        node: &str,
        unseen: bool,
        at: Timestamp,
        audit: AuditRecord,
    ) -> Result<Revoked> {
        const SEEN: &str = "SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM nodes WHERE node = $1) \
            OR EXISTS (SELECT 1 FROM node_names WHERE node = $1) \
            OR EXISTS (SELECT 1 FROM enrolments WHERE node = $1) \
            OR EXISTS (SELECT 1 FROM revoked_nodes WHERE node = $1)";
        const FREE: &str = "DELETE FROM node_names WHERE node = $1";
        const SQL: &str = "INSERT INTO revoked_nodes (node, before_us) VALUES ($1, $2) \
            ON CONFLICT (node) DO UPDATE SET before_us = excluded.before_us \
            WHERE revoked_nodes.before_us < excluded.before_us";
        within(LONG, async {
            let mut transaction = self.write().await?;
            let version = records::move_tokens_version(&mut transaction).await?;
            if !unseen && sqlx::query(SEEN).bind(node).fetch_optional(&mut *transaction).await?.is_none() {
                transaction.rollback().await?;
                return Ok(Revoked::Unknown);
            }
            sqlx::query(SQL).bind(node).bind(at.as_microsecond()).execute(&mut *transaction).await?;
            sqlx::query(FREE).bind(node).execute(&mut *transaction).await?;
            records::append_audit(&mut transaction, &audit, None).await?;
            self.finish_tokens(transaction, version).await?;
            Ok(Revoked::Yes)
        })
        .await
    }
}

async fn identities(connection: &mut Connection) -> Result<Identities> {
    const AUTHORITIES: &str = "SELECT state, id, certificate, cross_signed, since_us, lifetime_us, master, \
        data_key, private_key FROM authorities";
    const REVOKED: &str = "SELECT node, before_us FROM revoked_nodes ORDER BY node";
    let rows = sqlx::query(AUTHORITIES).fetch_all(&mut *connection).await?;
    let mut authorities = rows.iter().map(authority).collect::<Result<Vec<_>>>()?;
    authorities.sort_by_key(|authority| authority.state);
    let rows = sqlx::query(REVOKED).fetch_all(connection).await?;
    let revoked = rows.iter().map(|row| Ok((row.try_get("node")?, time(row, "before_us")?)));
    Ok(Identities { authorities, revoked: revoked.collect::<Result<_>>()? })
}

fn authority(row: &Row) -> Result<AuthorityRecord> {
    let state: &str = row.try_get("state")?;
    let states = [AuthorityState::Next, AuthorityState::Active, AuthorityState::Old];
    let state = states.into_iter().find(|known| known.as_str() == state);
    let master = row.try_get::<&[u8], _>("master")?.try_into().map_err(|_| broken("master"))?;
    Ok(AuthorityRecord {
        state: state.ok_or_else(|| broken("state"))?,
        id: row.try_get::<&[u8], _>("id")?.try_into().map_err(|_| broken("id"))?,
        certificate: row.try_get("certificate")?,
        cross_signed: row.try_get("cross_signed")?,
        since: time(row, "since_us")?,
        lifetime_us: row.try_get("lifetime_us")?,
        key: SealedKey { master, data_key: row.try_get("data_key")?, value: row.try_get("private_key")? },
    })
}

/// Whether that is the master key that is named, which stays so until the transaction ends.
async fn is_current(connection: &mut Connection, master: MasterId) -> Result<bool> {
    let row = sqlx::query(dialect::HOLD_MASTER).fetch_optional(connection).await?;
    let named = row.map(|row| row.try_get::<Vec<u8>, _>("id")).transpose()?;
    Ok(named.is_none_or(|named| named == master))
}

async fn insert_authority(connection: &mut Connection, record: &AuthorityRecord) -> Result<bool> {
    const SQL: &str = "INSERT INTO authorities (state, id, certificate, cross_signed, since_us, lifetime_us, \
        master, data_key, private_key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
    // Three at a time would be one too many for everybody who has to hear of them.
    const OLD: &str = "SELECT 1 AS one FROM authorities WHERE state = 'old'";
    if !is_current(connection, record.key.master).await? {
        return Ok(false);
    }
    if record.state == AuthorityState::Next
        && sqlx::query(OLD).fetch_optional(&mut *connection).await?.is_some()
    {
        return Ok(false);
    }
    let done = sqlx::query(SQL)
        .bind(record.state.as_str())
        .bind(record.id.as_slice())
        .bind(record.certificate.as_slice())
        .bind(record.cross_signed.as_deref())
        .bind(record.since.as_microsecond())
        .bind(record.lifetime_us)
        .bind(record.key.master.as_slice())
        .bind(record.key.data_key.as_slice())
        .bind(record.key.value.as_slice())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

async fn insert_join_token(
    connection: &mut Connection,
    token: &JoinTokenRecord,
) -> std::result::Result<(), TokenError> {
    const GONE: &str = "DELETE FROM join_tokens WHERE expires_us < $1";
    const ENDED: &str = "DELETE FROM node_names WHERE until_us < $1";
    const COUNT: &str = "SELECT count(*) AS count FROM join_tokens";
    const SQL: &str = "INSERT INTO join_tokens \
        (name, digest, authority, node_group, uses, used, created_us, expires_us) \
        VALUES ($1, $2, $3, $4, $5, 0, $6, $7) ON CONFLICT DO NOTHING";
    let gone = token.created.checked_sub(FORGET).unwrap_or(Timestamp::MIN);
    for old in [GONE, ENDED] {
        let query = sqlx::query(old).bind(gone.as_microsecond());
        query.execute(&mut *connection).await.map_err(StoreError::from)?;
    }
    let row = sqlx::query(COUNT).fetch_one(&mut *connection).await.map_err(StoreError::from)?;
    if number(&row, "count")? >= u64::from(MAX_JOIN_TOKENS) {
        return Err(TokenError::Full(MAX_JOIN_TOKENS));
    }
    let done = sqlx::query(SQL)
        .bind(&*token.name)
        .bind(token.digest.as_slice())
        .bind(token.authority.as_slice())
        .bind(&*token.group)
        .bind(i64::from(token.uses))
        .bind(token.created.as_microsecond())
        .bind(token.expires.as_microsecond())
        .execute(connection)
        .await
        .map_err(StoreError::from)?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(TokenError::Exists(token.name.clone())) }
}

fn join_token(row: &Row) -> Result<JoinTokenRecord> {
    let count = |column| u32::try_from(number(row, column)?).map_err(|_| broken(column));
    Ok(JoinTokenRecord {
        name: row.try_get("name")?,
        digest: row.try_get::<&[u8], _>("digest")?.try_into().map_err(|_| broken("digest"))?,
        authority: row.try_get::<&[u8], _>("authority")?.try_into().map_err(|_| broken("authority"))?,
        group: row.try_get("node_group")?,
        uses: count("uses")?,
        used: count("used")?,
        created: time(row, "created_us")?,
        expires: time(row, "expires_us")?,
    })
}

/// The token of a digest.
async fn token_of(connection: &mut Connection, digest: [u8; 32]) -> Result<Option<JoinTokenRecord>> {
    const SQL: &str = "SELECT name, digest, authority, node_group, uses, used, created_us, expires_us \
        FROM join_tokens WHERE digest = $1";
    let row = sqlx::query(SQL).bind(digest.as_slice()).fetch_optional(connection).await?;
    row.as_ref().map(join_token).transpose()
}

/// Takes a name for a group from a time to another; who has it instead, if it is another group's then.
async fn hold(
    connection: &mut Connection,
    node: &str,
    group: &str,
    (from, until): (Timestamp, Timestamp),
) -> Result<Option<HeldName>> {
    const SQL: &str = "INSERT INTO node_names (node, node_group, until_us) VALUES ($1, $2, $3) \
        ON CONFLICT (node) DO UPDATE SET node_group = excluded.node_group, until_us = CASE \
        WHEN node_names.node_group <> excluded.node_group OR node_names.until_us < excluded.until_us \
        THEN excluded.until_us ELSE node_names.until_us END \
        WHERE node_names.node_group = excluded.node_group OR node_names.until_us <= $4";
    const WHOSE: &str = "SELECT node_group, until_us FROM node_names WHERE node = $1";
    let query = sqlx::query(SQL).bind(node).bind(group).bind(until.as_microsecond());
    if query.bind(from.as_microsecond()).execute(&mut *connection).await?.rows_affected() == 1 {
        return Ok(None);
    }
    let row = sqlx::query(WHOSE).bind(node).fetch_one(connection).await?;
    Ok(Some(HeldName { group: row.try_get("node_group")?, until: time(&row, "until_us")? }))
}

/// Works it out, and writes it; the caller takes it back unless it is a yes.
async fn join(connection: &mut Connection, joining: &mut Joining<'_>) -> Result<Joined> {
    const COME: &str = "INSERT INTO enrolments (token, key_digest, node, at_us) VALUES ($1, $2, $3, $4) \
        ON CONFLICT DO NOTHING";
    // Locks the row: of two who come at once, the second counts what the first has used.
    const USE: &str = "UPDATE join_tokens SET used = used + 1 WHERE name = $1 AND used < uses";
    let Some(token) = token_of(connection, joining.token).await? else { return Ok(Joined::Unknown) };
    if token.expires <= joining.at {
        return Ok(Joined::Expired(token.expires));
    }
    if token.group != joining.group {
        return Ok(Joined::OtherGroup(token.group));
    }
    joining.audit.object = format!("{} with {}", joining.node, token.name);
    if let Some(other) = hold(connection, joining.node, joining.group, (joining.at, joining.until)).await? {
        return Ok(Joined::NameHeld(other));
    }
    let revoked = revoked(connection, joining.node).await?;
    let come = sqlx::query(COME)
        .bind(&*token.name)
        .bind(joining.key.as_slice())
        .bind(joining.node)
        .bind(joining.at.as_microsecond())
        .execute(&mut *connection)
        .await?;
    if come.rows_affected() == 0 {
        let again = has_come(connection, &token.name, joining, revoked).await?;
        return Ok(if again { Joined::Yes { revoked } } else { Joined::UsedUp });
    }
    let used = sqlx::query(USE).bind(&*token.name).execute(&mut *connection).await?;
    Ok(if used.rows_affected() == 1 { Joined::Yes { revoked } } else { Joined::UsedUp })
}

/// Whether that key came for that node before, and the node was not revoked since.
async fn has_come(
    connection: &mut Connection,
    token: &str,
    joining: &Joining<'_>,
    revoked: Option<Timestamp>,
) -> Result<bool> {
    const SQL: &str = "SELECT node, at_us FROM enrolments WHERE token = $1 AND key_digest = $2";
    let row = sqlx::query(SQL).bind(token).bind(joining.key.as_slice()).fetch_one(connection).await?;
    let at = time(&row, "at_us")?;
    Ok(row.try_get::<&str, _>("node")? == joining.node && revoked.is_none_or(|revoked| at > revoked))
}

async fn revoked(connection: &mut Connection, node: &str) -> Result<Option<Timestamp>> {
    const SQL: &str = "SELECT before_us FROM revoked_nodes WHERE node = $1";
    let row = sqlx::query(SQL).bind(node).fetch_optional(connection).await?;
    row.map(|row| time(&row, "before_us")).transpose()
}
