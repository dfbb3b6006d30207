//! `copass usage` and `copass billing`.

use insta::assert_snapshot;
use serde_json::json;

use crate::support::Place;

#[tokio::test]
async fn by_what_explains_it() {
    let place = Place::ready().await;
    let usage = json!({"group_by": ["agent", "model"], "since": "2026-04-01T00:00:00Z",
        "until": "2026-05-01T00:00:00Z", "count": 3,
        "total": {"runs": 15, "tokens_in": 100_500, "tokens_out": 2_040, "cost_microcents": 1_250_000,
            "runs_without_price": 3, "model_calls": 31},
        "groups": [
            {"keys": {"agent": "support", "model": "anthropic/claude-sonnet-4-6"}, "runs": 11, "tokens_in": 100_000,
                "tokens_out": 2_000, "cost_microcents": 1_250_000, "runs_without_price": 0, "model_calls": 26},
            {"keys": {"agent": "local", "model": "hermes/llama"}, "runs": 3, "tokens_in": 500, "tokens_out": 40,
                "cost_microcents": 0, "runs_without_price": 3, "model_calls": 5},
            {"keys": {"agent": "support", "model": null}, "runs": 1, "tokens_in": 0, "tokens_out": 0,
                "cost_microcents": 0, "runs_without_price": 0, "model_calls": 0}]});
    place.in_sandbox("GET", "/usage", 200, &usage).await;
    let arguments = [
        "usage",
        "--by",
        "agent,model",
        "--since",
        "2026-04-01",
        "--until",
        "2026-05-01",
        "--agent",
        "support",
    ];
    assert_snapshot!(place.run(&arguments).await, @r#"
        exit 0
        --- stdout
        Usage from 2026-04-01 00:00:00Z to 2026-05-01 00:00:00Z

        AGENT    MODEL                        RUNS  MODEL CALLS  TOKENS IN  TOKENS OUT  COST
        support  anthropic/claude-sonnet-4-6  11    26           100000     2000        $1.25
        local    hermes/llama                 3     5            500        40          unknown
        support  -                            1     0            0          0           $0.00
        all                                   15    31           100500     2040        $1.25 + 3 runs of unknown cost
        --- stderr
        "#);
    let json: Vec<&str> = arguments.into_iter().chain(["--json"]).collect();
    assert_eq!(
        place.run(&json).await,
        format!("exit 0\n--- stdout\n{usage}\n--- stderr\n")
    );
    place.run(&["usage"]).await;
    let requests = place.server.received_requests().await.unwrap();
    let query = |place: usize| requests[place].url.query().unwrap().replace("%3A", ":");
    let mut first: Vec<String> = query(0).split('&').map(str::to_owned).collect();
    first.sort();
    assert_eq!(
        first,
        [
            "agent=support",
            "group_by=agent",
            "group_by=model",
            "since=2026-04-01T00:00:00.000000Z",
            "until=2026-05-01T00:00:00.000000Z"
        ]
    );
    assert_eq!(query(2), "group_by=agent");
    assert_snapshot!(place.run(&["usage", "--by", "weather"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: invalid value 'weather' for '--by <WORDS>'
          [possible values: agent, trigger, model, status, entrance, day]

        For more information, try '--help'.
        "#);
}

#[tokio::test]
async fn nothing_was_used() {
    let place = Place::ready().await;
    let total = json!({"runs": 0, "tokens_in": 0, "tokens_out": 0, "cost_microcents": 0});
    let usage = json!({"total": total, "groups": [], "count": 0, "since": "2026-04-01T00:00:00Z", "until": null});
    place.in_sandbox("GET", "/usage", 200, &usage).await;
    assert_snapshot!(place.run(&["usage"]).await, @r#"
        exit 0
        --- stdout
        No runs since 2026-04-01 00:00:00Z.
        --- stderr
        "#);
}

#[tokio::test]
async fn of_the_account() {
    // Without a sandbox: it is about all of them.
    let place = Place::ready().await.env("COPASS_SANDBOX_ID", "");
    let usage = json!({"start_date": "2026-04-01", "end_date": "2026-04-30", "runs_without_price": 1,
        "summary": {"total_prompt_tokens": 100, "total_completion_tokens": 20, "total_tokens": 120,
            "total_cost_usd": 0.00125, "total_calls": 3},
        "by_model": [{"model": "claude-sonnet-4-6", "provider": "anthropic", "prompt_tokens": 100,
            "completion_tokens": 20, "total_tokens": 120, "cost_usd": 0.00125, "calls": 3},
            {"model": "unheard-of", "provider": "anthropic", "prompt_tokens": 0, "completion_tokens": 0,
            "total_tokens": 0, "cost_usd": 0.0, "calls": 0, "runs_without_price": 1}],
        "by_call_type": [{"call_type": "chat", "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
            "cost_usd": 0.00125, "calls": 3, "runs_without_price": 1}]});
    place.on("GET", "/api/v1/usage", 200, &usage).await;
    let account = ["usage", "--account", "--since", "2026-04-01", "--until", "2026-05-01"];
    assert_snapshot!(place.run(&account).await, @r#"
        exit 0
        --- stdout
        from         2026-04-01
        to           2026-04-30
        model calls  3
        tokens in    100
        tokens out   20
        cost         $0.00125 + 1 run of unknown cost

        MODEL              PROVIDER   CALLS  TOKENS IN  TOKENS OUT  COST
        claude-sonnet-4-6  anthropic  3      100        20          $0.00125
        unheard-of         anthropic  0      0          0           unknown

        STARTED BY  CALLS  TOKENS IN  TOKENS OUT  COST
        chat        3      100        20          $0.00125 + 1 run of unknown cost
        --- stderr
        "#);
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(
        requests[0].url.query(),
        Some("start_date=2026-04-01&end_date=2026-04-30"),
        "the end is the last whole day before it"
    );
    assert!(
        place
            .run(&["usage", "--account", "--by", "agent"])
            .await
            .starts_with("exit 2\n")
    );
}

#[tokio::test]
async fn the_balance_and_what_the_operator_does() {
    let place = Place::ready().await;
    let balance = json!({"credits_purchased": 0, "credits_used": 1_250_000, "credits_remaining": 0,
        "balance_credits": 0, "currency": "USD_microcents"});
    place.on("GET", "/api/v1/usage/balance", 200, &balance).await;
    assert_snapshot!(place.run(&["billing", "balance"]).await, @r#"
        exit 0
        --- stdout
        $0.00
        --- stderr
        Nothing is bought from this server, and nothing stops at zero. `copass usage` shows what is used.
        "#);
    assert_snapshot!(place.run(&["billing", "status"]).await, @r#"
        exit 0
        --- stdout
        bought    $0.00
        used      $1.25
        left      $0.00
        payments  handled by the operator of this server
        --- stderr
        "#);
    assert_eq!(
        place.run(&["billing", "balance", "--json"]).await,
        format!("exit 0\n--- stdout\n{balance}\n--- stderr\n")
    );
    let calls = place.calls().await;
    assert_snapshot!(place.run(&["billing", "top-up", "20"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: this server takes no payments: they are handled by its operator

        hint: `copass usage --account` shows what was used and what it cost
        "#);
    assert_snapshot!(place.run(&["billing", "transactions", "--json"]).await, @r#"
        exit 1
        --- stdout
        {"detail":"this server keeps no list of payments: they are handled by its operator","error":"not_supported","status":0}
        --- stderr
        "#);
    for command in ["setup", "cards", "add-card", "portal"] {
        assert!(
            place.run(&["billing", command]).await.starts_with("exit 1\n"),
            "{command}"
        );
    }
    assert_eq!(place.calls().await, calls);
}
