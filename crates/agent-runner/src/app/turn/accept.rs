//! Accepting a run: row, conversation and what was asked for, in one transaction.
//!
//! A run with a reader is accepted running, with its trace and its first model step, so a turn costs one disk flush
//! before the first model call. A run in the background is accepted pending and answered at once; whoever works on it
//! begins it later (`background.rs`).

use chrono::{DateTime, Utc};
use copass_errors::{Error, ErrorCode, Result};
use copass_llm::Message;
use copass_runtime::clock;
use copass_store::{Batch, outbox::OutboxMessage};
use copass_types::{AgentId, RunId, SandboxId, SessionId, UserId};
use serde_json::Value;

use super::{
    Worker,
    conversation::{self, Opened},
    entrances,
    journal::Journal,
    replay::Progress,
};
use crate::{
    app::{
        domain::{
            AgentStatus, CONCIERGE_SLUG, Entrance, ModelSettings, Run, RunRequest, RunStatus, SYSTEM_AGENT_VERSION,
        },
        tool_sources::Resolution,
    },
    store::{self, runs::NewRun},
};

/// The fence of a run that has had one worker.
pub(super) const FIRST_FENCE: i64 = 1;

/// A run as it is wanted; everything that can be refused without looking has been checked.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) run_id: RunId,
    pub(super) sandbox_id: SandboxId,
    /// The account that holds the sandbox.
    pub(super) owner: UserId,
    /// The person the run acts for.
    pub(super) user_id: UserId,
    pub(super) entrance: Entrance,
    pub(super) agent: WantedAgent,
    pub(super) request: RunRequest,
    /// At most one run of the sandbox has it.
    pub(super) unique_key: Option<String>,
    pub(super) trigger_id: Option<String>,
    pub(super) retry_of: Option<RunId>,
    pub(super) input_event: Option<Value>,
    pub(super) session: Session,
    pub(super) end_user_id: Option<String>,
}

/// Whose run it is.
#[derive(Debug, Clone)]
pub(super) enum WantedAgent {
    /// A part of the system, made in a sandbox by its first run.
    System {
        slug: &'static str,
        settings: ModelSettings,
    },
    /// One of people's agents.
    User {
        id: AgentId,
        slug: String,
        version: i64,
        status: AgentStatus,
    },
}

impl Wanted {
    /// Refuses to run an archived agent. Asked for after a repeat of an earlier request has found its run.
    pub(super) fn check_agent(&self) -> Result<()> {
        match &self.agent {
            // What a trigger wants gets a run that tells the reason.
            WantedAgent::User { slug, status, .. }
                if *status == AgentStatus::Archived && self.entrance != Entrance::Trigger =>
            {
                Err(entrances::archived(slug))
            }
            _ => Ok(()),
        }
    }
}

/// Which conversation the run belongs to.
#[derive(Debug, Clone)]
pub(super) enum Session {
    /// None: the run stands alone.
    None,
    /// A new one.
    New,
    /// One that was begun before.
    Continue(String),
}

/// What became of the wish.
#[derive(Debug)]
pub(super) enum Accepted<T> {
    /// There is a new run.
    New(T),
    /// The same request was accepted before as this run.
    Before(RunId),
}

/// A run that a worker may work on now.
pub(super) struct Start {
    pub(super) run: Run,
    /// Everything before this run's own user turn.
    pub(super) history: Vec<Message>,
    pub(super) journal: Journal,
    pub(super) progress: Progress,
}

/// Accepts a run whose reader waits, running.
pub(super) async fn accept_running(
    worker: &Worker,
    wanted: &Wanted,
    resolution: &Resolution,
    label: &str,
    warning: Option<&str>,
) -> Result<Accepted<Start>> {
    let now = clock::now();
    let mut journal = Journal::new(
        worker.db.clone(),
        wanted.sandbox_id.clone(),
        wanted.run_id.clone(),
        FIRST_FENCE,
        worker.config.lease,
    );
    let first_step = journal.begin_model(label);
    let draft = Draft {
        status: RunStatus::Running,
        model: Some(label.to_owned()),
        warnings: resolution
            .warnings
            .iter()
            .map(String::as_str)
            .chain(warning)
            .map(str::to_owned)
            .collect(),
        trace: Some(resolution.trace()),
        started_at: Some(now),
        fence: FIRST_FENCE,
        lease_owner: Some(&worker.config.worker_id),
        at: now,
        message: None,
    };
    let accepted = accept(worker, wanted, draft, |batch| journal.write(batch)).await?;
    Ok(match accepted {
        Accepted::Before(run_id) => Accepted::Before(run_id),
        Accepted::New((run, history)) => {
            journal.written();
            Accepted::New(Start {
                run,
                history,
                journal,
                progress: Progress::first(first_step),
            })
        }
    })
}

