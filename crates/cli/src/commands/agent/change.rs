//! `copass agent update` and `rollback`: what is sent, what changed, and what is wrong with the agent now.
//!
//! The API has one route for each group of settings, so an update may be several requests and as many versions. All of
//! it is read and checked before the first is sent; when a later one fails, what was changed before is said.

use copass_client::{Client, Reply};
use copass_types::api::{Agent, ListToolsQuery, ModelSettingsInput, UpdateAgentRequest};

use super::{
    make::{self, ToolSources},
    versions,
};
use crate::{
    args::{AgentStatus, AgentUpdate},
    context::Context,
    diagnosis::{self, Finding},
    failure::Failure,
    prompt, shell, wording,
};

/// The requests of one update.
struct Wanted {
    fields: Option<UpdateAgentRequest>,
    settings: Option<ModelSettingsInput>,
    tool_sources: Option<ToolSources>,
}

pub(super) async fn update(context: &Context, args: AgentUpdate) -> Result<(), Failure> {
    let slug = args.slug.clone();
    let must_ask = args.status == Some(AgentStatus::Archived);
    let yes = args.consent.yes;
    let prompt_replace = args.prompt_replace.clone();
    let mut wanted = Wanted::read(args)?;
    if must_ask {
        prompt::can_consent(context, yes, "archive an agent")?;
    }
    let (client, sandbox_id) = context.in_sandbox().await?;
    if must_ask && !yes {
        super::confirm_archiving(context, &client, &sandbox_id, &slug).await?;
    }
    // The answer alone does not say what it was before; programs do not ask, unless a part of it is to change.
    let before = if context.output.is_json() && prompt_replace.is_none() {
        None
    } else {
        Some(client.agent(&sandbox_id, &slug).await?.value)
    };
    if let (Some([old, new]), Some(before)) = (prompt_replace.as_deref(), &before) {
        let prompt = wording::replaced(&before.system_prompt, old, new).ok_or_else(|| {
            Failure::usage(format!("the word {old} does not stand in the system prompt of {slug}")).hint(format!(
                "it reads: {}",
                shell::copass(&["agent", "show", &slug, "--prompt"])
            ))
        })?;
        wanted.fields.get_or_insert_default().system_prompt = Some(prompt);
    }
    let reply = wanted.send(&client, &sandbox_id, &slug).await?;
    tell(context, &client, &sandbox_id, before.as_ref(), &reply).await
}

impl Wanted {
    fn read(args: AgentUpdate) -> Result<Self, Failure> {
        let changes_prompt = args.prompt_replace.is_some();
        let fields = UpdateAgentRequest {
            name: args.name,
            // An empty text takes it away.
            description: args.description.map(|text| Some(text).filter(|text| !text.is_empty())),
            system_prompt: make::system_prompt(args.prompt, args.prompt_file)?,
            tool_allowlist: args
                .tools
                .tool_allowlist
                .as_deref()
                .map(make::tool_allowlist)
                .transpose()?,
            model_settings: None,
            status: args.status.map(|status| status.as_str().to_owned()),
        };
        let wanted = Self {
            fields: (fields != UpdateAgentRequest::default()).then_some(fields),
            settings: make::settings(&args.model),
            tool_sources: args.tools.tool_sources.as_deref().map(make::tool_sources).transpose()?,
        };
        let is_nothing = wanted.fields.is_none() && wanted.settings.is_none() && wanted.tool_sources.is_none();
        if is_nothing && !changes_prompt {
            return Err(
                Failure::usage("nothing to change").hint("`copass agent update --help` lists what can be changed")
            );
        }
        Ok(wanted)
    }

    /// Sends what is wanted; the last answer has it all.
    async fn send(self, client: &Client, sandbox_id: &str, slug: &str) -> Result<Reply<Agent>, Failure> {
        let mut last: Option<Reply<Agent>> = None;
        if let Some(body) = &self.fields {
            last = Some(client.update_agent(sandbox_id, slug, body).await?);
        }
        if let Some(body) = &self.settings {
            let answer = client.update_model_settings(sandbox_id, slug, body).await;
            last = Some(answer.map_err(|error| half_done(error, last.as_ref()))?);
        }
        if let Some(tool_sources) = self.tool_sources {
            let answer = client.update_tool_sources(sandbox_id, slug, tool_sources).await;
            last = Some(answer.map_err(|error| half_done(error, last.as_ref()))?);
        }
        last.ok_or_else(|| Failure::usage("nothing to change"))
    }
}

/// A failure after a part of the update was made.
fn half_done(error: copass_client::Error, done: Option<&Reply<Agent>>) -> Failure {
    let mut failure = Failure::from(error);
    if let Some(done) = done {
        failure.message = format!(
            "{} (what comes before it was changed: {} is at version {} now)",
            failure.message, done.value.slug, done.value.version
        );
    }
    failure
}

pub(super) async fn roll_back(context: &Context, slug: &str, version: u32) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let before = if context.output.is_json() {
        None
    } else {
        Some(client.agent(&sandbox_id, slug).await?.value)
    };
    let reply = client.roll_back_agent(&sandbox_id, slug, version).await?;
    tell(context, &client, &sandbox_id, before.as_ref(), &reply).await
}

/// Says what changed on stdout, and what is wrong now on stderr.
async fn tell(
    context: &Context,
    client: &Client,
    sandbox_id: &str,
    before: Option<&Agent>,
    reply: &Reply<Agent>,
) -> Result<(), Failure> {
    context.output.reply(reply, |changed| describe(before, changed))?;
    warn(context, client, sandbox_id, &reply.value).await;
    Ok(())
}

/// Says what is wrong with an agent; programs read it in the answer.
pub(super) async fn warn(context: &Context, client: &Client, sandbox_id: &str, agent: &Agent) {
    if context.output.is_json() {
        return;
    }
    for finding in findings(client, sandbox_id, agent).await {
        context.output.note(&finding.describe("warning: "));
    }
}

async fn findings(client: &Client, sandbox_id: &str, agent: &Agent) -> Vec<Finding> {
    let tools = if agent.allowlist_missing_entries.is_empty() {
        None
    } else {
        // Without it the closest name stays unknown, and the change is made all the same.
        client.list_tools(sandbox_id, &ListToolsQuery::default()).await.ok()
    };
    let there: Vec<&str> = tools
        .iter()
        .flat_map(|reply| reply.value.tools.iter().map(|tool| tool.name.as_str()))
        .collect();
    diagnosis::of_agent(agent, &there)
}

fn describe(before: Option<&Agent>, after: &Agent) -> String {
    let slug = &after.slug;
    let Some(before) = before else {
        return format!("{slug} is at version {}.", after.version);
    };
    if before.version == after.version {
        return format!("Nothing changed: {slug} stays at version {}.", after.version);
    }
    let mut lines = vec![format!(
        "Changed agent {slug}: version {} -> {}.",
        before.version, after.version
    )];
    lines.extend(versions::brief(before, after));
    lines.push(format!(
        "`{}` shows the difference.",
        shell::copass(&[
            "agent",
            "diff",
            slug,
            &before.version.to_string(),
            &after.version.to_string()
        ])
    ));
    lines.join("\n")
}
