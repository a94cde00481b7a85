//! Agents on the official SDKs, from the first 401 to the answer of a tool.

use anyhow::Result;
use countersign_tests::{Host, SDKS, World};
use reqwest::Method;
use serde_json::json;

/// A user who has not chosen a password yet: the agent's browser will.
async fn newcomer(host: &Host, name: &str) -> Result<String> {
    let password = format!("first-{name}-password");
    let user = json!({ "name": name, "roles": ["user"], "password": password });
    host.must(Method::POST, "/users", Some(user)).await?;
    Ok(password)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sdk_goes_from_the_first_401_to_a_tool_call_by_itself() -> Result<()> {
    let world = World::start().await?;
    for (index, sdk) in SDKS.iter().enumerate() {
        let who = format!("user{index}");
        let account = format!("account{index}");
        let password = newcomer(&world.host, &who).await?;
        let run = sdk
            .run(
                &world.host,
                "/mcp/notes",
                &[
                    "--username",
                    &who,
                    "--password",
                    &password,
                    "--new-password",
                    "a-password-of-my-own",
                    "--connect-username",
                    &account,
                    "--progress",
                    "--call",
                    "whoami",
                    "{}",
                    "--call",
                    "add_note",
                    r#"{"text":"mine alone"}"#,
                    "--call",
                    "list_notes",
                    "{}",
                    "--call",
                    "slow",
                    r#"{"steps":2,"delay_ms":5}"#,
                ],
            )
            .await?;
        let what = format!("{} {}:\n{}", sdk.name, sdk.revision, run.output);
        assert_eq!(run.status, 0, "{what}");
        assert_eq!(run.of("connected")[0]["version"], sdk.revision, "{what}");
        assert_eq!(
            run.of("authorize")[0]["resource"],
            world.host.at("/mcp/notes"),
            "{what}"
        );
        assert_eq!(
            run.of("authorize")[0]["code_challenge_method"],
            "S256",
            "{what}"
        );
        assert_eq!(run.text("whoami"), account, "{what}");
        assert_eq!(run.text("list_notes"), r#"["mine alone"]"#, "{what}");
        let progress = run.of("progress");
        assert_eq!(
            progress
                .iter()
                .filter(|line| line["total"].as_f64() == Some(2.0))
                .count(),
            2,
            "{what}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_of_one_server_are_two_identities_upstream() -> Result<()> {
    let world = World::start().await?;
    for who in ["ada", "grace"] {
        let password = newcomer(&world.host, who).await?;
        let account = format!("{who}-at-vendor");
        let note = format!(r#"{{"text":"of {who}"}}"#);
        let run = SDKS[1]
            .run(
                &world.host,
                "/mcp/notes",
                &[
                    "--username",
                    who,
                    "--password",
                    &password,
                    "--new-password",
                    "a-password-of-my-own",
                    "--connect-username",
                    &account,
                    "--call",
                    "add_note",
                    &note,
                    "--call",
                    "list_notes",
                    "{}",
                    "--call",
                    "whoami",
                    "{}",
                ],
            )
            .await?;
        assert_eq!(run.status, 0, "{}", run.output);
        assert_eq!(run.text("whoami"), account);
        assert_eq!(run.text("list_notes"), format!(r#"["of {who}"]"#));
    }
    let state = world.upstream.0.look("").await?;
    let subjects: Vec<_> = state["subjects"].as_object().unwrap().keys().collect();
    assert_eq!(subjects, ["ada-at-vendor", "grace-at-vendor"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_the_upstream_to_the_agent_are_carried_and_answered() -> Result<()> {
    let world = World::start().await?;
    for (index, sdk) in SDKS
        .iter()
        .enumerate()
        .filter(|(_, sdk)| sdk.revision >= "2025-06-18")
    {
        let who = format!("user{index}");
        let password = newcomer(&world.host, &who).await?;
        let run = sdk
            .run(
                &world.host,
                "/mcp/notes",
                &[
                    "--username",
                    &who,
                    "--password",
                    &password,
                    "--new-password",
                    "a-password-of-my-own",
                    "--connect-username",
                    "somebody",
                    "--call",
                    "ask",
                    "{}",
                    "--call",
                    "ask",
                    r#"{"kind":"sampling"}"#,
                ],
            )
            .await?;
        let what = format!("{} {}:\n{}", sdk.name, sdk.revision, run.output);
        assert_eq!(run.status, 0, "{what}");
        assert!(!run.of("sampling").is_empty(), "{what}");
    }
    Ok(())
}
