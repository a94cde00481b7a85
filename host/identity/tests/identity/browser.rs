//! What comes back, and a browser that keeps cookies.

use std::collections::BTreeMap;

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use url::Url;

use crate::support::{HOST, House, PASSWORD, authorize_path, encode};

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }

    /// A parameter of the redirect's query.
    pub(crate) fn sent(&self, name: &str) -> Option<String> {
        let url = Url::parse(self.location()).unwrap();
        url.query_pairs()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.into_owned())
    }

    /// The value of a hidden field.
    pub(crate) fn hidden(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .body
            .split_once(&mark)
            .unwrap_or_else(|| panic!("no {name} in {}", self.body));
        rest.split_once('"').unwrap().0.to_owned()
    }
}

pub(crate) struct Browser<'a> {
    house: &'a House,
    pub(crate) cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(house: &'a House) -> Self {
        Self {
            house,
            cookies: BTreeMap::new(),
        }
    }

    pub(crate) async fn signed_in(house: &'a House, name: &str) -> Self {
        let mut browser = Self::new(house);
        let answer = browser.sign_in_with(name, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser
    }

    pub(crate) fn cookie_line(&self) -> String {
        self.cookies
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect::<Vec<_>>()
            .join("; ")
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", self.cookie_line().parse().unwrap());
        headers
    }

    fn keep(&mut self, answer: &Answer) {
        for line in answer.headers.get_all("set-cookie") {
            let (pair, _) = line.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), value.into());
            }
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path).header("cookie", self.cookie_line());
        let answer = self.house.send(request.body(Body::empty()).unwrap()).await;
        self.keep(&answer);
        answer
    }

    pub(crate) async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.post_from(path, form, &[("origin", HOST)]).await
    }

    pub(crate) async fn post_from(
        &mut self,
        path: &str,
        form: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::post(path)
            .header("cookie", self.cookie_line())
            .header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self
            .house
            .send(request.body(Body::from(encode(form))).unwrap())
            .await;
        self.keep(&answer);
        answer
    }

    pub(crate) async fn sign_in_with(&mut self, name: &str, password: &str) -> Answer {
        let csrf = self.get("/login").await.hidden("csrf");
        self.post(
            "/login",
            &[("csrf", &csrf), ("username", name), ("password", password)],
        )
        .await
    }

    pub(crate) async fn choose_password(&mut self, password: &str) -> Answer {
        let csrf = self.get("/login/new-password").await.hidden("csrf");
        let form = [
            ("csrf", csrf.as_str()),
            ("new_password", password),
            ("new_password_again", password),
        ];
        self.post("/login/new-password", &form).await
    }

    /// Opens the request, presses the button; gives the redirect.
    pub(crate) async fn answer_consent(&mut self, path: &str, decision: &str) -> Answer {
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let (csrf, request, team) = (
            page.hidden("csrf"),
            page.hidden("request"),
            page.hidden("team"),
        );
        let form = [
            ("csrf", csrf.as_str()),
            ("request", request.as_str()),
            ("team", team.as_str()),
            ("decision", decision),
        ];
        self.post("/oauth2/authorize", &form).await
    }

    pub(crate) async fn code(&mut self, client: &str, redirect: &str, resource: &str) -> String {
        let path = authorize_path(client, redirect, resource, &[]);
        let answer = self.answer_consent(&path, "allow").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        answer
            .sent("code")
            .unwrap_or_else(|| panic!("no code in {}", answer.location()))
    }
}
