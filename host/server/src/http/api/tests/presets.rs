//! Approvals bind what was looked at.

use super::*;

async fn waiting_hash(house: &House) -> String {
    let seen = house.good("GET", "/presets/generic", Value::Null).await;
    let waiting = &seen["bindings"][1]["waiting"];
    assert_eq!(seen["bindings"][1]["provider"], "p2", "{seen}");
    waiting["hash"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_approval_names_what_was_looked_at_and_nothing_that_came_since() {
    let house = House::furnished().await;
    let maker = ["provider_create", "provider_update", "secret_attach"];
    let maker = house.someone("maker", &maker).await;
    let hosts = |hosts: &[&str]| json!({"name": "p2", "audience_hosts": hosts});
    let body = with(provider(), hosts(&["127.0.0.1:1"])).to_string();
    house.raw(&maker, "POST", "/providers", &body).await;

    let looked_at = waiting_hash(&house).await;
    let wider = json!({"audience_hosts": ["127.0.0.1:1", "127.0.0.1:2"]}).to_string();
    house.raw(&maker, "PATCH", "/providers/p2", &wider).await;

    let approve = |hash: &str| {
        let body = json!({"provider": "p2", "hash": hash});
        house.ask("POST", "/presets/generic/approve", body)
    };
    let refused = approve(&looked_at).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    assert_eq!(refused.body["type"], "urn:countersign:problem:changed");
    let now = waiting_hash(&house).await;
    assert_ne!(now, looked_at);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("added audience host 127.0.0.1:2"),
        "{detail}"
    );
    assert!(detail.contains(&now), "{detail}");
    let name = "p2".parse().unwrap();
    assert!(house.registry.party(&name).is_none());

    let approved = approve(&now).await;
    assert_eq!(approved.status, StatusCode::OK, "{}", approved.body);
    assert_eq!(approved.body["approved"][0]["hash"], now);
    assert!(house.registry.party(&name).is_some());
    // The same click a second time finds nothing, and says so.
    let again = approve(&now).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let detail = again.body["detail"].as_str().unwrap();
    assert!(detail.contains("nothing waits"), "{detail}");
}

#[tokio::test]
async fn choosing_versions_is_for_those_who_may_approve() {
    let house = House::furnished().await;
    let enabler = house
        .someone(
            "enabler",
            &["preset_enable", "preset_get", "provider_update"],
        )
        .await;
    for (method, path, body) in [
        ("PATCH", "/presets/generic", json!({"floor": "1.0.0"})),
        ("POST", "/presets/generic/pin", json!({"version": "1.0.0"})),
        ("POST", "/presets/generic/pin", json!({})),
        ("POST", "/presets/generic/rollback", json!({})),
        (
            "POST",
            "/presets/generic/revoke",
            json!({"content": "1.0.0"}),
        ),
    ] {
        let refused = house.raw(&enabler, method, path, &body.to_string()).await;
        assert_eq!(
            refused.status,
            StatusCode::FORBIDDEN,
            "{path} {}",
            refused.body
        );
        assert_eq!(refused.body["missing_permission"], "preset_approve:generic");
    }
    let nothing = house.ask("PATCH", "/presets/generic", json!({})).await;
    assert_eq!(nothing.status, StatusCode::BAD_REQUEST);
    for (floor, fine) in [
        (json!("latest"), false),
        (json!("0.1.0"), true),
        (Value::Null, true),
    ] {
        let set = house
            .ask("PATCH", "/presets/generic", json!({ "floor": floor }))
            .await;
        assert_eq!(set.status == StatusCode::OK, fine, "{}", set.body);
        if fine {
            assert_eq!(set.body["floor"], floor);
            assert_eq!(set.body["enabled"], true, "the rest stays as it was");
        }
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    let revoke = |undo: bool| {
        let body = json!({"content": digest, "undo": undo});
        house.good("POST", "/presets/generic/revoke", body)
    };
    assert_eq!(revoke(false).await["revoked"], json!([digest]));
    assert_eq!(revoke(true).await["revoked"], json!([]));
}
