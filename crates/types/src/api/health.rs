//! Liveness and readiness, which differ (`design.md` 10).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /healthz`: the process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// `GET /readyz`: 200 when everything is usable, else 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadinessReport {
    /// `ready` or `not_ready`.
    pub status: String,
    /// Every dependency, by name.
    pub dependencies: Vec<DependencyStatus>,
}

impl ReadinessReport {
    /// Whether every dependency is usable.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.dependencies.iter().all(|dependency| dependency.ready)
    }
}

/// One dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DependencyStatus {
    /// Its name.
    pub name: String,
    /// Whether it counts as usable.
    pub ready: bool,
    /// The last failure.
    pub last_error: Option<String>,
}
