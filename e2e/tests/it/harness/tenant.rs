//! People: each test makes its own, through the login everybody uses.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    api::{Answer, Api},
    cluster::{CONCIERGE, Cluster},
};

/// The code is written by the request that asked for it.
const CODE_LIMIT: Duration = Duration::from_secs(5);

/// A person with a profile, a primary sandbox and an API key.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) email: String,
    pub(crate) user_id: String,
    pub(crate) sandbox_id: String,
    pub(crate) key_id: String,
    pub(crate) access_token: String,
    /// A client with the API key.
    pub(crate) api: Api,
}

impl Tenant {
    /// The path of the person's sandbox, and what follows.
    pub(crate) fn path(&self, rest: &str) -> String {
        sandbox_path(&self.sandbox_id, rest)
    }

    /// Makes an agent.
    pub(crate) async fn agent(&self, slug: &str) -> Value {
        self.api.post(&self.path("/agents"), agent_body(slug)).await.expect(201)
    }

    /// Makes a source.
    pub(crate) async fn source(&self, name: &str) -> Value {
        self.api
            .post(&self.path("/sources"), json!({"provider": "custom", "name": name}))
            .await
            .expect(201)
    }

    /// Shares the sandbox.
    pub(crate) async fn grant(&self, to: &Tenant, role: &str) -> String {
        let body = json!({"user_id": to.user_id, "role": role});
        let answer = self.api.post(&self.path("/connections"), body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.field("/connection_id")
    }

    /// A key that acts as the grantee.
    pub(crate) async fn connection_key(&self, connection_id: &str) -> String {
        let answer = self
            .api
            .post(&self.path(&format!("/connections/{connection_id}/api-keys")), json!({}))
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.field("/key")
    }
}

pub(crate) fn sandbox_path(sandbox_id: &str, rest: &str) -> String {
    format!("/storage/sandboxes/{sandbox_id}{rest}")
}

pub(crate) fn agent_body(slug: &str) -> Value {
    json!({"slug": slug, "name": format!("Agent {slug}"), "system_prompt": format!("You are {slug}.")})
}

/// An address nobody else has.
pub(crate) fn new_email(label: &str) -> String {
    format!("{label}-{}@example.com", uuid::Uuid::new_v4().simple())
}

impl Cluster {
    /// Asks for a code and reads it where an operator without mail server does: in the concierge's log.
    pub(crate) async fn login_code(&mut self, email: &str) -> String {
        let mark = format!("email=\"{email}\" code=\"");
        let code = |line: &str| Some(line.split_once(&mark)?.1.split('"').next()?.to_owned());
        let told = |lines: &[String]| lines.iter().filter_map(|line| code(line)).collect::<Vec<_>>();
        let before = told(&self.process_of(CONCIERGE).stderr()).len();
        self.api()
            .post("/auth/v1/otp", json!({"email": email}))
            .await
            .expect(200);
        // The line may come later than the answer, so the newest one may be that of the code before.
        let deadline = Instant::now() + CODE_LIMIT;
        loop {
            let codes = told(&self.process_of(CONCIERGE).stderr());
            if let Some(code) = codes.get(before) {
                return code.clone();
            }
            assert!(Instant::now() < deadline, "no code for {email} within {CODE_LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Exchanges a code for a session.
    pub(crate) async fn verify(&self, email: &str, code: &str) -> Answer {
        self.api()
            .post(
                "/auth/v1/verify",
                json!({"email": email, "token": code, "type": "email"}),
            )
            .await
    }

    /// A new person.
    pub(crate) async fn tenant(&mut self, label: &str) -> Tenant {
        let email = new_email(label);
        let code = self.login_code(&email).await;
        let session = self.verify(&email, &code).await;
        assert_eq!(session.status, 200, "{}", session.text);
        let access_token = session.field("/access_token");
        let user_id = session.field("/user/id");
        let by_session = self.api().with(&access_token);
        let profile = by_session
            .post("/users/me/profile", json!({"display_name": label}))
            .await;
        assert_eq!(profile.status, 201, "{}", profile.text);
        let key = by_session
            .post("/api-keys", json!({"name": format!("{label}'s key")}))
            .await;
        assert_eq!(key.status, 201, "{}", key.text);
        Tenant {
            email,
            user_id,
            sandbox_id: profile.field("/sandbox_id"),
            key_id: key.field("/id"),
            access_token,
            api: self.api().with(&key.field("/key")),
        }
    }
}
