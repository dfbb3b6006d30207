//! Whole conversations.

use serde_json::json;

use super::world::World;

#[track_caller]
fn assert_says(answer: &str, parts: &[&str]) {
    for part in parts {
        assert!(answer.contains(part), "{part:?} is not in:\n{answer}");
    }
}

#[test]
fn overview_counts_names_and_points_at_trouble() {
    let mut world = World::editor();
    let answer = world.say("What sandboxes and agents do I have? Anything need attention?");
    assert_says(
        &answer,
        &[
            "2 sandboxes (Acme, Playground)",
            "3 agents (support, issue-triage, intake)",
            "sandbox Playground is suspended",
            "source slack is in error",
            "latest run of issue-triage failed 3 hours ago: provider is down (rn_9)",
            "agent issue-triage has no trigger",
            "trigger tr_2 (slack.message.new) of support is paused",
            "key laptop expires in 7 days",
        ],
    );
    assert!(
        !answer.contains("intake has no trigger"),
        "archived agents need no trigger: {answer}"
    );
    assert_eq!(world.calls.len(), 4 + 2 * 2);
    assert!(!answer.contains('\n'), "one paragraph: {answer}");
}

#[test]
fn overview_of_an_empty_world_is_honest() {
    let answer = World::empty().say("status");
    assert_says(
        &answer,
        &[
            "no sandboxes",
            "no agents",
            "no sources",
            "no API keys",
            "Nothing needs attention",
        ],
    );
}

#[test]
fn overview_says_what_it_could_not_read() {
    let mut world = World::editor();
    world.failing = vec!["list_sources", "list_runs"];
    let answer = world.say("status");
    assert_says(
        &answer,
        &[
            "sources could not be listed",
            "did not answer",
            "runs of support could not be read",
        ],
    );
    assert!(!answer.contains("Nothing needs attention"));
}

#[test]
fn agent_is_created_at_once_when_slug_and_prompt_are_stated() {
    let mut world = World::editor();
    let answer = world.say("Create an agent named helper with prompt \"You answer questions. Delete nothing.\" on claude-sonnet-4-6, max 15 turns");
    assert_eq!(world.called(), ["list_agents", "create_agent"]);
    assert_eq!(
        world.calls[1].arguments,
        json!({"slug": "helper", "name": "helper", "system_prompt": "You answer questions. Delete nothing.",
            "model": "claude-sonnet-4-6", "backend": "anthropic", "max_turns": 15})
    );
    assert_says(
        &answer,
        &[
            "Created the agent helper, version 1",
            "copass agent test helper --event-payload '{}'",
        ],
    );
}

#[test]
fn missing_values_are_asked_for_at_once_and_filled_by_follow_ups() {
    let mut world = World::editor();
    let answer = world.say("Create an agent that reacts to Slack mentions and drafts a reply.");
    assert_says(&answer, &["a slug", "its system prompt"]);
    assert!(world.called().is_empty());
    let answer = world.say("slack-helper");
    assert_says(&answer, &["system prompt"]);
    assert!(!answer.contains("a slug ("), "{answer}");
    let answer = world.say("prompt: You draft replies to Slack mentions.");
    assert_says(&answer, &["Created the agent slack-helper"]);
    assert_eq!(
        world.calls[1].arguments["description"],
        "reacts to Slack mentions and drafts a reply"
    );
}

#[test]
fn a_prompt_that_was_not_marked_is_confirmed_first() {
    let mut world = World::editor();
    world.say("Create an agent named helper");
    let answer = world.say("You answer questions about the list of sandboxes in a friendly way.");
    assert_says(
        &answer,
        &[
            "Slug: helper",
            "Prompt: \"You answer questions",
            "Model: the default",
            "(yes/no)",
        ],
    );
    assert_eq!(world.called(), ["list_agents"]);
    let answer = world.say("yes, create it");
    assert_eq!(world.called(), ["list_agents", "create_agent"]);
    assert_says(&answer, &["Created the agent helper"]);
}

