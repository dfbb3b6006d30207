//! `copass status`: what works and what does not, in one look.
//!
//! It reports all it can before it fails; the exit code is that of the first problem.

use copass_client::Error;
use serde_json::{Value, json};

use crate::{
    context::Context,
    failure::{EXIT_FAILED, Failure},
    session, table,
};

#[derive(Default)]
struct Report {
    server: String,
    ready: Option<bool>,
    login: String,
    /// Unknown while the server cannot be asked.
    logged_in: Option<bool>,
    person: Option<String>,
    sandbox_id: Option<String>,
    sandbox: Option<Value>,
    sandbox_text: Option<String>,
    problems: Vec<Failure>,
}

/// Shows login, server, sandbox and project.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let mut report = Report::default();
    server(context, &mut report).await?;
    let credential = match session::credential(&context.settings).await {
        Ok(Some((credential, origin))) => {
            origin.as_str().clone_into(&mut report.login);
            Some(credential)
        }
        Ok(None) => {
            "not logged in".clone_into(&mut report.login);
            report.logged_in = Some(false);
            report.problems.push(Failure::not_logged_in("you are not logged in"));
            None
        }
        Err(failure) => {
            failure.message.clone_into(&mut report.login);
            report.problems.push(failure);
            None
        }
    };
    report.sandbox_id = context.settings.sandbox()?;
    if let (Some(credential), Some(_)) = (&credential, report.ready) {
        let client = context.client_with(Some(credential))?;
        person(&client, &mut report).await;
        if let Some(sandbox_id) = report.sandbox_id.clone() {
            sandbox(&client, &sandbox_id, &mut report).await;
        }
    }
    show(context, &report)
}

async fn server(context: &Context, report: &mut Report) -> Result<(), Failure> {
    match context.client_with(None)?.readiness().await {
        Ok(_) => {
            report.ready = Some(true);
            "ready".clone_into(&mut report.server);
        }
        // The server answers, with whatever: it is reachable.
        Err(error @ (Error::Api(_) | Error::Decode { .. })) => {
            report.ready = Some(false);
            "reachable, not ready".clone_into(&mut report.server);
            if error.status() != Some(404) {
                report
                    .problems
                    .push(Failure::failed("the server is not ready").code("unavailable"));
            }
        }
        Err(error) => {
            "not reachable".clone_into(&mut report.server);
            report.problems.push(error.into());
        }
    }
    Ok(())
}

async fn person(client: &copass_client::Client, report: &mut Report) {
    match client.profile().await {
        Ok(profile) => {
            let profile = profile.value;
            report.logged_in = Some(true);
            report.person = Some(profile.email.unwrap_or(profile.display_name));
        }
        // No profile yet: the credential is good all the same.
        Err(error) if error.status() == Some(404) => report.logged_in = Some(true),
        Err(error) => {
            if error.status() == Some(401) {
                report.logged_in = Some(false);
                report.login.push_str(", refused by the server");
            }
            report.problems.push(error.into());
        }
    }
}

async fn sandbox(client: &copass_client::Client, sandbox_id: &str, report: &mut Report) {
    match client.sandbox(sandbox_id).await {
        Ok(reply) => {
            let sandbox = &reply.value;
            report.sandbox_text = Some(format!(
                "{sandbox_id} {} ({}, {})",
                sandbox.name,
                sandbox.status,
                sandbox.access.as_deref().unwrap_or("owner")
            ));
            report.sandbox = serde_json::from_str(&reply.text).ok();
        }
        Err(error) => {
            if error.status() == Some(404) {
                report.sandbox_text = Some(format!("{sandbox_id} (not found)"));
            }
            report.problems.push(error.into());
        }
    }
}

fn show(context: &Context, report: &Report) -> Result<(), Failure> {
    let project = context.settings.project()?;
    let problems: Vec<&str> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
    let value = json!({
        "api_url": context.settings.api_url, "server": report.server, "reachable": report.ready.is_some(),
        "ready": report.ready.unwrap_or(false), "logged_in": report.logged_in, "login": report.login,
        "account": report.person, "sandbox_id": report.sandbox_id, "sandbox": report.sandbox, "project_id": project,
        "problems": problems,
    });
    context.output.value(&value, || {
        let sandbox = report.sandbox_text.clone().or_else(|| report.sandbox_id.clone());
        let login = match &report.person {
            Some(person) => format!("{person} ({})", report.login),
            None => report.login.clone(),
        };
        table::properties(&[
            (
                "server",
                Some(format!("{} ({})", context.settings.api_url, report.server)),
            ),
            ("login", Some(login)),
            ("sandbox", Some(sandbox.unwrap_or_else(|| "none chosen".to_owned()))),
            ("project", Some(table::or_dash(project.as_ref()))),
        ])
    })?;
    let Some(first) = report.problems.first() else {
        return Ok(());
    };
    if !context.output.is_json() {
        context.output.note("");
        context.output.show_failure(first);
    }
    Err(Failure::silent(if first.exit == 0 { EXIT_FAILED } else { first.exit }))
}
