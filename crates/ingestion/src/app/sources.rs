//! Data sources: register, list, get (`rest.md` 8.1 to 8.3).

use chrono::{DateTime, Utc};
use copass_errors::{Error, ErrorCode, FieldProblem, Result};
use copass_runtime::{CallContext, clock};
use copass_store::{
    Db,
    audit::{self, Record},
    idempotency::{Idempotency, KeyedRequest},
    outbox::Outbox,
};
use copass_types::{AccessClass, DataSourceId, Principal, SandboxId, UserId, validate};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{IngestionMode, SourceKind, SourceStatus};
use crate::store;

/// In the audit log.
const REGISTER_ACTION: &str = "source.register";
const PROVIDER_MAX_CHARS: usize = 64;
const EXTERNAL_ACCOUNT_ID_MAX_CHARS: usize = 255;
const MIN_POLL_INTERVAL_SECONDS: u32 = 60;

/// A data source. Serialised as the kept answer of a keyed request, which lives for a day: new fields need a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataSource {
    pub(crate) id: DataSourceId,
    pub(crate) sandbox_id: SandboxId,
    /// The account that holds the sandbox, whoever registered the source.
    pub(crate) user_id: UserId,
    pub(crate) provider: String,
    pub(crate) name: String,
    /// One of [`IngestionMode`], or `user_mcp`, which cannot be registered here.
    pub(crate) ingestion_mode: String,
    pub(crate) status: SourceStatus,
    pub(crate) kind: SourceKind,
    pub(crate) external_account_id: Option<String>,
    pub(crate) adapter_config: Value,
    pub(crate) poll_interval_seconds: Option<u32>,
    pub(crate) webhook_url: Option<String>,
    pub(crate) last_sync_at: Option<DateTime<Utc>>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// What a caller wants to register; not checked yet. Serialised to compare repeats under one idempotency key.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Registration {
    pub(crate) provider: String,
    pub(crate) name: String,
    pub(crate) ingestion_mode: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) external_account_id: Option<String>,
    /// JSON text.
    pub(crate) adapter_config: Option<String>,
    pub(crate) poll_interval_seconds: Option<u32>,
}

/// Which sources to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) provider: Option<String>,
    pub(crate) status: Option<String>,
}

/// Data sources of all sandboxes; each call names one and proves its rights on it.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    db: Db,
    idempotency: Idempotency,
    outbox: Outbox,
}

impl Sources {
    pub(crate) fn new(db: Db, idempotency: Idempotency, outbox: Outbox) -> Self {
        Self {
            db,
            idempotency,
            outbox,
        }
    }

    /// Registers a source, or gives the first answer again when the key was used before.
    pub(crate) async fn register(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        registration: Registration,
        idempotency_key: Option<String>,
        max_data_sources: u64,
    ) -> Result<DataSource> {
        let outcome = self
            .try_register(context, sandbox_id, registration, idempotency_key, max_data_sources)
            .await;
        let record = Record::new(context, REGISTER_ACTION, sandbox_id).sandbox(sandbox_id);
        audit::note_denial(&self.db, &self.outbox, record, outcome).await
    }

    async fn try_register(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        registration: Registration,
        idempotency_key: Option<String>,
        max_data_sources: u64,
    ) -> Result<DataSource> {
        let principal = &context.principal;
        let access = principal.require(sandbox_id, AccessClass::Build)?;
        if access.project_id.is_some() {
            return Err(Error::forbidden(
                "your grant is limited to one project, and a new source belongs to none; ask the sandbox's owner",
            ));
        }
        let keyed = idempotency_key
            .map(|key| keyed(principal, sandbox_id, key, &registration))
            .transpose()?;
        let source = accept(registration, sandbox_id, &access.owner_user_id)?;
        let work = async {
            self.insert(context, &source, keyed.as_ref(), max_data_sources).await?;
            Ok(source)
        };
        let decode = |answer: &[u8]| serde_json::from_slice(answer).map_err(Error::internal);
        self.idempotency.once(keyed.as_ref(), decode, work).await
    }

