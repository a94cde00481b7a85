//! What each tool of GitHub's own MCP server needs, from its published table
//! (README and `pkg/scopes/scopes.go`, 2026-08-20). Scopes that include a
//! needed one are known from the scope table.

use countersign_guest_sdk::prelude::*;

/// Scopes that are all needed, and the tools that need them.
const ALL_OF: &[(&[&str], &[&str])] = &[
    (
        &["repo"],
        &[
            "actions_get",
            "actions_list",
            "actions_run_trigger",
            "get_job_logs",
            "get_code_quality_finding",
            "assign_copilot_to_issue",
            "request_copilot_review",
            "assign_copilot_to_issue_with_intent",
            "discussion_comment_write",
            "get_discussion",
            "get_discussion_comments",
            "list_discussion_categories",
            "list_discussions",
            "get_repository_tree",
            "add_issue_comment",
            "get_label",
            "issue_read",
            "issue_write",
            "list_issues",
            "search_issues",
            "sub_issue_write",
            "label_write",
            "list_label",
            "add_comment_to_pending_review",
            "add_reply_to_pull_request_comment",
            "create_pull_request",
            "list_pull_requests",
            "merge_pull_request",
            "pull_request_read",
            "pull_request_review_write",
            "search_pull_requests",
            "update_pull_request",
            "update_pull_request_branch",
            "create_branch",
            "create_or_update_file",
            "delete_file",
            "get_commit",
            "get_file_contents",
            "get_latest_release",
            "get_release_by_tag",
            "get_tag",
            "list_branches",
            "list_commits",
            "list_releases",
            "list_repository_collaborators",
            "list_tags",
            "push_files",
            "search_code",
            "search_commits",
            "search_repositories",
            "list_starred_repositories",
            "star_repository",
            "unstar_repository",
            "search_users",
        ],
    ),
    (
        &["security_events"],
        &[
            "get_code_scanning_alert",
            "list_code_scanning_alerts",
            "get_dependabot_alert",
            "list_dependabot_alerts",
            "get_secret_scanning_alert",
            "list_secret_scanning_alerts",
            "get_global_security_advisory",
            "list_global_security_advisories",
            "list_org_repository_security_advisories",
            "list_repository_security_advisories",
        ],
    ),
    (&[], &["get_me", "get_gist", "list_gists"]),
    (
        &["read:org"],
        &["get_team_members", "get_teams", "search_orgs"],
    ),
    (&["gist"], &["create_gist", "update_gist"]),
    (
        &["notifications"],
        &[
            "dismiss_notification",
            "get_notification_details",
            "list_notifications",
            "manage_notification_subscription",
            "manage_repository_notification_subscription",
            "mark_all_notifications_read",
        ],
    ),
    (&["read:project"], &["projects_get", "projects_list"]),
    (&["project"], &["projects_write"]),
    (&["delete_repo", "repo"], &["delete_repository"]),
];

/// Scopes of which one is enough.
const ANY_OF: &[(&[&str], &[&str])] = &[(
    &["repo", "read:org"],
    &["list_issue_fields", "list_issue_types"],
)];

/// The remote server has them; what they need is not published.
const UNPUBLISHED: &[&str] = &[
    "create_pull_request_with_copilot",
    "get_copilot_space",
    "list_copilot_spaces",
    "github_support_docs_search",
];

pub(crate) fn all() -> impl Iterator<Item = Tool> {
    let all_of = ALL_OF.iter().flat_map(|(scopes, tools)| {
        tools
            .iter()
            .map(|tool| Tool::needs(tool, scopes.iter().copied()))
    });
    let any_of = ANY_OF.iter().flat_map(|(scopes, tools)| {
        tools
            .iter()
            .map(|tool| Tool::needs_any(tool, scopes.iter().copied()))
    });
    let unpublished = UNPUBLISHED.iter().map(|tool| Tool::needs(tool, []));
    let by_arguments = crate::BY_ARGUMENTS.iter().map(|tool| Tool::broad(tool));
    all_of.chain(any_of).chain(unpublished).chain(by_arguments)
}