/// Accepts a run that goes on without its caller, pending. The message, if there is one, leaves with the commit.
pub(super) async fn accept_pending(
    worker: &Worker,
    wanted: &Wanted,
    message: Option<&OutboxMessage>,
) -> Result<Accepted<Run>> {
    let draft = Draft {
        status: RunStatus::Pending,
        model: None,
        warnings: Vec::new(),
        trace: None,
        started_at: None,
        fence: 0,
        lease_owner: None,
        at: clock::now(),
        message,
    };
    let accepted = accept(worker, wanted, draft, |_| {}).await?;
    Ok(match accepted {
        Accepted::Before(run_id) => Accepted::Before(run_id),
        Accepted::New((run, _)) => Accepted::New(run),
    })
}

/// Writes everything that makes a run, and `also`, in one transaction.
async fn accept(
    worker: &Worker,
    wanted: &Wanted,
    draft: Draft<'_>,
    also: impl FnOnce(&mut Batch),
) -> Result<Accepted<(Run, Vec<Message>)>> {
    let write = async {
        // Where nothing needs to be looked at, everything is one round trip.
        let (agent_id, opened) = match (known_agent(worker, wanted), &wanted.session) {
            (Some(agent_id), Session::None) => (agent_id, Opened::None),
            (Some(agent_id), Session::New) => (agent_id, Opened::first(wanted)),
            (known, _) => return look_and_write(worker, wanted, known.as_ref(), draft, also).await,
        };
        let (batch, run, history) = compose(worker, wanted, draft, agent_id, opened, also);
        let is_written = is_written(worker.db.execute(batch).await)?;
        Ok(is_written.then_some((run, history)))
    };
    match write.await {
        Ok(Some((run, history))) => {
            worker.system_agents.remember(wanted, &run.agent_id);
            worker.news.tell(&run.id, &run.agent_id);
            Ok(Accepted::New((run, history)))
        }
        Ok(None) => before(worker, wanted).await,
        Err(error) => {
            worker.system_agents.forget(wanted);
            refused(worker, wanted, error).await
        }
    }
}

async fn look_and_write(
    worker: &Worker,
    wanted: &Wanted,
    known: Option<&AgentId>,
    draft: Draft<'_>,
    also: impl FnOnce(&mut Batch),
) -> Result<Option<(Run, Vec<Message>)>> {
    let mut tx = worker.db.begin().await?;
    let written = async {
        let agent_id = match (&wanted.agent, known) {
            (_, Some(id)) | (WantedAgent::User { id, .. }, None) => id.clone(),
            (WantedAgent::System { slug, settings }, None) => {
                store::agents::ensure_system(&mut tx, &wanted.sandbox_id, &wanted.owner, slug, settings, draft.at)
                    .await?
            }
        };
        let opened = conversation::open(&mut tx, wanted, &agent_id, draft.at).await?;
        let (batch, run, history) = compose(worker, wanted, draft, agent_id, opened, also);
        let is_written = is_written(batch.execute(&mut tx).await)?;
        Ok(is_written.then_some((run, history)))
    };
    let written = written.await;
    match &written {
        Ok(Some(_)) => tx.commit().await?,
        Ok(None) | Err(_) => tx.rollback().await?,
    }
    written
}

/// Whether the run was written; `false` where another one has its unique key.
fn is_written(rows: copass_store::Result<Vec<u64>>) -> Result<bool> {
    match rows {
        Ok(_) => Ok(true),
        Err(error) if error.is_unique_violation() => Ok(false),
        // Deleted since it was looked for, alone or with its sandbox.
        Err(error) if error.is_foreign_key_violation() => Err(Error::not_found("agent")),
        Err(error) => Err(error.into()),
    }
}

/// The answer where no run can be inserted. The run that keeps the conversation busy may be the one that the same request
/// made a moment ago.
async fn refused<T>(worker: &Worker, wanted: &Wanted, error: Error) -> Result<Accepted<T>> {
    match find_before(worker, wanted).await? {
        Some(run_id) if error.code() == ErrorCode::SessionBusy => Ok(Accepted::Before(run_id)),
        _ => Err(error),
    }
}

/// The run that was accepted under the same key, if it was.
async fn before<T>(worker: &Worker, wanted: &Wanted) -> Result<Accepted<T>> {
    find_before(worker, wanted)
        .await?
        .map(Accepted::Before)
        .ok_or_else(|| Error::internal("a run was refused for a key that no run has"))
}

