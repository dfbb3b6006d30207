//! `copass whoami`.

use crate::{context::Context, failure::Failure, table};

/// Shows the profile behind the credential.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let (client, origin) = context.client_and_origin().await?;
    let profile = client.profile().await.map_err(no_profile)?;
    context.output.reply(&profile, |profile| {
        table::properties(&[
            ("name", Some(profile.display_name.clone())),
            ("handle", profile.copass_id.as_ref().map(|handle| format!("@{handle}"))),
            ("e-mail", profile.email.clone()),
            ("user", Some(profile.user_id.clone())),
            ("sandbox", profile.sandbox_id.clone()),
            ("project", profile.project_id.clone()),
            ("credential", Some(origin.as_str().to_owned())),
            ("server", Some(context.settings.api_url.clone())),
        ])
    })
}

fn no_profile(error: copass_client::Error) -> Failure {
    let missing = error.status() == Some(404);
    let failure = Failure::from(error);
    if missing {
        failure.hint("run `copass setup` to create your profile")
    } else {
        failure
    }
}
