//! One run: from the request to the terminal frame (`design.md` 7).
//!
//! `entrances` turns requests into wanted runs, `accept` makes a run durable in its `conversation`, `engine` loops
//! between model and tools, `calls` makes the tool calls, `finish` writes the end. They run in one task of their own, so
//! that nobody's departure can leave a run half done: the request handler waits for the acceptance only, and a reader that
//! goes away merely tells the task to stop. Whatever ends the loop (success, time, reader, shutdown, a lost lease, a
//! panic), the end is written in one place. `background` works on runs that have no reader, and goes on where a lost
//! worker stopped (`replay`); `take_over` ends runs from outside.

mod accept;
mod background;
mod calls;
mod clean;
mod conversation;
mod engine;
mod entrances;
mod event;
mod finish;
mod frames;
mod input;
mod journal;
mod mind;
mod patience;
pub(crate) mod redact;
mod replay;
mod shares;
mod spending;
mod system_agents;
pub(crate) mod take_over;
mod tools;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use copass_errors::{Error, Result};
use copass_proto::{Transport, concierge::concierge_service_client::ConciergeServiceClient};
use copass_runtime::{
    Tasks,
    tasks::{Phase, panic_text},
};
use copass_store::{Db, outbox::Outbox};
use copass_types::RunId;
use futures::FutureExt as _;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    active::{ActiveRun, ActiveRuns, Stop, StopCause},
    domain::{ErrorType, ModelSettings},
    news::News,
    tool_sources::{Resolution, Resolver, Seeker},
};
use crate::Config;
use accept::{Accepted, Start, Wanted};
use engine::{End, Turn};
use frames::{FrameSink, FrameStream};
use mind::Mind;

pub(crate) use background::{Background, RUN_ACCEPTED, RUN_QUEUE, RUN_REQUESTED, Requested, RunAccepted, taken_up};
pub(crate) use entrances::{AdHoc, Invoke, SystemTurn, TestFire};
pub(crate) use finish::{terminal, took_longer};
pub(crate) use frames::{Failed, Finished, Frame as TurnFrame, FrameId, Placed};
pub(crate) use shares::Shares;
pub(crate) use system_agents::SystemAgents;
pub(crate) use tools::ManagementTool;

/// What every run of this process shares.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) models: Arc<copass_llm::Registry>,
    pub(crate) prices: Arc<copass_llm::Prices>,
    pub(crate) concierge: ConciergeServiceClient<Transport>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) outbox: Outbox,
    pub(crate) news: News,
    pub(crate) active: ActiveRuns,
    pub(crate) system_agents: SystemAgents,
    /// Places for runs in the background.
    pub(crate) slots: Arc<Semaphore>,
    /// How they are shared among sandboxes.
    pub(crate) shares: Arc<Shares>,
}

/// What the caller of a streaming entrance gets.
pub(crate) enum Begun {
    /// A new run; dropping its stream cancels it.
    Live(FrameStream),
    /// The run that the same request made before; to be followed.
    Before(RunId),
}

/// Where the tools of a run come from.
enum Tools {
    /// They are here already.
    Given(Resolution),
    /// They are looked up.
    Wanted {
        seeker: Box<Seeker>,
        sources: Option<Vec<String>>,
        allowlist: Vec<String>,
    },
}

/// A run with a reader, before it is accepted.
struct Order {
    wanted: Wanted,
    settings: ModelSettings,
    system_prompt: String,
    tools: Tools,
    timeout: Duration,
    /// `None`: it cannot work, and the run tells why.
    mind: Result<Mind>,
}

