//! Entrances of runs, what can be done to a run, and what runs cost.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    agents::{both_forms, problem_at},
    fakes::{AGENT, KEY, NEW_RUN, NO_RUN, RUN, SANDBOX, STEP},
    streams::frames,
    support::{TestGateway, eventually, expect_error},
};

#[tokio::test]
async fn a_test_answers_with_the_row_of_the_run() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper/test") {
        let answer = gateway
            .post(&path, &json!({"event_payload": {"issue": {"number": 7}}}))
            .await;
        assert_eq!(answer.status(), 200);
        let row: Value = answer.json().await.unwrap();
        assert_eq!(
            (&row["run_id"], &row["status"], &row["agent_id"], &row["tokens_in"]),
            (&json!(RUN), &json!("succeeded"), &json!(AGENT), &json!(8))
        );
        for extra in [
            ("entrance", json!("test")),
            ("model", json!("anthropic/claude-sonnet-4-6")),
            ("api_key_id", json!(KEY)),
            ("cost_breakdown_microcents", json!({"total": 7})),
            ("error_type", Value::Null),
            ("continuations", json!(0)),
        ] {
            assert_eq!(row[extra.0], extra.1, "{}", extra.0);
        }
        let message = gateway.fakes.last_message();
        assert!(
            message.contains(r#"event_payload_json: Some("{\"issue\":{\"number\":7}}")"#),
            "{message}"
        );
        assert!(message.contains("timeout_ms: 25000"), "{message}");
    }
    let path = &both_forms("/helper/test")[0];
    for body in ["", "{}", r#"{"event_payload": null}"#] {
        let request = gateway
            .request(Method::POST, path)
            .header("content-type", "application/json");
        assert_eq!(request.body(body).send().await.unwrap().status(), 200, "{body:?}");
        assert!(gateway.fakes.last_message().contains("event_payload_json: None"));
    }
}

#[tokio::test]
async fn events_that_are_no_objects_or_too_deep_are_refused() {
    let gateway = TestGateway::start().await;
    let path = &both_forms("/helper/test")[0];
    for bad in [json!([]), json!("text"), json!(7), json!([["a", 1]])] {
        let answer = gateway.post(path, &json!({"event_payload": bad})).await;
        assert_eq!(problem_at(answer).await, json!(["body", "event_payload"]), "{bad}");
    }
    let nested = |levels: usize| {
        format!(
            r#"{{"event_payload":{}1{}}}"#,
            r#"{"a":"#.repeat(levels),
            "}".repeat(levels)
        )
    };
    let send = async |levels| {
        let request = gateway
            .request(Method::POST, path)
            .header("content-type", "application/json");
        request.body(nested(levels)).send().await.unwrap()
    };
    assert_eq!(send(63).await.status(), 200);
    assert_eq!(problem_at(send(64).await).await, json!(["body", "event_payload"]));
    for levels in [130, 20_000] {
        let body = expect_error(send(levels).await, 422, "validation_error").await;
        assert_eq!(body["detail"][0]["type"], "json_too_deep");
    }
    assert_eq!(gateway.fakes.0.messages.lock().len(), 1);
}

#[tokio::test]
async fn a_failed_run_is_an_answer_and_an_error_before_the_run_is_not() {
    let gateway = TestGateway::start().await;
    let path = &both_forms("/helper/test")[0];
    let fire = async |word: &str| gateway.post(path, &json!({"event_payload": {"do": word}})).await;
    expect_error(fire("busy").await, 409, "session_busy").await;
    expect_error(fire("no session").await, 404, "not_found").await;
    expect_error(fire("nothing").await, 500, "internal_error").await;
    let refused: Value = fire("refused").await.json().await.unwrap();
    assert_eq!(
        (&refused["status"], &refused["agent_id"]),
        (&json!("failed"), &json!(AGENT))
    );
    // Where the stream says no more, the row does.
    for word in ["break", "fail", "slow", "panic"] {
        let answer = fire(word).await;
        assert_eq!(answer.status(), 200, "{word}");
        let row: Value = answer.json().await.unwrap();
        assert_eq!(
            (&row["run_id"], &row["status"]),
            (&json!(RUN), &json!("succeeded")),
            "{word}"
        );
        assert!(gateway.fakes.last_message().starts_with("GetRunRequest"));
    }
}

