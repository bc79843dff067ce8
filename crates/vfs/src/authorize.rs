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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use wharf_model::{DigestAlgorithm, QuotaLimits, Usage};

    use super::*;
    use crate::quota::tests::Memory;
    use crate::storage::memory::MemoryStorage;
    use crate::{Disposition, Home, Ledger, UploadOptions, Vfs};

    fn path(text: &str) -> VirtualPath {
        VirtualPath::parse(text.as_bytes()).expect("a path")
    }

    /// One operation on the tree that [`furnished`] makes.
    #[derive(Debug, Clone, Copy)]
    enum Operation {
        Metadata,
        List,
        Open,
        Digest,
        CreateNew,
        ReplaceFile,
        ResumeWithin,
        AppendToFile,
        ResumeAtEnd,
        ResumeCut,
        MakeDirectory,
        RemoveDirectory,
        RemoveFile,
        RenameToNew,
        RenameOver,
        CopyToNew,
        CopyOver,
        SetModified,
        SetMode,
    }

    /// What each operation needs: one of the named permissions at the first place, and one at
    /// the second. Worked by hand from the meaning of each permission, not from the code.
    const NEEDS: [(Operation, &str, &str, &str, &str); 19] = [
        (Operation::Metadata, "/d/file", "list", "/d/file", "list"),
        (Operation::List, "/d", "list", "/d", "list"),
        (Operation::Open, "/d/file", "read", "/d/file", "read"),
        (Operation::Digest, "/d/file", "read", "/d/file", "read"),
        (Operation::CreateNew, "/d/new", "write", "/d/new", "write"),
        (
            Operation::ReplaceFile,
            "/d/file",
            "overwrite",
            "/d/file",
            "overwrite",
        ),
        (
            Operation::ResumeWithin,
            "/d/file",
            "overwrite",
            "/d/file",
            "overwrite",
        ),
        (
            Operation::AppendToFile,
            "/d/file",
            "append,overwrite",
            "/d/file",
            "append,overwrite",
        ),
        (
            Operation::ResumeAtEnd,
            "/d/file",
            "append,overwrite",
            "/d/file",
            "append,overwrite",
        ),
        (
            Operation::ResumeCut,
            "/d/cut",
            "write,append,overwrite",
            "/d/cut",
            "write,append,overwrite",
        ),
        (
            Operation::MakeDirectory,
            "/d/made",
            "mkdir",
            "/d/made",
            "mkdir",
        ),
        (
            Operation::RemoveDirectory,
            "/d/empty",
            "rmdir",
            "/d/empty",
            "rmdir",
        ),
        (
            Operation::RemoveFile,
            "/d/file",
            "delete",
            "/d/file",
            "delete",
        ),
        (
            Operation::RenameToNew,
            "/d/file",
            "rename",
            "/e/new",
            "write",
        ),
        (
            Operation::RenameOver,
            "/d/file",
            "rename",
            "/e/file",
            "overwrite",
        ),
        (Operation::CopyToNew, "/d/file", "read", "/e/new", "write"),
        (
            Operation::CopyOver,
            "/d/file",
            "read",
            "/e/file",
            "overwrite",
        ),
        (
            Operation::SetModified,
            "/d/file",
            "attributes",
            "/d/file",
            "attributes",
        ),
        (
            Operation::SetMode,
            "/d/file",
            "attributes",
            "/d/file",
            "attributes",
        ),
    ];

    const UNLIMITED: QuotaLimits = QuotaLimits {
        bytes: None,
        files: None,
    };

    /// A home with something for every operation.
    async fn furnished() -> Arc<Home> {
        let ledger = Ledger::new(Usage::ZERO, false, Box::new(Memory::default()));
        let home = Home::new(Arc::new(MemoryStorage::new()), ledger);
        let vfs = Vfs::new(Arc::clone(&home), PermissionRules::default(), UNLIMITED);
        for directory in ["/d", "/e", "/d/empty"] {
            vfs.make_directory(&path(directory)).await.expect("made");
        }
        for file in ["/d/file", "/e/file"] {
            let made = upload(&vfs, file, Disposition::Replace, true).await;
            made.expect("made");
        }
        let made = upload(&vfs, "/d/cut", Disposition::Replace, false).await;
        made.expect("made");
        home
    }

    async fn upload(
        vfs: &Vfs,
        name: &str,
        disposition: Disposition,
        whole: bool,
    ) -> Result<(), Refusal> {
        let options = UploadOptions {
            disposition,
            announced_bytes: None,
            digest: None,
        };
        let mut upload = vfs.create(&path(name), options).await?;
        upload.write(Bytes::from_static(b"01234")).await?;
        if whole {
            upload.commit().await.map(drop)
        } else {
            upload.cut().await
        }
    }

    async fn perform(vfs: &Vfs, operation: Operation) -> Result<(), Refusal> {
        let (file, new, over) = (path("/d/file"), path("/e/new"), path("/e/file"));
        match operation {
            Operation::Metadata => vfs.metadata(&file).await.map(drop),
            Operation::List => vfs.list(&path("/d")).await.map(drop),
            Operation::Open => vfs.open(&file).await.map(drop),
            Operation::Digest => {
                let digest = vfs.digest(&file, DigestAlgorithm::Crc32, None).await;
                digest.map(drop)
            }
            Operation::CreateNew => upload(vfs, "/d/new", Disposition::Replace, true).await,
            Operation::ReplaceFile => upload(vfs, "/d/file", Disposition::Replace, true).await,
            Operation::ResumeWithin => upload(vfs, "/d/file", Disposition::ResumeAt(2), true).await,
            Operation::AppendToFile => upload(vfs, "/d/file", Disposition::Append, true).await,
            Operation::ResumeAtEnd => upload(vfs, "/d/file", Disposition::ResumeAt(5), true).await,
            Operation::ResumeCut => upload(vfs, "/d/cut", Disposition::ResumeAt(5), true).await,
            Operation::MakeDirectory => vfs.make_directory(&path("/d/made")).await,
            Operation::RemoveDirectory => vfs.remove_directory(&path("/d/empty")).await,
            Operation::RemoveFile => vfs.remove_file(&file).await,
            Operation::RenameToNew => vfs.rename(&file, &new).await,
            Operation::RenameOver => vfs.rename(&file, &over).await,
            Operation::CopyToNew => vfs.copy(&file, &new).await,
            Operation::CopyOver => vfs.copy(&file, &over).await,
            Operation::SetModified => {
                vfs.set_modified(&file, std::time::SystemTime::UNIX_EPOCH)
                    .await
            }
            Operation::SetMode => vfs.set_mode(&file, 0o600).await,
        }
    }

    /// Every entry's path, size, mode and time.
    async fn snapshot(home: &Arc<Home>) -> Vec<String> {
        let vfs = Vfs::new(Arc::clone(home), PermissionRules::default(), UNLIMITED);
        let mut found = Vec::new();
        for directory in ["/", "/d", "/e"] {
            let mut listing = vfs.list(&path(directory)).await.expect("listed");
            while let Some(batch) = listing.next_batch().await.expect("readable") {
                found.extend(batch.iter().map(|entry| format!("{directory} {entry:?}")));
            }
        }
        found
    }

    fn names(list: &str) -> Permissions {
        list.parse().expect("known names")
    }

    fn single_permissions() -> impl Iterator<Item = Permissions> {
        Permissions::all().iter()
    }

    #[tokio::test]
    async fn each_operation_needs_its_permissions_and_no_more() {
        for (operation, _, first, _, second) in NEEDS {
            let (first, second) = (names(first), names(second));
            for one in single_permissions().filter(|one| first.contains(*one)) {
                for other in single_permissions().filter(|one| second.contains(*one)) {
                    let home = furnished().await;
                    let rules = PermissionRules::new(one | other, Vec::new());
                    let vfs = Vfs::new(home, rules, UNLIMITED);
                    let done = perform(&vfs, operation).await;
                    assert!(
                        done.is_ok(),
                        "{operation:?} with {one} and {other}: {done:?}"
                    );
                }
            }
            for lacking in [first, second] {
                let home = furnished().await;
                let before = snapshot(&home).await;
                let rules = PermissionRules::new(Permissions::all() - lacking, Vec::new());
                let vfs = Vfs::new(Arc::clone(&home), rules, UNLIMITED);
                let refused = perform(&vfs, operation).await;
                assert!(
                    matches!(refused, Err(Refusal::NotPermitted)),
                    "{operation:?} without {lacking}: {refused:?}"
                );
                assert_eq!(snapshot(&home).await, before, "{operation:?}");
            }
        }
    }

    fn any_permissions() -> impl Strategy<Value = Permissions> {
        any::<u16>().prop_map(Permissions::from_bits_truncate)
    }

    fn any_rules() -> impl Strategy<Value = PermissionRules> {
        let places = ["/d", "/e", "/d/file", "/d/empty", "/e/new", "/x"];
        let exception = (proptest::sample::select(places.to_vec()), any_permissions())
            .prop_map(|(place, permissions)| (path(place), permissions));
        let exceptions = proptest::collection::vec(exception, 0..3);
        (any_permissions(), exceptions)
            .prop_map(|(everywhere, exceptions)| PermissionRules::new(everywhere, exceptions))
    }

    fn any_path() -> impl Strategy<Value = VirtualPath> {
        proptest::collection::vec(proptest::sample::select(vec!["a", "b", "c"]), 0..4)
            .prop_map(|components| path(&components.join("/")))
    }

    proptest! {
        #[test]
        fn nothing_is_done_that_the_nearest_rule_does_not_allow(
            rules in any_rules(), which in 0..NEEDS.len(),
        ) {
            let (operation, at, first, to, second) = NEEDS[which];
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let home = furnished().await;
                let before = snapshot(&home).await;
                let vfs = Vfs::new(Arc::clone(&home), rules.clone(), UNLIMITED);
                let held = rules.at(&path(at)).intersects(names(first))
                    && rules.at(&path(to)).intersects(names(second));
                match perform(&vfs, operation).await {
                    Ok(()) => prop_assert!(held, "{:?} was done", operation),
                    Err(Refusal::NotPermitted) => {
                        prop_assert_eq!(snapshot(&home).await, before);
                        // What moves or goes with a rule of its own on it stays, too.
                        let moves = matches!(
                            operation,
                            Operation::RemoveDirectory
                                | Operation::RenameToNew
                                | Operation::RenameOver
                        );
                        prop_assert!(!held || moves, "{:?} was refused", operation);
                    }
                    Err(other) => prop_assert!(false, "{:?}: {}", operation, other),
                }
                Ok(())
            })?;
        }

        #[test]
        fn a_second_name_of_a_place_never_adds_a_right(
            asked in any_path(), resolved in any_path(),
            everywhere in any_permissions(),
            exceptions in proptest::collection::vec((any_path(), any_permissions()), 0..4),
            needed in any_permissions(),
        ) {
            let rules = PermissionRules::new(everywhere, exceptions);
            let gate = Gate { rules: &rules };
            let both = [&asked, &resolved];
            for name in both {
                prop_assert!(gate.all(&both, needed).is_err() || gate.all(&[name], needed).is_ok());
                prop_assert!(gate.any(&both, needed).is_err() || gate.any(&[name], needed).is_ok());
            }
        }

        #[test]
        fn below_what_may_move_one_rule_holds(
            top in any_path(), below in any_path(),
            everywhere in any_permissions(),
            exceptions in proptest::collection::vec((any_path(), any_permissions()), 0..4),
        ) {
            let rules = PermissionRules::new(everywhere, exceptions);
            if (Gate { rules: &rules }).holds_no_rule(&[&top]).is_ok() {
                let inside = top.resolve(below.as_relative_bytes()).expect("a short path");
                prop_assert_eq!(rules.at(&inside), rules.at(&top));
            }
        }
    }
}
