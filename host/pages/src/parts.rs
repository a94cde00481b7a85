//! Components. All text given to them is escaped.

use countersign_core::time::Timestamp;
use maud::{Markup, html};

/// What a notice or badge means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Neutral.
    Info,
    /// All is well.
    Good,
    /// Somebody should look.
    Warning,
    /// It failed, or it destroys.
    Bad,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// How a button looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The one expected action of a page.
    Primary,
    /// Any other.
    Plain,
    /// Takes something away.
    Danger,
}

impl Look {
    fn class(self) -> &'static str {
        match self {
            Self::Primary => "button primary",
            Self::Plain => "button",
            Self::Danger => "button danger",
        }
    }
}

/// A framed section; no heading if `title` is empty.
#[must_use]
pub fn card(title: &str, body: Markup) -> Markup {
    html! {
        section.card {
            @if !title.is_empty() { h2 { (title) } }
            (body)
        }
    }
}

/// A framed section about a thing that is in some state: heading and badge
/// stand side by side.
#[must_use]
pub fn state_card(title: &str, tone: Tone, state: &str, body: Markup) -> Markup {
    html! {
        section.card aria-label=(title) {
            div.head { h2 { (title) } (badge(tone, state)) }
            (body)
        }
    }
}

/// A table with a head; a column of buttons has no title.
#[must_use]
pub fn table(head: &[&str], rows: Vec<Vec<Markup>>) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for title in head { @if title.is_empty() { td {} } @else { th scope="col" { (title) } } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}

/// What stands where a list would be, when there is nothing yet.
#[must_use]
pub fn empty(title: &str, text: &str, action: Option<Markup>) -> Markup {
    html! {
        div.empty {
            h2 { (title) }
            p { (text) }
            @if let Some(action) = action { (action) }
        }
    }
}

/// A form that posts, with the session's CSRF token in the field `csrf`.
#[must_use]
pub fn form(action: &str, csrf: &str, body: Markup) -> Markup {
    html! {
        form method="post" action=(action) {
            (hidden("csrf", csrf))
            (body)
        }
    }
}

/// A field that is not shown.
#[must_use]
pub fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// A labelled input.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    label: &'a str,
    name: &'a str,
    kind: &'a str,
    value: &'a str,
    hint: &'a str,
    autocomplete: &'a str,
    required: bool,
}

impl<'a> Field<'a> {
    /// A line of text.
    #[must_use]
    pub fn text(label: &'a str, name: &'a str) -> Self {
        Self {
            label,
            name,
            kind: "text",
            value: "",
            hint: "",
            autocomplete: "off",
            required: true,
        }
    }

    /// A password; its value is never filled in.
    #[must_use]
    pub fn password(label: &'a str, name: &'a str) -> Self {
        Self {
            kind: "password",
            autocomplete: "current-password",
            ..Self::text(label, name)
        }
    }

    /// What is in it already.
    #[must_use]
    pub fn value(mut self, value: &'a str) -> Self {
        if self.kind != "password" {
            self.value = value;
        }
        self
    }

    /// A sentence below it.
    #[must_use]
    pub fn hint(mut self, hint: &'a str) -> Self {
        self.hint = hint;
        self
    }

    /// The browser's autofill token.
    #[must_use]
    pub fn autocomplete(mut self, token: &'a str) -> Self {
        self.autocomplete = token;
        self
    }

    /// Whether it must be filled in; it must when not said.
    #[must_use]
    pub fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }
}

/// Draws a field.
#[must_use]
pub fn field(field: &Field<'_>) -> Markup {
    let hint_id = (!field.hint.is_empty()).then(|| format!("{}-hint", field.name));
    html! {
        div.field {
            label for=(field.name) { (field.label) }
            input id=(field.name) name=(field.name) type=(field.kind) value=[shown(field.value)]
                autocomplete=(field.autocomplete) autocapitalize="none" spellcheck="false"
                required[field.required] aria-describedby=[hint_id.as_deref()];
            @if let Some(id) = &hint_id { p.hint id=(id) { (field.hint) } }
        }
    }
}

fn shown(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

/// A labelled choice; `options` are value and text.
#[must_use]
pub fn select(label: &str, name: &str, options: &[(&str, &str)], selected: &str) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            select id=(name) name=(name) {
                @for (value, text) in options {
                    option value=(value) selected[*value == selected] { (text) }
                }
            }
        }
    }
}

/// A message above a form or list; announced by screen readers.
#[must_use]
pub fn notice(tone: Tone, text: &str) -> Markup {
    let role = if tone == Tone::Bad { "alert" } else { "status" };
    html! { p class={ "notice " (tone.class()) } role=(role) { (text) } }
}

/// A button that submits its form.
#[must_use]
pub fn button(look: Look, label: &str) -> Markup {
    html! { button class=(look.class()) type="submit" { (label) } }
}

/// A button that submits its form and says which one it was.
#[must_use]
pub fn button_named(look: Look, label: &str, name: &str, value: &str) -> Markup {
    html! { button class=(look.class()) type="submit" name=(name) value=(value) { (label) } }
}

/// A link that looks like a button. Only for addresses of this host: the
/// `href` must begin with a single slash, otherwise plain text is shown.
#[must_use]
pub fn link_button(look: Look, label: &str, href: &str) -> Markup {
    let ours = href.starts_with('/') && !href.starts_with("//") && !href.contains('\\');
    html! {
        @if ours { a class=(look.class()) href=(href) { (label) } } @else { span { (label) } }
    }
}

/// Buttons side by side.
#[must_use]
pub fn actions(buttons: Markup) -> Markup {
    html! { div.actions { (buttons) } }
}

/// A small coloured word.
#[must_use]
pub fn badge(tone: Tone, text: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (text) } }
}

/// Names and values.
#[must_use]
pub fn facts(rows: Vec<(&str, Markup)>) -> Markup {
    html! { dl.facts { @for (name, value) in rows { dt { (name) } dd { (value) } } } }
}

/// What is granted or asked for: by name, with what it means where that is known.
#[must_use]
pub fn scopes<'a>(scopes: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Markup {
    html! {
        ul.scopes { @for (name, meaning) in scopes {
            li .told[meaning.is_some()] {
                @if let Some(meaning) = meaning { span { (meaning) } " " }
                (code(name))
            }
        } }
    }
}

/// A point in time for people, to the minute, in UTC: nothing here knows the reader's zone.
#[must_use]
pub fn time(at: Timestamp) -> Markup {
    let exact = at.to_string();
    let shown = match (exact.get(..10), exact.get(10..11), exact.get(11..16)) {
        (Some(day), Some("T"), Some(minute)) => format!("{day} {minute} UTC"),
        _ => exact.clone(),
    };
    html! { time datetime=(exact) { (shown) } }
}

/// Text in the typewriter's face.
#[must_use]
pub fn code(text: &str) -> Markup {
    html! { code { (text) } }
}