#[tokio::test]
async fn a_stuck_run_does_not_keep_the_caller_and_leaves_with_it() {
    let gateway = TestGateway::with(|config| config.test_timeout = Duration::from_millis(50)).await;
    gateway.fakes.0.is_unfinished.store(true, Ordering::SeqCst);
    let path = &both_forms("/helper/test")[0];
    let row: Value = gateway
        .post(path, &json!({"event_payload": {"do": "silent"}}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!((&row["run_id"], &row["status"]), (&json!(RUN), &json!("timeout")));
    assert!(
        row["error_message"].as_str().unwrap().contains("/invoke-async"),
        "{row}"
    );
    eventually("the run is cancelled", || {
        gateway.fakes.0.stream_dropped.load(Ordering::SeqCst)
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_leaves_a_test_cancels_its_run() {
    let gateway = TestGateway::start().await;
    let path = &both_forms("/helper/test")[0];
    let request = gateway
        .request(Method::POST, path)
        .json(&json!({"event_payload": {"do": "silent"}}));
    let mut sent = Box::pin(request.send());
    tokio::select! {
        answer = &mut sent => panic!("{answer:?}"),
        () = eventually("the run begins", || !gateway.fakes.0.messages.lock().is_empty()) => {}
    }
    assert!(!gateway.fakes.0.stream_dropped.load(Ordering::SeqCst));
    drop(sent);
    eventually("the stream is dropped", || {
        gateway.fakes.0.stream_dropped.load(Ordering::SeqCst)
    })
    .await;
}

#[tokio::test]
async fn an_invoked_run_is_accepted() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper/invoke-async") {
        let session = "sess_01J9Z0000000000000000000AB";
        for (body, expected) in [
            (json!({"message": "hi"}), Value::Null),
            (json!({"message": "hi", "session_id": null}), Value::Null),
            (json!({"message": "hi", "session_id": ""}), Value::Null),
            (json!({"message": "hi", "session_id": session}), json!(session)),
        ] {
            let answer = gateway.post(&path, &body).await;
            assert_eq!(answer.status(), 202);
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer, json!({"run_id": RUN, "session_id": expected}));
        }
        for body in [json!({}), json!({"message": null}), json!({"message": ["hi"]})] {
            assert_eq!(
                problem_at(gateway.post(&path, &body).await).await,
                json!(["body", "message"])
            );
        }
    }
}

fn ad_hoc(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({"provider": "anthropic", "model": "claude-sonnet-4-6", "system_prompt": "Help.",
        "messages": [{"role": "user", "content": "hello"}], "end_user_id": "team:user-1", "session_id": null,
        "location": "here", "tools": []});
    change(&mut body);
    body
}

#[tokio::test]
async fn an_ad_hoc_run_streams_like_the_concierge() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/run") {
        let answer = gateway.post(&path, &ad_hoc(|_| ())).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let names: Vec<_> = frames(&answer.text().await.unwrap())
            .into_iter()
            .map(|frame| frame.0)
            .collect();
        assert_eq!(
            names,
            [
                "run_started",
                "agent_text_delta",
                "agent_tool_call",
                "agent_tool_result",
                "agent_finish"
            ]
        );
        let message = gateway.fakes.last_message();
        for part in [
            r#"provider: "anthropic", model: "claude-sonnet-4-6", system_prompt: "Help.""#,
            r#"messages: ["hello"], end_user_id: "team:user-1", session_id: None"#,
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
    let path = &both_forms("/run")[0];
    let google = ad_hoc(|body| {
        body["provider"] = json!("google");
        body["reasoning_engine_id"] = json!("1");
    });
    assert_eq!(gateway.post(path, &google).await.status(), 200);
    for (word, status, code) in [("busy", 409, "session_busy"), ("no session", 404, "not_found")] {
        let body = ad_hoc(|body| body["messages"][0]["content"] = json!(word));
        expect_error(gateway.post(path, &body).await, status, code).await;
    }
}

#[tokio::test]
async fn ids_of_stored_frames_are_kept_and_no_number_is_made_up_beside_them() {
    let gateway = TestGateway::start().await;
    let path = &both_forms("/run")[0];
    let say = async |word: &str| {
        let body = ad_hoc(|body| body["messages"][0]["content"] = json!(word));
        gateway.post(path, &body).await.text().await.unwrap()
    };
    let ids = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("id: ").map(str::to_owned))
            .collect()
    };
    assert_eq!(ids(&say("stored").await), ["1", "2.2", "2.4", "3"]);
    let broken = say("stored break").await;
    assert_eq!(ids(&broken), ["1", "2.2"]);
    assert!(broken.contains("\n\nevent: agent_error\ndata: "), "{broken}");
}

