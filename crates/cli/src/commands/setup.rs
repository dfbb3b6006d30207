//! `copass setup`: profile, sandbox, default source, and `.olane/refs.json`.
//!
//! Every step looks before it makes, so the command may be repeated: what the file already names is kept as long as it
//! exists, and nothing is created twice.

use copass_client::Client;
use copass_types::api::{CreateSandboxRequest, ProfileRequest, RegisterSourceRequest, Sandbox, UserProfile};
use serde_json::json;

use crate::{args::SetupArgs, context::Context, failure::Failure, files::JsonFile, table};

const SOURCE_NAME: &str = "default";

/// Sets the directory up.
pub(crate) async fn run(context: &Context, args: SetupArgs) -> Result<(), Failure> {
    let mut refs = context.settings.refs_here()?;
    let client = context.client().await?;
    let profile = profile(context, &client, args.display_name).await?;
    let sandbox = sandbox(context, &client, &profile, &refs).await?;
    let project_id = project(context, &profile, &sandbox, &refs);
    let body = RegisterSourceRequest {
        provider: "custom".to_owned(),
        name: SOURCE_NAME.to_owned(),
        ingestion_mode: Some("manual".to_owned()),
        ..RegisterSourceRequest::default()
    };
    let source = client.ensure_source(&sandbox.sandbox_id, &body).await?;

    refs.set("sandbox_id", sandbox.sandbox_id.as_str());
    match &project_id {
        Some(project_id) => refs.set("project_id", project_id.as_str()),
        None => drop(refs.remove("project_id")),
    }
    refs.set("data_source_id", source.data_source_id.as_str());
    refs.write()?;

    let value = json!({
        "sandbox_id": sandbox.sandbox_id, "project_id": project_id, "data_source_id": source.data_source_id,
    });
    context.output.value(&value, || {
        table::properties(&[
            ("profile", Some(profile.display_name.clone())),
            ("sandbox", Some(format!("{} {}", sandbox.sandbox_id, sandbox.name))),
            ("project", Some(table::or_dash(project_id.as_ref()))),
            ("source", Some(format!("{} {}", source.data_source_id, source.name))),
        ])
    })?;
    if !context.output.is_json() {
        context.output.note(&format!("Written to {}.", refs.path().display()));
        context
            .output
            .note("Next: `copass chat \"What sandboxes do I have?\"`, or `copass apikey create <name>`.");
    }
    Ok(())
}

async fn profile(context: &Context, client: &Client, name: Option<String>) -> Result<UserProfile, Failure> {
    let known = match client.profile().await {
        Ok(reply) => Some(reply.value),
        Err(error) if error.status() == Some(404) => None,
        Err(error) => return Err(error.into()),
    };
    let display_name = match known {
        Some(profile) if name.is_none() && profile.sandbox_id.is_some() => return Ok(profile),
        Some(profile) => name.or(Some(profile.display_name)),
        None => name.or_else(|| name_from_email(context)),
    };
    Ok(client
        .put_profile(&ProfileRequest {
            display_name,
            canonical_id: None,
        })
        .await?
        .value)
}

fn name_from_email(context: &Context) -> Option<String> {
    let config = context.settings.global_config().ok()?;
    let (name, _) = config.text("email")?.split_once('@')?;
    Some(name.to_owned())
}

/// The named one, else the one the file names if it still exists, else the primary one.
async fn sandbox(
    context: &Context,
    client: &Client,
    profile: &UserProfile,
    refs: &JsonFile,
) -> Result<Sandbox, Failure> {
    if let Some(sandbox_id) = context.settings.chosen_sandbox() {
        return Ok(client.sandbox(sandbox_id).await?.value);
    }
    for sandbox_id in [refs.text("sandbox_id"), profile.sandbox_id.as_deref()]
        .into_iter()
        .flatten()
    {
        match client.sandbox(sandbox_id).await {
            Ok(reply) => return Ok(reply.value),
            Err(error) if error.status() == Some(404) => {
                context
                    .output
                    .note(&format!("The sandbox {sandbox_id} does not exist any more."));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let body = CreateSandboxRequest {
        name: "main".to_owned(),
        owner_id: profile.user_id.clone(),
        tier: None,
        metadata: None,
    };
    Ok(client.create_sandbox(&body).await?.value)
}

fn project(context: &Context, profile: &UserProfile, sandbox: &Sandbox, refs: &JsonFile) -> Option<String> {
    let sandbox_id = Some(sandbox.sandbox_id.as_str());
    let of_file = if refs.text("sandbox_id") == sandbox_id {
        refs.text("project_id")
    } else {
        None
    };
    let of_profile = if profile.sandbox_id.as_deref() == sandbox_id {
        profile.project_id.as_deref()
    } else {
        None
    };
    context
        .settings
        .chosen_project()
        .or(of_file)
        .or(of_profile)
        .map(str::to_owned)
}
