//! `copass agent runs`: the list, and the runs as they begin and change.

use std::{collections::VecDeque, pin::pin, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use copass_types::api::{AgentRun, ListRunsQuery, RunList};
use serde_json::Value;

use crate::{
    args::AgentRuns,
    context::Context,
    failure::Failure,
    live::LiveTable,
    money,
    older::Listed,
    output::{Output, columns},
    table::{
        self, Lines,
        Spare::{Cut, Omit},
    },
    when,
};

/// Runs of a list when nobody says how many (`rest.md` 12.11).
const PAGE: u32 = 20;
/// Runs that a follower begins with when nobody says how many.
const BACKLOG: u32 = 10;
/// Runs whose last state is remembered, so that one that is told again is not shown again.
const REMEMBERED_MAX: usize = 1_000;
/// How often the time of running runs moves on a terminal.
const TICK: Duration = Duration::from_secs(1);

/// What a follower shows, a line a change.
const LINES: Lines<7> = Lines {
    headings: ["ID", "STATUS", "STARTED", "TOOK", "TOKENS", "COST", "RESULT"],
    widths: [29, 9, 20, 8, 12, 10, 0],
    spares: &[
        Cut("RESULT"),
        Omit("TOKENS"),
        Omit("COST"),
        Omit("STARTED"),
        Omit("TOOK"),
    ],
};

/// The same where rows change in place.
const MOVING: Lines<7> = Lines {
    widths: [29, 9, 9, 8, 12, 10, 0],
    ..LINES
};

pub(crate) async fn run(context: &Context, args: AgentRuns) -> Result<(), Failure> {
    if args.follow {
        return follow(context, args).await;
    }
    if args.limit == Some(0) {
        return Err(Failure::usage("--limit 0 is for --follow; a list has at least one row"));
    }
    let (client, sandbox_id) = context.in_sandbox().await?;
    let none = if is_filtered(&args) {
        "No runs match."
    } else if args.before.is_some() {
        "No older runs."
    } else {
        "No runs yet."
    };
    let query = ListRunsQuery {
        limit: args.limit,
        before: args.before,
        trigger_id: args.trigger.clone(),
        status: args.status.clone(),
        since: args.since,
        until: args.until,
        agent_version: args.agent_version,
    };
    let reply = client.list_runs(&sandbox_id, &args.slug, &query).await?;
    context.output.reply(&reply, |list| describe(list, none))?;
    let runs = &reply.value.runs;
    let is_full = runs.len() >= args.limit.unwrap_or(PAGE) as usize;
    if let Some(oldest) = runs.last().filter(|_| is_full) {
        let listed = Listed {
            rows: "runs",
            command: &["agent", "runs", &args.slug],
            options: &[
                ("--limit", args.limit.map(|limit| limit.to_string())),
                ("--status", args.status),
                ("--trigger", args.trigger),
                ("--since", args.since.map(rfc3339)),
                ("--until", args.until.map(rfc3339)),
                ("--agent-version", args.agent_version.map(|version| version.to_string())),
            ],
        };
        listed.tell_older(&context.output, &oldest.run_id);
    }
    Ok(())
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Whether the list may lack runs that the agent has, apart from newer ones.
fn is_filtered(args: &AgentRuns) -> bool {
    args.trigger.is_some()
        || args.status.is_some()
        || args.since.is_some()
        || args.until.is_some()
        || args.agent_version.is_some()
}

/// `none`: what an empty list says.
fn describe(list: &RunList, none: &str) -> String {
    let rows = list.runs.iter().map(|run| {
        let [id, status, started, took, tokens, cost, result] = cells(run);
        [
            id,
            status,
            started,
            took,
            tokens,
            cost,
            table::or_dash(run.trigger_id.as_ref()),
            result,
        ]
    });
    table::rows(
        ["ID", "STATUS", "STARTED", "TOOK", "TOKENS", "COST", "TRIGGER", "RESULT"],
        &[
            Cut("RESULT"),
            Omit("TRIGGER"),
            Omit("TOKENS"),
            Omit("STARTED"),
            Omit("COST"),
            Omit("TOOK"),
        ],
        rows,
        none,
    )
}

fn cells(run: &AgentRun) -> [String; 7] {
    let tokens = match (run.tokens_in, run.tokens_out) {
        (None, None) => "-".to_owned(),
        (read, written) => format!("{} + {}", read.unwrap_or_default(), written.unwrap_or_default()),
    };
    // Nothing is known about the cost of a run that goes on, and that is no gap in the price list.
    let cost = match run.cost_microcents {
        None if !is_over(run) => "-".to_owned(),
        cost => money::dollars_or_unknown(cost),
    };
    let text = run.error_message.as_ref().or(run.output_text.as_ref());
    [
        run.run_id.clone(),
        run.status.clone(),
        table::time_or_dash(run.started_at.as_ref().or(run.created_at.as_ref())),
        run.duration_ms.map_or_else(|| "-".to_owned(), when::took),
        tokens,
        cost,
        text.cloned().unwrap_or_default(),
    ]
}

fn is_over(run: &AgentRun) -> bool {
    !matches!(run.status.as_str(), "pending" | "running")
}

async fn follow(context: &Context, args: AgentRuns) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let backlog = args.limit.unwrap_or(BACKLOG);
    // One listener from the beginning: a signal between two waits must not be lost.
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut follower = tokio::select! {
        follower = client.follow_agent_runs(&sandbox_id, &args.slug, backlog, None) => follower?,
        _ = &mut interrupt => return Ok(()),
    };
    let mut view = View::new(&context.output)?;
    let mut clock = tokio::time::interval(TICK);
    loop {
        // The same future until it answers: a new one would begin its attempt to connect, or its pause, anew.
        let mut next = pin!(follower.next_row());
        let (run, data) = loop {
            tokio::select! {
                row = &mut next => break row.map_err(|error| broken(error, &args.slug))?,
                _ = clock.tick(), if view.is_live() => view.tick(),
                _ = &mut interrupt => return Ok(()),
            }
        };
        if is_wanted(&args, &run) || view.knows(&run.run_id) {
            view.show(run, &data)?;
        }
    }
}

fn broken(error: copass_client::Error, slug: &str) -> Failure {
    let failure = Failure::from(error);
    match failure.status {
        0 => failure.hint(format!(
            "the runs of {slug} go on; run the command again to follow them"
        )),
        _ => failure,
    }
}

fn is_wanted(args: &AgentRuns, run: &AgentRun) -> bool {
    let accepted = run.created_at.or(run.started_at);
    args.status.as_ref().is_none_or(|status| *status == run.status)
        && (args.trigger.is_none() || args.trigger == run.trigger_id)
        && args.agent_version.is_none_or(|version| version == run.agent_version)
        && args.since.is_none_or(|since| accepted.is_some_and(|at| at >= since))
}

/// What a follower has shown, and how.
struct View<'a> {
    output: &'a Output,
    /// Rows in place, on a terminal.
    live: Option<LiveTable>,
    /// The last state of the newest runs, as it was shown.
    shown: VecDeque<(AgentRun, String)>,
}

