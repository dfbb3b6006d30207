//! The entrances: who may start a run, of what, and with which words (`rest.md` 12.9, 12.10, 12.15; `design.md` 7).
//!
//! Each entrance checks rights and input, and turns the request into a wanted run. Everything after that is the same for
//! all of them.

use std::time::Duration;

use copass_errors::{Error, Result};
use copass_runtime::CallContext;
use copass_types::{AccessClass, AgentKeyKind, RunId, SandboxAccess, SandboxId, UserId};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Begun, Order, Tools, Turns,
    accept::{self, Accepted, Session, Wanted, WantedAgent},
    background::Requested,
    event,
    input::{agent_message, fingerprint, key_hash, message_text, payload, unique_key},
    mind::{self, Mind},
    tools::{ManagementCaller, ManagementTool, management},
};
use crate::{
    app::{
        agent_rules::SettingsDraft,
        domain::{AD_HOC_SLUG, AdHocAgent, Agent, AgentKind, Entrance, Run, RunRequest},
        runs,
        tool_sources::Seeker,
    },
    store,
};

/// The service that starts turns of system agents, as it appears in a principal's path.
const CONCIERGE_SERVICE: &str = "concierge";
const CONCIERGE_AGENT: &str = "concierge";

/// One turn of a system agent, as it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct SystemTurn {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) system_agent: String,
    pub(crate) system_prompt: String,
    pub(crate) message: String,
    pub(crate) session_id: Option<String>,
    pub(crate) tools: Vec<ManagementTool>,
    /// 0 means the default.
    pub(crate) max_turns: u32,
    /// Zero means the default.
    pub(crate) timeout: Duration,
}

/// An agent fired with an event.
#[derive(Debug, Clone)]
pub(crate) struct TestFire {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) agent_slug: String,
    /// JSON; absent means an empty object.
    pub(crate) event_payload_json: Option<String>,
    /// Zero means the agent's own limit.
    pub(crate) timeout: Duration,
    pub(crate) idempotency_key: Option<String>,
}

/// An agent that exists for one run.
#[derive(Debug, Clone)]
pub(crate) struct AdHoc {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) system_prompt: String,
    pub(crate) messages: Vec<String>,
    pub(crate) end_user_id: String,
    pub(crate) session_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// A run that goes on without its caller.
#[derive(Debug, Clone)]
pub(crate) struct Invoke {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) agent_slug: String,
    pub(crate) message: String,
    pub(crate) session_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

impl Turns {
    /// Starts one turn of a system agent. When this returns, the run row exists; dropping the stream cancels the run.
    pub(crate) async fn start_system(&self, context: CallContext, turn: SystemTurn) -> Result<Begun> {
        let access = context.principal.require(&turn.sandbox_id, AccessClass::Run)?.clone();
        if !context.principal.via.iter().any(|service| service == CONCIERGE_SERVICE) {
            return Err(Error::forbidden(
                "turns of system agents are started by the concierge service only",
            ));
        }
        if turn.system_agent != CONCIERGE_AGENT {
            return Err(Error::not_found("system agent"));
        }
        message_text(&turn.message)?;
        let mut settings = accept::concierge_settings(&self.worker);
        let limits = &self.worker.config.limits;
        if turn.max_turns > 0 {
            settings.max_turns = Some(turn.max_turns.min(limits.max_turns_cap));
        }
        let mind = Mind::new(&self.worker, &settings, turn.system_prompt.clone(), false)?;
        let timeout = if turn.timeout.is_zero() {
            limits.run_timeout
        } else {
            turn.timeout.min(limits.run_timeout_cap)
        };
        let caller = ManagementCaller {
            client: self.worker.concierge.clone(),
            context: context.clone(),
            sandbox_id: turn.sandbox_id.clone(),
            timeout: limits.tool_timeout,
        };
        let resolution = management(turn.tools, caller)?;
        let user_id = person(&context, &access)?;
        let request = RunRequest {
            message: turn.message,
            identity: Some(user_id.clone()),
            principal: context.principal,
            timeout_ms: millis(timeout),
            fingerprint: String::new(),
            ad_hoc: None,
        };
        let wanted = Wanted {
            run_id: RunId::generate(),
            sandbox_id: turn.sandbox_id,
            owner: access.owner_user_id,
            user_id,
            entrance: Entrance::Chat,
            agent: accept::concierge(&self.worker),
            request,
            unique_key: None,
            trigger_id: None,
            retry_of: None,
            input_event: None,
            session: session(turn.session_id),
            end_user_id: None,
        };
        self.start(Order {
            wanted,
            settings,
            system_prompt: turn.system_prompt,
            tools: Tools::Given(resolution),
            timeout,
            mind: Ok(mind),
        })
        .await
    }

