//! Roles on a sandbox and the classes of access each one has (`rest.md` 0.5).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a person is on one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything, runs agents, changes nothing.
    Viewer,
    /// Reads, runs and builds; never destroys.
    Editor,
    /// May do everything.
    Owner,
}

/// The permission class of an operation (`rest.md` 0.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessClass {
    /// R: every GET and retrieval.
    Read,
    /// X: run an agent or the Concierge.
    Run,
    /// B: create and update.
    Build,
    /// D: destroy, archive, rename a sandbox.
    Destroy,
    /// G: grants on the sandbox.
    Grant,
}

impl Role {
    /// Whether the role may perform operations of the class.
    #[must_use]
    pub fn allows(self, class: AccessClass) -> bool {
        match class {
            AccessClass::Read | AccessClass::Run => true,
            AccessClass::Build => self >= Self::Editor,
            AccessClass::Destroy | AccessClass::Grant => self == Self::Owner,
        }
    }

    /// The contract's word for the role.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The text is none of `owner`, `editor`, `viewer`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a role: use owner, editor or viewer")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "editor" => Ok(Self::Editor),
            "owner" => Ok(Self::Owner),
            _ => Err(UnknownRole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AccessClass::*, Role::*};

    #[test]
    fn the_class_table_of_the_contract() {
        for (class, owner, editor, viewer) in [
            (Read, true, true, true),
            (Run, true, true, true),
            (Build, true, true, false),
            (Destroy, true, false, false),
            (Grant, true, false, false),
        ] {
            assert_eq!(Owner.allows(class), owner, "{class:?}");
            assert_eq!(Editor.allows(class), editor, "{class:?}");
            assert_eq!(Viewer.allows(class), viewer, "{class:?}");
        }
    }
}
