//! Users, teams and roles, and who may change them.

use std::collections::BTreeSet;

use countersign_core::audit::Outcome;
use countersign_core::caller::{Permission, Role};
use countersign_core::names::{RoleName, TeamName};
use countersign_identity::accounts::{AccountKind, AdminError, NewUser, UserPatch};
use countersign_identity::{AccountChange, Password};
use http::StatusCode;

use crate::browser::Browser;
use crate::support::{House, PASSWORD, actor, admin, user};

fn new(name: &str, kind: AccountKind, role: &str, password: Option<&str>) -> NewUser {
    NewUser {
        foreign: None,
        name: user(name),
        email: None,
        kind,
        roles: BTreeSet::from([RoleName::parse(role).unwrap()]),
        password: password.map(|p| Password::new(p.into())),
    }
}

#[tokio::test]
async fn every_change_needs_its_permission() {
    let house = House::open().await;
    house.person("alice").await;
    let (identity, nobody, alice) = (&house.identity, actor("eve", "user"), user("alice"));
    let team = TeamName::default_team();
    let role = Role {
        name: RoleName::parse("x").unwrap(),
        allow: Vec::new(),
    };
    let refusals = [
        identity
            .create_user(&nobody, new("x", AccountKind::Human, "user", None))
            .await
            .map(|_| ()),
        identity.users(&nobody).await.map(|_| ()),
        identity.user(&nobody, &alice).await.map(|_| ()),
        identity
            .update_user(&nobody, &alice, UserPatch::default())
            .await
            .map(|_| ()),
        identity
            .reset_password(&nobody, &alice, Password::new(PASSWORD.into()))
            .await,
        identity.delete_user(&nobody, &alice).await,
        identity
            .create_team(&nobody, TeamName::parse("x").unwrap(), String::new())
            .await
            .map(|_| ()),
        identity.teams(&nobody).await.map(|_| ()),
        identity.team(&nobody, &team).await.map(|_| ()),
        identity.delete_team(&nobody, &team).await,
        identity.add_member(&nobody, &team, &alice).await,
        identity.remove_member(&nobody, &team, &alice).await,
        identity
            .create_role(&nobody, role.clone())
            .await
            .map(|_| ()),
        identity.roles(&nobody).await.map(|_| ()),
        identity.role(&nobody, &role.name).await.map(|_| ()),
        identity
            .update_role(&nobody, role.clone())
            .await
            .map(|_| ()),
        identity.delete_role(&nobody, &role.name).await,
        identity.tokens(&nobody, Some(&alice)).await.map(|_| ()),
        identity.revoke_token(&nobody, Some(&alice), "x").await,
    ];
    for (n, refusal) in refusals.into_iter().enumerate() {
        let error = refusal.unwrap_err();
        assert_eq!(error.status(), StatusCode::FORBIDDEN, "{n}");
        assert!(error.missing_permission().is_some(), "{n}: {error}");
    }
    let denied: Vec<String> = house
        .audit
        .events()
        .into_iter()
        .filter(|e| e.outcome == Outcome::Denied && e.user.as_deref() == Some("eve"))
        .map(|e| format!("{} {}", e.action, e.resource.unwrap_or_default()))
        .collect();
    assert_eq!(
        denied,
        [
            "user.create user:x",
            "user.update user:alice",
            "user.reset_password user:alice",
            "user.delete user:alice",
            "team.create team:x",
            "team.delete team:default",
            "team.add_member team:default",
            "team.remove_member team:default",
            "role.create role:x",
            "role.update role:x",
            "role.delete role:x",
            "token.revoke token:x",
        ],
        "each refused act is on record; looking is no act"
    );
    assert!(
        identity.user(&actor("alice", "user"), &alice).await.is_ok(),
        "everybody may see himself"
    );
}

