//! Runs without a reader: begun from the queue, from a caller that does not wait, or where a lost worker stopped.
//!
//! A run is taken with the fence first, so of all that try one works on it. Reading calls and model answers that the lost
//! worker had not finished are made again; a changing call that it had begun is not, and the run says which
//! (`replay.rs`). When this process ends, its runs are handed over at a step's boundary.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use copass_errors::{Error, Result};
use copass_queue::QueueName;
use copass_runtime::{CallContext, Tasks, clock, tasks::Phase};
use copass_store::{Batch, outbox::OutboxMessage};
use copass_types::{AgentId, Principal, RunId, SandboxId, TriggerId};
use futures::FutureExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Mind, Start, Tools, Turn, Worker, conversation, engine::End, entrances, frames, journal::Journal, panicked,
    refused, replay::Progress, shares::Share,
};
use crate::{
    app::{
        active::{ActiveRun, Stop, StopCause},
        domain::{AgentStatus, ErrorType, Run, RunRequest, RunStatus},
        tool_sources::{Resolution, Seeker},
    },
    store::{
        self,
        leases::{Stale, Taker},
        runs::RunAgent,
    },
};

/// Before the next run of a sandbox is looked for, where another worker was faster with the one before.
const ELSEWHERE_PAUSE: Duration = Duration::from_secs(1);
/// Where runs wait for a worker.
pub(crate) const RUN_QUEUE: QueueName = QueueName::from_static("copass.agent-runner.runs");
/// A run that is accepted and may be worked on.
pub(crate) const RUN_ACCEPTED: &str = "run.accepted.v1";
/// A run that a trigger wants.
pub(crate) const RUN_REQUESTED: &str = "run.requested.v1";

/// The body of [`RUN_ACCEPTED`].
#[derive(Debug, Deserialize)]
pub(crate) struct RunAccepted {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) run_id: RunId,
}

/// The body of [`RUN_REQUESTED`].
#[derive(Debug, Deserialize)]
pub(crate) struct Requested {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) agent_id: AgentId,
    pub(crate) trigger_id: TriggerId,
    /// Together with the trigger: at most one run.
    pub(crate) delivery_key: String,
    /// What the agent sees (`gaps.md` G49).
    pub(crate) event: Value,
    /// In whose name tools are called.
    pub(crate) principal: Principal,
}

/// The message that a run may be worked on.
pub(crate) fn taken_up(sandbox_id: &SandboxId, run_id: &RunId) -> OutboxMessage {
    let body = json!({ "sandbox_id": sandbox_id, "run_id": run_id });
    OutboxMessage::to_queue(RUN_QUEUE.as_str(), RUN_ACCEPTED, body)
}

/// Works on runs without a reader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Background {
    worker: Arc<Worker>,
    tasks: Tasks,
}

/// When a run that another worker has begun may be taken; a pending one may be taken by anybody.
#[derive(Debug, Clone, Copy)]
enum Takeable {
    /// Its lease ended before this instant.
    Expired(DateTime<Utc>),
    /// Nobody has taken it since it was seen with this fence.
    Unchanged(i64),
}

impl Takeable {
    fn allows(self, stale: &Stale) -> bool {
        match self {
            Self::Expired(before) => stale.status == RunStatus::Pending || !stale.is_leased_after(before),
            Self::Unchanged(fence) => stale.fence == fence,
        }
    }
}

/// A run with everything that is needed to work on it.
struct Loaded {
    stale: Stale,
    run: Run,
    request: RunRequest,
    agent: RunAgent,
    journal: Journal,
}

impl Background {
    pub(super) fn new(worker: Arc<Worker>, tasks: Tasks) -> Self {
        Self { worker, tasks }
    }

