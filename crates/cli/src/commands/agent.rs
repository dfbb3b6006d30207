//! `copass agent`.

use copass_types::api::{Agent, CreateAgentRequest, ListAgentsQuery, ListRunsQuery, ModelSettingsInput};

use crate::{
    args::{AgentCommand, AgentCreate, AgentRuns},
    commands::{run as run_command, trigger},
    context::Context,
    failure::Failure,
    prompt, table,
};

pub(crate) async fn run(context: &Context, command: AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::List { status } => list(context, status).await,
        AgentCommand::Show { slug } => {
            let (client, sandbox_id) = context.in_sandbox().await?;
            let reply = client.agent(&sandbox_id, &slug).await?;
            context.output.reply(&reply, describe)
        }
        AgentCommand::Create(args) => create(context, *args).await,
        AgentCommand::Runs(args) => runs(context, args).await,
        AgentCommand::Trigger(command) => trigger::run(context, command).await,
    }
}

async fn list(context: &Context, status: Option<String>) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
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
            rows,
            "No agents. Create one with `copass agent create <slug> --prompt <text>`.",
        )
    })
}

fn model(agent: &Agent) -> String {
    format!("{}/{}", agent.model_settings.backend, agent.model_settings.model)
}

fn describe(agent: &Agent) -> String {
    let settings = &agent.model_settings;
    let allowlist = if agent.tool_allowlist.is_empty() {
        "all".to_owned()
    } else {
        agent.tool_allowlist.join(", ")
    };
    let sources = match &agent.tool_sources {
        None => "default".to_owned(),
        Some(sources) if sources.is_empty() => "none".to_owned(),
        Some(sources) => sources.join(", "),
    };
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
        ("tools", Some(allowlist)),
        ("tool sources", Some(sources)),
        ("created", agent.created_at.as_ref().map(table::time)),
        ("changed", agent.updated_at.as_ref().map(table::time)),
    ]);
    format!("{properties}\n\n{}", agent.system_prompt)
}

async fn create(context: &Context, args: AgentCreate) -> Result<(), Failure> {
    let body = request(args)?;
    let (client, sandbox_id) = context.in_sandbox().await?;
    let reply = client.create_agent(&sandbox_id, &body).await?;
    context.output.reply(&reply, |agent| {
        format!("Created agent {} ({}, {}).", agent.slug, agent.agent_id, model(agent))
    })
}

fn request(args: AgentCreate) -> Result<CreateAgentRequest, Failure> {
    let system_prompt = match (args.prompt, args.prompt_file) {
        (Some(prompt), _) => prompt,
        (None, Some(path)) if path.as_os_str() == "-" => prompt::piped_text()?,
        (None, Some(path)) => std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?,
        (None, None) => return Err(Failure::usage("pass --prompt or --prompt-file")),
    };
    let settings = ModelSettingsInput {
        backend: args.backend,
        model: args.model,
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        max_turns: args.max_turns,
        timeout_s: args.timeout_s,
        compute_provider: None,
    };
    Ok(CreateAgentRequest {
        name: args.name.unwrap_or_else(|| args.slug.clone()),
        slug: args.slug,
        system_prompt,
        description: args.description,
        tool_allowlist: args.tool_allowlist.as_deref().map(names).transpose()?,
        model_settings: (settings != ModelSettingsInput::default()).then_some(settings),
    })
}

/// A JSON list, or names separated by commas.
fn names(text: &str) -> Result<Vec<String>, Failure> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| Failure::usage(format!("--tool-allowlist is not a JSON list of names: {error}")));
    }
    Ok(text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

async fn runs(context: &Context, args: AgentRuns) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let query = ListRunsQuery {
        limit: args.limit,
        before: args.before,
        trigger_id: args.trigger_id,
        status: args.status,
    };
    let reply = client.list_runs(&sandbox_id, &args.slug, &query).await?;
    context.output.reply(&reply, |list| {
        let rows = list.runs.iter().map(|run| {
            let text = run.error_message.as_ref().or(run.output_text.as_ref());
            [
                run.run_id.clone(),
                run.status.clone(),
                table::time_or_dash(run.started_at.as_ref().or(run.created_at.as_ref())),
                run.duration_ms
                    .map_or_else(|| "-".to_owned(), |duration| format!("{duration} ms")),
                table::or_dash(run_command::cost(run)),
                table::or_dash(run.trigger_id.as_ref()),
                table::shortened(text.map_or("", String::as_str), 60),
            ]
        });
        table::rows(
            ["ID", "STATUS", "STARTED", "TOOK", "COST", "TRIGGER", "RESULT"],
            rows,
            "No runs yet.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn allowlists_are_json_or_words() {
        assert_eq!(names(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(names("a, b,").unwrap(), ["a", "b"]);
        assert!(names("[1]").is_err());
    }
}