    /// The sources of a sandbox, oldest first.
    pub(crate) async fn list(
        &self,
        principal: &Principal,
        sandbox_id: &SandboxId,
        filter: Filter,
    ) -> Result<Vec<DataSource>> {
        let access = principal.require(sandbox_id, AccessClass::Read)?;
        let status = filter.status.as_deref().map(SourceStatus::parse).transpose();
        let status = status.map_err(|problem| Error::invalid(vec![FieldProblem::query("status", problem)]))?;
        // A provider that cannot exist has no sources. Nor has a project yet: sources cannot be linked to one, so a grant
        // that is limited to a project shows none of them.
        let is_impossible = filter
            .provider
            .as_deref()
            .is_some_and(|provider| check_provider(provider).is_err());
        if is_impossible || access.project_id.is_some() {
            return Ok(Vec::new());
        }
        let mut conn = self.db.read().await?;
        store::sources::list(&mut conn, sandbox_id, filter.provider.as_deref(), status).await
    }

    /// One source of a sandbox. The id is text, because a malformed one is told only to those who may look.
    pub(crate) async fn get(
        &self,
        principal: &Principal,
        sandbox_id: &SandboxId,
        data_source_id: &str,
    ) -> Result<DataSource> {
        let access = principal.require(sandbox_id, AccessClass::Read)?;
        let unknown = || Error::not_found("data source");
        if access.project_id.is_some() {
            return Err(unknown());
        }
        let data_source_id: DataSourceId = data_source_id.parse().map_err(|_| unknown())?;
        let mut conn = self.db.read().await?;
        store::sources::find(&mut conn, sandbox_id, &data_source_id)
            .await?
            .ok_or_else(unknown)
    }

    async fn insert(
        &self,
        context: &CallContext,
        source: &DataSource,
        keyed: Option<&KeyedRequest>,
        max_data_sources: u64,
    ) -> Result<()> {
        let mut tx = self.db.begin().await?;
        // The count below must still hold at the commit, so registrations into one sandbox go one after the other.
        store::sources::lock(&mut tx, &source.sandbox_id).await?;
        // Before the count: a repeat is told its first answer and not that the first one reached the limit.
        if let Some(keyed) = keyed {
            let answer = serde_json::to_vec(source).map_err(Error::internal)?;
            self.idempotency.remember(&mut tx, keyed, &answer).await?;
        }
        if store::sources::count(&mut tx, &source.sandbox_id).await? >= max_data_sources {
            return Err(Error::new(
                ErrorCode::TierLimit,
                format!(
                    "the sandbox's tier allows {max_data_sources} data sources and they are all in use; \
                     delete one, or ask the operator for a larger tier"
                ),
            ));
        }
        store::sources::insert(&mut tx, source).await?;
        // Without the adapter's configuration: it is the caller's, and the log cannot forget.
        let record = Record::new(context, REGISTER_ACTION, &source.id)
            .sandbox(&source.sandbox_id)
            .after(
                json!({ "name": source.name, "provider": source.provider, "ingestion_mode": source.ingestion_mode }),
            );
        self.outbox.add(&mut tx, &record.into_message()).await?;
        tx.commit().await?;
        self.outbox.wake();
        Ok(())
    }
}

/// The identity of a keyed request. Caller and sandbox are part of it, so that keys of others never meet.
fn keyed(
    principal: &Principal,
    sandbox_id: &SandboxId,
    key: String,
    registration: &Registration,
) -> Result<KeyedRequest> {
    let caller = principal.user_id.as_ref().map_or("service", UserId::as_str);
    let content = serde_json::to_vec(registration).map_err(Error::internal)?;
    KeyedRequest::checked(format!("source.register/{sandbox_id}/{caller}"), key, &content)
}

