//! The roles a process can play.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::Failure;

/// One of the five services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// REST and SSE.
    Gateway,
    /// Identity, tenancy and the Concierge.
    Concierge,
    /// Agents and runs.
    AgentRunner,
    /// Triggers.
    TriggerDispatcher,
    /// Data sources.
    Ingestion,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [
        Self::Gateway,
        Self::Concierge,
        Self::AgentRunner,
        Self::TriggerDispatcher,
        Self::Ingestion,
    ];

    /// The service's name on the command line, in logs and in principals.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Concierge => "concierge",
            Self::AgentRunner => "agent-runner",
            Self::TriggerDispatcher => "trigger-dispatcher",
            Self::Ingestion => "ingestion",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The roles of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSet(BTreeSet<Role>);

impl RoleSet {
    /// Every role.
    #[must_use]
    pub fn all() -> Self {
        Self(Role::ALL.into_iter().collect())
    }

    /// Reads role names; `all` stands for all of them.
    ///
    /// # Errors
    /// A name is unknown, or there is none.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Failure> {
        let mut roles = BTreeSet::new();
        for name in names {
            if name == "all" {
                roles.extend(Role::ALL);
            } else {
                roles.insert(name.parse()?);
            }
        }
        if roles.is_empty() {
            return Err(unknown("no service named"));
        }
        Ok(Self(roles))
    }

    /// Whether the role is among them.
    #[must_use]
    pub fn contains(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether any of them owns tables.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        self.0.iter().any(|role| *role != Role::Gateway)
    }

    /// The roles in order.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }
}

impl FromStr for Role {
    type Err = Failure;
    fn from_str(name: &str) -> Result<Self, Failure> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| unknown(&format!("there is no service '{name}'")))
    }
}

fn unknown(message: &str) -> Failure {
    Failure::new(
        message,
        "choose from gateway, concierge, agent-runner, trigger-dispatcher, ingestion, or all",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_names_are_read() {
        assert_eq!(RoleSet::parse(["all"]).unwrap(), RoleSet::all());
        assert!(RoleSet::parse(["gateway"]).unwrap().contains(Role::Gateway));
        assert!(!RoleSet::parse(["gateway"]).unwrap().needs_store());
        assert!(RoleSet::parse(["gatewy"]).is_err());
        assert!(RoleSet::parse([]).is_err());
    }
}
