//! Questions with choices, for what is built step by step on a terminal.
//!
//! The library reads the keyboard in a blocking way and hides the cursor while it lists choices, so every question is
//! asked on a thread of its own. Who asks listens for Ctrl-C all the while, between questions too, and ends with
//! [`interrupted`], which brings the cursor back.

use std::io;

use dialoguer::{Confirm, Input, MultiSelect, Select};

use crate::{failure::Failure, output::clean};

type Answer<T> = Result<T, Failure>;

async fn ask<T: Send + 'static>(question: impl FnOnce() -> dialoguer::Result<T> + Send + 'static) -> Answer<T> {
    match tokio::task::spawn_blocking(question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(dialoguer::Error::IO(error))) if error.kind() == io::ErrorKind::Interrupted => Err(interrupted()),
        Ok(Err(error)) => Err(Failure::usage(format!("cannot ask on this terminal: {error}"))),
        Err(error) => Err(Failure::failed(format!("cannot ask on this terminal: {error}"))),
    }
}

/// The person does not want to go on.
pub(crate) fn interrupted() -> Failure {
    // A terminal that is gone needs no cursor.
    let _ = dialoguer::console::Term::stderr().show_cursor();
    Failure::failed("interrupted; nothing was created").code("interrupted")
}

/// One line, checked before it is taken.
pub(crate) async fn line(
    question: &str,
    default: Option<String>,
    check: impl Fn(&str) -> Result<(), String> + Send + 'static,
) -> Answer<String> {
    let question = clean(question).into_owned();
    ask(move || {
        let mut input = Input::<String>::new().with_prompt(question).allow_empty(true);
        if let Some(default) = default {
            input = input.default(default);
        }
        input
            .validate_with(move |text: &String| check(text.trim()))
            .interact_text()
    })
    .await
    .map(|text| text.trim().to_owned())
}

/// One of several.
pub(crate) async fn one_of(question: &str, choices: &[String]) -> Answer<usize> {
    let (question, choices) = (clean(question).into_owned(), harmless(choices));
    ask(move || Select::new().with_prompt(question).items(choices).default(0).interact()).await
}

/// Any of several.
pub(crate) async fn some_of(question: &str, choices: &[String]) -> Answer<Vec<usize>> {
    let (question, choices) = (clean(question).into_owned(), harmless(choices));
    ask(move || MultiSelect::new().with_prompt(question).items(choices).interact()).await
}

/// Yes or no.
pub(crate) async fn yes(question: &str, default: bool) -> Answer<bool> {
    let question = clean(question).into_owned();
    ask(move || Confirm::new().with_prompt(question).default(default).interact()).await
}

/// Lines up to one that holds a dot only, or to the end of the input.
pub(crate) async fn text() -> Answer<String> {
    ask(|| {
        let mut text = String::new();
        for line in io::stdin().lines() {
            let line = line?;
            if line.trim_end() == "." {
                break;
            }
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text.trim_end().to_owned())
    })
    .await
}

fn harmless(choices: &[String]) -> Vec<String> {
    choices.iter().map(|choice| crate::table::one_line(choice)).collect()
}