impl<'a> View<'a> {
    fn new(output: &'a Output) -> Result<Self, Failure> {
        let live = LiveTable::on_terminal(output);
        match &live {
            Some(live) => live.head(&MOVING.head(columns())),
            None if output.is_json() => {}
            None => output.text(&LINES.head(None))?,
        }
        Ok(Self {
            output,
            live,
            shown: VecDeque::new(),
        })
    }

    fn is_live(&self) -> bool {
        self.live.is_some()
    }

    fn knows(&self, run_id: &str) -> bool {
        self.shown.iter().any(|(run, _)| run.run_id == run_id)
    }

    fn show(&mut self, run: AgentRun, data: &Value) -> Result<(), Failure> {
        let state = if self.output.is_json() {
            data.to_string()
        } else {
            LINES.line(&cells(&run), None)
        };
        match self
            .shown
            .iter_mut()
            .rev()
            .find(|(known, _)| known.run_id == run.run_id)
        {
            // After a broken connection the server tells runs again that were not over.
            Some((_, known)) if *known == state => return Ok(()),
            Some(known) => *known = (run.clone(), state.clone()),
            None => {
                self.shown.push_back((run.clone(), state.clone()));
                if self.shown.len() > REMEMBERED_MAX {
                    self.shown.pop_front();
                }
            }
        }
        match &mut self.live {
            Some(live) => {
                live.set(&run.run_id, &moving(&run), is_over(&run));
                Ok(())
            }
            None if self.output.is_json() => self.output.json_line(data),
            None => self.output.text(&state),
        }
    }

    /// The time of what goes on moves on.
    fn tick(&mut self) {
        if let Some(live) = &mut self.live {
            for (run, _) in self.shown.iter().filter(|(run, _)| run.status == "running") {
                live.set(&run.run_id, &moving(run), false);
            }
            live.draw();
        }
    }
}

/// A line of the live table. Its day is today's, or near it.
fn moving(run: &AgentRun) -> String {
    let mut cells = cells(run);
    let began = run.started_at.or(run.created_at);
    cells[2] = began.map_or_else(|| "-".to_owned(), |at| at.format("%H:%M:%SZ").to_string());
    if let (false, Some(started_at)) = (is_over(run), run.started_at) {
        let ms = (when::now() - started_at).num_milliseconds();
        cells[3] = when::took(u64::try_from(ms).unwrap_or(0) / 1_000 * 1_000);
    }
    MOVING.line(&cells, columns())
}