    /// A place for one run, when there is one.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.worker.slots.clone().try_acquire_owned().ok()
    }

    /// A place for one run, as soon as there is one.
    pub(crate) async fn wait_for_place(&self) -> Result<OwnedSemaphorePermit> {
        let slots = self.worker.slots.clone();
        slots.acquire_owned().await.map_err(Error::internal)
    }

    /// Works on a pending run, or on one whose worker was lost; nothing happens when another worker has it. Where its sandbox
    /// has its share of the places, it waits for the end of one of them.
    pub(crate) fn begin(&self, sandbox_id: SandboxId, run_id: RunId, place: OwnedSemaphorePermit) {
        self.spawn(sandbox_id, run_id, Takeable::Expired(clock::now()), place);
    }

    /// As [`Self::begin`], whatever the lease says of the worker that had the run when it was looked at.
    pub(crate) fn take_up(&self, run: &Stale, place: OwnedSemaphorePermit) {
        let takeable = Takeable::Unchanged(run.fence);
        self.spawn(run.sandbox_id.clone(), run.id.clone(), takeable, place);
    }

    fn spawn(&self, sandbox_id: SandboxId, run_id: RunId, takeable: Takeable, place: OwnedSemaphorePermit) {
        if let Some(share) = self.worker.shares.take(&sandbox_id, &run_id) {
            self.spawn_with(sandbox_id, run_id, takeable, (place, share));
        }
    }

    fn spawn_with(
        &self,
        sandbox_id: SandboxId,
        run_id: RunId,
        takeable: Takeable,
        held: (OwnedSemaphorePermit, Share),
    ) {
        let background = self.clone();
        self.tasks.spawn(Phase::Work, "background run", |shutdown| {
            Box::pin(async move {
                let worker = &background.worker;
                // Boxed: the future of a whole run is large.
                let work = drive(worker, &sandbox_id, &run_id, takeable, shutdown.clone());
                let outcome = Box::pin(work).await;
                drop(held);
                let driven = match outcome {
                    Ok(driven) => driven,
                    Err(error) => {
                        // Its lease runs out, and then it is taken up again.
                        tracing::warn!(run.id = %run_id, %error, cause = error.cause_chain(), "run could not be begun");
                        return;
                    }
                };
                let begun = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    begun = background.begin_next(&sandbox_id, driven) => begun,
                };
                if let Err(error) = begun {
                    tracing::warn!(
                        sandbox.id = %sandbox_id, %error, cause = error.cause_chain(),
                        "runs that wait are not looked for; the next look at leases finds them"
                    );
                }
            })
        });
    }

    /// Begins the oldest run of a sandbox that waits because the sandbox had its share, after one that was `driven`.
    async fn begin_next(&self, sandbox_id: &SandboxId, driven: Driven) -> Result<()> {
        let shares = &self.worker.shares;
        if shares.refusals(sandbox_id).is_none() {
            return Ok(());
        }
        if driven == Driven::Elsewhere {
            // Whoever has it has not said so yet when it is looked for again at once.
            tokio::time::sleep(ELSEWHERE_PAUSE).await;
        }
        // In line with everybody: a place that is free is not the sandbox's own.
        let place = self.wait_for_place().await?;
        let Some(refusals) = shares.refusals(sandbox_id) else {
            return Ok(());
        };
        let mut conn = self.worker.db.read().await?;
        // Those that are in work here are not taken yet, or not read as taken; there are no more than the share.
        let limit = i64::try_from(shares.cap()).unwrap_or(i64::MAX).saturating_add(1);
        let waiting = store::leases::waiting(&mut conn, sandbox_id, limit).await?;
        drop(conn);
        let is_all = i64::try_from(waiting.len()).is_ok_and(|count| count < limit);
        for run_id in waiting {
            if let Some(share) = shares.take_idle(sandbox_id, &run_id) {
                let takeable = Takeable::Expired(clock::now());
                self.spawn_with(sandbox_id.clone(), run_id, takeable, (place, share));
                return Ok(());
            }
        }
        if is_all {
            shares.none_waits(sandbox_id, refusals);
        }
        Ok(())
    }
}

