//! The official Rust SDK on both sides: its client, through Countersign, to
//! the example server that is built on its server.

use anyhow::Result;
use countersign_tests::{Era, Setup, World};
use rmcp::model::{CallToolRequestParams, ClientConfig, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::json;

async fn client(
    endpoint: &str,
    token: &str,
    era: Era,
) -> Result<RunningService<RoleClient, ClientConfig>> {
    let config =
        StreamableHttpClientTransportConfig::with_uri(endpoint.to_owned()).auth_header(token);
    let transport = StreamableHttpClientTransport::from_config(config);
    let lifecycle = match era {
        Era::Sessions => ClientLifecycleMode::Initialize,
        Era::PerRequest => ClientLifecycleMode::Discover {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        },
    };
    Ok(ClientConfig::default()
        .serve_with_lifecycle(transport, lifecycle)
        .await?)
}

async fn call(
    client: &RunningService<RoleClient, ClientConfig>,
    tool: &'static str,
    arguments: serde_json::Value,
) -> Result<String> {
    let mut params = CallToolRequestParams::new(tool);
    params.arguments = arguments.as_object().cloned();
    let result = serde_json::to_value(client.call_tool(params).await?)?;
    Ok(result["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn rmcp_talks_to_rmcp_through_countersign_in_both_eras() -> Result<()> {
    let world = World::with(Setup {
        example: true,
        ..Setup::default()
    })
    .await?;
    for (who, era) in [("ada", Era::Sessions), ("grace", Era::PerRequest)] {
        let (_person, agent) = world.connected(who, era).await?;
        let client = client(&agent.endpoint, &agent.token, era).await?;
        let mut tools: Vec<_> = client
            .list_all_tools()
            .await?
            .into_iter()
            .map(|tool| tool.name.to_string())
            .collect();
        tools.sort();
        assert_eq!(tools, ["add_note", "list_notes", "whoami"]);
        assert_eq!(
            call(&client, "whoami", json!({})).await?,
            format!("{who}-at-vendor")
        );
        let note = format!("of {who}");
        call(&client, "add_note", json!({ "text": note })).await?;
        assert_eq!(
            call(&client, "list_notes", json!({})).await?,
            json!([note]).to_string()
        );
        client.cancel().await?;
    }
    Ok(())
}