    /// Fires an agent with an event (`rest.md` 12.9). Dropping the stream cancels the run.
    pub(crate) async fn test(&self, context: CallContext, fire: TestFire) -> Result<Begun> {
        let event = payload(fire.event_payload_json.as_deref())?;
        let (agent, access) = self.runnable(&context, &fire.sandbox_id, &fire.agent_slug).await?;
        let timeout = mind::run_timeout(&self.worker, &agent.model_settings, fire.timeout);
        let identity = identity(&context);
        let fingerprint = fingerprint(&json!(["test", agent.slug, event]));
        let unique_key = unique_key(&context, &agent.slug, fire.idempotency_key.as_deref())?;
        let wanted = Wanted {
            run_id: RunId::generate(),
            sandbox_id: fire.sandbox_id.clone(),
            owner: access.owner_user_id.clone(),
            user_id: person(&context, &access)?,
            entrance: Entrance::Test,
            agent: WantedAgent::User {
                id: agent.id.clone(),
                slug: agent.slug.clone(),
                version: agent.version,
                status: agent.status,
            },
            request: RunRequest {
                message: event::message(&event),
                principal: context.principal.clone(),
                identity: identity.clone(),
                timeout_ms: millis(timeout),
                fingerprint,
                ad_hoc: None,
            },
            unique_key,
            trigger_id: None,
            retry_of: None,
            input_event: Some(event),
            session: Session::None,
            end_user_id: None,
        };
        let seeker = Seeker {
            context,
            sandbox_id: fire.sandbox_id,
            owner: access.owner_user_id,
            identity,
            end_user_id: None,
        };
        let mind = Mind::new(&self.worker, &agent.model_settings, agent.system_prompt.clone(), true);
        self.start(Order {
            wanted,
            settings: agent.model_settings,
            system_prompt: agent.system_prompt,
            tools: Tools::Wanted {
                seeker: Box::new(seeker),
                sources: agent.tool_sources,
                allowlist: agent.tool_allowlist,
            },
            timeout,
            mind,
        })
        .await
    }

    /// Runs an agent that exists for this call only (`rest.md` 12.15). What can be foreseen is refused before there is a
    /// run (`sse.md` 5). Dropping the stream cancels the run.
    pub(crate) async fn ad_hoc(&self, context: CallContext, ad_hoc: AdHoc) -> Result<Begun> {
        let access = context
            .principal
            .require_whole(&ad_hoc.sandbox_id, AccessClass::Run)?
            .clone();
        ad_hoc.check()?;
        let settings = SettingsDraft {
            backend: ad_hoc.provider.clone(),
            model: ad_hoc.model.clone(),
            ..SettingsDraft::default()
        };
        let settings = settings.check_ad_hoc()?;
        let mind = Mind::new(&self.worker, &settings, ad_hoc.system_prompt.clone(), true)?;
        let timeout = mind::run_timeout(&self.worker, &settings, Duration::ZERO);
        let identity = identity(&context);
        let fingerprint = fingerprint(&json!([
            "ad_hoc",
            ad_hoc.provider,
            ad_hoc.model,
            ad_hoc.system_prompt,
            ad_hoc.messages,
            ad_hoc.end_user_id,
            ad_hoc.session_id
        ]));
        let unique_key = unique_key(&context, AD_HOC_SLUG, ad_hoc.idempotency_key.as_deref())?;
        let message = ad_hoc.messages.join("\n\n");
        let wanted = Wanted {
            run_id: RunId::generate(),
            sandbox_id: ad_hoc.sandbox_id.clone(),
            owner: access.owner_user_id.clone(),
            user_id: person(&context, &access)?,
            entrance: Entrance::AdHoc,
            agent: WantedAgent::System {
                slug: AD_HOC_SLUG,
                settings: settings.clone(),
            },
            request: RunRequest {
                message: message.clone(),
                principal: context.principal.clone(),
                identity: identity.clone(),
                timeout_ms: millis(timeout),
                fingerprint,
                ad_hoc: Some(AdHocAgent {
                    system_prompt: ad_hoc.system_prompt.clone(),
                    model_settings: settings.clone(),
                }),
            },
            unique_key,
            trigger_id: None,
            retry_of: None,
            input_event: Some(json!({ "message": message })),
            session: session(ad_hoc.session_id),
            end_user_id: Some(ad_hoc.end_user_id.clone()),
        };
        let seeker = Seeker {
            context,
            sandbox_id: ad_hoc.sandbox_id,
            owner: access.owner_user_id,
            identity,
            end_user_id: Some(ad_hoc.end_user_id),
        };
        self.start(Order {
            wanted,
            settings,
            system_prompt: ad_hoc.system_prompt,
            tools: Tools::Wanted {
                seeker: Box::new(seeker),
                sources: None,
                allowlist: Vec::new(),
            },
            timeout,
            mind: Ok(mind),
        })
        .await
    }

