//! One turn: from the request to the terminal frame (`design.md` 7).
//!
//! `accept` makes the run durable, `engine` loops between model and tools, `calls` makes the tool calls, `finish` writes
//! the end. They run in one task of their own, so that nobody's departure can leave a run half done: the request handler
//! waits for the acceptance only, and a reader that goes away merely tells the task to stop. Whatever ends the loop
//! (success, time, reader, shutdown, a lost lease, a panic), the end is written in one place.

mod accept;
mod calls;
mod clean;
mod engine;
mod finish;
mod frames;
mod journal;
mod redact;
mod tools;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use copass_errors::{Error, ErrorCode, Result};
use copass_llm::Provider;
use copass_proto::{Transport, concierge::concierge_service_client::ConciergeServiceClient};
use copass_runtime::{
    CallContext, Tasks,
    tasks::{Phase, panic_text},
};
use copass_store::Db;
use copass_types::{AccessClass, SandboxId, UserId, validate};
use futures::FutureExt as _;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::active::{ActiveRun, ActiveRuns, Stop, StopCause};
use crate::Config;
use engine::{End, Turn};
use frames::{Frame, FrameSink};
use tools::{ManagementCaller, Toolset};

pub(crate) use frames::{Failed, Finished, Frame as TurnFrame, FrameStream};
pub(crate) use journal::{uncertain_call, uncertain_sentence};
pub(crate) use tools::ToolDraft;

/// The service that starts turns of system agents, as it appears in a principal's path.
const CONCIERGE_SERVICE: &str = "concierge";
const CONCIERGE_AGENT: &str = "concierge";

/// What every turn of this process shares.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) models: Arc<copass_llm::Registry>,
    pub(crate) concierge: ConciergeServiceClient<Transport>,
    pub(crate) active: ActiveRuns,
}

/// One turn of a system agent, as it is asked for.
#[derive(Debug, Clone)]
pub(crate) struct SystemTurn {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) system_agent: String,
    pub(crate) system_prompt: String,
    pub(crate) message: String,
    pub(crate) session_id: Option<String>,
    pub(crate) tools: Vec<ToolDraft>,
    /// 0 means the default.
    pub(crate) max_turns: u32,
    /// Zero means the default.
    pub(crate) timeout: Duration,
}

/// A turn that may begin: everything that can be refused without a trace has been checked.
struct Order {
    context: CallContext,
    sandbox_id: SandboxId,
    owner: UserId,
    user_id: UserId,
    system_prompt: String,
    message: String,
    session_id: Option<String>,
    toolset: Toolset,
    provider: Arc<dyn Provider>,
    max_turns: u32,
    timeout: Duration,
}

/// Starts turns. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Turns {
    worker: Arc<Worker>,
    tasks: Tasks,
}

impl Turns {
    pub(crate) fn new(worker: Arc<Worker>, tasks: Tasks) -> Self {
        Self { worker, tasks }
    }

    pub(crate) fn worker(&self) -> Arc<Worker> {
        self.worker.clone()
    }

    /// Starts one turn of a system agent. When this returns, the run row exists; dropping the stream cancels the run.
    pub(crate) async fn start_system(&self, context: CallContext, turn: SystemTurn) -> Result<FrameStream> {
        let order = self.order(context, turn)?;
        let stop = Stop::default();
        let (sink, stream) = frames::queue(stop.clone());
        let (accepted, acceptance) = oneshot::channel();
        let worker = self.worker.clone();
        self.tasks.spawn(Phase::Work, "turn", |shutdown| {
            // Boxed: the future of a whole turn is large and lives long.
            Box::pin(drive(worker, order, stop, sink, accepted, shutdown))
        });
        // Dropping this future drops `stream`, which stops the task wherever it is.
        acceptance
            .await
            .map_err(|_| Error::internal("the turn's task ended before it accepted or refused"))??;
        Ok(stream)
    }

