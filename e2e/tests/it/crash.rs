//! `kill -9` in the middle of 200 writes: what was acknowledged is there afterwards, and nothing is there by half.

use std::{sync::Mutex, time::Duration};

use copass_test_support::eventually;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    cancel::script,
    harness::{
        Cluster, Settings, Shape, Tenant, agent_body,
        cluster::{AGENT_RUNNER, CONCIERGE, DEV, INGESTION},
        on_both_shapes, rows, sandbox_path,
        stream::Chat,
    },
};

on_both_shapes! {
    acknowledged_writes_survive
}

const WRITES: usize = 200;
/// The crash comes after so many answers, while the rest is under way.
const ANSWERS_BEFORE_THE_CRASH: usize = 50;
/// From the crash until every run is final (`expectations.md` 3, line 4).
const TERMINAL_LIMIT: Duration = Duration::from_secs(60);

/// One write: what was sent where, and the answer if one came.
struct Write {
    path: String,
    body: Value,
    answer: Option<Value>,
}

fn write(person: &Tenant, index: usize) -> Write {
    let name = format!("w-{index}");
    let (path, body) = match index % 4 {
        0 => (
            "/storage/sandboxes".to_owned(),
            json!({"name": name, "owner_id": "crash"}),
        ),
        1 => (person.path("/agents"), agent_body(&name)),
        2 => ("/api-keys".to_owned(), json!({"name": name})),
        _ => (
            person.path("/connections"),
            json!({"user_id": "", "role": "viewer", "label": name}),
        ),
    };
    Write {
        path,
        body,
        answer: None,
    }
}

async fn acknowledged_writes_survive(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::script(script())).await else {
        return;
    };
    let person = cluster.tenant("writer").await;
    let friend = cluster.tenant("friend").await;
    let mut chat = person.chat("slow", None).await;
    chat.read_until(|frame| frame.event == "agent_text_delta").await;
    let run_id = chat.run_id.clone();

    let mut writes: Vec<Write> = (0..WRITES).map(|index| write(&person, index)).collect();
    for write in &mut writes {
        if write.body["user_id"] == "" {
            write.body["user_id"] = json!(friend.user_id);
        }
    }
    let writes = write_until_the_crash(&mut cluster, &person, writes).await;
    let acknowledged = writes.iter().filter(|write| write.answer.is_some()).count();
    assert!(
        (ANSWERS_BEFORE_THE_CRASH..WRITES).contains(&acknowledged),
        "{acknowledged} were acknowledged"
    );

    match shape {
        Shape::Dev => {
            drop(chat);
            cluster.start_process(DEV).await;
        }
        Shape::Separate => {
            the_stream_has_an_end(chat).await;
            cluster.start_services(&[CONCIERGE, AGENT_RUNNER, INGESTION]).await;
            cluster.wait_ready().await;
        }
    }
    let person = Tenant {
        api: person.api.at(&cluster.url),
        ..person
    };
    // The gateway may have a connection to the dead process for a moment.
    eventually(Duration::from_secs(5), || async {
        let lists = [
            "/storage/sandboxes".to_owned(),
            person.path("/agents"),
            person.path("/sources"),
        ];
        let answers = join_all(lists.iter().map(|path| person.api.get(path))).await;
        answers.iter().all(|answer| answer.status == 200)
    })
    .await;
    for write in &writes {
        if let Some(answer) = &write.answer {
            is_there(&cluster, &person, write, answer).await;
        }
    }
    nothing_is_there_by_half(&cluster, &person, &writes).await;
    eventually(TERMINAL_LIMIT, || async {
        !matches!(person.run_status(&run_id).await.as_str(), "pending" | "running")
    })
    .await;
    let row = person.run(&run_id).await;
    assert!(
        row["error_message"].as_str().is_some_and(|reason| !reason.is_empty()),
        "the reason is told: {row}"
    );
    person.turn("hello", None).await;
}

