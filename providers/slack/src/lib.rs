//! Slack.
//!
//! What is odd there: every answer has status 200 and says in `ok` whether it
//! worked; one sign-in gives a bot token and, inside `authed_user`, a user
//! token, each with scopes asked for by its own parameter and refreshed on its
//! own; scopes are separated by commas.

mod data;

use countersign_guest_sdk::prelude::*;
use countersign_guest_sdk::text::literal;

struct Slack;

/// Slack's MCP server takes user tokens only.
const MCP_HOST: &str = "mcp.slack.com";

impl Provider for Slack {
    fn describe(settings: &mut Settings) -> Result<Description, String> {
        let endpoints = [("v2", Endpoints::V2), ("v2_user", Endpoints::V2User)];
        let endpoints = settings
            .choice("endpoints", &endpoints)?
            .unwrap_or(Endpoints::V2);
        let act_as = settings.choice("act_as", &[("bot", "bot"), ("user", "user")])?;
        let user_scopes = settings.texts("user_scopes")?.unwrap_or_default();
        let team = settings.text("team")?;

        let mut description = Description::oauth2("slack", "Slack")
            .category("Communication")
            .documentation("https://docs.slack.dev/authentication/installing-with-oauth")
            .variant(VariantInfo::new(
                "v2",
                "Bot and user (oauth.v2)",
                endpoints == Endpoints::V2,
            ))
            .variant(VariantInfo::new(
                "v2_user",
                "User only (oauth.v2.user)",
                endpoints == Endpoints::V2User,
            ))
            .pkce(Pkce::Unsupported)
            .offline(Offline::AppSetting(
                "OAuth & Permissions: \"Token Rotation\". Without it tokens do not end.".into(),
            ))
            .audience(["slack.com", "files.slack.com", MCP_HOST])
            .token_answer(answer())
            .grant_difference(GrantDifference::Warn)
            .metadata(Metadata::new("team_id", "/team/id", ValueKind::Identifier))
            .metadata(Metadata::new(
                "enterprise_id",
                "/enterprise/id",
                ValueKind::Identifier,
            ))
            .metadata(Metadata::new(
                "user_id",
                "/authed_user/id",
                ValueKind::Identifier,
            ))
            .metadata(Metadata::new(
                "bot_user_id",
                "/bot_user_id",
                ValueKind::Identifier,
            ))
            .refresh(|refresh| {
                refresh.rotation = Rotation::Always;
                refresh.permanent_errors = [
                    "invalid_refresh_token",
                    "token_revoked",
                    "token_expired",
                    "account_inactive",
                ]
                .map(Into::into)
                .into();
                refresh.transient_errors = [
                    "ratelimited",
                    "internal_error",
                    "fatal_error",
                    "service_unavailable",
                ]
                .map(Into::into)
                .into();
            })
            .revocation([Revocation::new(
                Request::post("https://slack.com/api/auth.revoke")
                    .with_token()
                    .answer(answer()),
                RevocationEffect::Token,
                "Ends this token. The app stays installed in the workspace.",
            )])
            .identity(
                IdentityRequest::new(
                    Request::post("https://slack.com/api/auth.test")
                        .with_token()
                        .answer(answer()),
                    "/user_id",
                    ["/user"],
                )
                .tenant("/team_id"),
            )
            .mcp_server(
                McpServer::new("https://mcp.slack.com/mcp", "Slack MCP", "2026-08-07")
                    .registration(Registration::ApprovedClients)
                    .tools(data::TOOLS.iter().map(|tool| Tool::needs(tool, []))),
            );
        for (code, advice) in data::ADVICE {
            description = description.advise(code, advice);
        }
        if let Some(team) = team {
            if !team.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(
                    "setting `team` must be a workspace's identifier such as T0123456".into(),
                );
            }
            description = description.authorize_parameter("team", literal(team));
        }
        match endpoints {
            Endpoints::V2 => Ok(v2(description, act_as.unwrap_or("bot"), &user_scopes)),
            Endpoints::V2User if act_as == Some("bot") || !user_scopes.is_empty() => Err(
                "settings `act_as` and `user_scopes` are for `endpoints` v2: v2_user knows \
                     no bot"
                    .into(),
            ),
            Endpoints::V2User => Ok(v2_user(description)),
        }
    }

    fn evaluate(call: &Call, _: &Grant) -> Result<Verdict, String> {
        Ok(if call.host == MCP_HOST {
            Verdict::allow_as("user")
        } else {
            Verdict::allow()
        })
    }
}

export_preset!(Slack);

#[derive(Clone, Copy, PartialEq)]
enum Endpoints {
    V2,
    V2User,
}

fn answer() -> AnswerShape {
    AnswerShape::rfc6749()
        .success_when(Check::is_true("/ok"))
        .errors_at(["/error"], [])
}

fn shape(credential: &str, object: &str) -> TokenShape {
    let expires_in = [object, "/expires_in"].concat();
    TokenShape::below(credential, object)
        .expires([Expiry::Lifetime(expires_in), Expiry::Never])
        .scope_separators([","])
        .optional()
}

fn user() -> Credential {
    Credential::bearer("user", "User token")
}

fn bot() -> Credential {
    Credential::bearer("bot", "Bot token").hosts(["slack.com", "files.slack.com"])
}

fn v2(description: Description, act_as: &str, user_scopes: &[String]) -> Description {
    let of_users =
        |name: &str| data::of_users_only(name) || user_scopes.iter().any(|scope| scope == name);
    let scopes = data::SCOPES.iter().map(|(name, title)| {
        let parameter = if of_users(name) {
            "user_scope"
        } else {
            "scope"
        };
        Scope::new(name, title).parameter(parameter)
    });
    let more = user_scopes
        .iter()
        .filter(|name| data::SCOPES.iter().all(|(known, _)| known != name))
        .map(|name| Scope::new(name, name).parameter("user_scope"));
    let credentials = if act_as == "bot" {
        [bot(), user()]
    } else {
        [user(), bot()]
    };
    description
        .authorize("https://slack.com/oauth/v2/authorize")
        .token("https://slack.com/api/oauth.v2.access")
        .scope_parameters([("scope", ",", "bot"), ("user_scope", ",", "user")])
        .scopes(scopes.chain(more))
        .default_scopes(["channels:read", "chat:write"])
        .credentials(credentials)
        .token_shapes([
            shape("bot", "").when(Check::is("/token_type", "bot")),
            shape("user", "/authed_user"),
            // A user's refresh answers at the top, as a bot's does.
            shape("user", "").when(Check::is("/token_type", "user")),
        ])
}

fn v2_user(description: Description) -> Description {
    description
        .authorize("https://slack.com/oauth/v2_user/authorize")
        .token("https://slack.com/api/oauth.v2.user.access")
        .scope_parameters([("scope", ",", "user")])
        .scopes(
            data::SCOPES
                .iter()
                .map(|(name, title)| Scope::new(name, title)),
        )
        .default_scopes(["search:read.public", "channels:history", "users:read"])
        .credentials([user()])
        .token_shapes([shape("user", ""), shape("user", "/authed_user")])
}

#[cfg(test)]
mod tests;
