//! `copass agent create`, and the readers of what it shares with `update` and `setup`.

use copass_client::{Client, Reply};
use copass_types::api::{Agent, CreateAgentRequest, ModelSettingsInput};
use serde_json::Value;

use super::{change, model};
use crate::{
    args::{AgentCreate, ModelArgs},
    context::Context,
    failure::Failure,
    prompt, shell,
};

/// A value of `--tool-sources`: `None` is the caller's default set, empty is no tools.
pub(super) type ToolSources = Option<Vec<String>>;

pub(super) async fn create(context: &Context, args: AgentCreate) -> Result<(), Failure> {
    let (body, tool_sources) = request(args)?;
    let (client, sandbox_id) = context.in_sandbox().await?;
    let reply = make(&client, &sandbox_id, &body, tool_sources).await?;
    tell(context, &client, &sandbox_id, &reply).await
}

/// Creates the agent. Its tool sources are a request of their own (`rest.md` 12.7), so they may fail after it is there.
pub(super) async fn make(
    client: &Client,
    sandbox_id: &str,
    body: &CreateAgentRequest,
    tool_sources: Option<ToolSources>,
) -> Result<Reply<Agent>, Failure> {
    let reply = client.create_agent(sandbox_id, body).await?;
    let Some(tool_sources) = tool_sources else {
        return Ok(reply);
    };
    let slug = &reply.value.slug;
    match client.update_tool_sources(sandbox_id, slug, tool_sources.clone()).await {
        Ok(changed) => Ok(changed),
        Err(error) => {
            let mut failure = Failure::from(error);
            failure.message = format!(
                "the agent {slug} was created, but without its tool sources: {}",
                failure.message
            );
            let list = sources_word(&tool_sources);
            Err(failure.hint(format!(
                "set them with `{}`",
                shell::copass(&["agent", "update", slug, "--tool-sources", &list])
            )))
        }
    }
}

/// Says what was created, what is wrong with it, and what to do next.
pub(super) async fn tell(
    context: &Context,
    client: &Client,
    sandbox_id: &str,
    reply: &Reply<Agent>,
) -> Result<(), Failure> {
    context.output.reply(reply, |agent| {
        format!("Created agent {} ({}, {}).", agent.slug, agent.agent_id, model(agent))
    })?;
    if context.output.is_json() {
        return Ok(());
    }
    change::warn(context, client, sandbox_id, &reply.value).await;
    let test = shell::copass(&["agent", "test", &reply.value.slug]);
    context.output.note(&format!("Try it with `{test}`."));
    Ok(())
}

fn request(args: AgentCreate) -> Result<(CreateAgentRequest, Option<ToolSources>), Failure> {
    let system_prompt = system_prompt(args.prompt, args.prompt_file)?
        .ok_or_else(|| Failure::usage("pass --prompt or --prompt-file"))?;
    let settings = settings(&args.model);
    let tool_sources = args.tools.tool_sources.as_deref().map(tool_sources).transpose()?;
    let body = CreateAgentRequest {
        name: args.name.unwrap_or_else(|| args.slug.clone()),
        slug: args.slug,
        system_prompt,
        description: args.description,
        tool_allowlist: args.tools.tool_allowlist.as_deref().map(tool_allowlist).transpose()?,
        model_settings: settings,
    };
    Ok((body, tool_sources))
}

/// The system prompt, from wherever it was given.
pub(super) fn system_prompt(text: Option<String>, file: Option<std::path::PathBuf>) -> Result<Option<String>, Failure> {
    match (text, file) {
        (Some(text), _) => Ok(Some(text)),
        (None, Some(path)) => prompt::file_or_stdin(&path).map(Some),
        (None, None) => Ok(None),
    }
}

/// The model settings that were named; `None` when none was.
pub(super) fn settings(args: &ModelArgs) -> Option<ModelSettingsInput> {
    let settings = ModelSettingsInput {
        backend: args.backend.clone(),
        model: args.model.clone(),
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        max_turns: args.max_turns,
        timeout_s: args.timeout_s,
        compute_provider: None,
    };
    (settings != ModelSettingsInput::default()).then_some(settings)
}

/// A JSON list, or names separated by commas.
pub(super) fn tool_allowlist(text: &str) -> Result<Vec<String>, Failure> {
    let list = names("--tool-allowlist", text)?;
    // An unset variable of a script must not open everything.
    if list.is_empty() && !text.trim_start().starts_with('[') {
        return Err(Failure::usage("--tool-allowlist is empty").hint("`[]` allows every tool"));
    }
    Ok(list)
}

/// The same, or `default` (also `null`) for the caller's default set and `none` for no tools.
pub(super) fn tool_sources(text: &str) -> Result<ToolSources, Failure> {
    match text.trim() {
        "default" | "null" => Ok(None),
        "none" => Ok(Some(Vec::new())),
        text => {
            let list = names("--tool-sources", text)?;
            if list.is_empty() && !text.starts_with('[') {
                return Err(
                    Failure::usage("--tool-sources is empty").hint("`none` is no tools, `default` the default set")
                );
            }
            Ok(Some(list))
        }
    }
}

/// What [`tool_sources`] reads as this.
pub(super) fn sources_word(sources: &ToolSources) -> String {
    match sources {
        None => "default".to_owned(),
        Some(list) if list.is_empty() => "none".to_owned(),
        Some(list) => shell::json_list(list),
    }
}

fn names(flag: &str, text: &str) -> Result<Vec<String>, Failure> {
    let not_a_list = |why: &str| {
        Failure::usage(format!("{flag} is not a JSON list of names: {why}")).hint(format!(
            "a list is {flag} '[\"search\"]', or names separated by commas: {flag} search,discover"
        ))
    };
    let text = text.trim();
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(_)) => serde_json::from_str(text).map_err(|error| not_a_list(&error.to_string())),
        // As a name it would match no tool, and the agent would have none.
        Ok(other) => Err(not_a_list(&format!("it is {}", kind(&other)))),
        Err(error) if text.starts_with(['[', '{', '"']) => Err(not_a_list(&error.to_string())),
        Err(_) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a single text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::{sources_word, tool_allowlist, tool_sources};

    #[test]
    fn allowlists_are_json_or_words() {
        assert_eq!(tool_allowlist(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(tool_allowlist("a, b,").unwrap(), ["a", "b"]);
        assert!(tool_allowlist("[]").unwrap().is_empty());
        for text in [
            "[1]",
            "",
            " , ",
            "null",
            "true",
            "7",
            r#""search""#,
            r#"{"a":1}"#,
            r#"{"a""#,
            r#"["a""#,
            r#"["a",null]"#,
        ] {
            assert!(tool_allowlist(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_sources_and_the_default_ones_are_told_apart() {
        for (text, expected) in [
            ("default", None),
            ("null", None),
            ("none", Some(vec![])),
            ("[]", Some(vec![])),
            ("a,b", Some(vec!["a".to_owned(), "b".to_owned()])),
        ] {
            let read = tool_sources(text).unwrap();
            assert_eq!(read, expected, "{text}");
            assert_eq!(tool_sources(&sources_word(&read)).unwrap(), read);
        }
        for text in [" ", "{}", r#""a""#, "[null]"] {
            assert!(tool_sources(text).is_err(), "{text}");
        }
    }
}