/// The run that was accepted under the same key; `idempotency_conflict` when that one was asked for something else.
pub(super) async fn find_before(worker: &Worker, wanted: &Wanted) -> Result<Option<RunId>> {
    let Some(key) = &wanted.unique_key else { return Ok(None) };
    let mut conn = worker.db.read().await?;
    let Some((run_id, request)) = store::runs::find_by_key(&mut conn, &wanted.sandbox_id, key).await? else {
        return Ok(None);
    };
    if request.fingerprint != wanted.request.fingerprint {
        return Err(Error::new(
            ErrorCode::IdempotencyConflict,
            "this Idempotency-Key was used with another request body; use a new key for a new request",
        ));
    }
    Ok(Some(run_id))
}

struct Draft<'a> {
    status: RunStatus,
    model: Option<String>,
    warnings: Vec<String>,
    trace: Option<Value>,
    started_at: Option<DateTime<Utc>>,
    fence: i64,
    lease_owner: Option<&'a str>,
    at: DateTime<Utc>,
    /// Leaves with the commit.
    message: Option<&'a OutboxMessage>,
}

/// The agent's id, where it is known without a look.
fn known_agent(worker: &Worker, wanted: &Wanted) -> Option<AgentId> {
    match &wanted.agent {
        WantedAgent::System { slug, .. } => worker.system_agents.find(&wanted.sandbox_id, slug),
        WantedAgent::User { id, .. } => Some(id.clone()),
    }
}

/// Everything that makes a run: its row, its conversation, what was asked for.
fn compose(
    worker: &Worker,
    wanted: &Wanted,
    draft: Draft<'_>,
    agent_id: AgentId,
    opened: Opened<'_>,
    also: impl FnOnce(&mut Batch),
) -> (Batch, Run, Vec<Message>) {
    let (agent_slug, agent_version) = match &wanted.agent {
        WantedAgent::System { slug, .. } => ((*slug).to_owned(), SYSTEM_AGENT_VERSION),
        WantedAgent::User { slug, version, .. } => (slug.clone(), *version),
    };
    let now = draft.at;
    let mut run = Run {
        id: wanted.run_id.clone(),
        sandbox_id: wanted.sandbox_id.clone(),
        user_id: wanted.user_id.clone(),
        agent_id,
        agent_slug,
        agent_version,
        trigger_id: wanted.trigger_id.clone(),
        session_id: None,
        status: draft.status,
        input_event: wanted.input_event.clone(),
        output_text: None,
        tokens_in: None,
        tokens_out: None,
        cost_microcents: None,
        duration_ms: None,
        error_type: None,
        error_message: None,
        warnings: draft.warnings,
        tool_resolution_trace: draft.trace,
        entrance: wanted.entrance,
        retry_of: wanted.retry_of.clone(),
        model: draft.model,
        api_key_id: wanted.request.principal.api_key_id.clone(),
        end_user_id: wanted.end_user_id.clone(),
        usage: None,
        cost_breakdown: None,
        model_calls: 0,
        stop_reason: None,
        last_frame: None,
        continuations: 0,
        // As its id tells it: what a window of time takes in is decided by ids.
        created_at: wanted.run_id.generated_at().unwrap_or(now),
        started_at: draft.started_at,
        finished_at: None,
    };
    let mut batch = Batch::new(worker.db.dialect());
    let history = match opened {
        Opened::None => Vec::new(),
        Opened::Known { session_id, history } => {
            conversation::append(&mut batch, wanted, &session_id, &[], now);
            run.session_id = Some(session_id);
            history
        }
        Opened::New { provider, history } => {
            let session_id = SessionId::generate();
            let owner = conversation::owner(wanted, &run.agent_id);
            store::conversations::insert(&mut batch, &session_id, &owner, provider, &run.id, now);
            conversation::append(&mut batch, wanted, &session_id, &history, now);
            run.session_id = Some(session_id);
            history
        }
    };
    let new = NewRun {
        run: &run,
        request: &wanted.request,
        unique_key: wanted.unique_key.as_deref(),
        fence: draft.fence,
        lease_owner: draft.lease_owner,
        lease_expires_at: now + worker.config.lease,
    };
    store::runs::insert(&mut batch, &new);
    also(&mut batch);
    if let Some(message) = draft.message {
        worker.outbox.add_to(&mut batch, message);
    }
    (batch, run, history)
}

/// Settings of the Concierge, which are the operator's.
pub(super) fn concierge_settings(worker: &Worker) -> ModelSettings {
    let (backend, model) = &worker.config.concierge_backend_model;
    ModelSettings {
        backend: backend.clone(),
        model: model.clone(),
        temperature: None,
        max_tokens: None,
        max_turns: Some(worker.config.limits.max_turns),
        timeout_s: u32::try_from(worker.config.limits.run_timeout.as_secs()).ok(),
        compute_provider: None,
    }
}

/// The Concierge as the agent of a run.
pub(super) fn concierge(worker: &Worker) -> WantedAgent {
    WantedAgent::System {
        slug: CONCIERGE_SLUG,
        settings: concierge_settings(worker),
    }
}