#[test]
fn a_confirmation_can_be_changed_refused_and_does_not_outlive_its_turn() {
    let mut world = World::editor();
    world.say("Create an agent named \"Support Bot\" with prompt \"You help.\"");
    let answer = world.say("use the slug helper-2 instead");
    assert_says(&answer, &["Created the agent helper-2"]);

    let mut world = World::editor();
    let answer = world.say("Create an agent named \"Support Bot\" with prompt \"You help.\"");
    assert_says(&answer, &["Slug: support-bot", "Name: Support Bot", "(yes/no)"]);
    let answer = world.say("no");
    assert_says(&answer, &["left everything as it is"]);
    let answer = world.say("yes");
    assert_says(&answer, &["no open question"]);
    assert!(world.called().is_empty());

    let mut world = World::editor();
    world.say("Create an agent named \"Support Bot\" with prompt \"You help.\"");
    assert_says(&world.say("List my sandboxes"), &["2 sandboxes"]);
    assert_says(&world.say("yes"), &["no open question"]);
}

#[test]
fn a_slug_that_is_taken_is_said_before_anything_else() {
    let mut world = World::editor();
    let answer = world.say("Create an agent named support");
    assert_says(&answer, &["already an agent with the slug support"]);
    assert_eq!(world.called(), ["list_agents"]);
}

#[test]
fn a_command_while_a_value_is_open_is_a_command() {
    let mut world = World::editor();
    world.say("Create an agent named helper");
    assert_says(&world.say("List my sandboxes"), &["You have 2 sandboxes"]);
    world.say("Create an agent named helper");
    assert_says(&world.say("cancel"), &["left everything as it is"]);
}

#[test]
fn what_does_not_answer_the_question_repeats_it() {
    let mut world = World::editor();
    world.say("Set up a Slack mention reactor");
    let answer = world.say("Use channel C0123456");
    assert_says(&answer, &["a slug", "system prompt"]);
}

#[test]
fn viewers_are_told_why_not() {
    let mut world = World::viewer();
    let answer = world.say("Create an agent named helper with prompt \"You help.\"");
    assert_says(&answer, &["read-only", "editor"]);
    assert!(world.called().is_empty());
    assert_says(&world.say("Pause trigger tr_1"), &["read-only"]);
    assert_says(&world.say("show the agent support"), &["claude-sonnet-4-6"]);
}

#[test]
fn removal_is_a_command_for_people() {
    for (wish, command) in [
        ("Delete the agent support", "copass agent archive support"),
        (
            "please get rid of the issue-triage agent",
            "copass agent archive issue-triage",
        ),
        ("Destroy the sandbox Playground", "copass sandbox destroy sb_old"),
        ("archive sandbox acme", "copass sandbox archive sb_main"),
        ("Delete the source \"GitHub issues\"", "copass source delete ds_gh"),
        (
            "delete the trigger tr_1 of support",
            "copass agent trigger destroy support tr_1",
        ),
        (
            "remove the triggers of the support agent",
            "copass agent trigger destroy support tr_2",
        ),
        ("revoke the laptop key", "copass apikey revoke ak_1"),
        ("Pause my GitHub source", "copass source pause ds_gh"),
        (
            "Disconnect the Slack source, keep the data",
            "copass source disconnect ds_sl",
        ),
        ("delete all my agents", "copass agent archive <slug>"),
        ("Delete the agent zebra", "copass agent archive <slug>"),
        ("Delete the agent zebra", "no agent called \"zebra\""),
        ("delete slack", "copass source delete ds_sl"),
        ("delete everything", "copass apikey revoke <key_id>"),
    ] {
        for mut world in [World::editor(), World::viewer()] {
            let answer = world.say(wish);
            assert_says(&answer, &[command]);
            assert!(
                world.called().iter().all(|name| name.starts_with("list_")),
                "{wish}: {:?}",
                world.called()
            );
        }
    }
}

