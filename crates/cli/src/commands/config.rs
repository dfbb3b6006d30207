//! `copass config`: the server's configuration, checked and shown.

use serde_json::json;

use crate::{args::ConfigCommand, failure::Failure, output::Output};

pub(crate) fn run(command: ConfigCommand, output: &Output) -> Result<(), Failure> {
    let (key, text) = match command {
        ConfigCommand::Check { config } => ("result", copass_node::config::check(config)?),
        ConfigCommand::Show { config } => ("config", copass_node::config::show(config)?),
    };
    output.value(&json!({ key: text }), || text.clone())
}
