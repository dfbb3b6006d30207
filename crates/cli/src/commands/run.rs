//! `copass run show`: a run and what explains it.

use copass_types::api::{AgentRun, RunDetail};
use serde_json::Value;

use crate::{args::RunCommand, context::Context, failure::Failure, table};

pub(crate) async fn run(context: &Context, command: RunCommand) -> Result<(), Failure> {
    let RunCommand::Show { run_id } = command;
    let (client, sandbox_id) = context.in_sandbox().await?;
    let reply = client.run(&sandbox_id, &run_id).await?;
    context.output.reply(&reply, describe)
}

/// Money is in units of 1e-6 USD (`rest.md` 4).
pub(crate) fn cost(run: &AgentRun) -> Option<String> {
    run.cost_microcents
        .map(|cost| format!("{}.{:06} USD", cost / 1_000_000, cost % 1_000_000))
}

fn describe(detail: &RunDetail) -> String {
    let run = &detail.run;
    let tokens = match (run.tokens_in, run.tokens_out) {
        (None, None) => None,
        (tokens_in, tokens_out) => Some(format!(
            "{} in, {} out",
            tokens_in.unwrap_or_default(),
            tokens_out.unwrap_or_default()
        )),
    };
    let mut parts = vec![table::properties(&[
        ("id", Some(run.run_id.clone())),
        (
            "agent",
            Some(run.agent_slug.clone().unwrap_or_else(|| run.agent_id.clone())),
        ),
        ("version", Some(run.agent_version.to_string())),
        ("status", Some(run.status.clone())),
        ("error", run.error_message.clone()),
        ("trigger", run.trigger_id.clone()),
        ("session", run.provider_session_id.clone()),
        ("started", run.started_at.as_ref().map(table::time)),
        ("finished", run.finished_at.as_ref().map(table::time)),
        ("duration", run.duration_ms.map(|duration| format!("{duration} ms"))),
        ("tokens", tokens),
        ("cost", cost(run)),
    ])];
    for warning in &run.warnings {
        parts.push(format!("warning: {warning}"));
    }
    if let Some(Value::Object(trace)) = &detail.tool_resolution_trace {
        let lines: Vec<String> = trace
            .iter()
            .map(|(key, value)| format!("  {key}: {}", words(value)))
            .collect();
        parts.push(format!("tool resolution\n{}", lines.join("\n")));
    }
    if !detail.steps.is_empty() {
        let rows = detail.steps.iter().map(|step| {
            [
                step.seq.to_string(),
                step.kind.clone(),
                table::or_dash(step.name.as_ref()),
                step.state.clone(),
                step.arguments
                    .as_ref()
                    .map_or_else(String::new, |arguments| table::shortened(&arguments.to_string(), 40)),
                step.error.clone().unwrap_or_default(),
            ]
        });
        parts.push(table::rows(
            ["STEP", "KIND", "NAME", "STATE", "ARGUMENTS", "ERROR"],
            rows,
            "",
        ));
    }
    if let Some(text) = run.output_text.as_ref().filter(|text| !text.is_empty()) {
        parts.push(text.clone());
    }
    parts.join("\n\n")
}

/// A list as words; everything else as JSON.
fn words(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
