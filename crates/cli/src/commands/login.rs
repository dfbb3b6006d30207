//! `copass login` and `copass logout`.

use copass_client::Credential;
use serde_json::json;

use crate::{args::LoginArgs, context::Context, failure::Failure, prompt, session};

/// Sends a code, takes it back, and stores the session it buys.
pub(crate) async fn login(context: &Context, args: LoginArgs) -> Result<(), Failure> {
    let settings = &context.settings;
    let output = &context.output;
    // A damaged file must not cost a one-time code.
    settings.global_config()?;
    let email = match args.email {
        Some(email) => email.trim().to_owned(),
        None if settings.interactive => prompt::line(output, "E-mail: ")?.unwrap_or_default(),
        None => {
            return Err(Failure::usage("there is no terminal to ask for the e-mail address")
                .hint("pass --email, and --code or the code on stdin"));
        }
    };
    copass_types::validate::email(&email).map_err(|problem| Failure::usage(format!("'{email}' {problem}")))?;
    let client = context.client_with(None)?;
    let code = match args.code {
        Some(code) => code,
        None => {
            client.request_code(&email).await?;
            output.note(&format!(
                "A code is on its way to {email}; a server without a mail server writes it to its log."
            ));
            let answer = if settings.interactive {
                prompt::line(output, "Code: ")?
            } else {
                prompt::piped_line()?
            };
            answer.ok_or_else(|| {
                Failure::usage("no code was given").hint(format!(
                    "run `copass login --email {email} --code <code>` when you have it"
                ))
            })?
        }
    };
    let code = code.trim();
    if code.is_empty() {
        return Err(Failure::usage("the code is empty"));
    }
    let session = client.verify_code(&email, code).await.map_err(refused)?.value;

    // Read only now: another command may have written while this one waited for the code.
    let mut config = settings.global_config()?;
    let server = settings.api_url.as_str();
    let same_person = config.text("user_id").is_none_or(|user_id| user_id == session.user.id)
        && config
            .text("api_url")
            .is_none_or(|home| session::same_server(home, server));
    if !same_person && config.remove("api_key") {
        output.note("The API key stored before belongs to another account or server and was removed.");
    }
    config.set("api_url", server);
    config.set("email", session.user.email.as_deref().unwrap_or(&email));
    session::store(&mut config, &session)?;

    let value = json!({
        "email": config.text("email"), "user_id": session.user.id, "expires_at": config.integer("expires_at"),
        "api_url": server,
    });
    output.value(&value, || {
        format!("Logged in as {}.", config.text("email").unwrap_or(&email))
    })?;
    next_step(context, &session.access_token).await;
    Ok(())
}

/// A wrong code answers 401 like a missing login; here it has another remedy.
fn refused(error: copass_client::Error) -> Failure {
    let failure = Failure::from(error);
    if failure.status == 401 || failure.status == 403 || failure.status == 422 {
        failure.hint("check the code, or run `copass login` again for a new one")
    } else {
        failure
    }
}

async fn next_step(context: &Context, access_token: &str) {
    if context.output.is_json() || context.settings.sandbox().is_ok_and(|sandbox| sandbox.is_some()) {
        return;
    }
    // A courtesy: when it fails, the login has still worked.
    let Ok(client) = context.client_with(Some(&Credential::new(access_token))) else {
        return;
    };
    if client.profile().await.is_err_and(|error| error.status() == Some(404)) {
        context
            .output
            .note("Next: `copass setup` creates your profile and a sandbox.");
    }
}

/// Removes every credential of this machine.
pub(crate) fn logout(context: &Context) -> Result<(), Failure> {
    let mut config = context.settings.global_config()?;
    let session = session::forget(&mut config);
    let key = config.remove("api_key");
    if session || key {
        config.write()?;
    }
    let output = &context.output;
    output.value(&json!({"logged_out": session, "api_key_removed": key}), || {
        if session || key {
            "Logged out.".to_owned()
        } else {
            "You were not logged in.".to_owned()
        }
    })?;
    if key {
        output.note("The stored API key was removed from this machine; it stays valid until `copass apikey revoke`.");
    }
    if context.settings.env_api_key.is_some() {
        output.note("COPASS_API_KEY is still set and is used.");
    }
    Ok(())
}