#[tokio::test]
async fn nobody_hands_out_or_takes_over_more_than_he_has() {
    let house = House::open().await;
    house.account("boss", AccountKind::Human, "admin").await;
    let helpdesk = Role {
        name: RoleName::parse("helpdesk").unwrap(),
        allow: [
            "user_create",
            "user_update",
            "user_delete",
            "role_create",
            "server_list",
        ]
        .map(|p| Permission::parse(p).unwrap())
        .to_vec(),
    };
    house
        .identity
        .create_role(&admin(), helpdesk.clone())
        .await
        .unwrap();
    let mut clerk = actor("clerk", "user");
    clerk.permissions = countersign_core::caller::Permissions::from_roles([&helpdesk]);
    let boss = user("boss");
    let beyond = |result: Result<(), AdminError>| matches!(result, Err(AdminError::Beyond(_)));
    let identity = &house.identity;
    assert!(beyond(
        identity
            .create_user(&clerk, new("x", AccountKind::Human, "admin", None))
            .await
            .map(|_| ())
    ));
    assert!(beyond(
        identity
            .reset_password(&clerk, &boss, Password::new(PASSWORD.into()))
            .await
    ));
    assert!(beyond(
        identity
            .update_user(&clerk, &boss, UserPatch::default())
            .await
            .map(|_| ())
    ));
    assert!(beyond(identity.delete_user(&clerk, &boss).await));
    let wide = Role {
        name: RoleName::parse("wide").unwrap(),
        allow: vec![Permission::parse("audit_read").unwrap()],
    };
    assert!(beyond(identity.create_role(&clerk, wide).await.map(|_| ())));
    assert!(
        identity
            .create_user(&clerk, new("y", AccountKind::Human, "user", None))
            .await
            .is_ok()
    );
    assert!(
        beyond(identity.delete_user(&actor("boss", "admin"), &boss).await),
        "nor does he delete himself"
    );
    let refused = house
        .audit
        .events()
        .into_iter()
        .filter(|e| e.outcome == Outcome::Denied && e.user.as_deref() == Some("clerk"));
    assert!(refused.count() >= 3, "what is beyond is on record too");
}

