//! What the help says about agents, runs and what they cost.

use insta::assert_snapshot;

use crate::support::Place;

/// The help without what is the same everywhere.
async fn help(arguments: &[&str]) -> String {
    let place = Place::bare().await;
    let arguments: Vec<&str> = arguments.iter().copied().chain(["-h"]).collect();
    let shown = place.run(&arguments).await;
    assert!(shown.starts_with("exit 0\n"), "{shown}");
    let (text, _) = shown.split_once("\nGlobal options:").unwrap();
    text.replace("exit 0\n--- stdout\n", "")
}

#[tokio::test]
async fn agent() {
    assert_snapshot!(help(&["agent"]).await, @r#"
        Agents, their runs, keys and triggers

        Usage: copass agent [OPTIONS] <COMMAND>

        Commands:
          setup     Build an agent step by step; asks on the terminal
          create    Create an agent
          list      List the agents
          show      Show one agent
          update    Change an agent; each group of settings is a version of its own
          archive   Take an agent out of use; `agent update --status active` brings it back
          versions  List the versions of an agent, newest first
          diff      Show what differs between two versions of an agent
          rollback  Make a new version with the content of an old one
          runs      List the runs of an agent, newest first, or follow them live
          test      Fire an agent with an event and wait for the result
          tools     List the tools that agents can use, by their exact names
          key       Keys that run one agent and can do nothing else
          trigger   Triggers of an agent
          help      Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help
          -V, --version  Print version
        "#);
}

#[tokio::test]
async fn agent_create() {
    assert_snapshot!(help(&["agent", "create"]).await, @r#"
        Create an agent

        Usage: copass agent create [OPTIONS] <--prompt <TEXT>|--prompt-file <PATH>> <SLUG>

        Arguments:
          <SLUG>  Slug of the agent: lowercase letters, digits and hyphens

        Options:
              --name <NAME>             Name of the agent; the slug without it
              --prompt <TEXT>           System prompt
              --prompt-file <PATH>      File with the system prompt; - reads stdin
              --description <TEXT>      What the agent is for
              --backend <BACKEND>       Model provider: anthropic, google or hermes
              --model <MODEL>           Name of the model
              --temperature <X>         Temperature, 0 to 2
              --max-tokens <N>          Most tokens a run may write
              --max-turns <N>           Most model answers of one run
              --timeout-s <N>           Longest run, in seconds
              --tool-allowlist <TOOLS>  Tools the agent may use: a JSON list, or names separated by commas;
                                        [] allows all
              --tool-sources <SOURCES>  Where tools come from: a JSON list, names separated by commas,
                                        `default`, or `none` for no tools
          -h, --help                    Print help
          -V, --version                 Print version
        "#);
}

#[tokio::test]
async fn agent_update() {
    assert_snapshot!(help(&["agent", "update"]).await, @r#"
        Change an agent; each group of settings is a version of its own

        Usage: copass agent update [OPTIONS] <SLUG>

        Arguments:
          <SLUG>  Slug of the agent

        Options:
              --name <NAME>                 Name of the agent
              --prompt <TEXT>               System prompt
              --prompt-file <PATH>          File with the system prompt; - reads stdin
              --prompt-replace <OLD> <NEW>  Write another word for one wherever it stands in the system
                                            prompt
              --description <TEXT>          What the agent is for; empty takes the description away
              --status <STATUS>             Whether the agent runs; `archived` asks for confirmation
                                            [possible values: active, archived]
              --backend <BACKEND>           Model provider: anthropic, google or hermes
              --model <MODEL>               Name of the model
              --temperature <X>             Temperature, 0 to 2
              --max-tokens <N>              Most tokens a run may write
              --max-turns <N>               Most model answers of one run
              --timeout-s <N>               Longest run, in seconds
              --tool-allowlist <TOOLS>      Tools the agent may use: a JSON list, or names separated by
                                            commas; [] allows all
              --tool-sources <SOURCES>      Where tools come from: a JSON list, names separated by commas,
                                            `default`, or `none` for no tools
          -y, --yes                         Do not ask for confirmation
          -h, --help                        Print help (see more with '--help')
          -V, --version                     Print version
        "#);
}

#[tokio::test]
async fn agent_runs() {
    assert_snapshot!(help(&["agent", "runs"]).await, @r#"
        List the runs of an agent, newest first, or follow them live

        Usage: copass agent runs [OPTIONS] <SLUG>

        Arguments:
          <SLUG>  Slug of the agent

        Options:
              --limit <N>          Most rows; with --follow the newest runs to begin with (10 without it)
              --before <RUN_ID>    Only runs older than this one
              --status <STATUS>    Only runs in this status
              --trigger <ID>       Only runs of this trigger [alias: --trigger-id]
              --since <WHEN>       Only runs from then on: a time, a day, or how long ago (90m, 7d)
              --until <WHEN>       Only runs before then
              --agent-version <N>  Only runs of this version of the agent
          -f, --follow             Go on with runs as they begin and change, until Ctrl-C
          -h, --help               Print help
          -V, --version            Print version
        "#);
}

#[tokio::test]
async fn agent_test() {
    assert_snapshot!(help(&["agent", "test"]).await, @r#"
        Fire an agent with an event and wait for the result

        Usage: copass agent test [OPTIONS] <SLUG> [-]

        Arguments:
          <SLUG>  Slug of the agent
          [-]     - reads the event from stdin

        Options:
              --event-payload <JSON>  The event, a JSON object; {} without it
              --event-file <PATH>     File with the event; - reads stdin
          -h, --help                  Print help
          -V, --version               Print version
        "#);
}

#[tokio::test]
async fn agent_key_mint() {
    assert_snapshot!(help(&["agent", "key", "mint"]).await, @r#"
        Create a key; it is printed once

        Usage: copass agent key mint [OPTIONS] --kind <KIND> <SLUG>

        Arguments:
          <SLUG>  Slug of the agent

        Options:
              --kind <KIND>             Under whose identity the key runs the agent [possible values:
                                        invoke, delegate]
              --label <TEXT>            What the key is for
              --holder <@HANDLE>        Who holds an invoke key
              --expires-in-days <DAYS>  Days until the key ends; never without it
          -h, --help                    Print help (see more with '--help')
          -V, --version                 Print version
        "#);
}

#[tokio::test]
async fn whose_rights_the_runs_of_a_key_have() {
    let shown = Place::bare().await.run(&["agent", "key", "mint", "--help"]).await;
    for (kind, what) in [
        ("invoke", "the identity and the integrations of the key's holder"),
        ("delegate", "those of the sandbox's owner, whoever mints the key"),
    ] {
        let line = shown
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("- {kind}:")));
        assert!(line.is_some_and(|line| line.contains(what)), "{shown}");
    }
}

#[tokio::test]
async fn run() {
    assert_snapshot!(help(&["run"]).await, @r#"
        Run one turn without an agent, or look at a run, cancel it, repeat it

        Usage: copass run [OPTIONS] <MESSAGE>
               copass run <COMMAND>

        Commands:
          list    List the runs of an agent, as `agent runs` does
          show    Show one run: its steps, the tools it had and why, and how to fix what went wrong
          cancel  Stop a run
          retry   Run again with the same input, as a new run
          help    Print this message or the help of the given subcommand(s)

        Arguments:
          [MESSAGE]  What to say; - reads it from stdin

        Options:
              --provider <PROVIDER>       Model provider: anthropic, google or hermes [default: anthropic]
              --model <MODEL>             Name of the model; the provider's usual one without it
              --system <TEXT>             What the model is told to be
              --session <ID>              Conversation to continue
              --end-user <ID>             Whom the turn is for; each end user has conversations and
                                          connections of their own [default: cli]
              --reasoning-engine-id <ID>  Reasoning engine, for google only
              --location <LOCATION>       Region of the provider
          -h, --help                      Print help
          -V, --version                   Print version
        "#);
}

#[tokio::test]
async fn run_show() {
    assert_snapshot!(help(&["run", "show"]).await, @r#"
        Show one run: its steps, the tools it had and why, and how to fix what went wrong

        Usage: copass run show [OPTIONS] <RUN_ID>

        Arguments:
          <RUN_ID>  Id of the run

        Options:
              --step <STEP>  Print the whole result of this tool call: its number or its id
          -f, --follow       Show the run as it goes on, from its beginning
          -h, --help         Print help
          -V, --version      Print version
        "#);
}

#[tokio::test]
async fn usage() {
    assert_snapshot!(help(&["usage"]).await, @r#"
        Tokens and cost, by agent, trigger, model or status

        Usage: copass usage [OPTIONS]

        Options:
              --by <WORDS>    What to group by, separated by commas [default: agent] [possible values:
                              agent, trigger, model, status, entrance, day]
              --since <WHEN>  From then on: a time, a day, or how long ago (90m, 7d); the last 30 days
                              without it
              --until <WHEN>  Before then
              --agent <SLUG>  Only runs of this agent
              --account       All sandboxes you own, whole days, by model and by entrance
          -h, --help          Print help
          -V, --version       Print version
        "#);
}

#[tokio::test]
async fn billing() {
    assert_snapshot!(help(&["billing"]).await, @r#"
        The balance of your account

        Usage: copass billing [OPTIONS] <COMMAND>

        Commands:
          balance       What is left, in dollars
          status        What was bought, used and is left
          transactions  Payments (handled by the operator of this server)
          setup         Set up payment (handled by the operator of this server)
          top-up        Buy credits (handled by the operator of this server)
          cards         Cards (handled by the operator of this server)
          add-card      Add a card (handled by the operator of this server)
          portal        The portal for cards (handled by the operator of this server)
          help          Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help
          -V, --version  Print version
        "#);
}
