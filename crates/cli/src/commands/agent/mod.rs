//! `copass agent`.

mod change;
mod fire;
mod key;
mod make;
mod runs;
mod setup;
mod tools;
mod versions;

use copass_client::Client;
use copass_types::api::{Agent, ListAgentsQuery};

use crate::{
    args::AgentCommand,
    commands::trigger,
    context::Context,
    failure::Failure,
    prompt, shell,
    table::{
        self,
        Spare::{Cut, Omit},
    },
};

pub(crate) use runs::run as runs;

/// Agents with warnings that a list names.
const MAX_NAMED: usize = 5;

pub(crate) async fn run(context: &Context, command: AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::Setup { slug } => setup::run(context, slug).await,
        AgentCommand::Create(args) => make::create(context, *args).await,
        AgentCommand::List { status } => list(context, status).await,
        AgentCommand::Show { slug, prompt } => show(context, &slug, prompt).await,
        AgentCommand::Update(args) => change::update(context, *args).await,
        AgentCommand::Archive { slug, consent } => archive(context, &slug, consent.yes).await,
        AgentCommand::Versions { slug, limit, before } => versions::list(context, &slug, limit, before).await,
        AgentCommand::Diff { slug, from, to } => versions::diff(context, &slug, from, to).await,
        AgentCommand::Rollback { slug, to_version } => change::roll_back(context, &slug, to_version).await,
        AgentCommand::Runs(args) => runs::run(context, *args).await,
        AgentCommand::Test(args) => fire::run(context, args).await,
        AgentCommand::Tools { app } => tools::run(context, app).await,
        AgentCommand::Key(command) => key::run(context, command).await,
        AgentCommand::Trigger(command) => trigger::run(context, command).await,
    }
}

async fn list(context: &Context, status: Option<String>) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    // What a filter leaves out is there all the same.
    let none = match &status {
        None => {
            "No agents. Create one with `copass agent setup`, or with `copass agent create <slug> --prompt <text>`."
                .to_owned()
        }
        Some(status) => format!("No {} agents.", table::one_line(status)),
    };
    let reply = client.list_agents(&sandbox_id, &ListAgentsQuery { status }).await?;
    context.output.reply(&reply, |list| {
        let rows = list.agents.iter().map(|agent| {
            [
                agent.slug.clone(),
                agent.name.clone(),
                agent.status.clone(),
                model(agent),
                agent.version.to_string(),
                table::time_or_dash(agent.updated_at.as_ref().or(agent.created_at.as_ref())),
            ]
        });
        table::rows(
            ["SLUG", "NAME", "STATUS", "MODEL", "VERSION", "CHANGED"],
            &[Cut("NAME"), Cut("MODEL"), Omit("CHANGED")],
            rows,
            &none,
        )
    })?;
    if !context.output.is_json()
        && let Some(note) = of_warnings(&reply.value.agents)
    {
        context.output.note(&note);
    }
    Ok(())
}

/// Which agents have warnings, and how to read them; what is archived is not meant to work.
fn of_warnings(agents: &[Agent]) -> Option<String> {
    let slugs: Vec<&str> = agents
        .iter()
        .filter(|agent| agent.status != "archived" && !agent.warnings.is_empty())
        .map(|agent| agent.slug.as_str())
        .collect();
    let show = shell::copass(&["agent", "show", slugs.first()?]);
    let named = slugs[..slugs.len().min(MAX_NAMED)].join(", ");
    let more = match slugs.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "With warnings: {named}{more}. `{show}` tells them, and what to do."
    ))
}

/// `backend/model`, without saying the same twice.
fn model(agent: &Agent) -> String {
    let settings = &agent.model_settings;
    if settings.model.starts_with(&format!("{}/", settings.backend)) {
        settings.model.clone()
    } else {
        format!("{}/{}", settings.backend, settings.model)
    }
}

async fn show(context: &Context, slug: &str, only_prompt: bool) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let reply = client.agent(&sandbox_id, slug).await?;
    if only_prompt && !context.output.is_json() {
        // So that it can be changed in a file and given back, or given back unchanged.
        return context.output.exactly(&reply.value.system_prompt);
    }
    context.output.reply(&reply, describe)?;
    change::warn(context, &client, &sandbox_id, &reply.value).await;
    Ok(())
}

fn describe(agent: &Agent) -> String {
    let settings = &agent.model_settings;
    let properties = table::properties(&[
        ("slug", Some(agent.slug.clone())),
        ("id", Some(agent.agent_id.clone())),
        ("name", Some(agent.name.clone())),
        ("description", agent.description.clone()),
        ("status", Some(agent.status.clone())),
        ("version", Some(agent.version.to_string())),
        ("model", Some(model(agent))),
        (
            "temperature",
            settings.temperature.map(|temperature| temperature.to_string()),
        ),
        ("max tokens", settings.max_tokens.map(|tokens| tokens.to_string())),
        ("max turns", settings.max_turns.map(|turns| turns.to_string())),
        ("time limit", settings.timeout_s.map(|seconds| format!("{seconds} s"))),
        ("tools", Some(allowlist(&agent.tool_allowlist))),
        ("tool sources", Some(sources(agent.tool_sources.as_deref()))),
        ("created", agent.created_at.as_ref().map(table::time)),
        ("changed", agent.updated_at.as_ref().map(table::time)),
    ]);
    format!("{properties}\n\n{}", agent.system_prompt)
}

fn allowlist(entries: &[String]) -> String {
    if entries.is_empty() {
        "all".to_owned()
    } else {
        entries.join(", ")
    }
}

fn sources(sources: Option<&[String]>) -> String {
    match sources {
        None => "default".to_owned(),
        Some([]) => "none".to_owned(),
        Some(sources) => sources.join(", "),
    }
}

async fn archive(context: &Context, slug: &str, yes: bool) -> Result<(), Failure> {
    prompt::can_consent(context, yes, "archive an agent")?;
    let (client, sandbox_id) = context.in_sandbox().await?;
    if !yes {
        confirm_archiving(context, &client, &sandbox_id, slug).await?;
    }
    let reply = client.archive_agent(&sandbox_id, slug).await?;
    context.output.reply(&reply, |_| {
        format!("Archived agent {slug}. `{}` brings it back.", back(slug))
    })
}

fn back(slug: &str) -> String {
    shell::copass(&["agent", "update", slug, "--status", "active"])
}

async fn confirm_archiving(context: &Context, client: &Client, sandbox_id: &str, slug: &str) -> Result<(), Failure> {
    let agent = client.agent(sandbox_id, slug).await?.value;
    let question = format!(
        "Archive the agent {} ({})? It does not run any more, and its triggers do not fire; `{}` brings it back.",
        table::one_line(&agent.slug),
        table::one_line(&agent.name),
        back(slug)
    );
    prompt::confirm(context, &question)
}
