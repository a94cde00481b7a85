//! Lists: filtered, ordered, cut into pages.
//!
//! A page token names the last item that was shown, so a list that changes
//! between two pages neither repeats nor skips what stayed. It holds for one
//! filter and order.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::names::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Problem;
use super::filter::{Filter, compare, field};

const USUAL_PAGE: usize = 50;
/// The largest page.
pub(super) const LARGEST_PAGE: usize = 1000;

/// Query parameters of every list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `field = "x"`, `field : "x"` (holds), `!=`, `<`, `<=`, `>`, `>=`, joined
    /// by `AND` (a part of AIP-160).
    pub filter: Option<String>,
    /// `field`, `field desc`, several separated by commas.
    pub order_by: Option<String>,
    /// 1 to 1000; 50 if absent.
    #[serde(default)]
    pub page_size: Option<usize>,
    /// `next_page_token` of the page before.
    pub page_token: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct List<T> {
    /// This page.
    pub items: Vec<T>,
    /// For the next page; empty if this is the last.
    pub next_page_token: String,
    /// All that match the filter.
    pub total_size: usize,
}

/// [`ListQuery`] from the request's query; a mistake is a problem document.
pub(super) struct Listing(pub(super) ListQuery);

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(query) = Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

/// Any query; a mistake is a problem document.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|e| Problem::new(400, "invalid", e.body_text()))
    }
}

impl ListQuery {
    pub(super) fn size(&self) -> Result<usize, Problem> {
        match self.page_size.unwrap_or(USUAL_PAGE) {
            n @ 1..=LARGEST_PAGE => Ok(n),
            _ => Err(invalid("page_size", format!("must be 1 to {LARGEST_PAGE}"))),
        }
    }

    /// Filters, orders and cuts. `key` is the field that is unique.
    pub(super) fn apply<T: Serialize>(&self, items: Vec<T>, key: &str) -> Result<List<T>, Problem> {
        let size = self.size()?;
        let filter = Filter::parse(self.filter.as_deref().unwrap_or_default())
            .map_err(|p| invalid("filter", p))?;
        let mut order = orders(self.order_by.as_deref().unwrap_or_default())?;
        order.push((key.to_owned(), false));
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let json = serde_json::to_value(&item)
                .map_err(|e| Problem::new(500, "internal", e.to_string()))?;
            rows.push((json, item));
        }
        if let Some((sample, _)) = rows.first() {
            for (name, _) in &order {
                field(sample, name).map_err(|p| invalid("order_by", p))?;
            }
        }
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            if filter.matches(&row.0).map_err(|p| invalid("filter", p))? {
                kept.push(row);
            }
        }
        let total_size = kept.len();
        let sort_key = |json: &Value| -> Vec<Value> {
            order
                .iter()
                .map(|(name, _)| field(json, name).cloned().unwrap_or_default())
                .collect()
        };
        let by_order = |a: &[Value], b: &[Value]| {
            let mut pairs = order.iter().zip(a.iter().zip(b));
            pairs.find_map(|((_, desc), (a, b))| {
                let ordering = compare(a, b);
                let ordering = if *desc { ordering.reverse() } else { ordering };
                (!ordering.is_eq()).then_some(ordering)
            })
        };
        let mut kept: Vec<_> = kept
            .into_iter()
            .map(|(json, item)| (sort_key(&json), item))
            .collect();
        kept.sort_by(|a, b| by_order(&a.0, &b.0).unwrap_or(std::cmp::Ordering::Equal));
        if let Some(token) = self.page_token.as_deref().filter(|t| !t.is_empty()) {
            let last = self.read_token(token)?;
            kept.retain(|(row, _)| by_order(row, &last) == Some(std::cmp::Ordering::Greater));
        }
        let more = kept.len() > size;
        kept.truncate(size);
        let next_page_token = match kept.last() {
            Some((last, _)) if more => self.write_token(last),
            _ => String::new(),
        };
        Ok(List {
            items: kept.into_iter().map(|(_, item)| item).collect(),
            next_page_token,
            total_size,
        })
    }

    /// What a page token holds for.
    fn scope(&self) -> String {
        let part = |t: &Option<String>| t.clone().unwrap_or_default();
        Digest::of(format!("{}\0{}", part(&self.filter), part(&self.order_by)).as_bytes()).short()
    }

    fn write_token(&self, last: &[Value]) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!([self.scope(), last]).to_string())
    }

    fn read_token(&self, token: &str) -> Result<Vec<Value>, Problem> {
        let bad = || {
            invalid(
                "page_token",
                "is not one of this list; leave it out, or repeat filter and order_by as they were",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let (scope, last): (String, Vec<Value>) =
            serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if scope == self.scope() {
            Ok(last)
        } else {
            Err(bad())
        }
    }
}

fn orders(text: &str) -> Result<Vec<(String, bool)>, Problem> {
    let mut orders = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let mut words = part.split_whitespace();
        let name = words.next().unwrap_or_default().to_owned();
        let desc = match (words.next(), words.next()) {
            (None, _) | (Some("asc"), None) => false,
            (Some("desc"), None) => true,
            _ => {
                return Err(invalid(
                    "order_by",
                    format!("{part:?} is not a field with asc or desc behind it"),
                ));
            }
        };
        orders.push((name, desc));
    }
    Ok(orders)
}