#[test]
fn follow_ups_are_about_the_same_thing() {
    let mut world = World::editor();
    assert_says(
        &world.say("Show the agent support"),
        &["claude-sonnet-4-6", "at most 15 turns", "search"],
    );
    assert_says(&world.say("and its runs?"), &["of the agent support", "rn_5"]);
    assert_says(
        &world.say("what about issue-triage?"),
        &["of the agent issue-triage", "rn_9", "provider is down"],
    );
    assert_says(
        &world.say("why did the first one fail?"),
        &["rn_9", "no tools at all", "slack: needs_reauth"],
    );

    let mut world = World::editor();
    world.say("list sources");
    assert_says(&world.say("show me the second one"), &["Source slack", "error"]);
    assert_says(&world.say("show me that one"), &["Source slack"]);
    assert_says(&world.say("delete it"), &["copass source delete ds_sl"]);
}

#[test]
fn quiet_triggers_are_a_follow_up_too() {
    let mut world = World::editor();
    assert_says(
        &world.say("What triggers fire for the support agent?"),
        &["2 triggers for the agent support", "12 times"],
    );
    let answer = world.say("Which ones have been quiet?");
    assert_says(&answer, &["1 quiet trigger of 2 for the agent support", "tr_2"]);
    assert!(!answer.contains("tr_1 "), "{answer}");
}

#[test]
fn unknown_names_are_offered_what_is_alike() {
    let mut world = World::editor();
    let answer = world.say("show the runs of suport");
    assert_says(&answer, &["no agent called \"suport\"", "Did you mean support?"]);
    assert_says(&world.say("yes"), &["of the agent support"]);
    let answer = world.say("show the agent zebra");
    assert_says(&answer, &["no agent called \"zebra\"", "support, issue-triage, intake"]);
    assert_says(&world.say("intake"), &["Agent intake"]);
}

#[test]
fn a_needed_name_is_asked_for() {
    let mut world = World::editor();
    let answer = world.say("My agent isn't using tools. What's wrong?");
    assert_says(&answer, &["Which agent do you mean?", "support"]);
    let answer = world.say("the triage one");
    assert_says(
        &answer,
        &[
            "issue-triage",
            "failed",
            "provider is down",
            "pd_linear_serach",
            "has no trigger",
        ],
    );
}

#[test]
fn limits_and_filters_reach_the_tool_and_the_answer() {
    let mut world = World::editor();
    world.say("Show the last 20 runs of support");
    assert_eq!(world.calls[1].arguments, json!({"agent_slug": "support", "limit": 20}));
    world.say("last 500 runs of support");
    assert_eq!(world.calls[1].arguments, json!({"agent_slug": "support", "limit": 50}));
    let answer = world.say("failed runs");
    assert_says(
        &answer,
        &[
            "1 of the last 3 runs of 2 agents did not succeed",
            "rn_9 of issue-triage",
        ],
    );
    world.say("show archived agents");
    assert_eq!(world.calls[0].arguments, json!({"status": "archived"}));
}

#[test]
fn a_failed_tool_is_said_in_plain_words() {
    let mut world = World::editor();
    world.failing = vec!["list_agents"];
    let answer = world.say("Show the agent support");
    assert_says(
        &answer,
        &["could not show the agent", "list_agents", "the service did not answer"],
    );
}

#[test]
fn call_ids_never_repeat_in_a_conversation() {
    let mut world = World::editor();
    let mut seen = std::collections::BTreeSet::new();
    for text in ["status", "list agents", "show runs of support", "list agents"] {
        world.say(text);
        for call in &world.calls {
            assert!(seen.insert(call.call_id.clone()), "{} twice", call.call_id);
        }
    }
}

/// A yes agrees to what was proposed and a question asks; neither is a slug or a prompt.
#[test]
fn a_yes_or_a_question_is_not_the_value_that_was_asked_for() {
    for bare in ["yes", "ok go ahead", "what should I write?", "what does slug mean?"] {
        let mut world = World::editor();
        world.say("Create an agent named helper");
        let again = world.say(bare);
        assert!(again.contains("system prompt"), "{bare}: {again}");
        world.say("yes");
        assert!(
            world.calls.iter().all(|call| call.name != "create_agent"),
            "{bare} was taken for a value"
        );
    }
    let mut world = World::editor();
    world.say("create an agent named 支持 with prompt \"hi\"");
    world.say("yes");
    assert!(world.calls.iter().all(|call| call.name != "create_agent"));
}
