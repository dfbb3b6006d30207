//! The lines of the public documentation, with host, key and sandbox id exchanged: what the Concierge says is what REST
//! lists.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Cluster, Settings, Shape, Tenant, on_both_shapes};

on_both_shapes! {
    the_concierge_answers_about_real_data
    probes_metrics_and_the_interface_document_answer
}

/// The person of the documentation: in `dev` the owner of the directory, with what the ready line says.
async fn owner(cluster: &mut Cluster) -> Tenant {
    if cluster.shape == Shape::Separate {
        return cluster.tenant("owner").await;
    }
    let text = |field: &str| cluster.ready[field].as_str().unwrap().to_owned();
    let api = cluster.api().with(&text("api_key"));
    let profile = api.get("/users/me/profile").await.expect(200);
    let keys = api.get("/api-keys").await;
    Tenant {
        email: text("email"),
        user_id: profile["user_id"].as_str().unwrap().to_owned(),
        sandbox_id: text("sandbox_id"),
        key_id: keys.field("/0/id"),
        access_token: String::new(),
        api,
    }
}

fn ids(list: &Value, field: &str) -> BTreeSet<String> {
    let rows = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    rows.iter()
        .map(|row| {
            row[field]
                .as_str()
                .unwrap_or_else(|| panic!("no {field}: {row}"))
                .to_owned()
        })
        .collect()
}

async fn the_concierge_answers_about_real_data(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::default()).await else {
        return;
    };
    let owner = owner(&mut cluster).await;
    owner
        .api
        .post("/storage/sandboxes", json!({"name": "quiet-corner", "owner_id": "me"}))
        .await
        .expect(201);
    owner.agent("support").await;
    owner.agent("digest").await;
    owner.source("handbook").await;

    let overview = owner
        .turn("What sandboxes and agents do I have? Anything need attention?", None)
        .await;
    let sandboxes = owner.api.get("/storage/sandboxes").await.expect(200);
    assert_eq!(
        ids(&overview.result("list_sandboxes")["sandboxes"], "sandbox_id"),
        ids(&sandboxes["sandboxes"], "sandbox_id")
    );
    let agents = owner.api.get(&owner.path("/agents")).await.expect(200);
    assert_eq!(
        ids(&overview.result("list_agents")["agents"], "slug"),
        ids(&agents["agents"], "slug")
    );
    for words in ["2 sandboxes", "2 agents", "quiet-corner", "support", "digest"] {
        assert!(overview.text.contains(words), "{words}: {}", overview.text);
    }

    let test = owner.path("/concierge/test");
    let answer = owner
        .api
        .post(
            &format!("/api/v1{test}"),
            json!({"message": "What sandboxes do I have?"}),
        )
        .await
        .expect(200);
    assert_eq!(answer["status"], "succeeded", "{answer}");
    assert_eq!(answer["tools_called"], json!([]));
    for row in sandboxes["sandboxes"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        assert!(
            answer["output_text"].as_str().unwrap().contains(name),
            "{name}: {answer}"
        );
    }
    let row = owner.run(answer["run_id"].as_str().unwrap()).await;
    assert_eq!(
        (&row["status"], &row["output_text"]),
        (&json!("succeeded"), &answer["output_text"])
    );

    a_conversation_goes_on(&owner).await;
    for (credential, session_id) in [
        (&owner.api, "sess_01J9Z0000000000000000000AB"),
        (&owner.api, "nonsense"),
    ] {
        let body = json!({"message": "yes", "session_id": session_id});
        credential
            .post(&owner.path("/concierge/chat"), body)
            .await
            .expect_error(404);
    }
}

/// An agent made over several turns: the first asks for what is missing, the last does it.
async fn a_conversation_goes_on(owner: &Tenant) {
    let first = owner.turn("Create an agent", None).await;
    assert!(
        first.text.contains("slug") && first.text.contains("prompt"),
        "{}",
        first.text
    );
    assert!(owner.api.get(&owner.path("/agents/billing-helper")).await.status == 404);
    let slug = owner.turn("Call it billing-helper", Some(&first.session_id)).await;
    assert_eq!(slug.session_id, first.session_id);
    let prompt = owner
        .turn("Answer questions about invoices politely.", Some(&slug.session_id))
        .await;
    assert!(prompt.text.contains("billing-helper"), "{}", prompt.text);
    let done = owner.turn("yes", Some(&prompt.session_id)).await;
    let agent = owner.api.get(&owner.path("/agents/billing-helper")).await.expect(200);
    assert_eq!(done.result("create_agent")["agent"]["agent_id"], agent["agent_id"]);
    assert!(
        agent["system_prompt"]
            .as_str()
            .unwrap()
            .contains("Answer questions about invoices"),
        "{agent}"
    );
    assert_ne!(first.run_id, done.run_id);
    // Without its session the same word means nothing.
    let lost = owner.turn("yes", None).await;
    assert!(
        !lost
            .frames
            .iter()
            .any(|frame| frame.event == "agent_tool_call" && frame.data["name"] == "create_agent")
    );
}

async fn probes_metrics_and_the_interface_document_answer(shape: Shape) {
    let Some(cluster) = Cluster::start(shape, Settings::default()).await else {
        return;
    };
    let api = cluster.api();
    for prefix in ["", "/api/v1"] {
        assert_eq!(api.get(&format!("{prefix}/healthz")).await.expect(200)["status"], "ok");
        let ready = api.get(&format!("{prefix}/readyz")).await.expect(200);
        assert_eq!(ready["status"], "ready");
        let dependencies = ids(&ready["dependencies"], "name");
        let expected: &[&str] = match shape {
            Shape::Dev => &["database", "queue"],
            Shape::Separate => &["agent-runner", "concierge", "ingestion", "queue", "trigger-dispatcher"],
        };
        assert_eq!(dependencies.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
    let metrics = api.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .text
            .contains("copass_gateway_requests_total{route=\"/healthz\""),
        "{}",
        metrics.text
    );
    let document = api.get("/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["paths"]["/storage/sandboxes/{sandbox_id}/concierge/chat"]["post"].is_object());
    if shape == Shape::Separate {
        for service in crate::harness::cluster::SERVICES {
            let probes = crate::harness::Api::new(&cluster.probe_url(service));
            assert_eq!(probes.get("/healthz").await.expect(200)["status"], "ok");
            assert_eq!(probes.get("/readyz").await.expect(200)["status"], "ready");
            assert_eq!(probes.get("/metrics").await.status, 200);
        }
    }
}
