//! The layout, and the headers every page is sent with.

use axum::response::{Html, IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use maud::{DOCTYPE, Markup, html};

use crate::assets::style_href;
use crate::parts::{Look, actions, button, card, form, link_button};

/// Who is signed in, for the bar at the top.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The session's CSRF token, for the sign-out button.
    pub csrf: &'a str,
    /// Whether to show the way to administration.
    pub admin: bool,
}

/// A whole page on its way out.
pub struct Page<'a> {
    title: String,
    viewer: Option<Viewer<'a>>,
    narrow: bool,
    status: StatusCode,
    form_targets: Vec<String>,
    body: Markup,
}

impl<'a> Page<'a> {
    /// An empty page with this title.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            viewer: None,
            narrow: false,
            status: StatusCode::OK,
            form_targets: Vec::new(),
            body: html! {},
        }
    }

    /// Shows the bar with navigation and sign-out.
    #[must_use]
    pub fn viewer(mut self, viewer: Viewer<'a>) -> Self {
        self.viewer = Some(viewer);
        self
    }

    /// One centred column: for a single question.
    #[must_use]
    pub fn narrow(mut self) -> Self {
        self.narrow = true;
        self
    }

    /// The HTTP status; 200 when not said.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// A CSP source that a form of this page may end at by redirect (an origin,
    /// or a scheme with its colon). Browsers check `form-action` on the
    /// redirects that follow a form too. Anything that is not one plain source
    /// is left out, which can only make the policy stricter.
    #[must_use]
    pub fn form_target(mut self, source: impl Into<String>) -> Self {
        let source = source.into();
        if source
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b";,'\"".contains(&b))
        {
            self.form_targets.push(source);
        }
        self
    }

    /// What is on it, below the title.
    #[must_use]
    pub fn body(mut self, body: Markup) -> Self {
        self.body = body;
        self
    }

    fn markup(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) " · Countersign" }
                    link rel="icon" href="/assets/mark.svg" type="image/svg+xml";
                    link rel="stylesheet" href=(style_href());
                }
                body {
                    a.skip href="#content" { "Skip to content" }
                    @if let Some(viewer) = &self.viewer { (top(viewer)) }
                    main #content .narrow[self.narrow] {
                        @if self.narrow && self.viewer.is_none() {
                            div.crest { img src="/assets/mark.svg" alt=""; span { "Countersign" } }
                        }
                        h1 { (self.title) }
                        (self.body)
                    }
                }
            }
        }
    }

    fn policy(&self) -> String {
        let mut policy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; \
                          frame-ancestors 'none'; form-action 'self'"
            .to_owned();
        for target in &self.form_targets {
            policy.push(' ');
            policy.push_str(target);
        }
        policy
    }
}

fn top(viewer: &Viewer<'_>) -> Markup {
    html! {
        header.top {
            div {
                a.brand href="/connections" { img src="/assets/mark.svg" alt=""; "Countersign" }
                nav aria-label="Main" {
                    a href="/connections" { "Connections" }
                    @if viewer.admin { a href="/admin" { "Administration" } }
                }
                div.who {
                    span { (viewer.name) }
                    (form("/logout", viewer.csrf, button(Look::Plain, "Sign out")))
                }
            }
        }
    }
}

impl IntoResponse for Page<'_> {
    fn into_response(self) -> Response {
        let policy = HeaderValue::from_str(&self.policy()).unwrap_or(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
        let fixed: [(HeaderName, &str); 5] = [
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            // Not `no-referrer`: it makes browsers send `Origin: null` with our own forms.
            (REFERRER_POLICY, "same-origin"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
        ];
        let status = self.status;
        let mut response = (status, fixed, Html(self.markup().into_string())).into_response();
        response
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, policy);
        response
    }
}

/// A page that only says something, with a way on.
#[must_use]
pub fn message(status: StatusCode, title: &str, text: &str) -> Response {
    Page::new(title)
        .narrow()
        .status(status)
        .body(card(
            "",
            html! {
                p { (text) }
                (actions(link_button(Look::Primary, "Go to your connections", "/connections")))
            },
        ))
        .into_response()
}