/// What came of working on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driven {
    /// It was worked on here.
    Worked,
    /// Another worker has it, or it is over.
    Elsewhere,
}

async fn drive(
    worker: &Worker,
    sandbox_id: &SandboxId,
    run_id: &RunId,
    takeable: Takeable,
    shutdown: CancellationToken,
) -> Result<Driven> {
    let Some(loaded) = load(worker, sandbox_id, run_id, takeable).await? else {
        return Ok(Driven::Elsewhere);
    };
    let resolution = tokio::select! {
        biased;
        () = shutdown.cancelled() => {
            pass_on(worker, sandbox_id, run_id).await?;
            return Ok(Driven::Elsewhere);
        }
        resolution = worker.resolve(tools(&loaded)) => resolution,
    };
    let mind = Mind::new(
        worker,
        &loaded.agent.model_settings,
        loaded.agent.system_prompt.clone(),
        true,
    );
    let (mind, mut refusal) = match mind {
        Ok(mind) => (mind, None),
        Err(error) => {
            let mind = Mind::none(&loaded.agent.model_settings, loaded.agent.system_prompt.clone());
            (mind, Some(refused(&error)))
        }
    };
    // A run that was begun before is brought to its end, with its worker lost or not.
    if loaded.agent.status == AgentStatus::Archived && loaded.run.status == RunStatus::Pending {
        let detail = entrances::archived(&loaded.run.agent_slug).detail().to_owned();
        refusal = Some(End::Refused(ErrorType::AgentArchived, detail));
    }
    let history = conversation::history(worker, &loaded.run).await?;
    let Loaded {
        stale,
        mut run,
        request,
        mut journal,
        ..
    } = loaded;
    let progress = if run.status == RunStatus::Pending {
        Progress::first(journal.begin_model(&mind.label))
    } else {
        Progress::of(&journal)
    };
    let remaining = remaining(&run, &request);
    if !take(worker, &stale, takeable, &mut run, &mut journal, &resolution, &mind).await? {
        return Ok(Driven::Elsewhere);
    }
    let stop = Stop::default();
    if stale.is_cancelled {
        stop.stop(StopCause::Cancelled);
    }
    let active = ActiveRun {
        sandbox_id: sandbox_id.clone(),
        fence: stale.fence + 1,
        stop: stop.clone(),
    };
    let _active = worker.active.enter(run_id.clone(), active);
    let timeout = Duration::from_millis(request.timeout_ms);
    let deadline = Instant::now() + remaining;
    let start = Start {
        run,
        history,
        journal,
        progress,
    };
    let sink = frames::nowhere();
    let mut turn = Turn::new(worker, start, request.message, resolution, mind, sink, Some(shutdown));
    let end = {
        let work = async {
            match refusal.take() {
                Some(end) => end,
                // A timer that is due fires within a millisecond, in which much can be done.
                None if remaining.is_zero() => End::TimedOut(timeout),
                None => turn.work().await,
            }
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::select! {
            biased;
            cause = stop.stopped() => End::Stopped(cause),
            () = tokio::time::sleep_until(deadline) => End::TimedOut(timeout),
            outcome = work => outcome.unwrap_or_else(|panic| panicked(panic.as_ref())),
        }
    };
    turn.finish(end).await;
    Ok(Driven::Worked)
}

async fn load(worker: &Worker, sandbox_id: &SandboxId, run_id: &RunId, takeable: Takeable) -> Result<Option<Loaded>> {
    let mut conn = worker.db.read().await?;
    let stale = store::leases::unfinished_one(&mut conn, sandbox_id, run_id).await?;
    let Some(stale) = stale.filter(|stale| takeable.allows(stale)) else {
        return Ok(None);
    };
    let Some((mut run, _)) = store::runs::find(&mut conn, sandbox_id, run_id).await? else {
        return Ok(None);
    };
    // What is read after the fence may be newer; it is taken by the fence, so it is worked on as of the fence.
    run.status = stale.status;
    let Some(request) = store::runs::request(&mut conn, sandbox_id, run_id).await? else {
        return Ok(None);
    };
    let Some(agent) = store::runs::agent(&mut conn, sandbox_id, &run.agent_id, run.agent_version).await? else {
        return Err(Error::internal("the run's version of its agent is not there"));
    };
    let steps = store::steps::list(&mut conn, sandbox_id, run_id).await?;
    let journal = Journal::new(
        worker.db.clone(),
        sandbox_id.clone(),
        run_id.clone(),
        stale.fence + 1,
        worker.config.lease,
    )
    .resume(steps);
    Ok(Some(Loaded {
        stale,
        run,
        request,
        agent,
        journal,
    }))
}

/// Tells the next free process that the run may be worked on, because this one ends before it has taken it.
async fn pass_on(worker: &Worker, sandbox_id: &SandboxId, run_id: &RunId) -> Result<()> {
    let mut tx = worker.db.begin().await?;
    worker.outbox.add(&mut tx, &taken_up(sandbox_id, run_id)).await?;
    tx.commit().await?;
    worker.outbox.wake();
    Ok(())
}

fn tools(loaded: &Loaded) -> Tools {
    Tools::Wanted {
        seeker: Box::new(Seeker {
            context: CallContext::new(loaded.request.principal.clone()),
            sandbox_id: loaded.run.sandbox_id.clone(),
            owner: loaded.agent.owner.clone(),
            identity: loaded.request.identity.clone(),
            end_user_id: loaded.run.end_user_id.clone(),
        }),
        sources: loaded.agent.tool_sources.clone(),
        allowlist: loaded.agent.tool_allowlist.clone(),
    }
}

/// The time a run has left: since it began, also with another worker.
fn remaining(run: &Run, request: &RunRequest) -> Duration {
    let timeout = Duration::from_millis(request.timeout_ms);
    let used = run
        .started_at
        .and_then(|started_at| (clock::now() - started_at).to_std().ok())
        .unwrap_or_default();
    timeout.saturating_sub(used)
}

/// Makes the run this worker's and writes its beginning, in one transaction; `false` when another one has it.
async fn take(
    worker: &Worker,
    stale: &Stale,
    takeable: Takeable,
    run: &mut Run,
    journal: &mut Journal,
    resolution: &Resolution,
    mind: &Mind,
) -> Result<bool> {
    let now = clock::now();
    let lease_expires_at = now + worker.config.lease;
    let is_continued = run.status == RunStatus::Running;
    run.status = RunStatus::Running;
    run.started_at.get_or_insert(now);
    run.model = Some(mind.label.clone());
    run.tool_resolution_trace = Some(resolution.trace());
    for warning in resolution.warnings.iter().chain(&mind.warning) {
        if !run.warnings.contains(warning) {
            run.warnings.push(warning.clone());
        }
    }
    // A worker that gave the run back was not lost.
    run.continuations += i64::from(is_continued && stale.is_held);
    let warning = "the process that worked on this run was lost, and another one went on from its last step";
    if run.continuations > 0 && !run.warnings.iter().any(|known| known == warning) {
        run.warnings.push(warning.to_owned());
    }
    let taker = Taker {
        worker_id: &worker.config.worker_id,
        lease_expires_at,
    };
    let lease_before = match takeable {
        Takeable::Expired(before) if is_continued => Some(before),
        _ => None,
    };
    let mut tx = worker.db.begin().await?;
    let is_taken = store::leases::take_away(&mut tx, stale, lease_before, Some(&taker)).await?
        && store::leases::begin(&mut tx, &journal.lease(), run, lease_expires_at).await?;
    if !is_taken {
        tx.rollback().await?;
        return Ok(false);
    }
    let mut batch = Batch::new(worker.db.dialect());
    journal.write(&mut batch);
    batch.execute(&mut tx).await?;
    tx.commit().await?;
    journal.written();
    worker.news.tell(&run.id, &run.agent_id);
    Ok(true)
}
