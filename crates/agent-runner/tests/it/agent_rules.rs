//! What an agent may look like.

use copass_errors::ErrorCode;
use copass_proto::agent::{CreateAgentRequest, ModelSettings};
use copass_test_support::{TestDatabase, Wiring, on_both_databases};

use crate::{
    agents::{create, get, request},
    support::Builder,
};

on_both_databases! {
    what_is_refused_and_with_which_words
    what_is_accepted
}

fn settings(backend: &str) -> ModelSettings {
    ModelSettings {
        backend: backend.to_owned(),
        ..ModelSettings::default()
    }
}

/// A change to an otherwise good request, the code it is refused with and where.
type Refusal = (&'static str, fn(&mut CreateAgentRequest), ErrorCode, &'static str);

const REFUSALS: &[Refusal] = &[
    (
        "empty slug",
        |r| r.slug.clear(),
        ErrorCode::ValidationError,
        "body.slug",
    ),
    (
        "upper case",
        |r| r.slug = "Support".into(),
        ErrorCode::ValidationError,
        "body.slug",
    ),
    (
        "system slug",
        |r| r.slug = "@concierge".into(),
        ErrorCode::ValidationError,
        "body.slug",
    ),
    (
        "reserved",
        |r| r.slug = "runs".into(),
        ErrorCode::ValidationError,
        "body.slug",
    ),
    (
        "long slug",
        |r| r.slug = "a".repeat(65),
        ErrorCode::ValidationError,
        "body.slug",
    ),
    (
        "empty name",
        |r| r.name = " ".into(),
        ErrorCode::ValidationError,
        "body.name",
    ),
    (
        "long name",
        |r| r.name = "ä".repeat(256),
        ErrorCode::ValidationError,
        "body.name",
    ),
    (
        "NUL in name",
        |r| r.name = "a\0b".into(),
        ErrorCode::ValidationError,
        "body.name",
    ),
    (
        "empty prompt",
        |r| r.system_prompt = "\n ".into(),
        ErrorCode::ValidationError,
        "body.system_prompt",
    ),
    (
        "NUL in prompt",
        |r| r.system_prompt = "a\0".into(),
        ErrorCode::ValidationError,
        "body.system_prompt",
    ),
    (
        "long prompt",
        |r| r.system_prompt = "ä".repeat(100_001),
        ErrorCode::ValidationError,
        "body.system_prompt",
    ),
    (
        "long description",
        |r| r.description = Some("x".repeat(4001)),
        ErrorCode::ValidationError,
        "body.description",
    ),
    (
        "many entries",
        |r| r.tool_allowlist = vec!["t".into(); 513],
        ErrorCode::ValidationError,
        "body.tool_allowlist",
    ),
    (
        "empty entry",
        |r| r.tool_allowlist = vec!["t".into(), String::new()],
        ErrorCode::ValidationError,
        "entry 2",
    ),
    (
        "long entry",
        |r| r.tool_allowlist = vec!["t".repeat(257)],
        ErrorCode::ValidationError,
        "entry 1",
    ),
    (
        "backend",
        |r| r.model_settings = Some(settings("openai")),
        ErrorCode::ValidationError,
        "body.model_settings.backend",
    ),
    (
        "temperature",
        |r| {
            r.model_settings = Some(ModelSettings {
                temperature: Some(2.1),
                ..settings("")
            })
        },
        ErrorCode::ValidationError,
        "body.model_settings.temperature",
    ),
    (
        "temperature that is no number",
        |r| {
            r.model_settings = Some(ModelSettings {
                temperature: Some(f64::NAN),
                ..settings("")
            })
        },
        ErrorCode::ValidationError,
        "body.model_settings.temperature",
    ),
    (
        "no tokens",
        |r| {
            r.model_settings = Some(ModelSettings {
                max_tokens: Some(0),
                ..settings("")
            })
        },
        ErrorCode::ValidationError,
        "body.model_settings.max_tokens",
    ),
    (
        "no turns",
        |r| {
            r.model_settings = Some(ModelSettings {
                max_turns: Some(0),
                ..settings("")
            })
        },
        ErrorCode::ValidationError,
        "body.model_settings.max_turns",
    ),
    (
        "a year",
        |r| {
            r.model_settings = Some(ModelSettings {
                timeout_s: Some(31_536_000),
                ..settings("")
            })
        },
        ErrorCode::ValidationError,
        "body.model_settings.timeout_s",
    ),
    (
        "long model",
        |r| {
            r.model_settings = Some(ModelSettings {
                model: "m".repeat(256),
                ..settings("")
            })
        },
        ErrorCode::ValidationError,
        "body.model_settings.model",
    ),
    (
        "compute without hermes",
        |r| {
            r.model_settings = Some(ModelSettings {
                compute_provider: Some("e2b".into()),
                ..settings("google")
            })
        },
        ErrorCode::InvalidRequest,
        "compute_provider",
    ),
    (
        "other compute",
        |r| {
            r.model_settings = Some(ModelSettings {
                compute_provider: Some("mine".into()),
                ..settings("hermes")
            })
        },
        ErrorCode::InvalidRequest,
        "compute_provider",
    ),
    (
        "a key that is too long",
        |r| r.idempotency_key = Some("k".repeat(256)),
        ErrorCode::ValidationError,
        "Idempotency-Key",
    ),
];

