//! GitHub: github.com, tenants of ghe.com and GitHub Enterprise Server.
//!
//! What is odd there: refusals come with status 200, token answers are
//! form-encoded unless JSON is asked for, granted scopes come back without the
//! implied ones and with commas, OAuth apps' tokens never end while GitHub
//! apps' do, and revocation is a DELETE with a body.

mod scopes;
mod tools;

use countersign_guest_sdk::prelude::*;

struct GitHub;

/// Whose needs depend on the arguments: public repositories take less.
const BY_ARGUMENTS: [&str; 2] = ["create_repository", "fork_repository"];

impl Provider for GitHub {
    fn describe(settings: &mut Settings) -> Result<Description, String> {
        let host = settings
            .text("host")?
            .unwrap_or_else(|| "github.com".into());
        let site = Site::of(&host)?;
        let api_version = settings
            .text("api_version")?
            .unwrap_or_else(|| "2022-11-28".into());
        if !api_version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
        {
            return Err("setting `api_version` must be a date such as 2022-11-28".into());
        }

        let api = site.api();
        let mut description = Description::oauth2("github", "GitHub")
            .category("Code & Dev")
            .documentation("https://docs.github.com/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps")
            .variable(
                Variable::setting("host", "Host of GitHub", ValueKind::Host(vec![host.clone()]))
                    .or("github.com"),
            )
            .authorize("https://{host}/login/oauth/authorize")
            .token("https://{host}/login/oauth/access_token")
            .device("https://{host}/login/device/code")
            .audience(site.audience().iter().copied())
            .offline(Offline::AppSetting(
                "GitHub apps: \"User-to-server token expiration\". OAuth apps' tokens do not end."
                    .into(),
            ))
            .scopes(scopes::all())
            .default_scopes(["repo", "read:org", "read:user", "user:email"])
            .token_answer(
                AnswerShape::rfc6749().or_form().success_when(Check::lacks("/error")),
            )
            .token_shapes([TokenShape::rfc6749("user")
                .expires([Expiry::Lifetime("/expires_in".into()), Expiry::Never])
                .refresh_expires([Expiry::Lifetime("/refresh_token_expires_in".into())])
                .scope_separators([",", " "])])
            // Implied scopes are left out of the answer.
            .grant_difference(GrantDifference::Accept)
            .refresh(|refresh| {
                refresh.rotation = Rotation::Always;
                refresh.permanent_errors = vec!["bad_refresh_token".into()];
            })
            .revocation([Revocation::new(
                Request::delete([api, "/applications/{$client-id}/token"].concat())
                    .with_client()
                    .header("accept", "application/vnd.github+json")
                    .header("user-agent", "countersign")
                    .json([("access_token", "{$access-token}")])
                    .answer(AnswerShape::rfc6749().errors_at([], ["/message"])),
                RevocationEffect::Token,
                "Ends this token. The app stays in the list of authorised apps.",
            )])
            .identity(IdentityRequest::new(
                Request::get([api, "/user"].concat())
                    .with_token()
                    .header("accept", "application/vnd.github+json")
                    .header("user-agent", "countersign"),
                "/id",
                ["/login"],
            ))
            .constant_header("user-agent", "countersign")
            .constant_header("x-github-api-version", countersign_guest_sdk::text::literal(api_version))
            .wants_arguments_of(BY_ARGUMENTS)
            .advise("redirect_uri_mismatch", "Register this gateway's callback address in the OAuth app.")
            .advise("incorrect_client_credentials", "The client secret is wrong or was replaced.")
            .advise("bad_verification_code", "The code was used or is older than ten minutes: connect again.")
            .advise("application_suspended", "GitHub suspended the OAuth app: its owner has to ask GitHub.")
            .advise("unverified_user_email", "Verify the e-mail address of the account at GitHub first.");
        for grant in [
            GrantType::AuthorizationCode,
            GrantType::RefreshToken,
            GrantType::DeviceCode,
        ] {
            description = description.token_request(
                TokenRequest::new(grant)
                    .header("accept", "application/json")
                    .header("user-agent", "countersign")
                    .client_authentication([
                        ClientAuthentication::ClientSecretPost,
                        ClientAuthentication::ClientSecretBasic,
                    ]),
            );
        }
        if site == Site::Public {
            description = description.mcp_server(
                McpServer::new(
                    "https://api.githubcopilot.com/mcp/",
                    "GitHub MCP",
                    "2026-08-20",
                )
                .tools(tools::all()),
            );
        }
        Ok(description)
    }

    fn evaluate(call: &Call, grant: &Grant) -> Result<Verdict, String> {
        let by_arguments = call.tool().is_some_and(|tool| BY_ARGUMENTS.contains(&tool));
        if !by_arguments || is_granted(grant, &["repo"]) {
            return Ok(Verdict::allow());
        }
        // Only a plain `false` is public: what is not said may be private.
        let public = Arguments::of(call)?.flag("private") == Some(false);
        Ok(match (public, is_granted(grant, &["public_repo"])) {
            (true, true) => Verdict::allow(),
            (true, false) => Verdict::need(["public_repo"]),
            (false, _) => Verdict::need(["repo"]),
        })
    }
}

export_preset!(GitHub);

/// The three kinds of GitHub, which differ in where their API lives.
#[derive(Clone, Copy, PartialEq)]
enum Site {
    Public,
    /// `TENANT.ghe.com`
    Tenant,
    /// Enterprise Server
    Server,
}

impl Site {
    fn of(host: &str) -> Result<Self, String> {
        let well_formed = host.contains('.')
            && !host.starts_with('.')
            && host
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
        if !well_formed {
            return Err("setting `host` must be a host name in lower case, such as \
                        github.example.com"
                .into());
        }
        Ok(match host {
            "github.com" => Self::Public,
            _ if host.ends_with(".ghe.com") => Self::Tenant,
            _ => Self::Server,
        })
    }

    fn api(self) -> &'static str {
        match self {
            Self::Public => "https://api.github.com",
            Self::Tenant => "https://api.{host}",
            Self::Server => "https://{host}/api/v3",
        }
    }

    fn audience(self) -> &'static [&'static str] {
        match self {
            Self::Public => &[
                "api.github.com",
                "uploads.github.com",
                "raw.githubusercontent.com",
                "api.githubcopilot.com",
            ],
            Self::Tenant => &["api.{host}", "{host}"],
            Self::Server => &["{host}"],
        }
    }
}

#[cfg(test)]
mod tests;
