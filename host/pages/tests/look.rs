//! What every page promises.

use axum::response::IntoResponse as _;
use countersign_core::time::Timestamp;
use countersign_pages::parts::{
    Field, Look, Tone, field, form, link_button, notice, scopes, select, state_card, time,
};
use countersign_pages::{Page, Viewer, assets, message};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use maud::html;
use tower::ServiceExt as _;

async fn text(response: axum::response::Response) -> String {
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("body")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("utf-8")
}

#[test]
fn whatever_is_put_in_comes_out_escaped() {
    let evil = "\"><script>alert(1)</script>";
    let drawn = [
        notice(Tone::Bad, evil),
        field(&Field::text(evil, evil).value(evil).hint(evil)),
        select(evil, evil, &[(evil, evil)], evil),
        form(evil, evil, html! { (evil) }),
        scopes([(evil, Some(evil)), (evil, None)]),
        state_card(evil, Tone::Good, evil, html! { (evil) }),
    ];
    for markup in drawn {
        let text = markup.into_string();
        assert!(!text.contains("<script"), "{text}");
        assert!(!text.contains(evil), "{text}");
    }
}

#[test]
fn a_password_is_never_filled_in() {
    let drawn = field(&Field::password("Password", "password").value("hush")).into_string();
    assert!(!drawn.contains("hush"));
}

#[test]
fn a_time_reads_for_people_and_is_exact_for_programs() {
    let at = Timestamp::parse("2026-11-21T07:24:59.681Z").expect("RFC 3339");
    assert_eq!(
        time(at).into_string(),
        "<time datetime=\"2026-11-21T07:24:59.681Z\">2026-11-21 07:24 UTC</time>"
    );
    let never = time(Timestamp::from_millis(i64::MIN)).into_string();
    assert!(never.contains("009999"), "{never}");
}

#[test]
fn a_link_button_leads_only_to_this_host() {
    for bad in [
        "https://evil.example",
        "//evil.example",
        "javascript:alert(1)",
        "/\\evil.example",
    ] {
        assert!(
            !link_button(Look::Plain, "Go", bad)
                .into_string()
                .contains("href"),
            "{bad}"
        );
    }
    assert!(
        link_button(Look::Plain, "Go", "/connections")
            .into_string()
            .contains("href")
    );
}

#[tokio::test]
async fn a_page_allows_no_script_and_no_frame_and_is_not_stored() {
    let viewer = Viewer {
        name: "alice",
        csrf: "tok",
        admin: false,
    };
    let page = Page::new("Hi")
        .viewer(viewer)
        .form_target("https://agent.example")
        .form_target("x; script-src *");
    let response = page.body(html! { p { "there" } }).into_response();
    let csp = response.headers()["content-security-policy"]
        .to_str()
        .expect("ascii")
        .to_owned();
    assert!(
        csp.starts_with("default-src 'none';") && csp.contains("frame-ancestors 'none'"),
        "{csp}"
    );
    assert!(
        csp.ends_with("form-action 'self' https://agent.example"),
        "{csp}"
    );
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["referrer-policy"], "same-origin");
    let body = text(response).await;
    assert!(
        !body.contains("<script") && !body.contains("style=\""),
        "{body}"
    );
    assert!(body.contains("name=\"csrf\" value=\"tok\""), "{body}");
    assert!(!body.contains("/admin"), "{body}");
}

#[tokio::test]
async fn the_style_sheet_is_found_where_the_page_says() {
    let body = text(message(
        StatusCode::NOT_FOUND,
        "Nothing here",
        "Look elsewhere.",
    ))
    .await;
    let (_, rest) = body
        .split_once("rel=\"stylesheet\" href=\"")
        .expect("a link");
    let (href, _) = rest.split_once('"').expect("closed");
    let request = Request::get(href)
        .body(axum::body::Body::empty())
        .expect("request");
    let response = assets::<()>().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        response.headers()["content-type"],
        "text/css; charset=utf-8"
    );
    assert!(href.contains("?v="));
}
