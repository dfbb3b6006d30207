//! `copass dev`: the whole platform in one process. The work is the composition root's.

use crate::{args::DevArgs, failure::Failure, output::Output};

pub(crate) async fn run(args: DevArgs, output: &Output) -> Result<(), Failure> {
    let options = copass_node::dev::Options {
        data_dir: args.data_dir,
        listen: args.listen,
        json: output.is_json(),
        config_file: args.config,
    };
    Ok(copass_node::dev::run(options).await?)
}