#[tokio::test]
async fn bad_ad_hoc_requests_name_every_problem() {
    let gateway = TestGateway::start().await;
    let path = &both_forms("/run")[0];
    let cases: [(&str, Value, Value); 16] = [
        ("provider", json!(" "), json!(["body", "provider"])),
        ("provider", Value::Null, json!(["body", "provider"])),
        ("model", json!(""), json!(["body", "model"])),
        ("system_prompt", Value::Null, json!(["body", "system_prompt"])),
        ("messages", json!([]), json!(["body", "messages"])),
        ("messages", json!("hello"), json!(["body", "messages"])),
        (
            "messages",
            json!([{"role": "user"}]),
            json!(["body", "messages", "0", "content"]),
        ),
        (
            "messages",
            json!([{"role": "user", "content": [{"text": "x"}]}]),
            json!(["body", "messages", "0", "content"]),
        ),
        (
            "messages",
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            json!(["body", "messages", "1", "role"]),
        ),
        (
            "messages",
            json!([{"role": "user", "content": ""}]),
            json!(["body", "messages", "0", "content"]),
        ),
        ("end_user_id", json!(""), json!(["body", "end_user_id"])),
        ("end_user_id", json!("a b"), json!(["body", "end_user_id"])),
        ("end_user_id", json!("a/b"), json!(["body", "end_user_id"])),
        ("end_user_id", json!("ä"), json!(["body", "end_user_id"])),
        ("end_user_id", json!("a".repeat(129)), json!(["body", "end_user_id"])),
        ("provider", json!("google"), json!(["body", "reasoning_engine_id"])),
    ];
    for (field, value, loc) in cases {
        let body = ad_hoc(|body| body[field] = value.clone());
        assert_eq!(
            problem_at(gateway.post(path, &body).await).await,
            loc,
            "{field}: {value}"
        );
    }
    let body = ad_hoc(|body| {
        body["model"] = json!("");
        body["end_user_id"] = json!("");
    });
    let answer = expect_error(gateway.post(path, &body).await, 422, "validation_error").await;
    assert_eq!(answer["detail"].as_array().unwrap().len(), 2);
    assert!(gateway.fakes.0.messages.lock().is_empty());
    let longest = ad_hoc(|body| body["end_user_id"] = json!("a".repeat(128)));
    assert_eq!(gateway.post(path, &longest).await.status(), 200);
    let bare = gateway
        .bare(Method::POST, path)
        .json(&ad_hoc(|_| ()))
        .send()
        .await
        .unwrap();
    expect_error(bare, 401, "unauthorized").await;
}

