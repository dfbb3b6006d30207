//! `copass agent tools`: the exact names, and why there are not more.

use copass_types::api::{ListToolsQuery, ToolList};

use crate::{
    context::Context,
    failure::Failure,
    table::{
        self,
        Spare::{Cut, Omit},
    },
};

pub(super) async fn run(context: &Context, app: Option<String>) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let none = match &app {
        None => "No tools.".to_owned(),
        Some(app) => format!("No tools of the app {}.", table::one_line(app)),
    };
    let reply = client.list_tools(&sandbox_id, &ListToolsQuery { app }).await?;
    context.output.reply(&reply, |list| describe(list, &none))
}

/// `none`: what an empty list says.
fn describe(list: &ToolList, none: &str) -> String {
    let rows = list.tools.iter().map(|tool| {
        [
            tool.name.clone(),
            tool.app_slug.clone(),
            table::or_dash(Some(&tool.source)),
            if tool.read_only { "reads" } else { "changes" }.to_owned(),
            tool.description.clone().unwrap_or_default(),
        ]
    });
    let tools = table::rows(
        ["NAME", "APP", "SOURCE", "EFFECT", "DESCRIPTION"],
        &[Cut("DESCRIPTION"), Omit("SOURCE"), Omit("APP")],
        rows,
        none,
    );
    let skipped: Vec<String> = list.skipped.iter().map(skipped).collect();
    if skipped.is_empty() {
        tools
    } else {
        format!("{tools}\n\n{}", skipped.join("\n"))
    }
}

/// Why a source gave no tools.
pub(super) fn skipped(source: &copass_types::api::SkippedSource) -> String {
    format!(
        "skipped {}: {}",
        table::one_line(&source.name),
        table::one_line(&source.reason)
    )
}