/// Checks what the caller gave and makes the source of it. Every problem of the shape is listed at once.
fn accept(registration: Registration, sandbox_id: &SandboxId, owner: &UserId) -> Result<DataSource> {
    let mut problems = Problems::default();
    problems.check("provider", check_provider(&registration.provider));
    problems.check("name", validate::name(&registration.name, validate::NAME_MAX_CHARS));
    let mode = registration
        .ingestion_mode
        .as_deref()
        .map_or(Ok(IngestionMode::Manual), IngestionMode::parse);
    let mode = problems.check("ingestion_mode", mode);
    let kind = registration
        .kind
        .as_deref()
        .map_or(Ok(SourceKind::Durable), SourceKind::parse);
    let kind = problems.check("kind", kind);
    if let Some(account) = &registration.external_account_id {
        problems.check(
            "external_account_id",
            validate::length(account, EXTERNAL_ACCOUNT_ID_MAX_CHARS),
        );
    }
    let adapter_config = problems.check("adapter_config", parse_config(registration.adapter_config.as_deref()));
    if registration
        .poll_interval_seconds
        .is_some_and(|seconds| seconds < MIN_POLL_INTERVAL_SECONDS)
    {
        let problem = format!("must be at least {MIN_POLL_INTERVAL_SECONDS}");
        problems.check("poll_interval_seconds", Err::<(), _>(problem));
    }
    let (Some(mode), Some(kind), Some(adapter_config), true) = (mode, kind, adapter_config, problems.0.is_empty())
    else {
        return Err(Error::invalid(problems.0));
    };
    if registration.provider == "user_mcp" {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            "a user_mcp source holds a token, which would be stored in clear this way; \
             register it with POST /api/v1/storage/sandboxes/{sandbox_id}/sources/user-mcp",
        ));
    }
    if mode == IngestionMode::Realtime {
        return Err(Error::new(
            ErrorCode::NotImplemented,
            "realtime sources receive webhooks, which this release cannot do yet, so nothing was registered; \
             use ingestion_mode manual, polling or batch, or wait for a later release",
        ));
    }
    let now = clock::now();
    Ok(DataSource {
        id: DataSourceId::generate(),
        sandbox_id: sandbox_id.clone(),
        user_id: owner.clone(),
        provider: registration.provider,
        name: registration.name,
        ingestion_mode: mode.as_str().to_owned(),
        status: SourceStatus::Active,
        kind,
        external_account_id: registration.external_account_id,
        adapter_config,
        poll_interval_seconds: registration.poll_interval_seconds,
        webhook_url: None,
        last_sync_at: None,
        created_at: now,
        updated_at: now,
    })
}

#[derive(Default)]
struct Problems(Vec<FieldProblem>);

impl Problems {
    /// Keeps the problem or gives the value.
    fn check<T>(&mut self, field: &str, outcome: Result<T, String>) -> Option<T> {
        outcome
            .map_err(|problem| self.0.push(FieldProblem::body(field, problem)))
            .ok()
    }
}

/// An open set of words: what a provider may be called, not which there are.
fn check_provider(provider: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if (1..=PROVIDER_MAX_CHARS).contains(&provider.len()) && provider.bytes().all(is_plain) {
        Ok(())
    } else {
        Err(format!(
            "must have 1 to {PROVIDER_MAX_CHARS} lowercase letters, digits, underscores and hyphens"
        ))
    }
}

fn parse_config(text: Option<&str>) -> Result<Value, String> {
    let Some(text) = text else {
        return Ok(Value::Object(Map::new()));
    };
    let value = serde_json::from_str(text).map_err(|_| "must be a JSON object".to_owned())?;
    validate::stored_object(&value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration {
            provider: "custom".to_owned(),
            name: "Notes".to_owned(),
            ingestion_mode: None,
            kind: None,
            external_account_id: None,
            adapter_config: None,
            poll_interval_seconds: None,
        }
    }

    fn accepted(registration: Registration) -> Result<DataSource> {
        accept(registration, &SandboxId::generate(), &UserId::generate())
    }

    #[test]
    fn what_is_left_out_gets_the_contracts_defaults() {
        let source = accepted(registration()).unwrap();
        assert_eq!(
            (source.ingestion_mode.as_str(), source.status),
            ("manual", SourceStatus::Active)
        );
        assert_eq!(
            (source.kind, source.adapter_config),
            (SourceKind::Durable, serde_json::json!({}))
        );
    }

    #[test]
    fn every_problem_is_listed_at_once() {
        let bad = Registration {
            provider: "My Provider".to_owned(),
            name: " ".to_owned(),
            ingestion_mode: Some("sometimes".to_owned()),
            kind: Some("trigger".to_owned()),
            external_account_id: Some("\0".to_owned()),
            adapter_config: Some("[]".to_owned()),
            poll_interval_seconds: Some(59),
        };
        let error = accepted(bad).unwrap_err();
        let fields: Vec<_> = error.problems().iter().map(|problem| problem.loc[1].as_str()).collect();
        let expected = [
            "provider",
            "name",
            "ingestion_mode",
            "kind",
            "external_account_id",
            "adapter_config",
        ];
        assert_eq!(fields, [&expected[..], &["poll_interval_seconds"]].concat());
    }

    #[test]
    fn a_shape_problem_is_told_before_a_meaning_problem() {
        let bad = Registration {
            provider: "user_mcp".to_owned(),
            name: String::new(),
            ..registration()
        };
        assert_eq!(accepted(bad).unwrap_err().code(), ErrorCode::ValidationError);
    }
}
