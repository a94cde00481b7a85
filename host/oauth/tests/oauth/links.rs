use std::sync::Arc;
use std::time::Duration;

use countersign_core::connection::State;
use countersign_core::names::{ProviderName, TeamName};
use countersign_core::ports::{Kind, Records};
use countersign_core::scope::ScopeSet;
use countersign_oauth::links::{LINK_LIFETIME, LinkError, LinkRequest};

use crate::support::{Stage, parameter, stage, tokens, user};

async fn link(stage: &Stage) -> String {
    let request = LinkRequest {
        user: user("ana"),
        team: TeamName::default_team(),
        provider: ProviderName::parse("fake").unwrap(),
        resource: None,
        server: None,
        client_name: Some("An agent".into()),
        scopes: ScopeSet::split("read", &[]),
    };
    let url = stage.oauth.make_link(request).await.unwrap();
    assert!(
        url.as_str()
            .starts_with("https://cs.example.com/connect/fake?link="),
        "{url}"
    );
    parameter(&url, "link").unwrap()
}

#[tokio::test]
async fn a_link_is_good_once_and_for_its_user_only() {
    let stage = stage().await;
    let id = link(&stage).await;
    assert_eq!(
        stage.oauth.peek_link(&id, &user("eve")).await,
        Err(LinkError::OtherUser)
    );
    assert_eq!(
        stage.oauth.take_link(&id, &user("eve")).await,
        Err(LinkError::OtherUser)
    );
    assert_eq!(
        stage
            .oauth
            .peek_link(&id, &user("ana"))
            .await
            .unwrap()
            .client_name
            .as_deref(),
        Some("An agent")
    );
    assert!(stage.oauth.take_link(&id, &user("ana")).await.is_ok());
    assert_eq!(
        stage.oauth.take_link(&id, &user("ana")).await,
        Err(LinkError::Unknown)
    );
    assert_eq!(
        stage.oauth.peek_link("made-up", &user("ana")).await,
        Err(LinkError::Unknown)
    );
}

#[tokio::test]
async fn a_link_ends_and_its_id_is_not_stored() {
    let stage = stage().await;
    let id = link(&stage).await;
    for record in stage.records.list(Kind::ConnectLink, None).await.unwrap() {
        assert!(!record.key.name.contains(&id));
        assert!(!String::from_utf8_lossy(&record.document).contains(&id));
    }
    stage.clock.advance(LINK_LIFETIME);
    assert_eq!(
        stage.oauth.take_link(&id, &user("ana")).await,
        Err(LinkError::Unknown)
    );
}

#[tokio::test]
async fn who_waits_is_woken_when_the_connection_stands() {
    let stage = Arc::new(stage().await);
    let waiting = {
        let stage = stage.clone();
        tokio::spawn(async move {
            let wanted = |c: &countersign_core::connection::Connection| c.state == State::Connected;
            stage
                .oauth
                .wait_until(&stage.key("ana"), Duration::from_secs(600), wanted)
                .await
        })
    };
    tokio::task::yield_now().await;
    stage
        .connected("ana", tokens("access-token-1", None, None))
        .await;
    assert!(waiting.await.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn waiting_ends_with_its_time() {
    let stage = stage().await;
    let found = stage
        .oauth
        .wait_until(&stage.key("ana"), Duration::from_millis(5), |_| true)
        .await;
    assert!(found.unwrap().is_none());
}
