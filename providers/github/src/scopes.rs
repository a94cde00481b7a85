//! GitHub's scopes and which include which.

use countersign_guest_sdk::prelude::*;

const SCOPES: &[(&str, &str, &[&str])] = &[
    (
        "repo",
        "Repositories, private ones too",
        &[
            "public_repo",
            "security_events",
            "repo:status",
            "repo_deployment",
            "repo:invite",
        ],
    ),
    ("public_repo", "Public repositories", &[]),
    ("security_events", "Security alerts", &[]),
    ("repo:status", "Commit statuses", &[]),
    ("repo_deployment", "Deployments", &[]),
    ("repo:invite", "Invitations to repositories", &[]),
    ("delete_repo", "Delete repositories", &[]),
    ("workflow", "Edit workflow files", &[]),
    (
        "admin:org",
        "Manage organisations",
        &["write:org", "read:org"],
    ),
    ("write:org", "Change memberships", &["read:org"]),
    ("read:org", "Read memberships", &[]),
    ("gist", "Write gists", &[]),
    ("notifications", "Notifications", &[]),
    ("project", "Write projects", &["read:project"]),
    ("read:project", "Read projects", &[]),
    (
        "user",
        "Own profile",
        &["read:user", "user:email", "user:follow"],
    ),
    ("read:user", "Read own profile", &[]),
    ("user:email", "Read e-mail addresses", &[]),
    ("user:follow", "Follow users", &[]),
    ("write:packages", "Publish packages", &["read:packages"]),
    ("read:packages", "Download packages", &[]),
    ("delete:packages", "Delete packages", &[]),
    (
        "admin:repo_hook",
        "Manage hooks",
        &["write:repo_hook", "read:repo_hook"],
    ),
    ("write:repo_hook", "Write hooks", &["read:repo_hook"]),
    ("read:repo_hook", "Read hooks", &[]),
    ("codespace", "Codespaces", &[]),
    ("read:audit_log", "Audit log", &[]),
];

pub(crate) fn all() -> impl Iterator<Item = Scope> {
    SCOPES
        .iter()
        .map(|(name, title, implies)| Scope::new(name, title).implies(implies.iter().copied()))
}