    fn order(&self, context: CallContext, turn: SystemTurn) -> Result<Order> {
        let access = context.principal.require(&turn.sandbox_id, AccessClass::Run)?;
        if !context.principal.via.iter().any(|service| service == CONCIERGE_SERVICE) {
            return Err(Error::forbidden(
                "turns of system agents are started by the concierge service only",
            ));
        }
        let user_id = context.principal.user_id.clone();
        let user_id = user_id.ok_or_else(|| Error::unauthorized("a turn needs the person it acts for"))?;
        let owner = access.owner_user_id.clone();
        if turn.system_agent != CONCIERGE_AGENT {
            return Err(Error::not_found("system agent"));
        }
        validate::length(&turn.message, validate::MESSAGE_MAX_CHARS)
            .and_then(|()| {
                if turn.message.trim().is_empty() {
                    Err("must not be empty".to_owned())
                } else {
                    Ok(())
                }
            })
            .map_err(|message| Error::invalid_field("message", message))?;
        let (backend, model) = &self.worker.config.concierge_backend_model;
        let provider = self
            .worker
            .models
            .resolve(backend, model)
            .map_err(|error| Error::new(ErrorCode::ProviderNotConfigured, error.message))?;
        let toolset = Toolset::management(turn.tools)?;
        if self.tasks.token(Phase::Work).is_cancelled() {
            return Err(Error::unavailable("the server is shutting down"));
        }
        let limits = &self.worker.config.limits;
        Ok(Order {
            context,
            sandbox_id: turn.sandbox_id,
            owner,
            user_id,
            system_prompt: turn.system_prompt,
            message: turn.message,
            session_id: turn.session_id.filter(|session_id| !session_id.is_empty()),
            toolset,
            provider,
            max_turns: if turn.max_turns == 0 {
                limits.max_turns
            } else {
                turn.max_turns.min(limits.max_turns_cap)
            },
            timeout: if turn.timeout.is_zero() {
                limits.run_timeout
            } else {
                turn.timeout.min(limits.run_timeout_cap)
            },
        })
    }
}

/// A turn from acceptance to its end.
async fn drive(
    worker: Arc<Worker>,
    order: Order,
    stop: Stop,
    sink: FrameSink,
    accepted: oneshot::Sender<Result<()>>,
    shutdown: CancellationToken,
) {
    let began = Instant::now();
    let deadline = began + order.timeout;
    let start = match accept::accept(&worker, &order).await {
        Ok(start) => start,
        Err(error) => {
            // A caller that has gone does not want to know.
            let _ = accepted.send(Err(error));
            return;
        }
    };
    let active = ActiveRun {
        sandbox_id: order.sandbox_id.clone(),
        fence: accept::FIRST_FENCE,
        stop: stop.clone(),
    };
    let _active = worker.active.enter(start.run.id.clone(), active);
    sink.send(Frame::RunStarted {
        run_id: start.run.id.clone(),
    })
    .await;
    let _ = accepted.send(Ok(()));

    let limits = worker.config.limits.clone();
    let caller = Arc::new(ManagementCaller::new(
        worker.concierge.clone(),
        order.context.clone(),
        order.sandbox_id.clone(),
        start.run.id.clone(),
        limits.tool_timeout,
    ));
    let watch = sink.watch();
    let timeout = order.timeout;
    let mut turn = Turn::new(&worker, order, start, caller, sink, began);
    let end = {
        let work = AssertUnwindSafe(turn.work()).catch_unwind();
        tokio::select! {
            biased;
            cause = stop.stopped() => End::Stopped(cause),
            () = shutdown.cancelled() => End::Stopped(StopCause::Shutdown),
            () = watch.stalled(limits.slow_reader) => End::Stopped(StopCause::SlowReader),
            () = tokio::time::sleep_until(deadline) => End::TimedOut(timeout),
            outcome = work => outcome.unwrap_or_else(|panic| {
                tracing::error!(panic = panic_text(panic.as_ref()), "the turn engine panicked");
                End::Broken
            }),
        }
    };
    turn.finish(end).await;
}
