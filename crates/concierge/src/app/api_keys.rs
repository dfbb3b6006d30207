//! API keys of an account: `olk_` + 256 random bits, shown once, kept as SHA-256 (`rest.md` 3).

use chrono::{Duration, Utc};
use copass_errors::{Error, FieldProblem, Result};
use copass_runtime::{CallContext, Secret, clock};
use copass_store::{Tx, audit::Record, idempotency::KeyedRequest};
use copass_types::{ApiKeyId, SandboxId, UserId, validate};
use rand::{RngExt as _, distr::Alphanumeric};
use serde_json::json;

use super::{App, account, login};
use crate::store::{self, api_keys::ApiKeyRow};

/// 43 characters of a 62-letter alphabet hold 256 bits.
const SECRET_CHARS: usize = 43;
const PREFIX_CHARS: usize = 12;
const KINDS: &[&str] = copass_types::api::words::KeyKind::WORDS;

/// A key as it is made: the row to store, and the secret to show once.
pub(crate) struct NewKey {
    pub(crate) row: ApiKeyRow,
    pub(crate) secret: Secret,
}

/// A request with an `Idempotency-Key`, and how its answer is kept.
#[derive(Clone, Copy)]
pub(crate) struct Keyed<'a> {
    pub(crate) request: &'a KeyedRequest,
    pub(crate) encode: fn(&NewKey) -> Vec<u8>,
}

impl NewKey {
    pub(crate) fn generate(user_id: &UserId, name: &str, kind: &str, expires_in: Option<Duration>) -> Self {
        let mut random = rand::rng();
        let text: String = (0..SECRET_CHARS)
            .map(|_| char::from(random.sample(Alphanumeric)))
            .collect();
        let secret = format!("olk_{text}");
        let now = clock::now();
        let row = ApiKeyRow {
            id: ApiKeyId::generate().to_string(),
            user_id: user_id.to_string(),
            name: name.to_owned(),
            key_prefix: secret.chars().take(PREFIX_CHARS).collect(),
            kind: kind.to_owned(),
            agent_id: None,
            sandbox_id: None,
            connection_id: None,
            holder_user_id: None,
            created_at: now,
            expires_at: expires_in.map(|duration| now + duration),
            revoked_at: None,
            last_used_at: None,
            use_count: 0,
        };
        Self {
            row,
            secret: Secret::new(secret),
        }
    }

    pub(crate) async fn insert(&self, tx: &mut Tx) -> Result<()> {
        store::api_keys::insert(tx, &self.row, &login::hash(self.secret.expose())).await?;
        Ok(())
    }
}

/// What is wrong with a key's lifetime.
pub(super) fn lifetime_problem(expires_in_days: Option<u32>) -> Option<FieldProblem> {
    let is_out_of_range = expires_in_days.is_some_and(|days| !(1..=3650).contains(&days));
    is_out_of_range.then(|| FieldProblem::body("expires_in_days", "must be between 1 and 3650, or absent for never"))
}

impl ApiKeyRow {
    pub(crate) fn is_expired(&self) -> bool {
        self.expires_at
            .is_some_and(|expires_at: chrono::DateTime<Utc>| expires_at <= clock::now())
    }

    /// What the audit log keeps.
    pub(crate) fn summary(&self) -> serde_json::Value {
        let mut summary = json!({ "id": self.id, "name": self.name, "kind": self.kind, "key_prefix": self.key_prefix,
                                  "expires_at": self.expires_at });
        if let Some(agent_id) = &self.agent_id {
            summary["agent_id"] = json!(agent_id);
            summary["holder_user_id"] = json!(self.holder_user_id);
            summary["connection_id"] = json!(self.connection_id);
        }
        summary
    }
}

impl App {
    /// Keeps the answer to a keyed request, sealed, because it holds the secret that is shown once.
    pub(crate) async fn remember_key(&self, tx: &mut Tx, key: &NewKey, keyed: Option<Keyed<'_>>) -> Result<()> {
        match keyed {
            Some(Keyed { request, encode }) => self.idempotency.remember(tx, request, &encode(key)).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn create_api_key(
        &self,
        context: &CallContext,
        name: &str,
        expires_in_days: Option<u32>,
        keyed: Option<Keyed<'_>>,
    ) -> Result<NewKey> {
        let user_id = account(context)?;
        let mut problems = Vec::new();
        if let Err(problem) = validate::name(name, validate::KEY_NAME_MAX_CHARS) {
            problems.push(FieldProblem::body("name", problem));
        }
        problems.extend(lifetime_problem(expires_in_days));
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let key = NewKey::generate(
            user_id,
            name,
            "general",
            expires_in_days.map(|days| Duration::days(days.into())),
        );
        let mut tx = self.db.begin().await?;
        key.insert(&mut tx).await?;
        self.audit(
            &mut tx,
            Record::new(context, "api_key.create", &key.row.id).after(key.row.summary()),
        )
        .await?;
        self.remember_key(&mut tx, &key, keyed).await?;
        tx.commit().await?;
        Ok(key)
    }

    pub(crate) async fn list_api_keys(
        &self,
        context: &CallContext,
        kinds: &[String],
        include_revoked: bool,
    ) -> Result<Vec<ApiKeyRow>> {
        let user_id = account(context)?;
        if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            let problem = format!("'{unknown}' is not a kind of key; use general, agent_invoke or agent_delegate");
            return Err(Error::invalid(vec![FieldProblem::query("kinds", problem)]));
        }
        let mut conn = self.db.read().await?;
        let mut rows = store::api_keys::list(&mut conn, user_id).await?;
        rows.retain(|row| {
            (include_revoked || row.revoked_at.is_none()) && (kinds.is_empty() || kinds.contains(&row.kind))
        });
        Ok(rows)
    }

    /// Revokes at once; a second call answers alike. The owner of a sandbox may also revoke what others minted for its
    /// agents.
    pub(crate) async fn revoke_api_key(&self, context: &CallContext, id: &ApiKeyId) -> Result<ApiKeyRow> {
        let user_id = account(context)?;
        let mut tx = self.db.begin().await?;
        let row = store::api_keys::find_revocable(&mut tx, user_id, id)
            .await?
            .ok_or_else(|| Error::not_found("API key"))?;
        let minter: UserId = row.user_id.parse().map_err(Error::internal)?;
        if store::api_keys::revoke(&mut tx, &minter, id, clock::now()).await? {
            // An agent key is remembered under its holder or the owner, and always under its sandbox.
            let sandbox_id: Option<SandboxId> = row
                .sandbox_id
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(Error::internal)?;
            self.announce_revocation(&mut tx, Some(minter.as_str()), sandbox_id.as_ref())
                .await?;
            let mut entry = Record::new(context, "api_key.revoke", &row.id).before(row.summary());
            entry.sandbox_id = sandbox_id;
            self.audit(&mut tx, entry).await?;
            tx.commit().await?;
            self.outbox.wake();
        }
        Ok(row)
    }
}
