//! The command `copass`: a client of the REST API, and the way to start a server (`dev`, `serve`).
//!
//! Three layers, in this order and without short cuts: `args` is what a person may type; `settings` turns it, the
//! environment and the files into one resolved answer, once; `commands` act on that answer. Everything that is printed
//! goes through `output`, so that stdout holds data and nothing else, and everything that fails ends in `failure`,
//! which knows the exit code and the hint.

mod args;
mod commands;
mod context;
mod diagnosis;
mod dialog;
mod failure;
mod files;
mod live;
mod models;
mod money;
mod older;
mod output;
mod prompt;
mod session;
mod settings;
mod shell;
mod table;
mod trace;
mod when;
mod wording;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::Cli, failure::Failure, output::Output};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.global.json);
    match run(cli, output.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    let mut builder = if cli.command.is_server() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(Box::pin(commands::run(cli, output)));
    // A thread may still wait for the keyboard; it must not keep the process alive.
    runtime.shutdown_background();
    result
}

/// What clap found: help and version are answers, the rest is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let is_answer = !error.use_stderr();
    let wants_json = std::env::args_os()
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json");
    if wants_json && !is_answer {
        let text = error.render().to_string();
        let first = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        return Output::new(true).failure(&Failure::usage(first));
    }
    // The reader of the help may be gone already; that is no error.
    let _ = error.print();
    if is_answer {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(failure::EXIT_USAGE)
    }
}
