//! Destroying a sandbox removes what other services keep in it, also when everything is killed right after the answer.

use std::time::Duration;

use copass_test_support::eventually;
use serde_json::json;

use crate::harness::{
    Cluster, Settings, Shape, Tenant,
    cluster::{AGENT_RUNNER, CONCIERGE, DEV, INGESTION, SERVICES},
    on_both_shapes, rows, sandbox_path,
};

on_both_shapes! {
    a_destroyed_sandbox_takes_everything_with_it
}

/// The message may have to be redelivered after the crash.
const CASCADE_LIMIT: Duration = Duration::from_secs(20);
const TABLES: [&str; 4] = ["agents", "data_sources", "runs", "conversations"];

async fn a_destroyed_sandbox_takes_everything_with_it(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::default()).await else {
        return;
    };
    let person = cluster.tenant("person").await;
    let friend = cluster.tenant("friend").await;
    let (first, second, kept) = (
        fill(&person, "first").await,
        fill(&person, "second").await,
        fill(&person, "kept").await,
    );

    // In peace.
    let grant = json!({"user_id": friend.user_id, "role": "editor"});
    let grant = person
        .api
        .post(&sandbox_path(&first, "/connections"), grant)
        .await
        .expect(201);
    let connection_keys = format!("/connections/{}/api-keys", grant["connection_id"].as_str().unwrap());
    let key = person
        .api
        .post(&sandbox_path(&first, &connection_keys), json!({}))
        .await
        .field("/key");
    let bound = cluster.api().with(&key);
    bound.get(&sandbox_path(&first, "/agents")).await.expect(200);
    destroy(&person, &first).await;
    for rest in ["", "/agents", "/sources", "/audit"] {
        friend.api.get(&sandbox_path(&first, rest)).await.expect_error(404);
        person.api.get(&sandbox_path(&first, rest)).await.expect_error(404);
        bound.get(&sandbox_path(&first, rest)).await.expect_error(401);
    }
    expect_gone(&cluster, &first).await;
    // A repeat answers alike, for who did it; nobody else learns that it was there.
    destroy(&person, &first).await;
    friend.api.delete(&sandbox_path(&first, "")).await.expect_error(404);

    // With everything killed right after the answer.
    destroy(&person, &second).await;
    match shape {
        Shape::Dev => {
            cluster.kill_9(DEV);
            cluster.start_process(DEV).await;
        }
        Shape::Separate => {
            [CONCIERGE, AGENT_RUNNER, INGESTION]
                .into_iter()
                .for_each(|name| cluster.kill_9(name));
            assert_eq!(SERVICES[0], CONCIERGE);
            cluster.start_services(&[CONCIERGE, AGENT_RUNNER, INGESTION]).await;
            cluster.wait_ready().await;
        }
    }
    expect_gone(&cluster, &second).await;

    // The neighbour lost nothing.
    let person = Tenant {
        api: person.api.at(&cluster.url),
        ..person
    };
    eventually(Duration::from_secs(5), || async {
        person.api.get(&sandbox_path(&kept, "/agents")).await.status == 200
    })
    .await;
    for (list, count) in [("/agents", 2), ("/sources", 1)] {
        assert_eq!(
            person.api.get(&sandbox_path(&kept, list)).await.expect(200)["count"],
            count,
            "{list}"
        );
    }
    for sandbox_id in [&first, &second] {
        let sql = format!(
            "select count(*) from audit_records where action = 'sandbox.destroy' and target = '{sandbox_id}' \
             and user_id = '{}' and result = 'ok'",
            person.user_id
        );
        assert_eq!(
            rows::count(&cluster.database_url(), &sql).await,
            1,
            "the audit log knows who destroyed it"
        );
    }
    let denied = format!("select count(*) from audit_records where target = '{kept}' and action = 'sandbox.destroy'");
    assert_eq!(rows::count(&cluster.database_url(), &denied).await, 0);
}

/// A sandbox with two agents, a source and two runs.
async fn fill(person: &Tenant, name: &str) -> String {
    let sandbox = person
        .api
        .post("/storage/sandboxes", json!({"name": name, "owner_id": "me"}))
        .await
        .expect(201);
    let sandbox_id = sandbox["sandbox_id"].as_str().unwrap().to_owned();
    let inside = Tenant {
        sandbox_id: sandbox_id.clone(),
        ..person.clone()
    };
    inside.agent("one").await;
    inside.agent("two").await;
    inside.source("notes").await;
    inside.turn("What agents do I have?", None).await;
    inside.turn("What sandboxes do I have?", None).await;
    sandbox_id
}

async fn destroy(person: &Tenant, sandbox_id: &str) {
    let answer = person.api.delete(&sandbox_path(sandbox_id, "")).await.expect(200);
    assert_eq!((&answer["success"], &answer["deleted"]), (&json!(true), &json!(true)));
}

async fn expect_gone(cluster: &Cluster, sandbox_id: &str) {
    let url = cluster.database_url();
    eventually(CASCADE_LIMIT, || async {
        let mut left = 0;
        for table in TABLES {
            left += rows::count(
                &url,
                &format!("select count(*) from {table} where sandbox_id = '{sandbox_id}'"),
            )
            .await;
        }
        left == 0
    })
    .await;
    for (child, parent, key) in [
        ("agent_versions", "agents", "agent_id"),
        ("run_steps", "runs", "run_id"),
        ("conversation_messages", "conversations", "session_id"),
    ] {
        let sql =
            format!("select count(*) from {child} c where not exists (select 1 from {parent} p where p.id = c.{key})");
        assert_eq!(rows::count(&url, &sql).await, 0, "{child} without {parent}");
    }
}
