//! `copass serve`: chosen services in one process. The work is the composition root's.

use crate::{args::ServeArgs, failure::Failure};

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let roles = args
        .services
        .iter()
        .map(|service| service.as_str().to_owned())
        .collect();
    Ok(copass_node::serve::run(copass_node::serve::Options {
        roles,
        config_file: args.config,
    })
    .await?)
}
