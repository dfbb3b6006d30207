//! `copass agent setup`: an agent, step by step.
//!
//! It asks for what `agent create` takes, reads the real tools before it proposes any, shows the line that does the same
//! without questions, and offers a test before anything points events at the agent. Without a terminal it asks nothing.

use std::{path::Path, pin::pin};

use copass_client::Client;
use copass_types::{
    api::{AgentTool, CreateAgentRequest, ListToolsQuery, ModelSettingsInput, ToolList},
    validate,
};

use super::{
    fire,
    make::{self, ToolSources},
    tools,
};
use crate::{context::Context, dialog, failure::Failure, models, prompt, shell, table};

/// Longest description behind a tool's name.
const TOOL_TEXT_MAX: usize = 60;

pub(super) async fn run(context: &Context, slug: Option<String>) -> Result<(), Failure> {
    if !context.settings.interactive {
        return Err(
            Failure::usage("agent setup asks questions, and there is no terminal to ask them on").hint(
                "without questions: copass agent create <slug> --name <name> --prompt-file <path> --backend anthropic \
             --model claude-sonnet-4-6 --tool-allowlist '[\"<tool>\"]'; `copass agent tools` lists the tools",
            ),
        );
    }
    // One listener from the beginning: a signal between two questions must not be lost.
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let (client, sandbox_id) = context.in_sandbox().await?;
    let (body, tool_sources) = tokio::select! {
        biased;
        _ = &mut interrupt => return Err(dialog::interrupted()),
        answers = ask_all(context, &client, &sandbox_id, slug) => answers?,
    };
    let reply = tokio::select! {
        biased;
        _ = &mut interrupt => return Err(left_while_creating(&body.slug)),
        reply = make::make(&client, &sandbox_id, &body, tool_sources) => reply?,
    };
    make::tell(context, &client, &sandbox_id, &reply).await?;
    if context.output.is_json() {
        return Ok(());
    }
    let slug = &reply.value.slug;
    tokio::select! {
        biased;
        // The agent is there: leaving now is no failure.
        _ = &mut interrupt => {
            let line = shell::copass(&["agent", "runs", slug]);
            context.output.note(&format!("\nLeft; a test that had begun is listed by: {line}"));
            Ok(())
        }
        done = offer_test(context, &client, &sandbox_id, slug) => done,
    }
}

fn left_while_creating(slug: &str) -> Failure {
    let line = shell::copass(&["agent", "show", slug]);
    Failure::failed(format!("interrupted; the agent {slug} may have been created"))
        .code("interrupted")
        .hint(format!("see what is there: {line}"))
}

/// Every question up to the last one: create it?
async fn ask_all(
    context: &Context,
    client: &Client,
    sandbox_id: &str,
    slug: Option<String>,
) -> Result<(CreateAgentRequest, Option<ToolSources>), Failure> {
    // First, so that what makes the agent impossible is known before anything is asked.
    let tool_list = client.list_tools(sandbox_id, &ListToolsQuery::default()).await?.value;
    let slug = ask_slug(context, client, sandbox_id, slug).await?;
    let name = dialog::line("Name", Some(titled(&slug)), |name| {
        validate::name(name, validate::NAME_MAX_CHARS)
    })
    .await?;
    let description = dialog::line("What it is for (may be empty)", None, |_| Ok(())).await?;
    let system_prompt = ask_prompt(context).await?;
    let model_settings = ask_model().await?;
    let (tool_allowlist, tool_sources) = ask_tools(context, &tool_list).await?;
    let body = CreateAgentRequest {
        slug,
        name,
        system_prompt,
        description: Some(description).filter(|text| !text.is_empty()),
        tool_allowlist: Some(tool_allowlist).filter(|list| !list.is_empty()),
        model_settings: Some(model_settings),
    };
    context.output.note(&format!(
        "\nThe same without questions:\n  {}\n",
        line(&body, tool_sources.as_ref())
    ));
    if !dialog::yes("Create it?", true).await? {
        return Err(Failure::usage("not confirmed; nothing was created").code("not_confirmed"));
    }
    Ok((body, tool_sources))
}

