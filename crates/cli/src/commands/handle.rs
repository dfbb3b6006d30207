//! `copass handle`.

use crate::{args::HandleCommand, context::Context, failure::Failure};

pub(crate) async fn run(context: &Context, command: HandleCommand) -> Result<(), Failure> {
    let client = context.client().await?;
    let output = &context.output;
    let text = |handle: &Option<String>| match handle {
        Some(handle) => format!("@{handle}"),
        None => "No handle. Claim one with `copass handle set <handle>`.".to_owned(),
    };
    match command {
        HandleCommand::Show => output.reply(&client.handle().await?, |handle| text(&handle.copass_id)),
        HandleCommand::Set { handle } => {
            output.reply(&client.set_handle(&handle).await?, |handle| text(&handle.copass_id))
        }
        HandleCommand::Clear => output.reply(&client.clear_handle().await?, |_| "Handle given back.".to_owned()),
    }
}
