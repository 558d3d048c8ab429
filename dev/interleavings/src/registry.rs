//! What the wake-ups know of the registry.

/// As there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    pub namespace: Option<String>,
    pub name: String,
}