#[tokio::test]
async fn a_user_is_one_whatever_the_case_and_keeps_his_kind() {
    let house = House::open().await;
    house.account("Alice", AccountKind::Human, "user").await;
    let again = house
        .identity
        .create_user(&admin(), new("alice", AccountKind::Human, "user", None))
        .await;
    assert!(matches!(again, Err(AdminError::Exists { .. })));
    let service = new("robot", AccountKind::Service, "user", Some(PASSWORD));
    assert!(matches!(
        house.identity.create_user(&admin(), service).await,
        Err(AdminError::Invalid(_))
    ));
    house.account("robot", AccountKind::Service, "user").await;
    let reset = house
        .identity
        .reset_password(&admin(), &user("robot"), Password::new(PASSWORD.into()))
        .await;
    assert!(
        matches!(reset, Err(AdminError::Invalid(_))),
        "nobody can sign in as a service account"
    );
    for (what, bad) in [
        ("weak", new("x", AccountKind::Human, "user", Some("short"))),
        ("unknown role", new("x", AccountKind::Human, "ghost", None)),
        (
            "bad mail",
            NewUser {
                email: Some("no".into()),
                ..new("x", AccountKind::Human, "user", None)
            },
        ),
    ] {
        assert!(
            house
                .identity
                .create_user(&admin(), bad)
                .await
                .unwrap_err()
                .status()
                .is_client_error(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn others_are_told_of_a_change_before_it_takes_effect() {
    let house = House::open().await;
    for name in ["alice", "bob", "carol"] {
        house.person(name).await;
    }
    let (identity, root) = (&house.identity, admin());
    identity
        .reset_password(&root, &user("alice"), Password::new("another one".into()))
        .await
        .unwrap();
    let off = UserPatch {
        enabled: Some(false),
        ..UserPatch::default()
    };
    identity
        .update_user(&root, &user("bob"), off)
        .await
        .unwrap();
    let lab = TeamName::parse("lab").unwrap();
    identity
        .create_team(&root, lab.clone(), "Lab".into())
        .await
        .unwrap();
    identity
        .add_member(&root, &lab, &user("carol"))
        .await
        .unwrap();
    identity
        .remove_member(&root, &lab, &user("carol"))
        .await
        .unwrap();
    identity.delete_user(&root, &user("carol")).await.unwrap();
    let expected = [
        ("alice", AccountChange::Reset),
        ("bob", AccountChange::Disabled),
        ("carol", AccountChange::LeftTeam(lab)),
        ("carol", AccountChange::Deleted),
    ];
    assert_eq!(
        house.changes.all(),
        expected.map(|(name, change)| (name.to_owned(), change))
    );
    for (name, status) in [("alice", 401), ("bob", 401), ("carol", 401)] {
        let answer = Browser::new(&house).sign_in_with(name, PASSWORD).await;
        assert_eq!(answer.status.as_u16(), status, "{name}");
    }
    for action in [
        "user.create",
        "user.reset_password",
        "user.update",
        "user.delete",
        "team.add_member",
        "sign_in",
    ] {
        assert!(house.actions().contains(&action.to_owned()), "{action}");
    }
}

#[tokio::test]
async fn a_team_admin_changes_his_own_teams_members_only() {
    let house = House::open().await;
    house.person("alice").await;
    house
        .account("lead", AccountKind::Human, "team-admin")
        .await;
    let mut browser = Browser::new(&house);
    browser.sign_in_with("lead", "handed-out-once").await;
    browser.choose_password(PASSWORD).await;
    let (lab, ops) = (
        TeamName::parse("lab").unwrap(),
        TeamName::parse("ops").unwrap(),
    );
    for team in [&lab, &ops] {
        house
            .identity
            .create_team(&admin(), team.clone(), "T".into())
            .await
            .unwrap();
    }
    house
        .identity
        .add_member(&admin(), &lab, &user("lead"))
        .await
        .unwrap();
    let lead = house
        .identity
        .session(&browser.headers())
        .await
        .unwrap()
        .unwrap()
        .caller;
    house
        .identity
        .add_member(&lead, &lab, &user("alice"))
        .await
        .unwrap();
    assert_eq!(
        house.identity.team(&lead, &lab).await.unwrap().1,
        [user("alice"), user("lead")]
    );
    let refused = house
        .identity
        .add_member(&lead, &ops, &user("alice"))
        .await
        .unwrap_err();
    assert_eq!(refused.missing_permission(), Some("team_update:ops"));
}

#[tokio::test]
async fn what_is_in_use_or_built_in_stays() {
    let house = House::open().await;
    house.person("alice").await;
    let (identity, root) = (&house.identity, admin());
    let in_use = |result: Result<(), AdminError>| matches!(result, Err(AdminError::InUse(_)));
    assert!(in_use(
        identity.delete_team(&root, &TeamName::default_team()).await
    ));
    assert!(
        in_use(
            identity
                .remove_member(&root, &TeamName::default_team(), &user("alice"))
                .await
        ),
        "his last team"
    );
    assert!(in_use(
        identity
            .delete_role(&root, &RoleName::parse("auditor").unwrap())
            .await
    ));
    let role = Role {
        name: RoleName::parse("own").unwrap(),
        allow: vec![Permission::parse("audit_read").unwrap()],
    };
    identity.create_role(&root, role.clone()).await.unwrap();
    assert!(matches!(
        identity.create_role(&root, role.clone()).await,
        Err(AdminError::Exists { .. })
    ));
    let patch = UserPatch {
        roles: Some(BTreeSet::from([role.name.clone()])),
        ..UserPatch::default()
    };
    identity
        .update_user(&root, &user("alice"), patch)
        .await
        .unwrap();
    assert!(in_use(identity.delete_role(&root, &role.name).await));
    assert_eq!(identity.roles(&root).await.unwrap().len(), 7);
    let stored = house.stored().await;
    assert!(stored.contains("own"));
}