/// A parameter that is not acceptable.
pub(super) fn invalid(name: &str, problem: impl std::fmt::Display) -> Problem {
    let mut it = Problem::new(400, "invalid", format!("{name}: {problem}"));
    it.field = Some(name.into());
    it
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn items() -> Vec<Value> {
        (0..7)
            .map(|n| json!({"name": format!("n{n}"), "group": if n % 2 == 0 { "even" } else { "odd" }, "size": n}))
            .collect()
    }

    fn names(list: &List<Value>) -> Vec<&str> {
        list.items
            .iter()
            .map(|i| i["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_repetition() {
        let mut query = ListQuery {
            order_by: Some("group desc, size desc".into()),
            page_size: Some(3),
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            let page = query.apply(items(), "name").unwrap();
            assert_eq!(page.total_size, 7);
            all.extend(names(&page).into_iter().map(str::to_owned));
            if page.next_page_token.is_empty() {
                break;
            }
            query.page_token = Some(page.next_page_token);
        }
        assert_eq!(all, ["n5", "n3", "n1", "n6", "n4", "n2", "n0"]);
    }

    #[test]
    fn an_item_that_appears_between_two_pages_shifts_nothing() {
        let mut query = ListQuery {
            page_size: Some(3),
            ..Default::default()
        };
        let first = query.apply(items(), "name").unwrap();
        query.page_token = Some(first.next_page_token);
        let mut more = items();
        more.push(json!({"name": "a", "group": "even", "size": 9}));
        assert_eq!(
            names(&query.apply(more, "name").unwrap()),
            ["n3", "n4", "n5"]
        );
    }

    #[test]
    fn what_cannot_be_listed_so_is_refused_by_parameter() {
        let query = |f: &str, o: &str, size: usize, token: &str| ListQuery {
            filter: Some(f.into()),
            order_by: Some(o.into()),
            page_size: Some(size),
            page_token: Some(token.into()),
        };
        let cases = [
            (query("", "", 0, ""), "page_size"),
            (query("", "", 1001, ""), "page_size"),
            (query("colour = \"red\"", "", 1, ""), "filter"),
            (query("name", "", 1, ""), "filter"),
            (query("", "colour", 1, ""), "order_by"),
            (query("", "name downwards", 1, ""), "order_by"),
            (query("", "", 1, "nonsense"), "page_token"),
        ];
        for (query, parameter) in cases {
            let problem = query.apply(items(), "name").unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(parameter), "{problem:?}");
        }
    }
}
