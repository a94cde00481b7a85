//! A browser without a screen and without scripts: it keeps cookies, follows
//! redirects and presses buttons.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use http::HeaderMap;
use http::header::{COOKIE, LOCATION, ORIGIN, REFERER, SET_COOKIE};
use reqwest::Method;
use scraper::{ElementRef, Html, Selector};
use url::Url;

use crate::host::Host;
use crate::web::Web;

const MOST_REDIRECTS: usize = 20;

/// A browser with its cookies. As in a real one, cookies know no port.
pub struct Browser {
    web: Web,
    /// By host, name and path.
    cookies: BTreeMap<(String, String, String), String>,
    /// Redirects to addresses that begin so are not followed: nothing listens
    /// there.
    pub stops: Vec<String>,
}

/// A page that was reached.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where.
    pub url: Url,
    /// The HTTP status; of the redirect, if it was not followed.
    pub status: u16,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// What is on it.
    pub html: String,
}

/// A form, with what would be sent.
struct Form {
    action: String,
    method: Method,
    fields: Vec<(String, String)>,
    inputs: Vec<String>,
    buttons: Vec<(String, Option<(String, String)>)>,
}

fn select(selector: &str) -> Selector {
    Selector::parse(selector).expect("selectors here are constants")
}

fn text_of(element: ElementRef<'_>) -> String {
    let text: String = element.text().collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Page {
    /// What a reader sees, in one line.
    pub fn text(&self) -> String {
        text_of(Html::parse_document(&self.html).root_element())
    }

    /// The labels of all buttons.
    pub fn buttons(&self) -> Vec<String> {
        self.forms()
            .into_iter()
            .flat_map(|form| form.buttons)
            .map(|(label, _)| label)
            .collect()
    }

    /// Where a link of this label leads.
    pub fn link(&self, label: &str) -> Option<Url> {
        let document = Html::parse_document(&self.html);
        let links = select("a[href]");
        let found = document.select(&links).find(|a| text_of(*a) == label)?;
        self.url.join(found.attr("href")?).ok()
    }

    /// Whether there is a field of this name.
    pub fn asks_for(&self, field: &str) -> bool {
        self.forms()
            .iter()
            .any(|form| form.inputs.iter().any(|name| name == field))
    }

    /// A parameter of the address.
    pub fn query(&self, name: &str) -> Option<String> {
        let mut pairs = self.url.query_pairs();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    fn forms(&self) -> Vec<Form> {
        let document = Html::parse_document(&self.html);
        let (inputs, buttons) = (select("input"), select("button, input[type=submit]"));
        let forms = select("form");
        let parse = |form: ElementRef<'_>| {
            let mut it = Form {
                action: form.attr("action").unwrap_or_default().into(),
                method: match form.attr("method") {
                    Some(method) if method.eq_ignore_ascii_case("post") => Method::POST,
                    _ => Method::GET,
                },
                fields: Vec::new(),
                inputs: Vec::new(),
                buttons: Vec::new(),
            };
            for input in form.select(&inputs) {
                let Some(name) = input.attr("name") else {
                    continue;
                };
                it.inputs.push(name.into());
                let kind = input.attr("type").unwrap_or("text");
                let ticks = matches!(kind, "checkbox" | "radio");
                if kind != "submit" && (!ticks || input.attr("checked").is_some()) {
                    let usual = if ticks { "on" } else { "" };
                    let value = input.attr("value").unwrap_or(usual);
                    it.fields.push((name.into(), value.into()));
                }
            }
            for button in form.select(&buttons) {
                let label = match button.attr("value") {
                    Some(value) if button.value().name() == "input" => value.to_owned(),
                    _ => text_of(button),
                };
                let sends = button
                    .attr("name")
                    .map(|name| (name.into(), button.attr("value").unwrap_or_default().into()));
                it.buttons.push((label, sends));
            }
            it
        };
        document.select(&forms).map(parse).collect()
    }
}

impl Browser {
    /// A fresh one.
    ///
    /// # Errors
    /// If its client cannot be set up.
    pub fn new() -> Result<Self> {
        Ok(Self {
            web: Web::new()?,
            cookies: BTreeMap::new(),
            stops: Vec::new(),
        })
    }

    /// Goes to an address and follows redirects.
    ///
    /// # Errors
    /// Of the transport, or too many redirects.
    pub async fn open(&mut self, address: &str) -> Result<Page> {
        let url = Url::parse(address).with_context(|| format!("{address:?} is no address"))?;
        self.go(Method::GET, url, Vec::new(), None).await
    }

    /// Presses the button with this label; `fields` are typed in before.
    ///
    /// # Errors
    /// If there is no such button, or as [`Browser::open`].
    pub async fn press(
        &mut self,
        page: &Page,
        label: &str,
        fields: &[(&str, &str)],
    ) -> Result<Page> {
        let Some(form) = page
            .forms()
            .into_iter()
            .find(|form| form.buttons.iter().any(|(there, _)| there == label))
        else {
            bail!(
                "{} has no button {label:?}, but {:?}:\n{}",
                page.url,
                page.buttons(),
                page.text()
            );
        };
        let mut send = form.fields;
        for (name, value) in fields {
            send.retain(|(there, _)| there != name);
            send.push(((*name).into(), (*value).into()));
        }
        let pressed = form.buttons.into_iter().find(|(there, _)| there == label);
        send.extend(pressed.and_then(|(_, sends)| sends));
        let mut target = match form.action.as_str() {
            "" => page.url.clone(),
            action => page.url.join(action)?,
        };
        if form.method == Method::GET {
            target.query_pairs_mut().clear().extend_pairs(&send);
            send.clear();
        }
        self.go(form.method, target, send, Some(page)).await
    }

    /// All cookies, as `name=value`.
    pub fn cookies(&self) -> Vec<String> {
        let pair =
            |((_, name, _), value): (&(String, String, String), &String)| format!("{name}={value}");
        self.cookies.iter().map(pair).collect()
    }

    /// The values of all cookies: secrets, mostly.
    pub fn cookie_values(&self) -> Vec<String> {
        self.cookies.values().cloned().collect()
    }

    /// The cookies that go to this address.
    pub fn cookie_header(&self, url: &Url) -> String {
        let host = url.host_str().unwrap_or_default();
        let path = url.path();
        let matches = |of: &str| {
            path.strip_prefix(of)
                .is_some_and(|rest| of.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
        };
        let mut sent: Vec<_> = self
            .cookies
            .iter()
            .filter(|((on, _, at), _)| on == host && matches(at))
            .collect();
        // RFC 6265 §5.4: longer paths first.
        sent.sort_by_key(|((_, _, at), _)| std::cmp::Reverse(at.len()));
        sent.iter()
            .map(|((_, name, _), value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("; ")
    }

    async fn go(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut form: Vec<(String, String)>,
        from: Option<&Page>,
    ) -> Result<Page> {
        for _ in 0..MOST_REDIRECTS {
            let mut request = self
                .web
                .request(method.clone(), url.as_str())
                .header("accept", "text/html")
                .header("sec-fetch-mode", "navigate")
                .header("sec-fetch-dest", "document");
            let cookies = self.cookie_header(&url);
            if !cookies.is_empty() {
                request = request.header(COOKIE, cookies);
            }
            if let Some(page) = from {
                let same = page.url.origin() == url.origin();
                request = request
                    .header(
                        "sec-fetch-site",
                        if same { "same-origin" } else { "cross-site" },
                    )
                    .header(REFERER, page.url.as_str());
                if method == Method::POST {
                    request = request.header(ORIGIN, page.url.origin().ascii_serialization());
                }
            }
            if method == Method::POST {
                request = request.form(&form);
            }
            let answer = Web::send(request)
                .await
                .with_context(|| format!("{method} {url}"))?;
            self.keep(&url, &answer.headers);
            let page = Page {
                url: url.clone(),
                status: answer.status,
                headers: answer.headers.clone(),
                html: answer.text,
            };
            let location = answer
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .filter(|_| (300..400).contains(&answer.status));
            let Some(location) = location else {
                return Ok(page);
            };
            url = url.join(location)?;
            if self.stops.iter().any(|stop| url.as_str().starts_with(stop)) {
                return Ok(Page { url, ..page });
            }
            if answer.status != 307 && answer.status != 308 {
                method = Method::GET;
                form.clear();
            }
        }
        bail!("too many redirects, the last to {url}")
    }

    fn keep(&mut self, url: &Url, headers: &HeaderMap) {
        let host = url.host_str().unwrap_or_default().to_owned();
        for line in headers.get_all(SET_COOKIE) {
            let Ok(line) = line.to_str() else { continue };
            let mut parts = line.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let (mut path, mut gone) = ("/".to_owned(), value.is_empty());
            for part in parts {
                let (key, text) = part.split_once('=').unwrap_or((part, ""));
                match key.to_ascii_lowercase().as_str() {
                    "path" => path = text.into(),
                    "max-age" => gone |= text.parse::<i64>().is_ok_and(|age| age <= 0),
                    "expires" => gone |= text.contains("1970"),
                    _ => {}
                }
            }
            let key = (host.clone(), name.to_owned(), path);
            if gone {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
    }
}

/// A user of the host: who they are here, who they are at the vendor, and
/// their browser.
pub struct Person {
    /// Here.
    pub name: String,
    /// Here, chosen by themselves.
    pub password: String,
    /// At the vendor.
    pub account: String,
    /// Signed in here.
    pub browser: Browser,
}

impl Person {
    /// Signs in with `password`; where the host asks for a new one, chooses
    /// `{password}-chosen`.
    ///
    /// # Errors
    /// If the pages are not as they should be.
    pub async fn sign_in(host: &Host, name: &str, password: &str) -> Result<Self> {
        let mut person = Self {
            name: name.into(),
            password: password.into(),
            account: format!("{name}-at-vendor"),
            browser: Browser::new()?,
        };
        let page = person.browser.open(&host.at("/login")).await?;
        let page = person.enter(page).await?;
        ensure!(
            page.status == 200 && !page.asks_for("password") && !page.asks_for("new_password"),
            "{name} is not signed in: {} {}",
            page.url,
            page.text()
        );
        Ok(person)
    }

    /// Gets past the host's own sign-in, if that is the page.
    ///
    /// # Errors
    /// Of the browser.
    pub async fn enter(&mut self, mut page: Page) -> Result<Page> {
        if page.asks_for("username") && page.asks_for("password") {
            let (name, password) = (self.name.clone(), self.password.clone());
            let fields = [("username", name.as_str()), ("password", &password)];
            page = self.browser.press(&page, "Sign in", &fields).await?;
        }
        if page.asks_for("new_password") {
            let chosen = format!("{}-chosen", self.password);
            let mut fields = vec![
                ("new_password", chosen.as_str()),
                ("new_password_again", &chosen),
            ];
            if page.asks_for("password") {
                fields.push(("password", &self.password));
            }
            let buttons = page.buttons();
            let label = buttons
                .iter()
                .find(|label| *label != "Sign out")
                .context("the page for a new password has no button")?;
            page = self.browser.press(&page, label, &fields).await?;
            self.password = chosen;
        }
        Ok(page)
    }

    /// Signs in at the vendor as `account` and presses `decision` there.
    ///
    /// # Errors
    /// If the pages are not as they should be.
    pub async fn at_vendor(&mut self, mut page: Page, decision: &str) -> Result<Page> {
        if page.asks_for("username") {
            let account = self.account.clone();
            let fields = [("username", account.as_str()), ("password", "any")];
            page = self.browser.press(&page, "Sign in", &fields).await?;
        }
        if page.buttons().iter().any(|label| label == decision) {
            page = self.browser.press(&page, decision, &[]).await?;
        }
        Ok(page)
    }

    /// Opens a page of consent, presses its button, allows at the vendor, and
    /// comes back.
    ///
    /// # Errors
    /// If the account is not connected in the end.
    pub async fn connect(&mut self, address: &str) -> Result<Page> {
        let page = self.browser.open(address).await?;
        let page = self.enter(page).await?;
        let page = self.press_connect(&page).await?;
        let page = self.at_vendor(page, "Allow").await?;
        ensure!(
            page.status == 200,
            "not connected: {} {}: {}",
            page.status,
            page.url,
            page.text()
        );
        Ok(page)
    }

    /// Presses "Connect" or "Reconnect", whichever is there.
    ///
    /// # Errors
    /// If neither is.
    pub async fn press_connect(&mut self, page: &Page) -> Result<Page> {
        let again = page.buttons().iter().any(|label| label == "Reconnect");
        let label = if again { "Reconnect" } else { "Connect" };
        self.browser.press(page, label, &[]).await
    }
}