#[tokio::test]
async fn runs_are_cancelled_and_repeated() {
    let gateway = TestGateway::start().await;
    for path in both_forms(&format!("/runs/{RUN}")) {
        let cancel = gateway
            .request(Method::POST, &format!("{path}/cancel"))
            .send()
            .await
            .unwrap();
        assert_eq!(cancel.status(), 200);
        let row: Value = cancel.json().await.unwrap();
        assert_eq!((&row["run_id"], &row["status"]), (&json!(RUN), &json!("cancelled")));

        let retry = gateway
            .request(Method::POST, &format!("{path}/retry"))
            .send()
            .await
            .unwrap();
        assert_eq!(retry.status(), 202);
        let answer: Value = retry.json().await.unwrap();
        assert_eq!(answer, json!({"run_id": NEW_RUN, "retry_of": RUN}));

        let result: Value = gateway
            .get(&format!("{path}/steps/{STEP}/result"))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(result, json!({"step_id": STEP, "name": "search", "result": [1]}));

        let detail: Value = gateway.get(&path).await.json().await.unwrap();
        assert_eq!(detail["model"], "anthropic/claude-sonnet-4-6");
        let step = &detail["steps"][0];
        assert_eq!(
            (&step["output_preview"], &step["is_truncated"]),
            (&json!("Hel"), &json!(true))
        );
    }
    for (method, rest) in [
        (Method::POST, "/cancel"),
        (Method::POST, "/retry"),
        (Method::GET, "/steps/st_01J9Z0000000000000000000AA/result"),
        (Method::GET, "/events"),
    ] {
        for id in [NO_RUN, "nope", "rn_1"] {
            let path = &both_forms(&format!("/runs/{id}{rest}"))[1];
            let answer = gateway.request(method.clone(), path).send().await.unwrap();
            expect_error(answer, 404, "not_found").await;
        }
    }
    let path = &both_forms(&format!("/runs/{RUN}/steps/nope/result"))[0];
    expect_error(gateway.get(path).await, 404, "not_found").await;
}

#[tokio::test]
async fn the_list_of_runs_is_filtered() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper/runs") {
        let query = "since=2026-04-30T14:25:18Z&until=2026-05-01T00:00:00%2B02:00&agent_version=3&status=failed";
        assert_eq!(gateway.get(&format!("{path}?{query}")).await.status(), 200);
        let message = gateway.fakes.last_message();
        for part in [
            "seconds: 1777559118",
            "seconds: 1777586400",
            "agent_version: Some(3)",
            r#"status: Some("failed")"#,
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        for (query, name) in [
            ("since=monday", "since"),
            ("until=2026", "until"),
            ("agent_version=new", "agent_version"),
        ] {
            let loc = problem_at(gateway.get(&format!("{path}?{query}")).await).await;
            assert_eq!(loc, json!(["query", name]));
        }
    }
}