async fn ask_slug(
    context: &Context,
    client: &Client,
    sandbox_id: &str,
    mut given: Option<String>,
) -> Result<String, Failure> {
    loop {
        let slug = match given.take() {
            Some(slug) => {
                validate::agent_slug(&slug).map_err(|problem| Failure::usage(format!("the slug {problem}")))?;
                slug
            }
            None => {
                let question = "Slug (lowercase letters, digits, hyphens; it stays for ever)";
                dialog::line(question, None, validate::agent_slug).await?
            }
        };
        match client.agent(sandbox_id, &slug).await {
            Err(error) if error.status() == Some(404) => return Ok(slug),
            Err(error) => return Err(error.into()),
            Ok(agent) => context.output.note(&format!(
                "There is an agent {slug} already ({}). Choose another slug.",
                agent.value.status
            )),
        }
    }
}

/// `issue-triage` becomes `Issue triage`.
fn titled(slug: &str) -> String {
    let words = slug.replace('-', " ");
    let mut letters = words.trim().chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => slug.to_owned(),
    }
}

async fn ask_prompt(context: &Context) -> Result<String, Failure> {
    loop {
        context.output.note(
            "System prompt: what the agent is told to be and to do. Several lines; a line with only a dot ends it. \
             @path takes it from a file.",
        );
        let text = dialog::text().await?;
        let text = match text.trim().strip_prefix('@').filter(|path| !path.contains('\n')) {
            Some(path) => match prompt::file_or_stdin(Path::new(path.trim())) {
                Ok(text) => text,
                Err(failure) => {
                    context.output.show_failure(&failure);
                    continue;
                }
            },
            None => text,
        };
        if text.trim().is_empty() {
            context.output.note("The prompt is empty.");
        } else if text.len() > validate::PROMPT_MAX_BYTES {
            context.output.note(&format!(
                "The prompt has {} bytes; at most {} are taken.",
                text.len(),
                validate::PROMPT_MAX_BYTES
            ));
        } else {
            return Ok(text);
        }
    }
}

async fn ask_model() -> Result<ModelSettingsInput, Failure> {
    let choices: Vec<String> = models::BACKENDS
        .iter()
        .map(|(backend, _, what)| format!("{backend} ({what})"))
        .collect();
    let choice = dialog::one_of("Model provider", &choices).await?;
    let [first, ..] = models::BACKENDS;
    let (backend, usual, _) = models::BACKENDS.get(choice).copied().unwrap_or(first);
    let model = dialog::line("Model", Some(usual.to_owned()), |model| {
        if model.is_empty() {
            Err("must not be empty".to_owned())
        } else {
            Ok(())
        }
    })
    .await?;
    Ok(ModelSettingsInput {
        backend: Some(backend.to_owned()),
        model: Some(model),
        ..ModelSettingsInput::default()
    })
}

/// The allowlist (empty: all) and the tool sources, when they are not the default ones.
async fn ask_tools(context: &Context, list: &ToolList) -> Result<(Vec<String>, Option<ToolSources>), Failure> {
    for source in &list.skipped {
        context.output.note(&tools::skipped(source));
    }
    if list.tools.is_empty() {
        context
            .output
            .note("There are no tools yet, so the agent can only talk until there are.");
        return Ok((Vec::new(), None));
    }
    let sources = sources_of(&list.tools);
    let choices = [
        format!("all there are, now and later (now {})", list.tools.len()),
        "only some tools".to_owned(),
        "only some sources".to_owned(),
        "none".to_owned(),
    ];
    match dialog::one_of("Tools", &choices).await? {
        1 => {
            let names: Vec<String> = list.tools.iter().map(described).collect();
            let picked = pick(context, "Tools it may use", &names).await?;
            let names = picked.iter().filter_map(|place| list.tools.get(*place));
            Ok((names.map(|tool| tool.name.clone()).collect(), None))
        }
        2 => {
            let picked = pick(context, "Sources it gets tools from", &sources).await?;
            let names: Vec<String> = picked.iter().filter_map(|place| sources.get(*place).cloned()).collect();
            Ok((Vec::new(), Some(Some(names))))
        }
        3 => Ok((Vec::new(), Some(Some(Vec::new())))),
        _ => Ok((Vec::new(), None)),
    }
}

