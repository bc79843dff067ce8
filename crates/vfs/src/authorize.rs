//! The permission gate: one place below all protocols.

use wharf_model::{PermissionRules, Permissions, Refusal, VirtualPath};

/// Judges operations of one account. A path that passes through links is judged
/// under both its names, so that no link leads around a rule.
pub(crate) struct Gate<'a> {
    pub(crate) rules: &'a PermissionRules,
}

impl Gate<'_> {
    /// Whether links must be followed before a judgement: only rules by
    /// directory can differ between two names of one thing.
    pub(crate) fn needs_resolved(&self) -> bool {
        !self.rules.exceptions().is_empty()
    }

    /// Refuses unless all of `needed` is allowed under every name.
    pub(crate) fn all(&self, names: &[&VirtualPath], needed: Permissions) -> Result<(), Refusal> {
        let allowed = names
            .iter()
            .all(|path| self.rules.at(path).contains(needed));
        if allowed {
            Ok(())
        } else {
            Err(Refusal::NotPermitted)
        }
    }

    /// Refuses unless one of `needed` is allowed under every name.
    pub(crate) fn any(&self, names: &[&VirtualPath], needed: Permissions) -> Result<(), Refusal> {
        let allowed = names
            .iter()
            .all(|path| self.rules.at(path).intersects(needed));
        if allowed {
            Ok(())
        } else {
            Err(Refusal::NotPermitted)
        }
    }

    /// Refuses to move or remove a directory that has a rule on something in
    /// it: the rule would protect another thing afterwards.
    pub(crate) fn holds_no_rule(&self, path: &VirtualPath) -> Result<(), Refusal> {
        let holds = self
            .rules
            .exceptions()
            .iter()
            .any(|(rule, _)| rule.starts_with(path));
        if holds {
            Err(Refusal::NotPermitted)
        } else {
            Ok(())
        }
    }
}
