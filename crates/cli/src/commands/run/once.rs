//! `copass run "<message>"`: one turn of an agent that exists for this call only (`cli.md` 41).

use copass_types::api::{AdHocMessage, RunAdHocRequest};

use super::super::turn::{self, Frames};
use crate::{args::RunTurn, context::Context, failure::Failure, models, prompt, shell, table};

const PROVIDER: &str = "anthropic";
const GOOGLE: &str = "google";
const SYSTEM_PROMPT: &str = "You are a helpful assistant on a command line. Use the tools you have where they help, and \
                             answer briefly.";
/// Whom turns of this machine are for when nobody says it.
const END_USER: &str = "cli";
/// The contract asks for a reasoning engine with google; servers of this kind have one.
const REASONING_ENGINE: &str = "default";
/// What must not be taken for a message: the commands of `copass run`.
const COMMANDS: [&str; 5] = ["show", "cancel", "retry", "list", "help"];
/// As like a command as this, a single word is taken for a slip.
const SLIP_LIKENESS: f64 = 0.7;

pub(super) async fn run(context: &Context, args: RunTurn) -> Result<(), Failure> {
    let message = message(context, args.message, args.verbatim)?;
    let provider = args.provider.unwrap_or_else(|| PROVIDER.to_owned());
    let body = RunAdHocRequest {
        model: args
            .model
            .unwrap_or_else(|| models::default_model(&provider).to_owned()),
        system_prompt: args.system.unwrap_or_else(|| SYSTEM_PROMPT.to_owned()),
        messages: vec![AdHocMessage {
            role: "user".to_owned(),
            content: message,
        }],
        end_user_id: args.end_user.clone().unwrap_or_else(|| END_USER.to_owned()),
        session_id: args.session,
        reasoning_engine_id: args
            .reasoning_engine_id
            .or_else(|| (provider == GOOGLE).then(|| REASONING_ENGINE.to_owned())),
        location: args.location,
        provider,
    };
    let (client, sandbox_id) = context.in_sandbox().await?;
    let open = async { client.run_ad_hoc(&sandbox_id, &body).await.map(Frames::from) };
    let shown = turn::show(&context.output, open).await?;
    if let Some(session_id) = shown.session_id.filter(|_| !context.output.is_json()) {
        let mut words = vec!["--session", &session_id];
        if let Some(end_user) = &args.end_user {
            words.extend(["--end-user", end_user]);
        }
        context.output.dim(&format!(
            "session {} (continue with {})",
            table::one_line(&session_id),
            shell::words(&words)
        ));
    }
    Ok(())
}

/// `verbatim`: what stands behind `--`, where nothing is a slip.
fn message(context: &Context, given: Option<String>, verbatim: Option<String>) -> Result<String, Failure> {
    let message = match (given, verbatim) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage("there is a message on both sides of --")
                .hint("put a message of several words in quotes: copass run -- \"show me the agents\""));
        }
        (None, Some(text)) => text,
        (Some(text), None) if text == "-" => prompt::piped_text()?,
        (Some(text), None) => {
            refuse_slip(&text)?;
            text
        }
        (None, None) if context.settings.interactive => {
            return Err(Failure::usage("there is no message")
                .hint("say something: copass run \"What changed in the repository today?\""));
        }
        (None, None) => prompt::piped_text()?,
    };
    if message.trim().is_empty() {
        return Err(Failure::usage("the message is empty")
            .hint("say something: copass run \"What changed in the repository today?\""));
    }
    Ok(message)
}

/// A single word that looks like a command, or the id of a run, is a slip: a model must not get it.
fn refuse_slip(text: &str) -> Result<(), Failure> {
    let word = text.trim();
    if word.split_whitespace().count() != 1 {
        return Ok(());
    }
    let meant = if word.starts_with("rn_") {
        Some(shell::copass(&["run", "show", word]))
    } else {
        let folded = word.to_lowercase();
        COMMANDS
            .iter()
            .find(|command| strsim::normalized_damerau_levenshtein(command, &folded) >= SLIP_LIKENESS)
            .map(|command| format!("copass run {command}"))
    };
    match meant {
        Some(meant) => Err(Failure::usage(format!(
            "'{word}' was not sent: it looks like a command, not like a message"
        ))
        .hint(format!(
            "did you mean `{meant}`? To send it as a message: `{}`",
            shell::copass(&["run", "--", word])
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::refuse_slip;

    #[test]
    fn slips_are_told_from_messages() {
        for slip in [
            "show",
            "Show",
            " shwo ",
            "cancle",
            "retry",
            "lists",
            "help",
            "rn_01J9Z0000000000000000000AA",
        ] {
            let failure = refuse_slip(slip).unwrap_err();
            assert_eq!(failure.exit, 2, "{slip}");
        }
        for message in ["hello", "show me the agents", "short", "hi", "weather?", "rn"] {
            assert!(refuse_slip(message).is_ok(), "{message}");
        }
    }
}