/// At least one: an empty list means something else than nobody expects of it.
async fn pick(context: &Context, question: &str, choices: &[String]) -> Result<Vec<usize>, Failure> {
    loop {
        let picked = dialog::some_of(&format!("{question} (space picks, enter goes on)"), choices).await?;
        if !picked.is_empty() {
            return Ok(picked);
        }
        context.output.note("Pick at least one with the space bar.");
    }
}

fn sources_of(tools: &[AgentTool]) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for tool in tools.iter().filter(|tool| !tool.source.is_empty()) {
        if !sources.contains(&tool.source) {
            sources.push(tool.source.clone());
        }
    }
    sources
}

fn described(tool: &AgentTool) -> String {
    let effect = if tool.read_only { "reads" } else { "changes" };
    let what = table::shortened(tool.description.as_deref().unwrap_or_default(), TOOL_TEXT_MAX);
    format!("{} ({effect}) {what}", tool.name).trim_end().to_owned()
}

/// The command that does the same.
fn line(body: &CreateAgentRequest, tool_sources: Option<&ToolSources>) -> String {
    let settings = body.model_settings.clone().unwrap_or_default();
    let mut words = vec!["agent", "create", &body.slug, "--name", &body.name];
    if let Some(description) = &body.description {
        words.extend(["--description", description]);
    }
    words.extend(["--prompt", &body.system_prompt]);
    for (flag, value) in [("--backend", &settings.backend), ("--model", &settings.model)] {
        if let Some(value) = value {
            words.extend([flag, value]);
        }
    }
    let allowlist = body.tool_allowlist.as_ref().map(|names| shell::json_list(names));
    if let Some(list) = &allowlist {
        words.extend(["--tool-allowlist", list]);
    }
    let sources = tool_sources.map(make::sources_word);
    if let Some(word) = &sources {
        words.extend(["--tool-sources", word]);
    }
    shell::copass(&words)
}

async fn offer_test(context: &Context, client: &Client, sandbox_id: &str, slug: &str) -> Result<(), Failure> {
    if !dialog::yes("Fire it once with an event of your choice?", true)
        .await
        .unwrap_or(false)
    {
        return Ok(());
    }
    let event = dialog::line("Event (a JSON object)", Some("{}".to_owned()), |text| {
        fire::event("it", text).map(|_| ()).map_err(|failure| failure.message)
    });
    // The agent is there: leaving now is no failure.
    let Ok(event) = event.await else { return Ok(()) };
    let event = fire::event("it", &event)?;
    fire::fire(context, client, sandbox_id, slug, Some(event)).await
}

#[cfg(test)]
mod tests {
    use copass_types::api::{CreateAgentRequest, ModelSettingsInput};

    use super::{line, titled};

    #[test]
    fn a_slug_becomes_a_name() {
        assert_eq!(titled("issue-triage"), "Issue triage");
        assert_eq!(titled("a"), "A");
        assert_eq!(titled("-"), "-");
    }

    #[test]
    fn the_line_says_everything_again() {
        let body = CreateAgentRequest {
            slug: "support".to_owned(),
            name: "Support".to_owned(),
            system_prompt: "You help.\nIt's fine.".to_owned(),
            description: None,
            tool_allowlist: Some(vec!["search".to_owned()]),
            model_settings: Some(ModelSettingsInput {
                backend: Some("google".to_owned()),
                model: Some("m".to_owned()),
                ..ModelSettingsInput::default()
            }),
        };
        let line = line(&body, Some(&Some(Vec::new())));
        assert_eq!(
            shell_words::split(&line).unwrap(),
            [
                "copass",
                "agent",
                "create",
                "support",
                "--name",
                "Support",
                "--prompt",
                "You help.\nIt's fine.",
                "--backend",
                "google",
                "--model",
                "m",
                "--tool-allowlist",
                r#"["search"]"#,
                "--tool-sources",
                "none"
            ]
        );
    }
}