#[tokio::test]
async fn usage_of_an_account_has_the_contracts_shape() {
    let gateway = TestGateway::start().await;
    for prefix in ["", "/api/v1"] {
        let path = format!("{prefix}/usage?start_date=2026-04-01&end_date=2026-04-30");
        let usage: Value = gateway.get(&path).await.json().await.unwrap();
        assert_eq!(
            usage,
            json!({
                "summary": {"total_prompt_tokens": 600, "total_completion_tokens": 60, "total_tokens": 660,
                            "total_cost_usd": 9.0, "total_calls": 12},
                "by_model": [
                    {"model": "claude-sonnet-4-6", "provider": "anthropic", "prompt_tokens": 500,
                     "completion_tokens": 50, "total_tokens": 550, "cost_usd": 7.5, "calls": 10, "runs_without_price": 0},
                    {"model": "hermes/some/model", "provider": "hermes", "prompt_tokens": 100,
                     "completion_tokens": 10, "total_tokens": 110, "cost_usd": 1.5, "calls": 2, "runs_without_price": 0},
                ],
                "by_call_type": [
                    {"call_type": "test", "prompt_tokens": 300, "completion_tokens": 30, "total_tokens": 330,
                     "cost_usd": 4.5, "calls": 6, "runs_without_price": 0},
                    {"call_type": "trigger", "prompt_tokens": 300, "completion_tokens": 30, "total_tokens": 330,
                     "cost_usd": 4.5, "calls": 6, "runs_without_price": 0},
                    {"call_type": "invoke", "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
                     "cost_usd": 0.0, "calls": 0, "runs_without_price": 0},
                ],
                "start_date": "2026-04-01", "end_date": "2026-04-30", "runs_without_price": 0,
            })
        );
        let message = gateway.fakes.last_message();
        assert!(message.contains("sandbox_id: None"), "{message}");
        assert!(
            message.contains("seconds: 1775001600"),
            "the first day's beginning: {message}"
        );
        assert!(message.contains("seconds: 1777593600"), "the last day's end: {message}");

        let usage: Value = gateway
            .get(&format!("{prefix}/usage?end_date=2026-04-30"))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(usage["start_date"], "2026-04-01", "30 days when nothing is said");
        let usage: Value = gateway.get(&format!("{prefix}/usage")).await.json().await.unwrap();
        assert!(usage["start_date"].is_string() && usage["end_date"].is_string());

        let balance: Value = gateway
            .get(&format!("{prefix}/usage/balance"))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(
            balance,
            json!({"credits_purchased": 0, "credits_used": 9_000_000, "credits_remaining": 0, "balance_credits": 0,
                   "currency": "USD_microcents"})
        );
        for (query, name) in [
            ("start_date=April", "start_date"),
            ("end_date=2026-02-30", "end_date"),
            ("start_date=2026-04-02&end_date=2026-04-01", "start_date"),
            ("start_date=2025-04-01&end_date=2026-04-02", "start_date"),
            ("end_date=-262143-01-01", "start_date"),
        ] {
            let loc = problem_at(gateway.get(&format!("{prefix}/usage?{query}")).await).await;
            assert_eq!(loc, json!(["query", name]));
        }
    }
}

#[tokio::test]
async fn usage_of_a_sandbox_is_grouped_as_asked() {
    let gateway = TestGateway::start().await;
    for prefix in ["", "/api/v1"] {
        let path = format!("{prefix}/storage/sandboxes/{SANDBOX}/usage");
        let query = "group_by=model,entrance&since=2026-04-30T14:25:18Z&agent=helper";
        let usage: Value = gateway.get(&format!("{path}?{query}")).await.json().await.unwrap();
        assert_eq!(
            (&usage["count"], &usage["group_by"]),
            (&json!(4), &json!(["model", "entrance"]))
        );
        assert_eq!(
            usage["groups"][0],
            json!({"keys": {"model": "anthropic/claude-sonnet-4-6", "entrance": "trigger"}, "runs": 3,
                   "tokens_in": 300, "tokens_out": 30, "cost_microcents": 4_500_000, "runs_without_price": 0,
                   "model_calls": 6})
        );
        assert_eq!(usage["groups"][3]["keys"]["model"], Value::Null);
        assert_eq!(usage["total"]["runs"], 6);
        assert_eq!(usage["since"], "2026-04-30T14:25:18.000000Z");
        assert!(usage["until"].is_string(), "the window is told");
        let message = gateway.fakes.last_message();
        assert!(message.contains(&format!("sandbox_id: Some({SANDBOX:?})")), "{message}");
        assert!(message.contains(r#"agent_slug: Some("helper")"#), "{message}");
        let total: Value = gateway.get(&path).await.json().await.unwrap();
        assert_eq!((&total["groups"], &total["count"]), (&json!([]), &json!(0)));
        let loc = problem_at(gateway.get(&format!("{path}?since=monday")).await).await;
        assert_eq!(loc, json!(["query", "since"]));
    }
}
