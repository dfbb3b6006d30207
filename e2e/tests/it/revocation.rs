//! What is revoked is refused at once; behind another replica of the gateway, which remembers credentials, within a
//! second.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use copass_test_support::eventually;
use serde_json::json;

use crate::harness::{Api, Cluster, Settings, Shape, Tenant, on_both_shapes};

on_both_shapes! {
    what_is_revoked_is_refused_at_once
    what_has_expired_is_refused
}

/// Longest time that another replica may serve what was revoked.
const LAG: Duration = Duration::from_secs(1);

/// Every replica refuses with this status; the one that was told does so at once.
async fn refused(told: &Api, others: &[Api], path: &str, status: u16) {
    told.get(path).await.expect_error(status);
    for other in others {
        eventually(LAG, || async { other.get(path).await.status == status }).await;
    }
    // And it stays so.
    for api in std::iter::once(told).chain(others) {
        api.get(path).await.expect_error(status);
    }
}

struct Replicas(Vec<String>);

impl Replicas {
    fn of(&self, api: &Api) -> Vec<Api> {
        self.0.iter().map(|url| api.at(url)).collect()
    }

    /// Lets every replica remember that the credential is good.
    async fn remember(&self, api: &Api, path: &str) {
        for api in self.of(api).iter().chain([api]) {
            api.get(path).await.expect(200);
        }
    }
}

async fn what_is_revoked_is_refused_at_once(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::default()).await else {
        return;
    };
    let replicas = Replicas(match shape {
        Shape::Dev => Vec::new(),
        Shape::Separate => vec![cluster.start_second_gateway().await],
    });
    let owner = cluster.tenant("owner").await;
    let guest = cluster.tenant("guest").await;
    owner.agent("shared").await;
    let agents = owner.path("/agents");

    // A grant, for the guest's own key and session and for the key that is bound to it.
    let connection_id = owner.grant(&guest, "viewer").await;
    let bound = cluster.api().with(&owner.connection_key(&connection_id).await);
    let session = cluster.api().with(&guest.access_token);
    for api in [&guest.api, &session, &bound] {
        replicas.remember(api, &agents).await;
    }
    let revoked = owner
        .api
        .delete(&owner.path(&format!("/connections/{connection_id}")))
        .await
        .expect(200);
    assert_eq!(
        (&revoked["revoked"], &revoked["cascaded_keys"]),
        (&json!(true), &json!(1))
    );
    refused(&bound, &replicas.of(&bound), &agents, 401).await;
    refused(&guest.api, &replicas.of(&guest.api), &agents, 404).await;
    refused(&session, &replicas.of(&session), &agents, 404).await;
    // The guest is still somebody, at home.
    guest.api.get(&guest.path("/agents")).await.expect(200);

    // An API key; a repeat answers alike, other keys live on.
    let key = owner.api.post("/api-keys", json!({"name": "short"})).await;
    let (short, key_id) = (cluster.api().with(&key.field("/key")), key.field("/id"));
    replicas.remember(&short, &agents).await;
    for _ in 0..2 {
        owner.api.delete(&format!("/api-keys/{key_id}")).await.expect(200);
    }
    refused(&short, &replicas.of(&short), &agents, 401).await;
    owner.api.get(&agents).await.expect(200);

    // A suspended sandbox refuses changes at once, everywhere.
    replicas.remember(&owner.api, &agents).await;
    owner.api.post(&owner.path("/suspend"), json!({})).await.expect(200);
    for api in replicas.of(&owner.api).iter().chain([&owner.api]) {
        eventually(LAG, || async {
            let answer = api.post(&agents, crate::harness::agent_body("late")).await;
            assert!(matches!(answer.status, 201 | 409), "{}", answer.text);
            answer.body["error"] == "sandbox_not_active"
        })
        .await;
    }
    owner.api.post(&owner.path("/reactivate"), json!({})).await.expect(200);
    a_grant_counts_at_once(&replicas, &owner, &guest).await;
}

/// The other way round: who was refused a moment ago is served when the grant is there.
async fn a_grant_counts_at_once(replicas: &Replicas, owner: &Tenant, guest: &Tenant) {
    let agents = owner.path("/agents");
    guest.api.get(&agents).await.expect_error(404);
    owner.grant(guest, "editor").await;
    guest.api.get(&agents).await.expect(200);
    guest
        .api
        .post(&agents, crate::harness::agent_body("by-guest"))
        .await
        .expect(201);
    for api in replicas.of(&guest.api) {
        eventually(LAG, || async { api.get(&agents).await.status == 200 }).await;
    }
}

async fn what_has_expired_is_refused(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::default().set("AUTH__ACCESS_TOKEN_TTL", "2s")).await else {
        return;
    };
    let owner = cluster.tenant("owner").await;
    let session = cluster.api().with(&owner.access_token);
    let guest = cluster.tenant("guest").await;
    let agents = owner.path("/agents");
    let life = Duration::from_secs(2);
    let end = DateTime::<Utc>::from(SystemTime::now() + life).to_rfc3339();
    let body = json!({"user_id": guest.user_id, "role": "viewer", "expires_at": end});
    let connection = owner.api.post(&owner.path("/connections"), body).await;
    assert_eq!(connection.status, 201, "{}", connection.text);
    let bound = cluster
        .api()
        .with(&owner.connection_key(&connection.field("/connection_id")).await);
    bound.get(&agents).await.expect(200);
    guest.api.get(&agents).await.expect(200);
    // Side by side, so that each has its own time.
    let refused = [(&session, 401), (&bound, 401), (&guest.api, 404)];
    let refused = refused.map(async |(api, status)| {
        eventually(life + LAG, || async { api.get(&agents).await.status == status }).await;
        api.get(&agents).await.expect_error(status);
    });
    futures::future::join_all(refused).await;
    let id = connection.field("/connection_id");
    owner
        .api
        .post(&owner.path(&format!("/connections/{id}/api-keys")), json!({}))
        .await
        .expect_error(409);
}