/// Sends everything at once; kills when enough answers are there.
async fn write_until_the_crash(cluster: &mut Cluster, person: &Tenant, writes: Vec<Write>) -> Vec<Write> {
    let answered = Mutex::new(0);
    let requests = writes.into_iter().map(async |mut write| {
        let answer = person.api.try_send(Method::POST, &write.path, Some(&write.body)).await;
        if let Ok(answer) = answer
            && answer.status == 201
        {
            *answered.lock().unwrap() += 1;
            write.answer = Some(answer.body);
        }
        write
    });
    let crash = async {
        eventually(Duration::from_secs(30), || async {
            *answered.lock().unwrap() >= ANSWERS_BEFORE_THE_CRASH
        })
        .await;
        match cluster.shape {
            Shape::Dev => cluster.kill_9(DEV),
            Shape::Separate => [CONCIERGE, AGENT_RUNNER, INGESTION]
                .into_iter()
                .for_each(|name| cluster.kill_9(name)),
        }
    };
    let (writes, ()) = tokio::join!(join_all(requests), crash);
    writes
}

/// The gateway lives: its client is told.
async fn the_stream_has_an_end(chat: Chat) {
    let frames = chat.finish().await;
    let last = frames.last().unwrap();
    assert_eq!(last.event, "agent_error", "{last:?}");
}

async fn is_there(cluster: &Cluster, person: &Tenant, write: &Write, answer: &Value) {
    let text = |field: &str| {
        answer[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field}: {answer}"))
            .to_owned()
    };
    match write.path.rsplit('/').next().unwrap() {
        "sandboxes" => {
            let row = person.api.get(&sandbox_path(&text("sandbox_id"), "")).await.expect(200);
            assert_eq!(row["name"], write.body["name"]);
        }
        "agents" => {
            let row = person
                .api
                .get(&person.path(&format!("/agents/{}", text("slug"))))
                .await
                .expect(200);
            assert_eq!(row, *answer);
        }
        "api-keys" => {
            let profile = cluster
                .api()
                .with(&text("key"))
                .get("/users/me/profile")
                .await
                .expect(200);
            assert_eq!(profile["user_id"], person.user_id);
        }
        "connections" => {
            let list = person.api.get(&person.path("/connections")).await.expect(200);
            let id = text("connection_id");
            assert!(
                list.as_array().unwrap().iter().any(|row| row["connection_id"] == id),
                "{id}"
            );
        }
        other => panic!("{other}"),
    }
}

/// What was not acknowledged is whole or absent: the same request again finds it (409) or makes it (201), and no row
/// lacks what belongs to it.
async fn nothing_is_there_by_half(cluster: &Cluster, person: &Tenant, writes: &[Write]) {
    for write in writes.iter().filter(|write| write.answer.is_none()) {
        if write.path.ends_with("/sandboxes") || write.path.ends_with("/agents") {
            let again = person.api.post(&write.path, write.body.clone()).await;
            assert!(matches!(again.status, 201 | 409), "{}: {}", again.status, again.text);
        }
    }
    let agents = person.api.get(&person.path("/agents")).await.expect(200);
    let slugs = agents["agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| agent["slug"].as_str().unwrap().to_owned());
    let slugs: Vec<String> = slugs.filter(|slug| slug.starts_with("w-")).collect();
    assert_eq!(slugs.len(), WRITES / 4);
    for slug in slugs {
        let agent = person
            .api
            .get(&person.path(&format!("/agents/{slug}")))
            .await
            .expect(200);
        assert_eq!((&agent["version"], &agent["status"]), (&json!(1), &json!("active")));
    }
    for (what, lonely) in [
        (
            "agents",
            "agents a where a.kind = 'user' and not exists (select 1 from agent_versions v where v.agent_id = a.id)",
        ),
        (
            "versions",
            "agent_versions v where not exists (select 1 from agents a where v.agent_id = a.id)",
        ),
        (
            "sandboxes",
            "sandboxes s where s.owner_id = 'crash' and not exists \
             (select 1 from audit_records r where r.target = s.id and r.action = 'sandbox.create')",
        ),
        (
            "keys",
            "api_keys k where not exists (select 1 from audit_records r where r.target = k.id and r.action = 'api_key.create')",
        ),
        (
            "connections",
            "connections c where not exists \
             (select 1 from audit_records r where r.target = c.id and r.action = 'connection.create')",
        ),
    ] {
        let count = rows::count(&cluster.database_url(), &format!("select count(*) from {lonely}")).await;
        assert_eq!(count, 0, "{what} by half");
    }
}
