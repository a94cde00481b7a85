//! Google: sign-in, Workspace, Gmail, Drive and BigQuery.
//!
//! What is odd there: a refresh token is only given when it is asked for by
//! parameters, and again only with a new consent; refresh answers leave it
//! out; users can untick scopes; scopes are URLs; and new ones can be asked
//! for on top of granted ones.

mod products;

use countersign_guest_sdk::prelude::*;
use products::PRODUCTS;

struct Google;

impl Provider for Google {
    fn describe(settings: &mut Settings) -> Result<Description, String> {
        let chosen = settings.texts("products")?;
        if let Some(unknown) = chosen
            .iter()
            .flatten()
            .find(|name| PRODUCTS.iter().all(|product| product.name != name.as_str()))
        {
            let known: Vec<_> = PRODUCTS.iter().map(|product| product.name).collect();
            return Err([
                "setting `products`: there is no `",
                unknown,
                "`, only ",
                &known.join(", "),
            ]
            .concat());
        }
        let mut description = Description::oauth2("google", "Google")
            .category("Productivity")
            .documentation("https://developers.google.com/identity/protocols/oauth2/web-server")
            .authorize("https://accounts.google.com/o/oauth2/v2/auth")
            .token("https://oauth2.googleapis.com/token")
            .device("https://oauth2.googleapis.com/device/code")
            .offline(Offline::by_parameters([
                ("access_type", "offline"),
                ("prompt", "consent"),
            ]))
            .incremental_parameter("include_granted_scopes", "true")
            .default_scopes(["openid", "email", "profile"])
            .grant_difference(GrantDifference::Warn)
            .refresh(|refresh| {
                refresh.rotation = Rotation::Never;
                refresh.retry_after_lost_answer = true;
                refresh.idle_days = Some(180);
            })
            .revocation(["{$refresh-token}", "{$access-token}"].map(|token| {
                Revocation::new(
                    Request::post("https://oauth2.googleapis.com/revoke").form([("token", token)]),
                    RevocationEffect::Grant,
                    "Ends all access of this app to the account.",
                )
            }))
            .identity(IdentityRequest::new(
                Request::get("https://openidconnect.googleapis.com/v1/userinfo").with_token(),
                "/sub",
                ["/email", "/name"],
            ))
            .advise(
                "redirect_uri_mismatch",
                "Register this gateway's callback address in the OAuth client.",
            )
            .advise(
                "admin_policy_enforced",
                "An administrator of the Google account has to allow this app.",
            )
            .advise(
                "org_internal",
                "The app is for members of its own organisation only.",
            )
            .advise(
                "invalid_grant",
                "Google ended the access: it was withdrawn, unused for six months, or the consent \
                 screen is in testing, where access ends after seven days.",
            );
        for grant in [
            GrantType::AuthorizationCode,
            GrantType::RefreshToken,
            GrantType::DeviceCode,
        ] {
            description =
                description.token_request(TokenRequest::new(grant).client_authentication([
                    ClientAuthentication::ClientSecretPost,
                    ClientAuthentication::ClientSecretBasic,
                ]));
        }
        // Sign-in always belongs: without it nobody knows whose account it is.
        let wanted = |name: &str| {
            name == "identity"
                || chosen
                    .as_ref()
                    .is_none_or(|chosen| chosen.iter().any(|c| c == name))
        };
        for product in PRODUCTS.iter().filter(|product| wanted(product.name)) {
            description = product.describe(description);
        }
        Ok(description)
    }
}

export_preset!(Google);

#[cfg(test)]
mod tests;