async fn what_is_refused_and_with_which_words(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    for (case, change, code, place) in REFUSALS {
        let mut request = request(&fixture, "support");
        change(&mut request);
        let error = create(&fixture, &owner, request).await.expect_err(case);
        assert_eq!(error.code(), *code, "{case}: {error}");
        assert!(error.detail().contains(place), "{case}: {error}");
    }
    // Every problem of the shape at once.
    let bad = CreateAgentRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        ..CreateAgentRequest::default()
    };
    assert_eq!(create(&fixture, &owner, bad).await.unwrap_err().problems().len(), 3);
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 0);
}

async fn what_is_accepted(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    let cases: [(&str, ModelSettings, &str, Option<&str>); 5] = [
        ("default", ModelSettings::default(), "claude-sonnet-4-6", None),
        ("google", settings("google"), "gemini-2.5-flash", None),
        (
            "hermes",
            settings("hermes"),
            "hermes/anthropic/claude-sonnet-4-5",
            Some("e2b"),
        ),
        (
            "hermes-said",
            ModelSettings {
                compute_provider: Some("e2b".into()),
                ..settings("hermes")
            },
            "hermes/anthropic/claude-sonnet-4-5",
            Some("e2b"),
        ),
        (
            "own-model",
            ModelSettings {
                model: "claude-x".into(),
                temperature: Some(2.0),
                max_turns: Some(1),
                ..settings("anthropic")
            },
            "claude-x",
            None,
        ),
    ];
    for (slug, given, model, compute_provider) in cases {
        let mut request = request(&fixture, slug);
        request.model_settings = Some(given.clone());
        request.description = Some("für Ärger – 支援".to_owned());
        request.tool_allowlist = vec!["search".to_owned(), "pd_slack_send".to_owned()];
        let made = create(&fixture, &owner, request).await.unwrap();
        let settings = made.model_settings.clone().unwrap();
        assert_eq!(
            (settings.model.as_str(), settings.compute_provider.as_deref()),
            (model, compute_provider)
        );
        assert_eq!(
            (settings.temperature, settings.max_turns),
            (given.temperature, given.max_turns)
        );
        assert_eq!(get(&fixture, &owner, slug).await.unwrap(), made);
    }
    let mut largest = request(&fixture, &"a".repeat(64));
    largest.system_prompt = "x".repeat(200_000);
    largest.tool_allowlist = vec!["t".repeat(256); 512];
    create(&fixture, &owner, largest).await.unwrap();
}
