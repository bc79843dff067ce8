//! The permission gate: one place below all protocols.

use wharf_model::{PermissionRules, Permissions, Refusal, VirtualPath};

use crate::storage::Rights;

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

    /// What may be put under a name, or written to what stands there.
    pub(crate) fn rights(&self, names: &[&VirtualPath]) -> Rights {
        let extend = Permissions::APPEND | Permissions::OVERWRITE;
        Rights {
            create: self.all(names, Permissions::WRITE).is_ok(),
            replace: self.all(names, Permissions::OVERWRITE).is_ok(),
            extend: self.any(names, extend).is_ok(),
            // What was cut is not whole yet: whoever may have begun it may finish it.
            resume: self.any(names, extend | Permissions::WRITE).is_ok(),
        }
    }

    /// Refuses to move or remove a directory that has a rule on it or on something in
    /// it, whichever of its names says so: the rule would protect another thing afterwards.
    pub(crate) fn holds_no_rule(&self, names: &[&VirtualPath]) -> Result<(), Refusal> {
        let holds = self
            .rules
            .exceptions()
            .iter()
            .any(|(rule, _)| names.iter().any(|path| rule.starts_with(path)));
        if holds {
            Err(Refusal::NotPermitted)
        } else {
            Ok(())
        }
    }
}
