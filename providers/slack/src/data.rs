//! Slack's scopes, tools and error codes.

pub(crate) const SCOPES: &[(&str, &str)] = &[
    ("channels:read", "See public channels"),
    ("channels:history", "Read public channels"),
    ("groups:read", "See private channels"),
    ("groups:history", "Read private channels"),
    ("im:read", "See direct messages"),
    ("im:history", "Read direct messages"),
    ("mpim:read", "See group messages"),
    ("mpim:history", "Read group messages"),
    ("chat:write", "Post messages"),
    ("chat:write.public", "Post where it has not joined"),
    ("users:read", "See people"),
    ("users:read.email", "See e-mail addresses"),
    ("files:read", "Read files"),
    ("files:write", "Upload files"),
    ("reactions:read", "See reactions"),
    ("reactions:write", "React"),
    ("search:read", "Search"),
    ("search:read.public", "Search public channels"),
    ("search:read.private", "Search private channels"),
    ("search:read.im", "Search direct messages"),
    ("search:read.files", "Search files"),
    ("search:read.users", "Search people"),
    ("canvases:read", "Read canvases"),
    ("canvases:write", "Write canvases"),
    ("team:read", "See the workspace"),
];

/// Slack gives these to users, never to bots.
pub(crate) fn of_users_only(scope: &str) -> bool {
    scope.starts_with("search:read")
}

/// Slack does not publish what each needs.
pub(crate) const TOOLS: &[&str] = &[
    "slack_add_reaction",
    "slack_create_canvas",
    "slack_create_conversation",
    "slack_get_reactions",
    "slack_list_channel_members",
    "slack_read_canvas",
    "slack_read_channel",
    "slack_read_file",
    "slack_read_thread",
    "slack_read_user_profile",
    "slack_schedule_message",
    "slack_search_channels",
    "slack_search_emojis",
    "slack_search_public",
    "slack_search_public_and_private",
    "slack_search_users",
    "slack_send_message",
    "slack_send_message_draft",
    "slack_update_canvas",
];

pub(crate) const ADVICE: &[(&str, &str)] = &[
    (
        "bad_redirect_uri",
        "Register this gateway's callback address in the Slack app.",
    ),
    (
        "bad_client_secret",
        "The client secret is wrong or was replaced.",
    ),
    (
        "invalid_code",
        "The code was used or is too old: connect again.",
    ),
    (
        "invalid_team_for_non_distributed_app",
        "The Slack app is not distributed: it can only be used in its own workspace.",
    ),
    (
        "org_login_required",
        "The workspace is moving to Enterprise Grid: sign in again there.",
    ),
    (
        "not_allowed_token_type",
        "This needs the other kind of token: bot or user.",
    ),
];
