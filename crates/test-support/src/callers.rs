//! Callers with rights on a sandbox, as the gateway would have verified them.

use copass_runtime::{CallContext, MasterKey, Signer};
use copass_types::{ActorKind, Principal, Role, SandboxAccess, SandboxId, UserId};

/// Any 32 bytes: tests need a key, not a secret.
const MASTER_KEY: &str = "Y29wYXNzIHRlc3RzIHVzZSB0aGlzIG1hc3RlciBrZXk=";

/// The master key of every test.
#[must_use]
pub fn master_key() -> MasterKey {
    MasterKey::parse([MASTER_KEY]).expect("32 bytes in base64")
}

/// Signs and verifies internal tokens under [`master_key`].
#[must_use]
pub fn signer() -> Signer {
    Signer::new(&master_key())
}

/// A sandbox that exists only in the principals of its callers; no row stands behind it.
#[derive(Debug, Clone)]
pub struct TestSandbox {
    /// Its id.
    pub id: SandboxId,
    /// Who holds it.
    pub owner_user_id: UserId,
    /// `active`, `suspended` or `archived`.
    pub status: String,
}

impl Default for TestSandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl TestSandbox {
    /// A new active sandbox.
    #[must_use]
    pub fn new() -> Self {
        Self {
            id: SandboxId::generate(),
            owner_user_id: UserId::generate(),
            status: "active".to_owned(),
        }
    }

    /// The same sandbox in another state.
    #[must_use]
    pub fn with_status(&self, status: &str) -> Self {
        Self {
            status: status.to_owned(),
            ..self.clone()
        }
    }

    /// Its owner.
    #[must_use]
    pub fn owner(&self) -> CallContext {
        self.caller(self.owner_user_id.clone(), Role::Owner)
    }

    /// Somebody with the editor role; another person each time.
    #[must_use]
    pub fn editor(&self) -> CallContext {
        self.caller(UserId::generate(), Role::Editor)
    }

    /// Somebody with the viewer role; another person each time.
    #[must_use]
    pub fn viewer(&self) -> CallContext {
        self.caller(UserId::generate(), Role::Viewer)
    }

    /// Somebody who has a sandbox, but not this one.
    #[must_use]
    pub fn foreign(&self) -> CallContext {
        Self::new().owner()
    }

    /// A person without access to any sandbox.
    #[must_use]
    pub fn nobody(&self) -> CallContext {
        let mut context = self.owner();
        context.principal.access = None;
        context
    }

    /// The owner with a credential that is good for another sandbox only.
    #[must_use]
    pub fn owner_with_key_of_another_sandbox(&self) -> CallContext {
        let mut context = self.owner();
        context.principal.only_sandbox = Some(SandboxId::generate());
        context
    }

    /// A person in a role.
    #[must_use]
    pub fn caller(&self, user_id: UserId, role: Role) -> CallContext {
        let request_id = format!("req_{}", ulid::Ulid::generate());
        CallContext::new(Principal {
            kind: ActorKind::Session,
            user_id: Some(user_id),
            access: Some(SandboxAccess {
                sandbox_id: self.id.clone(),
                role,
                status: self.status.clone(),
                owner_user_id: self.owner_user_id.clone(),
                project_id: None,
            }),
            ..Principal::service("test", &request_id)
        })
    }
}
