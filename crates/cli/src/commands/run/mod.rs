//! `copass run`: one turn without an agent, and what there is to know and do about runs.

mod once;
mod show;
mod tree;

use copass_types::api::AgentRun;

use super::{
    agent,
    turn::{self, Frames},
};
use crate::{
    args::{RunArgs, RunCommand, RunTurn},
    context::Context,
    failure::Failure,
    shell, table,
};

pub(crate) async fn run(context: &Context, args: RunArgs) -> Result<(), Failure> {
    let Some(command) = args.command else {
        return once::run(context, args.turn).await;
    };
    refuse_both(&args.turn)?;
    match command {
        RunCommand::List(args) => agent::runs(context, *args).await,
        RunCommand::Show(args) => show::run(context, args).await,
        RunCommand::Cancel { run_id } => cancel(context, &run_id).await,
        RunCommand::Retry { run_id, follow } => retry(context, &run_id, follow).await,
    }
}

/// A message and a command at once are a mistake, and the message is not sent.
fn refuse_both(turn: &RunTurn) -> Result<(), Failure> {
    let given = [
        ("a message", &turn.message),
        ("a message", &turn.verbatim),
        ("--provider", &turn.provider),
        ("--model", &turn.model),
        ("--system", &turn.system),
        ("--session", &turn.session),
        ("--end-user", &turn.end_user),
        ("--reasoning-engine-id", &turn.reasoning_engine_id),
        ("--location", &turn.location),
    ];
    match given.into_iter().find(|(_, value)| value.is_some()) {
        Some((what, _)) => Err(
            Failure::usage(format!("{what} does not go with a command of `copass run`"))
                .hint("put a message of several words in quotes: copass run \"show me the agents\""),
        ),
        None => Ok(()),
    }
}

async fn cancel(context: &Context, run_id: &str) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let reply = client.cancel_run(&sandbox_id, run_id).await?;
    context.output.reply(&reply, ended)?;
    if reply.value.status != "cancelled" && !context.output.is_json() {
        context.output.note("It was over before it could be cancelled.");
    }
    Ok(())
}

fn ended(run: &AgentRun) -> String {
    format!("Run {}: {}.", run.run_id, run.status)
}

async fn retry(context: &Context, run_id: &str, is_followed: bool) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let reply = client.retry_run(&sandbox_id, run_id).await?;
    let retried = &reply.value;
    context.output.reply(&reply, |retried| {
        format!(
            "Run {} repeats {}.",
            table::one_line(&retried.run_id),
            table::one_line(&retried.retry_of)
        )
    })?;
    if is_followed {
        return follow(context, &client, &sandbox_id, &retried.run_id).await;
    }
    if !context.output.is_json() {
        let line = shell::copass(&["run", "show", &retried.run_id, "--follow"]);
        context.output.note(&format!("`{line}` shows how it goes."));
    }
    Ok(())
}

/// Shows a run from its beginning to its end; leaving changes nothing.
async fn follow(
    context: &Context,
    client: &copass_client::Client,
    sandbox_id: &str,
    run_id: &str,
) -> Result<(), Failure> {
    let open = async { client.follow_run(sandbox_id, run_id, None).await.map(Frames::from) };
    let shown = turn::show(&context.output, open).await?;
    if !context.output.is_json() {
        let line = shell::copass(&["run", "show", run_id]);
        context.output.dim(&if shown.is_left {
            format!("the run goes on; `{line}` shows it")
        } else {
            format!("run {run_id} (`{line}` shows its steps)")
        });
    }
    Ok(())
}