    /// Accepts a run that goes on without its caller (`rest.md` 12.10). It is durable when this returns.
    pub(crate) async fn invoke(&self, context: CallContext, invoke: Invoke) -> Result<Run> {
        agent_message(&invoke.message)?;
        let (agent, access) = self.runnable(&context, &invoke.sandbox_id, &invoke.agent_slug).await?;
        let fingerprint = fingerprint(&json!(["invoke", agent.slug, invoke.message, invoke.session_id]));
        let wanted = Wanted {
            run_id: RunId::generate(),
            sandbox_id: invoke.sandbox_id,
            owner: access.owner_user_id.clone(),
            user_id: person(&context, &access)?,
            entrance: Entrance::Invoke,
            agent: WantedAgent::User {
                id: agent.id,
                slug: agent.slug.clone(),
                version: agent.version,
                status: agent.status,
            },
            request: RunRequest {
                message: invoke.message.clone(),
                identity: identity(&context),
                timeout_ms: millis(mind::run_timeout(&self.worker, &agent.model_settings, Duration::ZERO)),
                fingerprint,
                ad_hoc: None,
                principal: context.principal.clone(),
            },
            unique_key: unique_key(&context, &agent.slug, invoke.idempotency_key.as_deref())?,
            trigger_id: None,
            retry_of: None,
            input_event: Some(json!({ "message": invoke.message })),
            session: session(invoke.session_id),
            end_user_id: None,
        };
        self.accept(wanted).await
    }

    /// Accepts a new run with the input of an old one, of the agent's present version.
    pub(crate) async fn retry(
        &self,
        context: CallContext,
        sandbox_id: SandboxId,
        run_id: RunId,
        idempotency_key: Option<String>,
    ) -> Result<Run> {
        let access = context.principal.require_whole(&sandbox_id, AccessClass::Run)?;
        let mut conn = self.worker.db.read().await?;
        let (original, kind) = store::runs::find(&mut conn, &sandbox_id, &run_id)
            .await?
            .filter(|(run, kind)| runs::is_visible(run, *kind, &context.principal, access))
            .ok_or_else(|| Error::not_found("run"))?;
        let request = store::runs::request(&mut conn, &sandbox_id, &run_id).await?;
        drop(conn);
        if kind != AgentKind::User {
            return Err(Error::conflict(
                "only runs of agents can be run again; ask the Concierge, or send a stateless run, once more",
            ));
        }
        if !original.status.is_terminal() {
            return Err(Error::conflict(
                "the run is not over; wait for its end or end it with `copass run cancel`",
            ));
        }
        let request = request.ok_or_else(|| Error::conflict("what this run was asked to do is not kept any more"))?;
        let (agent, access) = self.runnable(&context, &sandbox_id, &original.agent_slug).await?;
        let user_id = person(&context, &access)?;
        // A turn of a conversation means little without what was said before. Conversations are those of one person, and
        // those of an agent key are the key's.
        let is_own = user_id == original.user_id && request.principal.agent_key.is_none();
        let session = match original.session_id.filter(|_| is_own) {
            Some(session_id) => Session::Continue(session_id.to_string()),
            None => Session::None,
        };
        let wanted = Wanted {
            run_id: RunId::generate(),
            sandbox_id,
            owner: access.owner_user_id.clone(),
            user_id,
            entrance: Entrance::Retry,
            unique_key: unique_key(&context, &agent.slug, idempotency_key.as_deref())?,
            agent: WantedAgent::User {
                id: agent.id,
                slug: agent.slug,
                version: agent.version,
                status: agent.status,
            },
            request: RunRequest {
                message: request.message,
                identity: identity(&context),
                timeout_ms: millis(mind::run_timeout(&self.worker, &agent.model_settings, Duration::ZERO)),
                fingerprint: fingerprint(&json!(["retry", original.id])),
                ad_hoc: None,
                principal: context.principal.clone(),
            },
            trigger_id: original.trigger_id,
            retry_of: Some(original.id),
            input_event: original.input_event,
            session,
            end_user_id: original.end_user_id,
        };
        self.accept(wanted).await
    }

