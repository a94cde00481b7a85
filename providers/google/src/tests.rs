use countersign_guest_sdk::describe;
use countersign_guest_sdk::prelude::*;

use super::Google;
use super::products::full;

fn described(settings: &str) -> Description {
    describe::<Google>(settings).unwrap_or_else(|error| panic!("{settings}: {error}"))
}

#[test]
fn long_access_is_asked_for_by_parameters() {
    let request = described("{}").authorization.unwrap();
    let asked = Offline::by_parameters([("access_type", "offline"), ("prompt", "consent")]);
    assert_eq!(request.offline, asked);
    assert_eq!(
        request.incremental_parameters[0].name,
        "include_granted_scopes"
    );
    assert_eq!(described("{}").refresh.rotation, Rotation::Never);
}

#[test]
fn scopes_are_written_out_and_all_named_ones_described() {
    let description = described("{}");
    let mut names: Vec<_> = description.scopes.iter().map(|scope| &scope.name).collect();
    let implied = description.scopes.iter().flat_map(|scope| &scope.implies);
    let needed = description.mcp_servers.iter().flat_map(|server| {
        server
            .tools
            .iter()
            .flat_map(|tool| tool.needs.iter().flatten())
    });
    for scope in implied.chain(needed).chain(&description.default_scopes) {
        assert!(!scope.starts_with('@') && names.contains(&scope), "{scope}");
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "a scope is there twice");
    let calendar = full("@calendar");
    assert_eq!(calendar, "https://www.googleapis.com/auth/calendar");
    assert!(
        description
            .scopes
            .iter()
            .any(|scope| scope.name == calendar)
    );
}

#[test]
fn fewer_products_mean_fewer_hosts() {
    let table: [(&str, usize, &[&str], &[&str]); 3] = [
        (
            "{}",
            5,
            &["gmail.googleapis.com", "bigquery.googleapis.com"],
            &[],
        ),
        (
            r#"{"products":["gmail"]}"#,
            1,
            &["gmail.googleapis.com", "openidconnect.googleapis.com"],
            &["drive.googleapis.com", "bigquery.googleapis.com"],
        ),
        (
            r#"{"products":[]}"#,
            0,
            &["openidconnect.googleapis.com"],
            &["gmail.googleapis.com"],
        ),
    ];
    for (settings, servers, in_audience, not_in_audience) in table {
        let description = described(settings);
        let has = |host: &&str| description.audience_hosts.contains(&template(host));
        assert_eq!(description.mcp_servers.len(), servers, "{settings}");
        assert!(in_audience.iter().all(has), "{settings}");
        assert!(!not_in_audience.iter().any(has), "{settings}");
    }
}

#[test]
fn the_refresh_token_is_revoked_or_else_the_access_token() {
    let tokens: Vec<_> = described("{}")
        .revocation
        .into_iter()
        .map(|way| match way.request.body {
            Body::Form(fields) => fields[0].value.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        tokens,
        [template("{$refresh-token}"), template("{$access-token}")]
    );
}

#[test]
fn bad_settings_are_refused() {
    for settings in [
        r#"{"products":["maps"]}"#,
        r#"{"products":"gmail"}"#,
        r#"{"product":[]}"#,
    ] {
        assert!(describe::<Google>(settings).is_err(), "{settings}");
    }
}
