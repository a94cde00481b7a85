"""What most presets say alike: an ordinary provider (RFC 6749), as the
description that `wit/v0.1.0/description.wit` asks for, and the verdicts."""

from wit_world.exports import provider
from wit_world.imports import description as d
from wit_world.imports import types as t
from wit_world.imports.description import Scope

__all__ = ["Scope", "allow", "deny", "need", "oauth2", "text"]


def text(literal):
    """A template of nothing but text."""
    return [t.Part_Literal(literal)]


def allow():
    return provider.Verdict_Allow(provider.Allowance(None, []))


def deny(code, message):
    return provider.Verdict_Deny(provider.Refusal(code, message))


def need(*scopes):
    return provider.Verdict_NeedScopes(list(scopes))


def oauth2(*, name, display_name, version, authorize, token, audience, scopes, default_scopes):
    """A provider that speaks OAuth as RFC 6749 says; change what it does differently."""
    hosts = dict.fromkeys(url.split("/")[2] for url in (authorize, token))
    bearer = text("Bearer ") + [t.Part_Slot(t.Slot_AccessToken())]
    return d.Description(
        name=name,
        display_name=display_name,
        version=version,
        category="",
        documentation_url="",
        wants=d.Wants(0),
        arguments_of=[],
        hooks=d.Hooks(0),
        variables=[],
        variants=[],
        authorization_hosts=[text(host) for host in hosts],
        audience_hosts=[text(host) for host in audience],
        authorization=d.AuthorizationRequest(
            endpoint=text(authorize),
            parameters=[],
            incremental_parameters=[],
            suppress=[],
            scope_parameters=[d.ScopeParameter("scope", " ", None, False)],
            pkce=d.Pkce.SUPPORTED,
            offline=d.Offline_None_(),
        ),
        token_endpoint=text(token),
        device_authorization_endpoint=None,
        token_requests=[],
        token_answer=d.AnswerShape(
            success_codes=[],
            success_checks=[],
            error_code=["/error"],
            error_description=["/error_description"],
            may_be_form=False,
        ),
        token_shapes=[
            d.TokenShape(
                credential="user",
                when=[],
                optional=False,
                access_token=["/access_token"],
                refresh_token=["/refresh_token"],
                id_token=["/id_token"],
                expires=[d.Expiry_Lifetime("/expires_in")],
                refresh_expires=[],
                scopes=["/scope"],
                scope_separators=[" "],
            )
        ],
        metadata=[],
        grant_difference=d.GrantDifference.ACCEPT,
        scopes=scopes,
        default_scopes=default_scopes,
        refresh=d.Refresh(
            kind=d.RefreshKind.REFRESH_TOKEN,
            rotation=d.Rotation.SOMETIMES,
            grace_seconds=0,
            retry_after_lost_answer=False,
            ends_access_token=False,
            idle_days=None,
            margin_percent=10,
            permanent_errors=[],
            transient_errors=[],
        ),
        revocation=[],
        follow_ups=[],
        identity=None,
        credentials=[
            d.Credential(
                name="user",
                title="Access token",
                hosts=[],
                rules=[t.Rule_SetHeader(t.Header("authorization", bearer))],
                sigv4=None,
            )
        ],
        constant_headers=[],
        mcp_servers=[],
        error_advice=[],
    )
