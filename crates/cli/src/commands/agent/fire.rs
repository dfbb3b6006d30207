//! `copass agent test`: fires an agent with an event and waits for the end of the run.

use copass_client::Client;
use copass_types::api::{AgentRun, JsonObject, TestAgentRequest};

use crate::{
    args::AgentTest,
    commands::turn,
    context::Context,
    failure::{EXIT_FAILED, Failure},
    live::Waiting,
    money, prompt, shell, table, when,
};

pub(super) async fn run(context: &Context, args: AgentTest) -> Result<(), Failure> {
    let event = match (args.stdin, args.event_file, args.event_payload) {
        (Some(_), ..) => Some(event("the event on stdin", &prompt::piped_text()?)?),
        (None, Some(path), _) => {
            let name = path.display().to_string();
            Some(event(&name, &prompt::file_or_stdin(&path)?)?)
        }
        (None, None, Some(text)) if text == "-" => Some(event("the event on stdin", &prompt::piped_text()?)?),
        (None, None, Some(text)) => Some(event("--event-payload", &text)?),
        (None, None, None) => None,
    };
    let (client, sandbox_id) = context.in_sandbox().await?;
    fire(context, &client, &sandbox_id, &args.slug, event).await
}

/// Reads an event.
pub(super) fn event(name: &str, text: &str) -> Result<JsonObject, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::usage(format!("{name} is not a JSON object: {error}")))
}

/// Fires the agent and shows how it ended.
pub(super) async fn fire(
    context: &Context,
    client: &Client,
    sandbox_id: &str,
    slug: &str,
    event: Option<JsonObject>,
) -> Result<(), Failure> {
    let body = TestAgentRequest { event_payload: event };
    let waiting = Waiting::new(&context.output, &format!("{slug} works"));
    let answer = tokio::select! {
        answer = client.test_agent(sandbox_id, slug, &body) => Some(answer),
        _ = tokio::signal::ctrl_c() => None,
    };
    drop(waiting);
    // Leaving closes the connection, and that cancels the run.
    let reply = answer.ok_or_else(turn::interrupted)??;
    context.output.reply(&reply, describe)?;
    let run = &reply.value;
    if !context.output.is_json() {
        for warning in &run.warnings {
            context.output.note(&format!("warning: {}", table::one_line(warning)));
        }
        if run.status != "succeeded" || !run.warnings.is_empty() {
            let line = shell::copass(&["run", "show", &run.run_id]);
            context
                .output
                .note(&format!("`{line}` shows what happened and how to fix it."));
        }
    }
    if run.status == "succeeded" {
        Ok(())
    } else {
        Err(Failure::silent(EXIT_FAILED))
    }
}

fn describe(run: &AgentRun) -> String {
    let tokens = format!(
        "{} in, {} out",
        run.tokens_in.unwrap_or_default(),
        run.tokens_out.unwrap_or_default()
    );
    let properties = table::properties(&[
        ("run", Some(run.run_id.clone())),
        ("status", Some(run.status.clone())),
        ("error", run.error_message.as_deref().map(table::one_line)),
        ("duration", run.duration_ms.map(when::took)),
        ("tokens", Some(tokens)),
        ("cost", Some(money::dollars_or_unknown(run.cost_microcents))),
    ]);
    match run.output_text.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => format!("{properties}\n\n{text}"),
        None => properties,
    }
}