/// Starts runs. Cheap to clone.
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

    /// What works on runs without a reader.
    pub(crate) fn background(&self) -> Background {
        Background::new(self.worker.clone(), self.tasks.clone())
    }

    /// Starts a run with a reader. When this returns, the run row exists; dropping the stream cancels the run.
    async fn start(&self, order: Order) -> Result<Begun> {
        if let Some(run_id) = accept::find_before(&self.worker, &order.wanted).await? {
            return Ok(Begun::Before(run_id));
        }
        order.wanted.check_agent()?;
        self.check_open()?;
        let stop = Stop::default();
        let (sink, stream) = frames::queue(stop.clone());
        let (accepted, acceptance) = oneshot::channel();
        let worker = self.worker.clone();
        self.tasks.spawn(Phase::Work, "run", |shutdown| {
            // Boxed: the future of a whole turn is large and lives long.
            Box::pin(drive(worker, order, stop, sink, accepted, shutdown))
        });
        // Dropping this future drops `stream`, which stops the task wherever it is.
        let before = acceptance
            .await
            .map_err(|_| Error::internal("the run's task ended before it accepted or refused"))??;
        Ok(before.map_or(Begun::Live(stream), Begun::Before))
    }

    fn check_open(&self) -> Result<()> {
        if self.tasks.token(Phase::Work).is_cancelled() {
            return Err(Error::unavailable("the server is shutting down"));
        }
        Ok(())
    }
}

impl Worker {
    async fn resolve(&self, tools: Tools) -> Resolution {
        match tools {
            Tools::Given(resolution) => resolution,
            Tools::Wanted {
                seeker,
                sources,
                allowlist,
            } => self.resolver.resolve(&seeker, sources.as_deref(), &allowlist).await,
        }
    }
}

/// A run with a reader, from acceptance to its end.
async fn drive(
    worker: Arc<Worker>,
    order: Order,
    stop: Stop,
    sink: FrameSink,
    accepted: oneshot::Sender<Result<Option<RunId>>>,
    shutdown: CancellationToken,
) {
    let deadline = Instant::now() + order.timeout;
    let Order {
        mut wanted,
        settings,
        system_prompt,
        tools,
        timeout,
        mind,
    } = order;
    let resolution = tokio::select! {
        biased;
        // The reader left before there was a run.
        _ = stop.stopped() => return,
        resolution = worker.resolve(tools) => resolution,
    };
    // An id tells when its run was accepted, and that is now: whoever follows new runs by their ids must not miss it.
    wanted.run_id = RunId::generate();
    let (mind, refusal) = match mind {
        Ok(mind) => (mind, None),
        Err(error) => (Mind::none(&settings, system_prompt), Some(error)),
    };
    let start = accept::accept_running(&worker, &wanted, &resolution, &mind.label, mind.warning.as_deref()).await;
    let start = match start {
        Ok(Accepted::New(start)) => start,
        // A caller that has gone does not want to know.
        Ok(Accepted::Before(run_id)) => return drop(accepted.send(Ok(Some(run_id)))),
        Err(error) => return drop(accepted.send(Err(error))),
    };
    let active = ActiveRun {
        sandbox_id: wanted.sandbox_id.clone(),
        fence: accept::FIRST_FENCE,
        stop: stop.clone(),
    };
    let _active = worker.active.enter(start.run.id.clone(), active);
    sink.send(
        FrameId::whole(1),
        TurnFrame::RunStarted {
            run_id: start.run.id.clone(),
        },
    )
    .await;
    let _ = accepted.send(Ok(None));

    let watch = sink.watch();
    let slow_reader = worker.config.limits.slow_reader;
    let mut turn = Turn::new(&worker, start, wanted.request.message, resolution, mind, sink, None);
    let end = {
        let work = async {
            match refusal {
                Some(error) => refused(&error),
                None => turn.work().await,
            }
        };
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::select! {
            biased;
            cause = stop.stopped() => End::Stopped(cause),
            () = shutdown.cancelled() => End::Stopped(StopCause::Shutdown),
            () = watch.stalled(slow_reader) => End::Stopped(StopCause::SlowReader),
            () = tokio::time::sleep_until(deadline) => End::TimedOut(timeout),
            outcome = work => outcome.unwrap_or_else(|panic| panicked(panic.as_ref())),
        }
    };
    turn.finish(end).await;
}

/// The end of a run whose model cannot work.
fn refused(error: &Error) -> End {
    End::Refused(ErrorType::ProviderNotConfigured, error.detail().to_owned())
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> End {
    tracing::error!(panic = panic_text(panic), "the turn engine panicked");
    End::Broken
}