    /// Accepts a run that a trigger wants. The same delivery makes one run, whatever happens to the agent meanwhile; a
    /// run of an archived agent is written and ends at once with the reason.
    pub(crate) async fn requested(&self, requested: Requested, place: OwnedSemaphorePermit) -> Result<Run> {
        let Requested {
            sandbox_id,
            agent_id,
            trigger_id,
            delivery_key,
            event,
            principal,
        } = requested;
        let event = event::checked(event).map_err(|problem| Error::invalid_field("event", problem))?;
        let mut conn = self.worker.db.read().await?;
        let agent = store::agents::find_by_id(&mut conn, &sandbox_id, &agent_id).await?;
        drop(conn);
        let agent = agent.ok_or_else(|| Error::not_found("agent"))?;
        let wanted = Wanted {
            run_id: RunId::generate(),
            owner: agent.user_id.clone(),
            user_id: principal.user_id.clone().unwrap_or_else(|| agent.user_id.clone()),
            entrance: Entrance::Trigger,
            unique_key: Some(key_hash(&["trigger", trigger_id.as_str(), &delivery_key])),
            request: RunRequest {
                message: event::message(&event),
                identity: principal.user_id.clone(),
                timeout_ms: millis(mind::run_timeout(&self.worker, &agent.model_settings, Duration::ZERO)),
                fingerprint: fingerprint(&json!(["trigger", event])),
                ad_hoc: None,
                principal,
            },
            agent: WantedAgent::User {
                id: agent.id,
                slug: agent.slug,
                version: agent.version,
                status: agent.status,
            },
            sandbox_id,
            trigger_id: Some(trigger_id.to_string()),
            retry_of: None,
            input_event: Some(event),
            session: Session::None,
            end_user_id: None,
        };
        self.accept_with(wanted, Some(place)).await
    }

    /// Accepts a run in the background and sees to it that somebody works on it: this process when it has a place, the
    /// next free one otherwise.
    async fn accept(&self, wanted: Wanted) -> Result<Run> {
        let place = self.background().place();
        self.accept_with(wanted, place).await
    }

    async fn accept_with(&self, wanted: Wanted, place: Option<OwnedSemaphorePermit>) -> Result<Run> {
        if let Some(run_id) = accept::find_before(&self.worker, &wanted).await? {
            return self.accepted_before(&wanted.sandbox_id, &run_id).await;
        }
        wanted.check_agent()?;
        self.check_open()?;
        let background = self.background();
        let message = match &place {
            Some(_) => None,
            None => Some(super::background::taken_up(&wanted.sandbox_id, &wanted.run_id)),
        };
        let accepted = accept::accept_pending(&self.worker, &wanted, message.as_ref()).await?;
        match accepted {
            Accepted::Before(run_id) => self.accepted_before(&wanted.sandbox_id, &run_id).await,
            Accepted::New(run) => {
                match place {
                    Some(place) => background.begin(run.sandbox_id.clone(), run.id.clone(), place),
                    None => self.worker.outbox.wake(),
                }
                Ok(run)
            }
        }
    }

    async fn accepted_before(&self, sandbox_id: &SandboxId, run_id: &RunId) -> Result<Run> {
        let mut conn = self.worker.db.read().await?;
        let found = store::runs::find(&mut conn, sandbox_id, run_id).await?;
        found.map(|(run, _)| run).ok_or_else(|| Error::not_found("run"))
    }

    /// An agent of a person that the caller may run.
    async fn runnable(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        slug: &str,
    ) -> Result<(Agent, SandboxAccess)> {
        let mut conn = self.worker.db.read().await?;
        let agent = store::agents::find(&mut conn, sandbox_id, slug).await?;
        drop(conn);
        let agent = agent.filter(|agent| agent.kind == AgentKind::User);
        // Whoever may not know of the sandbox learns nothing from the agent's absence.
        let access = match &agent {
            Some(agent) => context
                .principal
                .require_agent(sandbox_id, AccessClass::Run, &agent.id)?,
            None => context.principal.require_whole(sandbox_id, AccessClass::Run)?,
        };
        let agent = agent.ok_or_else(|| Error::not_found("agent"))?;
        Ok((agent, access.clone()))
    }
}

/// The refusal to run an archived agent.
pub(super) fn archived(slug: &str) -> Error {
    Error::conflict(format!(
        "the agent {slug} is archived and does not run; `copass agent update {slug} --status active` takes it back"
    ))
}

/// Whom the run acts for: its row, its conversations and its bill name them.
fn person(context: &CallContext, access: &SandboxAccess) -> Result<UserId> {
    match (&context.principal.user_id, &context.principal.agent_key) {
        (Some(user_id), _) => Ok(user_id.clone()),
        (None, Some(_)) => Ok(access.owner_user_id.clone()),
        (None, None) => Err(Error::unauthorized("a run needs the person it acts for")),
    }
}

/// Whose integrations the run has (`rest.md` 14).
fn identity(context: &CallContext) -> Option<UserId> {
    match &context.principal.agent_key {
        Some(key) if key.kind == AgentKeyKind::Invoke && !key.has_holder => None,
        _ => context.principal.user_id.clone(),
    }
}

fn session(session_id: Option<String>) -> Session {
    match session_id.filter(|session_id| !session_id.is_empty()) {
        Some(session_id) => Session::Continue(session_id),
        None => Session::New,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
